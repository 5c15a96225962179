"""Carries out what `keys.cache` decides: one background thread an issuer, one disposable thread a fetch.

A caller reads the state without a lock; the lock guards transitions only and is never held across I/O. A fetch runs in a
thread of its own that is given up on at the deadline, because no timeout of an HTTP client bounds dripping headers
(12 s against 2 s, measured with requests). Waiting callers get a future: sync ones wait on it, asyncio ones await it.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from ..errors import ConfigurationError, FetchError, KeysUnreadableError, invalid, keys_unavailable
from .cache import CachePolicy, CacheState, Fetch, Query, Refuse, Use, decide, failed, started, succeeded
from .jwks import Key, KeySet, parse_jwks
from .source import Attempt, InlineSource, KeySource

_log = logging.getLogger("grpc_bearer.keys")

Flight = Future[None]
"""A fetch under way. It ends without a result, whatever came of it: ask again then."""

Outcome = Future[tuple[KeySet, float | None]]


@dataclass(frozen=True, slots=True)
class Wait:
    """No key at hand: ask again when `flight` has ended, or give up at one's own deadline."""

    flight: Flight


class Keys(Protocol):
    """An issuer's keys, as the authenticator sees them."""

    @property
    def state(self) -> CacheState: ...
    def ask(self, query: Query) -> Use | Wait:
        """The key, or something to wait for. Raises `AuthError` TOKEN_INVALID or KEYS_UNAVAILABLE. Never blocks."""

    def usable_for_s(self) -> float:
        """Seconds for which the present keys may serve if no fetch succeeds from now on."""

    def start(self) -> None: ...
    def close(self) -> None: ...
    def on_change(self, callback: Callable[[], None]) -> None: ...


class StaticKeys:
    """Keys that were given in code: always there, never fetched.

    Raises `ConfigurationError` when no key of the set can be used.
    """

    def __init__(self, source: InlineSource, policy: CachePolicy) -> None:
        try:
            self._keys = parse_jwks(source.document, policy.max_keys)
        except KeysUnreadableError as error:
            raise ConfigurationError(f"jwks: {error}") from None
        self.state = CacheState(key_set=self._keys, generation=1, fetched_at=time.monotonic(), fresh_for_s=float("inf"))

    def ask(self, query: Query) -> Use:
        """The key. Raises `AuthError` TOKEN_INVALID."""
        found = self._keys.select(query.kid, query.algorithm)
        if isinstance(found, Key):
            return Use(found)
        raise invalid(found.value)

    def usable_for_s(self) -> float:
        """For ever."""
        return float("inf")

    def start(self) -> None:
        """There is nothing to start."""

    def close(self) -> None:
        """There is nothing to close."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Never called: the keys do not change."""


