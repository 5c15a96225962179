"""The issuers and policies of a server, and the life of what stands behind them: keys that are fetched, and reloads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Final, Self

from .errors import ConfigurationError
from .gate import Gate, Remembered, Trusted
from .issuer import Issuer
from .keys.cache import is_fresh, usable_keys
from .policy.table import Policies
from .verdict_cache import VerdictCache, VerdictCachePolicy

_log = logging.getLogger("grpc_bearer")

DEFAULT_MAX_TOKEN_BYTES: Final = 16 * 1024
DEFAULT_VERDICTS: Final = VerdictCachePolicy()


@dataclass(frozen=True, slots=True)
class IssuerStatus:
    """How an issuer's keys stand. `ready`: tokens can be verified. `stale`: past their freshness, still serving.

    `fetched_age_s`: seconds since the last good fetch, None before the first. `failures`: failed fetches since then;
    `last_error` says what the last one was. `skipped`: keys that were left out of the set, and why.
    """

    issuer: str
    ready: bool
    key_ids: tuple[str | None, ...]
    fetched_age_s: float | None
    stale: bool
    failures: int
    last_error: str | None
    skipped: tuple[str, ...]


class Authenticator:
    """Verifies bearer tokens of the given issuers. Thread-safe; one instance serves sync and asyncio servers alike.

    `policies`: what methods require beyond a valid token; by default what their protos say. `max_token_bytes`: longer
    tokens are refused unread; set `grpc.max_metadata_size` to fit. `verdicts`: how accepted tokens are remembered. `clock`:
    seconds since the epoch, for `exp`, `nbf` and `iat`.
    Raises `ConfigurationError`. Construction fetches nothing and starts no thread: a process may fork after it.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        policies: Policies | None = None,
        max_token_bytes: int = DEFAULT_MAX_TOKEN_BYTES,
        verdicts: VerdictCachePolicy = DEFAULT_VERDICTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_token_bytes < 1:
            raise ConfigurationError("max_token_bytes: has to be 1 or more")
        self._callbacks: tuple[Callable[[], None], ...] = ()
        self._reloading = threading.Lock()  # never held across I/O: making an issuer's keys fetches nothing
        self._started = False
        self._closed = False
        self._verdicts = verdicts
        self._max_token_bytes = max_token_bytes
        self._clock = clock
        # The present version of issuers and policies. A call takes it once and keeps to it.
        self.gate = self._made(_trusted(issuers, {}), policies or Policies())

    def _made(self, trusted: Mapping[str, Trusted], policies: Policies) -> Gate:
        # With a memory of its own: no verdict of an older version is ever found under a newer one.
        cache = VerdictCache[Remembered](self._verdicts, lambda remembered: remembered.token_bytes)
        return Gate(trusted, policies, self._max_token_bytes, self._clock, cache, self._verdicts.max_age_s, {}, {})

    def reload(self, *, issuers: Sequence[Issuer] | None = None, policies: Policies | None = None) -> None:
        """Swap issuers, policies or both, as one. Raises `ConfigurationError`, and then nothing has changed.

        An issuer whose settings are equal keeps its keys; one that is gone stops working with the next call.
        """
        with self._reloading:
            old = self.gate
            trusted = old.trusted if issuers is None else _trusted(issuers, old.trusted)
            self.gate = self._made(trusted, policies or old.policies)
            new = [each for each in trusted.values() if each is not old.trusted.get(each.config.issuer)]
            gone = [each for each in old.trusted.values() if trusted.get(each.config.issuer) is not each]
            for each in new:
                for callback in self._callbacks:
                    each.keys.on_change(callback)
                if self._started and not self._closed:
                    each.keys.start()
                if self._closed:
                    each.keys.close()
        for each in gone:
            each.keys.close()
        for callback in self._callbacks:
            try:
                callback()
            except Exception as error:
                _log.error("after a reload, an on_change callback failed: %s", type(error).__name__)

    def start(self) -> None:
        """Start fetching keys in the background, if that has not begun. Does not wait."""
        self._started = True
        for trusted in self.gate.trusted.values():
            trusted.keys.start()

    def warm(self, timeout_s: float = 5.0) -> bool:
        """Wait until every issuer has keys; False when `timeout_s` passes first. Blocks: call it before serving."""
        deadline = time.monotonic() + timeout_s
        self.start()
        while not self.ready():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def ready(self) -> bool:
        """Whether every issuer has keys that may serve."""
        return all(status.ready for status in self.status())

    def status(self) -> tuple[IssuerStatus, ...]:
        """How each issuer's keys stand at this moment, in the order of configuration."""
        now = time.monotonic()
        return tuple(_status(trusted, now) for trusted in self.gate.trusted.values())

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called after each fetch and reload, from any thread. It must not block; ask `status()` in it."""
        with self._reloading:
            self._callbacks = (*self._callbacks, callback)
            for trusted in self.gate.trusted.values():
                trusted.keys.on_change(callback)

    def close(self) -> None:
        """End the background threads, promptly. Idempotent. Keys at hand go on serving until they are too stale."""
        with self._reloading:
            self._closed = True
            trusted = tuple(self.gate.trusted.values())
        for each in trusted:
            each.keys.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _trusted(issuers: Sequence[Issuer], old: Mapping[str, Trusted]) -> Mapping[str, Trusted]:
    """The issuers by their `iss`; one with equal settings is taken over from `old`, keys and all."""
    if not issuers:
        raise ConfigurationError("issuers: empty, so every call would be refused; list at least one Issuer")
    trusted: dict[str, Trusted] = {}
    for issuer in issuers:
        if issuer.issuer in trusted:
            raise ConfigurationError(f"issuers: {issuer.issuer!r} is listed twice; merge the two")
        known = old.get(issuer.issuer)
        trusted[issuer.issuer] = known if known is not None and known.config == issuer else _new(issuer)
    return MappingProxyType(trusted)


def _new(issuer: Issuer) -> Trusted:
    return Trusted(issuer, issuer.rules(), issuer.keys())


def _status(trusted: Trusted, now: float) -> IssuerStatus:
    state = trusted.keys.state
    keys = usable_keys(state, now, trusted.config.cache)
    return IssuerStatus(
        issuer=trusted.config.issuer,
        ready=keys is not None,
        key_ids=() if keys is None else tuple(key.kid for key in keys.keys),
        fetched_age_s=None if state.key_set is None else now - state.fetched_at,
        stale=keys is not None and not is_fresh(state, now),
        failures=state.failures,
        last_error=state.last_error,
        skipped=() if state.key_set is None else state.key_set.skipped,
    )
