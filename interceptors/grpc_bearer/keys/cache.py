"""The policy of the key cache: one pure function from (state, query, now) to a decision, and three transitions.

No clock, no lock, no thread, no I/O: times are arguments, in seconds on any monotonic clock, and a state is swapped whole.
The situations and figures are the table of `docs/key-cache.md`; `tests/keys/test_cache.py` has a test for each row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Final, NamedTuple

from ..errors import AuthError, ConfigurationError, invalid, keys_unavailable
from .jwks import Key, KeySet, NoKey

MAX_RETRY_AFTER_S: Final = 300.0
REFETCHES_PER_COOLDOWN: Final = 2
"""Refetches that unknown `kid`s can cause in one cooldown: one, and one held in reserve for a real rotation."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long keys are good for. Figures in seconds, but for `refresh_at` (a share of freshness) and `max_keys`.

    `fresh_s`: freshness when the issuer does not say (`Cache-Control: max-age`); what it says is clamped to
    `min_fresh_s` .. `max_fresh_s`. `refresh_at`: share of the freshness after which keys are fetched again, in the
    background. `max_stale_s`: how long keys serve past their freshness while fetches fail; 0 turns that off.
    `cooldown_s`: in this time at most two fetches are caused by unknown `kid`s. `backoff_initial_s` doubles with each
    failed fetch up to `backoff_max_s`. `max_keys`: members that a JWK Set may have.
    Raises `ConfigurationError` for figures that contradict each other.
    """

    fresh_s: float = 600.0
    min_fresh_s: float = 60.0
    max_fresh_s: float = 86_400.0
    refresh_at: float = 0.8
    max_stale_s: float = 86_400.0
    cooldown_s: float = 30.0
    backoff_initial_s: float = 1.0
    backoff_max_s: float = 60.0
    max_keys: int = 100

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
                raise ConfigurationError(f"cache: {spec.name} has to be a finite number, 0 or more")
        if not 0 < self.min_fresh_s <= self.max_fresh_s:
            raise ConfigurationError("cache: min_fresh_s has to be above 0 and not above max_fresh_s")
        if not 0 < self.refresh_at <= 1:
            raise ConfigurationError("cache: refresh_at is a share of the freshness: above 0, at most 1")
        if not 0 < self.backoff_initial_s <= self.backoff_max_s:
            raise ConfigurationError("cache: backoff_initial_s has to be above 0 and not above backoff_max_s")
        if self.cooldown_s <= 0:
            raise ConfigurationError("cache: cooldown_s has to be above 0, else every forged kid costs a fetch")
        if self.max_keys < 1:
            raise ConfigurationError("cache: max_keys has to be 1 or more")


@dataclass(frozen=True, slots=True)
class Refetch:
    """A fetch that an unknown `kid` caused."""

    at: float
    kid: str


@dataclass(frozen=True, slots=True)
class CacheState:
    """All there is to know about an issuer's keys at one moment.

    `generation` grows whenever the keys change. `fetched_at`, `next_fetch_at` (when the background fetches again) and
    `retry_at` (before which nothing does, after a failure) are on the caller's monotonic clock. `failures` counts
    failed fetches since the last good one.
    """

    key_set: KeySet | None = None
    generation: int = 0
    fetched_at: float = -math.inf
    fresh_for_s: float = 0.0
    next_fetch_at: float = -math.inf
    retry_at: float = -math.inf
    fetching: bool = False
    failures: int = 0
    last_error: str | None = None
    refetches: tuple[Refetch, ...] = ()


class Query(NamedTuple):
    """What a token asks of its issuer's keys: its `kid`, None when it has none, and its algorithm."""

    kid: str | None
    algorithm: str


class Use(NamedTuple):
    """The key is at hand."""

    key: Key


@dataclass(frozen=True, slots=True)
class Fetch:
    """Start a fetch and ask again when it has ended. `kid`: the unknown one that it is charged to, None for a cold cache."""

    kid: str | None