class Refresher:
    """An issuer's keys from a source, kept fresh in the background.

    The thread starts with the first question or `start()`, never at construction, so a process may fork in between; in a
    forked child the keys at hand are kept and a thread of its own is started.
    `name`: how the log calls the issuer. `timeout_s`: for one whole fetch.
    """

    def __init__(
        self,
        source: KeySource,
        policy: CachePolicy,
        *,
        name: str,
        timeout_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._policy = policy
        self._name = name
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._jitter = jitter
        self.state = CacheState()  # as of this moment; immutable, and swapped whole
        self._callbacks: tuple[Callable[[], None], ...] = ()
        self._closed = False
        self._reset_threads()
        _live.add(self)

    def _reset_threads(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._flight: Flight | None = None
        self._result: Outcome | None = None

    def _after_fork(self) -> None:
        # The parent's threads are not here, and its lock may have been held: what a fetch had begun is forgotten.
        self._reset_threads()
        self.state = replace(self.state, fetching=False)

    def usable_for_s(self) -> float:
        """Seconds until the present keys are too stale to serve."""
        state = self.state
        return state.fetched_at + state.fresh_for_s + self._policy.max_stale_s - self._monotonic()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, from the background thread, after each fetch. It must not block."""
        self._callbacks = (*self._callbacks, callback)

    def ask(self, query: Query) -> Use | Wait:
        """The key, or a fetch to wait for. Raises `AuthError` TOKEN_INVALID or KEYS_UNAVAILABLE. Never blocks on I/O."""
        if self._thread is None:
            self.start()
        decision = decide(self.state, query, self._monotonic(), self._policy)
        if isinstance(decision, Use):
            return decision
        if isinstance(decision, Refuse):
            raise decision.error
        with self._lock:
            if self._closed:
                raise keys_unavailable("the authenticator is closed")
            now = self._monotonic()
            decision = decide(self.state, query, now, self._policy)  # anew: another caller may have been faster
            if isinstance(decision, Use):
                return decision
            if isinstance(decision, Refuse):
                raise decision.error
            return Wait(self._flight or self._begin(decision.kid if isinstance(decision, Fetch) else None, now))

    def _begin(self, kid: str | None, now: float) -> Flight:
        """Under the lock: mark a fetch as begun; the background thread carries it out."""
        flight = Flight()
        flight.set_running_or_notify_cancel()  # a running future cannot be cancelled by one of its many waiters
        self._flight = flight
        self.state = started(self.state, kid, now, self._policy)
        self._wake.set()
        return flight

    def start(self) -> None:
        """Start the background thread, and with it the first fetch. Does nothing when it runs, or after `close()`."""
        with self._lock:
            if self._thread is not None or self._closed:
                return
            thread = threading.Thread(target=_run, args=(weakref.ref(self),), name="grpc-bearer-keys", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                _log.error("issuer %s: no thread could be started to fetch keys; the next call tries again", self._name)
            else:
                self._thread = thread

    def close(self) -> None:
        """End the background thread and give up on a fetch under way; waiting callers are answered. Idempotent, prompt."""
        with self._lock:
            self._closed = True
            thread, result = self._thread, self._result
            if thread is None:
                self._land()  # no thread could be started: nobody else answers those who wait
        if result is not None:
            with suppress(InvalidStateError):  # it may have ended by itself in the meantime
                result.set_exception(FetchError("the authenticator was closed"))
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2.0)

    def step(self) -> float | None:
        """One turn of the background thread: fetch when it is time. Seconds until the next turn, None to end."""
        with self._lock:
            if self._closed:
                self._land()
                return None
            self._wake.clear()
            now = self._monotonic()
            if self._flight is None:
                if now < self.state.next_fetch_at:
                    return self.state.next_fetch_at - now
                self._begin(None, now)
                self._wake.clear()
            result = Outcome()
            self._result = result
        self._fetch(result)
        return 0.0

    def _land(self) -> None:
        """Under the lock: end the flight, so that its waiters ask again."""
        flight, self._flight, self._result = self._flight, None, None
        self.state = replace(self.state, fetching=False)
        if flight is not None:
            flight.set_result(None)

    def _fetch(self, result: Outcome) -> None:
        attempt = Attempt(self._timeout_s)
        work = threading.Thread(
            target=_fetch_into,
            args=(result, self._source, attempt, self._policy.max_keys),
            name="grpc-bearer-fetch",
            daemon=True,
        )
        try:
            work.start()
            key_set, max_age_s = result.result(timeout=self._timeout_s)
        except TimeoutError:
            self._end_failed(FetchError(f"no complete answer within {self._timeout_s:g} s"))
        except (FetchError, KeysUnreadableError) as error:
            self._end_failed(error)
        except Exception as error:  # no thread could be started
            self._end_failed(FetchError(f"the fetch failed: {type(error).__name__}"))
        else:
            self._end_succeeded(key_set, max_age_s)
        finally:
            attempt.abandon()
        for callback in self._callbacks:
            try:
                callback()
            except Exception as error:
                _log.error("issuer %s: an on_change callback failed: %s", self._name, type(error).__name__)

    def _end_succeeded(self, key_set: KeySet, max_age_s: float | None) -> None:
        with self._lock:
            before = self.state
            self.state = succeeded(before, key_set, max_age_s, self._monotonic(), self._policy, self._jitter())
            after = self.state
            self._land()
        if after.generation != before.generation:
            _log.info("issuer %s: %d keys", self._name, len(key_set.keys))
            for line in key_set.skipped:
                _log.warning("issuer %s: a key is left out: %s", self._name, line)
        elif before.failures:
            _log.info("issuer %s: keys can be fetched again", self._name)

    def _end_failed(self, error: FetchError | KeysUnreadableError) -> None:
        retry_after_s = error.retry_after_s if isinstance(error, FetchError) else None
        with self._lock:
            self.state = failed(self.state, str(error), retry_after_s, self._monotonic(), self._policy, self._jitter())
            after = self.state
            closed = self._closed
            self._land()
        if not closed:
            in_s = max(0.0, after.next_fetch_at - self._monotonic())
            serving = "the last good keys stay" if after.key_set is not None else "no keys yet"
            # The text and not the error: a handler that keeps records would keep its frames, and the refresher with them.
            _log.warning("issuer %s: %s; %s; next try in %.1f s", self._name, after.last_error, serving, in_s)


def _fetch_into(result: Outcome, source: KeySource, attempt: Attempt, max_keys: int) -> None:
    """The disposable thread. Its outcome is dropped when nobody waits for it any more."""
    try:
        fetched = source(attempt)
        outcome = (parse_jwks(fetched.document, max_keys), _number(fetched.max_age_s))
    except BaseException as error:  # also SystemExit and asyncio's CancelledError, which would end the thread without a word
        with suppress(InvalidStateError):
            result.set_exception(_reported(error))
    else:
        with suppress(InvalidStateError):
            result.set_result(outcome)


def _reported(error: BaseException) -> FetchError | KeysUnreadableError:
    """What came out of a source, as something that cannot harm the background thread, with a text fit for a log."""
    if isinstance(error, KeysUnreadableError):
        return error
    if isinstance(error, FetchError):
        return FetchError(error.detail, _number(error.retry_after_s))
    return FetchError(f"the fetch failed: {type(error).__name__}")


def _number(value: object) -> float | None:
    """Seconds as a source gave them. What is no number is none given: NaN alone would have keys fetched without a pause."""
    return value if isinstance(value, int | float) and value == value else None


def _run(reference: weakref.ref[Refresher]) -> None:
    """The background thread. It holds its refresher weakly between turns: one that was forgotten unclosed ends too."""
    while True:
        refresher = reference()
        if refresher is None:
            return
        wait_s = refresher.step()
        wake = refresher._wake
        del refresher
        if wait_s is None:
            return
        wake.wait(min(wait_s, 30.0))


_live: weakref.WeakSet[Refresher] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for refresher in list(_live):
        refresher._after_fork()


with suppress(AttributeError):  # where there is no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
