"""START HERE: call metadata -> verified claims, as steps without I/O around the one step that may wait.

    candidate = authenticator.read(metadata)        # AuthError, or a token that lacks only its key and signature
    step = authenticator.key_for(candidate)         # AuthError, Use(key), or Wait(flight)
    claims = authenticator.accept(candidate, key)   # AuthError, or Claims

Nothing here blocks. `grpc_bearer.sync` and `grpc_bearer.aio` carry the steps out and do the waiting, each in its own way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Final, Self

from .bearer import authorization_value, bearer_token
from .claims import Claims
from .errors import AuthError, ConfigurationError, invalid, keys_unavailable
from .issuer import Issuer
from .jws import CompactJws, parse
from .keys.cache import Query, Use, is_fresh, usable_keys
from .keys.jwks import Key
from .keys.refresher import Keys, Wait
from .verifier import (
    TokenRules,
    ValidClaims,
    expired,
    is_expired,
    unverified_issuer,
    validate_claims,
    validate_header,
    verify,
)

DEFAULT_MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_ROUNDS: Final = 3
"""How many fetches a driver waits for: that of a cold cache, and the two that unknown kids can cause in a cooldown."""


@dataclass(frozen=True, slots=True)
class _Trusted:
    """An issuer at run time."""

    config: Issuer
    rules: TokenRules
    keys: Keys


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that its issuer's rules accept and that lacks only its key and signature. Nothing of it may be trusted."""

    jws: CompactJws
    valid: ValidClaims
    query: Query
    trusted: _Trusted


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

    `max_token_bytes`: longer tokens are refused unread; set `grpc.max_metadata_size` to fit. `clock`: seconds since the
    epoch, for `exp`, `nbf` and `iat`.
    Raises `ConfigurationError`. Construction fetches nothing and starts no thread: a process may fork after it.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        max_token_bytes: int = DEFAULT_MAX_TOKEN_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuers:
            raise ConfigurationError("issuers: empty, so every call would be refused; list at least one Issuer")
        if max_token_bytes < 1:
            raise ConfigurationError("max_token_bytes: has to be 1 or more")
        trusted: dict[str, _Trusted] = {}
        for issuer in issuers:
            if issuer.issuer in trusted:
                raise ConfigurationError(f"issuers: {issuer.issuer!r} is listed twice; merge the two")
            trusted[issuer.issuer] = _Trusted(issuer, issuer.rules(), issuer.keys())
        self._trusted = MappingProxyType(trusted)
        self._max_token_bytes = max_token_bytes
        self._clock = clock

    def read(self, metadata: Iterable[tuple[str, str | bytes]]) -> Candidate:
        """All that can be said of a call's token without its key. Raises `AuthError`."""
        jws = parse(bearer_token(authorization_value(metadata), self._max_token_bytes))
        trusted = self._trusted.get(unverified_issuer(jws.claims_set))
        if trusted is None:
            raise invalid("iss is not a configured issuer")
        algorithm = validate_header(jws.header, trusted.rules)
        valid = validate_claims(jws.claims_set, trusted.rules, self._clock())
        return Candidate(jws, valid, Query(jws.header.kid, algorithm), trusted)

    def key_for(self, candidate: Candidate) -> Use | Wait:
        """The key, or a fetch to wait for before asking again. Raises `AuthError`. Never blocks."""
        return candidate.trusted.keys.ask(candidate.query)

    def accept(self, candidate: Candidate, key: Key) -> Claims:
        """Verify the signature. Raises `AuthError`: TOKEN_INVALID, or TOKEN_EXPIRED while the key was waited for."""
        valid = candidate.valid
        if is_expired(valid.exp, candidate.trusted.rules.leeway_s, self._clock()):
            raise expired(valid.exp)
        return verify(candidate.jws, valid, candidate.query.algorithm, key)

    def wait_limit_s(self, candidate: Candidate) -> float:
        """How long waiting for this token's key can make sense: the time that a fetch may take."""
        return candidate.trusted.config.fetch.timeout_s

    def start(self) -> None:
        """Start fetching keys in the background, if that has not begun. Does not wait."""
        for trusted in self._trusted.values():
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
        return tuple(_status(trusted, now) for trusted in self._trusted.values())

    def on_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called after each fetch, from a background thread. It must not block; ask `status()` in it."""
        for trusted in self._trusted.values():
            trusted.keys.on_change(callback)

    def close(self) -> None:
        """End the background threads, promptly. Idempotent. Keys at hand go on serving until they are too stale."""
        for trusted in self._trusted.values():
            trusted.keys.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _status(trusted: _Trusted, now: float) -> IssuerStatus:
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


def still_no_key() -> AuthError:
    """The refusal of a call whose key did not come in time."""
    return keys_unavailable("the issuer's keys did not come in time")