@dataclass(frozen=True, slots=True)
class Join:
    """A fetch is under way: ask again when it has ended."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """No key, and waiting would not bring one."""

    error: AuthError


Decision = Use | Fetch | Join | Refuse


def is_fresh(state: CacheState, now: float) -> bool:
    """Whether the keys are within the freshness that their issuer gave them."""
    return state.key_set is not None and now < state.fetched_at + state.fresh_for_s


def usable_keys(state: CacheState, now: float, policy: CachePolicy) -> KeySet | None:
    """The keys that may serve at `now`: fresh, or stale within the limit."""
    if now < state.fetched_at + state.fresh_for_s + policy.max_stale_s:
        return state.key_set
    return None


def decide(state: CacheState, query: Query, now: float, policy: CachePolicy) -> Decision:
    """What to do for one token. A known key is answered whatever else goes on; a fetch is never asked for twice at once."""
    keys = usable_keys(state, now, policy)
    if keys is not None:
        found = keys.select(query.kid, query.algorithm)
        if isinstance(found, Key):
            return Use(found)
        if found is not NoKey.UNKNOWN_KID:
            return Refuse(invalid(found.value))
    if state.fetching:
        return Join()
    if now < state.retry_at:
        return Refuse(keys_unavailable("the last fetch of the issuer's keys failed, and it is too early for another"))
    if keys is None or query.kid is None:
        return Fetch(None)
    if _may_refetch(state, query.kid, now, policy):
        return Fetch(query.kid)
    if state.failures:
        return Refuse(keys_unavailable("the kid is unknown, and the last fetch of the issuer's keys failed"))
    return Refuse(invalid(NoKey.UNKNOWN_KID.value))


def _may_refetch(state: CacheState, kid: str, now: float, policy: CachePolicy) -> bool:
    recent = _recent(state, now, policy)
    # A caller that insists on one kid must not use up the reserve that a real rotation will need.
    return len(recent) < REFETCHES_PER_COOLDOWN and all(refetch.kid != kid for refetch in recent)


def _recent(state: CacheState, now: float, policy: CachePolicy) -> tuple[Refetch, ...]:
    return tuple(refetch for refetch in state.refetches if now - refetch.at < policy.cooldown_s)


def started(state: CacheState, kid: str | None, now: float, policy: CachePolicy) -> CacheState:
    """A fetch has begun. `kid`: the unknown one that caused it, None for a cold cache or the background."""
    refetches = _recent(state, now, policy)
    if kid is not None:
        refetches = (*refetches, Refetch(now, kid))
    return replace(state, fetching=True, refetches=refetches)


def succeeded(
    state: CacheState, key_set: KeySet, max_age_s: float | None, now: float, policy: CachePolicy, jitter: float
) -> CacheState:
    """A fetch brought keys. `max_age_s`: the issuer's, None when it gave none. `jitter`: in [0, 1), spreads a fleet."""
    wanted = policy.fresh_s if max_age_s is None else max_age_s
    fresh_for_s = min(max(wanted, policy.min_fresh_s), policy.max_fresh_s)
    changed = state.key_set is None or state.key_set.digest != key_set.digest
    return replace(
        state,
        key_set=key_set if changed else state.key_set,
        generation=state.generation + changed,
        fetched_at=now,
        fresh_for_s=fresh_for_s,
        next_fetch_at=now + fresh_for_s * policy.refresh_at * (1 - 0.1 * jitter),
        retry_at=-math.inf,
        fetching=False,
        failures=0,
        last_error=None,
    )


def failed(
    state: CacheState, detail: str, retry_after_s: float | None, now: float, policy: CachePolicy, jitter: float
) -> CacheState:
    """A fetch failed: the last good keys stay. `retry_after_s`: what the issuer asked for, honoured up to 5 minutes."""
    failures = state.failures + 1
    backoff_s = min(policy.backoff_initial_s * 2.0 ** min(failures - 1, 60), policy.backoff_max_s) * (1 - 0.2 * jitter)
    retry_at = now + max(backoff_s, min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))
    # Keys that may serve no longer are as good as changed: what was verified with them is not to be taken as read either.
    too_stale = usable_keys(state, now, policy) is None
    return replace(
        state,
        generation=state.generation + too_stale,
        next_fetch_at=retry_at,
        retry_at=retry_at,
        fetching=False,
        failures=failures,
        last_error=detail,
    )
