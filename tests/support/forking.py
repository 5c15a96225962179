"""A process that forks with a refresher in some state: `python -m tests.support.forking SCENARIO`.

Parent and child each print what became of it, as `parent: ...` and `child: ...`. Run apart from pytest, whose process has
threads of its own.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Final

from grpc_bearer.errors import AuthError
from grpc_bearer.keys.cache import CachePolicy
from grpc_bearer.keys.refresher import Refresher
from tests.support.clock import Clock
from tests.support.key_source import Scripted, key_for

PATIENCE_S: Final = 20.0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fork(child: Callable[[], None]) -> None:
    """Run `child` in a forked process and wait for it."""
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    _pid, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"the child ended with status {status}")


def refresher_of(source: Scripted, clock: Clock | None = None) -> Refresher:
    return Refresher(source, CachePolicy(), name="issuer", timeout_s=PATIENCE_S, monotonic=clock or Clock())


def unused() -> None:
    """Made before the fork, first asked after it."""
    refresher = refresher_of(Scripted("k1"))
    say(f"threads before the fork: {threading.active_count()}")
    fork(lambda: say(f"child: {key_for(refresher, 'k1').kid}"))
    say(f"parent: {key_for(refresher, 'k1').kid}")
    refresher.close()


def warm() -> None:
    """Keys at hand and a thread asleep when it forks; the keys rotate afterwards."""
    source = Scripted("k1")
    refresher = refresher_of(source)
    key_for(refresher, "k1")

    def child() -> None:
        calls = source.calls
        say(f"child: {key_for(refresher, 'k1').kid}, {source.calls - calls} fetches")
        source.kids = ("k2",)
        say(f"child: {key_for(refresher, 'k2').kid}")
        refresher.close()

    fork(child)
    say(f"parent: {key_for(refresher, 'k1').kid}")
    refresher.close()


def hanging() -> None:
    """A fetch hangs in the parent, with a caller waiting, when it forks."""
    source = Scripted("k1")
    source.hang()
    refresher = refresher_of(source)
    waiting = threading.Thread(target=key_for, args=(refresher, "k1"))
    waiting.start()
    source.entered.wait(PATIENCE_S)

    def child() -> None:
        say(f"child: fetching: {refresher.state.fetching}")
        source.resume()
        say(f"child: {key_for(refresher, 'k1').kid}")

    fork(child)
    source.resume()
    waiting.join(PATIENCE_S)
    say(f"parent: {key_for(refresher, 'k1').kid}")
    refresher.close()


class BlockingClock(Clock):
    """Holds whoever reads it while `held`, and with them what they have locked."""

    def __init__(self) -> None:
        super().__init__()
        self.readings_until_held = -1
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self) -> float:
        self.readings_until_held -= 1
        if self.readings_until_held == 0:
            self.reached.set()
            self.go_on.wait(PATIENCE_S)
        return super().__call__()


def locked() -> None:
    """Another thread is in the middle of a transition, lock held, when it forks."""
    clock = BlockingClock()
    refresher = refresher_of(Scripted("k1"), clock)
    key_for(refresher, "k1")
    clock.readings_until_held = 2  # the first reading of `ask` is without the lock, the second with it
    waiting = threading.Thread(target=_refused, args=(refresher, "forged"))
    waiting.start()
    clock.reached.wait(PATIENCE_S)

    def child() -> None:
        _refused(refresher, "other")
        say(f"child: {key_for(refresher, 'k1').kid}")

    fork(child)
    clock.go_on.set()
    waiting.join(PATIENCE_S)
    say(f"parent: {key_for(refresher, 'k1').kid}")
    refresher.close()


def closed() -> None:
    """Closed before it forks."""
    refresher = refresher_of(Scripted("k1"))
    refresher.close()
    fork(lambda: _refused(refresher, "k1", "child: "))
    _refused(refresher, "k1", "parent: ")


def _refused(refresher: Refresher, kid: str, who: str | None = None) -> None:
    try:
        key_for(refresher, kid)
    except AuthError as error:
        if who is not None:
            say(f"{who}{error.detail}")


SCENARIOS: Final = {scenario.__name__: scenario for scenario in (unused, warm, hanging, locked, closed)}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
