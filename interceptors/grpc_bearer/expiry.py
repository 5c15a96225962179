"""Runs callbacks at their time in one thread, for as many streams as there are: what ends synchronous streams that are idle."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_log = logging.getLogger("grpc_bearer")
_LEAST_DEAD: Final = 64
# After which the thread looks whether what it waits for was cancelled meanwhile, so that it ends when it has nothing to do.
# It is also a bound: `exp` may be in the year 9999, and a wait of more than 292 years is an OverflowError.
LONGEST_WAIT_S: Final = 5.0


class Alarm:
    """A callback that has its time. `cancel()` it when it is not needed any more."""

    __slots__ = ("_alarms", "callback")

    def __init__(self, alarms: Alarms, callback: Callable[[], None]) -> None:
        self._alarms = alarms
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback, and all that it holds. Idempotent; from any thread."""
        self._alarms._cancel(self)


class Alarms:
    """Alarms by time. The thread starts with the first, is a daemon, and ends with the last, or soon after its cancelling."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, *, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._monotonic = monotonic
        self._longest_wait_s = longest_wait_s
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._dead = 0
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def at(self, in_s: float, callback: Callable[[], None]) -> Alarm:
        """Have `callback` called in `in_s` seconds. It must not block."""
        alarm = Alarm(self, callback)
        with self._changed:
            heapq.heappush(self._heap, (self._monotonic() + in_s, next(self._order), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="grpc-bearer-expiry", daemon=True)
                self._thread.start()
            elif self._heap[0][2] is alarm:
                self._changed.notify()
        return alarm

    def _cancel(self, alarm: Alarm) -> None:
        with self._changed:
            if alarm.callback is None:
                return
            alarm.callback = None
            self._dead += 1
            # Tokens may live for hours and streams for a second: what is cancelled must not stay for a token's lifetime.
            if self._dead > max(_LEAST_DEAD, len(self._heap) // 2):
                self._heap = [entry for entry in self._heap if entry[2].callback is not None]
                heapq.heapify(self._heap)
                self._dead = 0

    def _run(self) -> None:
        while True:
            callback = self._next()
            if callback is None:
                return
            try:
                callback()
            except Exception as error:
                _log.error("a stream could not be ended: %s", type(error).__name__)

    def _next(self) -> Callable[[], None] | None:
        """The next callback, when its time has come; None when there are no more."""
        with self._changed:
            while self._heap:
                when, _order, alarm = self._heap[0]
                wait_s = when - self._monotonic()
                if alarm.callback is not None and wait_s > 0:
                    self._changed.wait(min(wait_s, self._longest_wait_s))
                    continue
                heapq.heappop(self._heap)
                callback, alarm.callback = alarm.callback, None
                if callback is not None:
                    return callback
                self._dead -= 1
            self._thread = None
            return None
