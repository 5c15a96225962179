"""The policy of the key cache, row by row of `docs/key-cache.md`, on a clock that is a number. Nothing here does I/O.

The rows about what a fetch may bring are in `test_jwks.py` and `test_fetch.py`, those about threads in `test_refresher.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from grpc_bearer.errors import ConfigurationError, Reason, invalid
from grpc_bearer.keys.cache import (
    MAX_RETRY_AFTER_S,
    CachePolicy,
    CacheState,
    Decision,
    Fetch,
    Join,
    Query,
    Refetch,
    Refuse,
    Use,
    decide,
    failed,
    is_fresh,
    started,
    succeeded,
    usable_keys,
)
from grpc_bearer.keys.jwks import KeySet, parse_jwks
from tests.support.fuzzing import cases
from tests.support.tokens import jwks, key

POLICY = CachePolicy()
HOUR_S = 3600.0


def key_set(*kids: str) -> KeySet:
    return parse_jwks(json.dumps(jwks(*(key(kid, "EdDSA") for kid in kids))).encode(), 100)


K1 = key_set("k1")
K1_K2 = key_set("k1", "k2")


def fetched(
    at: float = 0.0,
    keys: KeySet = K1,
    max_age_s: float | None = None,
    policy: CachePolicy = POLICY,
    *,
    before: CacheState | None = None,
    jitter: float = 0.0,
) -> CacheState:
    """The state after a good fetch."""
    return succeeded(before or CacheState(), keys, max_age_s, at, policy, jitter)


def refetched(state: CacheState, kid: str, at: float, keys: KeySet = K1) -> CacheState:
    """The state after a good fetch that the unknown `kid` caused."""
    return fetched(at, keys, before=started(state, kid, at, POLICY))


def broken(state: CacheState, at: float, retry_after_s: float | None = None, jitter: float = 0.0) -> CacheState:
    """The state after a failed fetch."""
    return failed(state, "HTTP status 503", retry_after_s, at, POLICY, jitter)


def asked(state: CacheState, kid: str | None, at: float, algorithm: str = "EdDSA", policy: CachePolicy = POLICY) -> Decision:
    return decide(state, Query(kid, algorithm), at, policy)


def outcome(decision: Decision) -> Any:
    """A decision as something to compare: the `kid` of the key, the reason of a refusal, or itself."""
    if isinstance(decision, Use):
        return decision.key.kid
    return decision.error.reason if isinstance(decision, Refuse) else decision


# Row: fresh for


@pytest.mark.parametrize(
    ("max_age_s", "fresh_for_s"),
    [
        (None, 600.0),
        (0.0, 60.0),
        (59.0, 60.0),
        (61.0, 61.0),
        (24 * HOUR_S, 24 * HOUR_S),
        (25 * HOUR_S, 24 * HOUR_S),
        (math.inf, 24 * HOUR_S),
    ],
)
def test_keys_are_fresh_for_the_issuers_max_age_within_the_clamp(max_age_s: float | None, fresh_for_s: float) -> None:
    state = fetched(100.0, max_age_s=max_age_s)
    assert state.fresh_for_s == fresh_for_s
    assert is_fresh(state, 100.0 + fresh_for_s - 0.001)
    assert not is_fresh(state, 100.0 + fresh_for_s)
    assert not is_fresh(state, 100.0 + fresh_for_s + 0.001)


def test_a_cold_cache_is_not_fresh() -> None:
    assert not is_fresh(CacheState(), 0.0)


# Row: refresh ahead


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.8), (0.5, 0.76), (1.0, 0.72)])
def test_the_next_fetch_is_due_at_80_percent_of_the_freshness_less_up_to_a_tenth_of_jitter(jitter: float, share: float) -> None:
    assert fetched(100.0, jitter=jitter).next_fetch_at == pytest.approx(100.0 + 600.0 * share)


# Row: a fetch fails


def test_a_failed_fetch_keeps_the_last_good_keys() -> None:
    state = broken(fetched(0.0), 480.0)
    assert outcome(asked(state, "k1", 480.0)) == "k1"
    assert (state.key_set, state.fetched_at, state.generation) == (K1, 0.0, 1)
    assert (state.failures, state.last_error) == (1, "HTTP status 503")


def test_failures_are_spaced_1_s_doubling_to_60_s() -> None:
    state, pauses = CacheState(), []
    for _ in range(9):
        state = broken(state, 0.0)
        pauses.append(state.retry_at)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert state.next_fetch_at == state.retry_at


def test_the_pause_stays_at_its_limit_however_long_an_outage_lasts() -> None:
    assert broken(replace(CacheState(), failures=100_000), 0.0).retry_at == 60.0


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 4.0), (0.5, 3.6), (1.0, 3.2)])
def test_the_pause_is_jittered_by_up_to_a_fifth(jitter: float, pause_s: float) -> None:
    assert broken(replace(CacheState(), failures=2), 0.0, jitter=jitter).retry_at == pytest.approx(pause_s)


@pytest.mark.parametrize(
    ("retry_after_s", "pause_s"), [(None, 1.0), (0.0, 1.0), (90.0, 90.0), (1e9, MAX_RETRY_AFTER_S), (math.inf, 300.0)]
)
def test_retry_after_is_honoured_up_to_five_minutes(retry_after_s: float | None, pause_s: float) -> None:
    assert broken(CacheState(), 0.0, retry_after_s).retry_at == pause_s


def test_a_good_fetch_ends_the_pauses() -> None:
    state = fetched(5.0, before=broken(broken(fetched(0.0), 1.0), 2.0))
    assert (state.failures, state.last_error, state.retry_at) == (0, None, -math.inf)
    assert broken(state, 10.0).retry_at == 11.0


def test_within_the_pause_nothing_is_fetched_and_the_call_is_unavailable() -> None:
    state = broken(CacheState(), 100.0)
    assert outcome(asked(state, "k1", 100.9)) is Reason.KEYS_UNAVAILABLE
    assert asked(state, "k1", 101.0) == Fetch(None)


# Row: stale served for at most


def test_stale_keys_serve_for_24_h_past_their_freshness_and_then_the_call_is_unavailable() -> None:
    end = 600.0 + 24 * HOUR_S
    state = broken(fetched(0.0), end - 0.5)
    assert outcome(asked(state, "k1", end - 0.001)) == "k1"
    assert usable_keys(state, end, POLICY) is None
    for kid in ("k1", "unknown", None):
        assert outcome(asked(state, kid, end)) is Reason.KEYS_UNAVAILABLE
        assert asked(state, kid, end + 0.5) == Fetch(None)


def test_stale_serving_of_0_is_off() -> None:
    policy = CachePolicy(max_stale_s=0)
    state = fetched(0.0, policy=policy)
    assert outcome(asked(state, "k1", 599.9, policy=policy)) == "k1"
    assert asked(state, "k1", 600.0, policy=policy) == Fetch(None)


# Row: unknown kid


def test_an_unknown_kid_causes_one_fetch_and_is_then_refused_at_once() -> None:
    state = fetched(0.0)
    assert asked(state, "new", 10.0) == Fetch("new")
    assert outcome(asked(refetched(state, "new", 10.0), "new", 10.1)) is Reason.TOKEN_INVALID


def test_a_forged_kid_leaves_one_fetch_in_reserve_and_a_real_rotation_gets_it() -> None:
    state = refetched(fetched(0.0), "forged", 10.0)
    assert asked(state, "k2", 11.0) == Fetch("k2")
    state = refetched(state, "k2", 11.0, K1_K2)
    assert outcome(asked(state, "k2", 11.1)) == "k2"
    assert outcome(asked(state, "k1", 11.1)) == "k1"


def test_one_kid_that_is_insisted_on_does_not_use_up_the_reserve() -> None:
    state = refetched(fetched(0.0), "forged", 10.0)
    for at in (10.1, 20.0, 39.9):
        assert outcome(asked(state, "forged", at)) is Reason.TOKEN_INVALID
    assert asked(state, "k2", 39.9) == Fetch("k2")


def test_a_flood_of_forged_kids_costs_two_fetches_in_each_cooldown() -> None:
    state, fetches = fetched(0.0), []
    for quarter in range(4 * 65):
        kid, at = f"forged-{quarter}", 10 + quarter / 4
        decision = asked(state, kid, at)
        if isinstance(decision, Fetch):
            fetches.append(at)
            state = refetched(state, kid, at)
        else:
            assert outcome(decision) is Reason.TOKEN_INVALID
    assert fetches == [10.0, 10.25, 40.0, 40.25, 70.0, 70.25]


def test_however_many_refetches_there_were_already_there_is_no_further_one() -> None:
    state = fetched(0.0)
    for at, kid in enumerate(["a", "b", "c", "d"]):
        state = refetched(state, kid, 10.0 + at)
        if at:
            assert outcome(asked(state, "e", 20.0)) is Reason.TOKEN_INVALID


def test_a_rotation_amid_a_flood_of_forged_kids_is_refused_until_the_cooldown_ends_and_fetched_then() -> None:
    state = refetched(refetched(fetched(0.0), "forged-1", 10.0), "forged-2", 10.25)
    for at in (10.3, 39.9):
        assert outcome(asked(state, "k2", at)) is Reason.TOKEN_INVALID
    assert asked(state, "k2", 40.0) == Fetch("k2")


def test_a_rotation_that_was_published_before_a_flood_of_forged_kids_is_not_touched_by_it() -> None:
    announced = fetched(480.0, K1_K2, before=fetched(0.0))
    state = refetched(refetched(announced, "forged-1", 500.0, K1_K2), "forged-2", 500.1, K1_K2)
    assert outcome(asked(state, "k2", 500.2)) == "k2"


def test_after_a_failed_refetch_an_unknown_kid_is_unavailable_and_not_refused_for_good() -> None:
    state = broken(started(fetched(0.0), "k2", 10.0, POLICY), 10.0)
    assert outcome(asked(state, "k2", 10.5)) is Reason.KEYS_UNAVAILABLE  # within the pause
    assert outcome(asked(state, "k2", 12.0)) is Reason.KEYS_UNAVAILABLE  # within the cooldown
    assert asked(state, "other", 12.0) == Fetch("other")
    assert outcome(asked(state, "k1", 10.5)) == "k1"


def test_fetches_of_the_background_and_of_a_cold_cache_are_charged_to_no_kid() -> None:
    assert started(fetched(0.0), None, 480.0, POLICY).refetches == ()


def test_refetches_are_forgotten_with_their_cooldown() -> None:
    state = started(started(fetched(0.0), "a", 10.0, POLICY), "b", 20.0, POLICY)
    assert [refetch.kid for refetch in started(state, "c", 39.9, POLICY).refetches] == ["a", "b", "c"]
    assert [refetch.kid for refetch in started(state, "c", 40.0, POLICY).refetches] == ["b", "c"]


@pytest.mark.parametrize("kid", ["k1", None])
def test_an_algorithm_that_no_key_fits_is_refused_without_a_fetch(kid: str | None) -> None:
    assert outcome(asked(fetched(0.0), kid, 10.0, "RS256")) is Reason.TOKEN_INVALID


def test_a_token_without_kid_gets_the_only_key_that_fits_and_two_are_a_refusal_without_a_fetch() -> None:
    assert outcome(asked(fetched(0.0), None, 10.0)) == "k1"
    assert outcome(asked(fetched(0.0, K1_K2), None, 10.0)) is Reason.TOKEN_INVALID


# Row: N callers, cold cache


def test_the_first_caller_of_a_cold_cache_fetches_and_the_others_join() -> None:
    assert asked(CacheState(), "k1", 0.0) == Fetch(None)
    for kid in ("k1", "k2", None):
        assert asked(started(CacheState(), None, 0.0, POLICY), kid, 0.1) == Join()


# Row: a known kid while a fetch hangs


def test_a_known_kid_is_answered_while_a_fetch_is_under_way_and_an_unknown_one_joins_it() -> None:
    state = started(fetched(0.0), "forged", 10.0, POLICY)
    assert outcome(asked(state, "k1", 10.1)) == "k1"
    assert asked(state, "k2", 10.1) == Join()


# Transitions


def test_unchanged_keys_stay_the_same_object_and_generation() -> None:
    first = fetched(0.0)
    again = fetched(480.0, key_set("k1"), before=first)
    assert again.key_set is first.key_set
    assert (again.generation, again.fetched_at) == (1, 480.0)


def test_changed_keys_are_swapped_whole_and_raise_the_generation() -> None:
    state = fetched(480.0, K1_K2, before=fetched(0.0))
    assert (state.key_set, state.generation) == (K1_K2, 2)
    assert outcome(asked(fetched(960.0, key_set("k2"), before=state), "k1", 960.0)) == Fetch("k1")


def test_a_fetch_that_has_ended_is_under_way_no_more() -> None:
    state = started(CacheState(), None, 0.0, POLICY)
    assert state.fetching
    assert not fetched(1.0, before=state).fetching
    assert not broken(state, 1.0).fetching


@pytest.mark.parametrize("now", [-1e9, 0.0, 1e9])
def test_a_cold_cache_is_due_for_a_fetch_whatever_the_clock_says(now: float) -> None:
    state = CacheState()
    assert state.next_fetch_at < now
    assert state.retry_at < now
    assert usable_keys(state, now, POLICY) is None
    assert asked(state, "k1", now) == Fetch(None)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (CacheState(), "key_set"),
        (POLICY, "fresh_s"),
        (Refetch(0.0, "k1"), "at"),
        (Query("k1", "EdDSA"), "kid"),
        (Use(K1.keys[0]), "key"),
        (Fetch("k1"), "kid"),
        (Refuse(invalid("x")), "error"),
    ],
)
def test_what_several_threads_read_cannot_be_changed_in_its_place(value: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(value, name, None)


def test_the_generation_grows_when_keys_get_too_old_to_serve_so_that_no_former_one_ever_comes_back() -> None:
    """What was verified under a generation is taken as read under the same one."""
    end = 600.0 + 24 * HOUR_S
    generations = [fetched(0.0).generation]
    state = broken(broken(fetched(0.0), end), end + 1)
    generations.append(state.generation)
    generations.append(fetched(end + 2, K1_K2, before=state).generation)
    assert generations == sorted(set(generations))
    assert broken(fetched(0.0), end - 1).generation == fetched(0.0).generation


# The policy's figures


def test_the_figures_are_those_of_the_table_when_nothing_is_said() -> None:
    assert asdict(CachePolicy()) == {
        "fresh_s": 600.0,
        "min_fresh_s": 60.0,
        "max_fresh_s": 86_400.0,
        "refresh_at": 0.8,
        "max_stale_s": 86_400.0,
        "cooldown_s": 30.0,
        "backoff_initial_s": 1.0,
        "backoff_max_s": 60.0,
        "max_keys": 100,
    }


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        ({"fresh_s": -1}, "fresh_s has to be a finite number"),
        ({"max_stale_s": math.inf}, "max_stale_s has to be a finite number"),
        ({"cooldown_s": math.nan}, "cooldown_s has to be a finite number"),
        ({"backoff_max_s": "60"}, "backoff_max_s has to be a finite number"),
        ({"max_keys": True}, "max_keys has to be a finite number"),
        ({"min_fresh_s": 0}, "min_fresh_s has to be above 0"),
        ({"min_fresh_s": 100, "max_fresh_s": 99}, "not above max_fresh_s"),
        ({"refresh_at": 0}, "refresh_at is a share"),
        ({"refresh_at": 1.01}, "refresh_at is a share"),
        ({"backoff_initial_s": 0}, "backoff_initial_s has to be above 0"),
        ({"backoff_initial_s": 61}, "not above backoff_max_s"),
        ({"cooldown_s": 0}, "every forged kid costs a fetch"),
        ({"max_keys": 0}, "max_keys has to be 1 or more"),
    ],
)
def test_figures_that_make_no_sense_are_named(figures: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^cache: .*{named}"):
        CachePolicy(**figures)


def test_figures_at_their_limits_are_taken() -> None:
    policy = CachePolicy(
        refresh_at=1, max_stale_s=0, max_keys=1, min_fresh_s=5, max_fresh_s=5, backoff_initial_s=9, backoff_max_s=9
    )
    assert fetched(0.0, policy=policy).next_fetch_at == 5.0


# Whatever happens, in whatever order


class AnyHistory(RuleBasedStateMachine):
    """A cache through which time, questions, rotations and good and bad fetches pass in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = CacheState()
        self.last_good_end = -math.inf
        self.charged: list[float] = []

    @initialize(warm=st.booleans())
    def begin(self, warm: bool) -> None:
        if warm:
            self.fetch_succeeds(K1, None, 0.0)

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 7.0, 29.0, 31.0, 480.0, 601.0, 50_000.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(kid=st.sampled_from(["k1", "k2", "f1", "f2", "f3", None]), algorithm=st.sampled_from(["EdDSA", "RS256"]))
    def a_token_comes(self, kid: str | None, algorithm: str) -> None:
        decision = asked(self.state, kid, self.now, algorithm)
        keys = usable_keys(self.state, self.now, POLICY)
        if keys is None:
            assert outcome(decision) not in (Reason.TOKEN_INVALID, kid), "without keys nothing is known of a token"
        if isinstance(decision, Use):
            assert self.now < self.last_good_end
            assert decision.key.kid in (kid or "k1", "k2")
            assert algorithm in decision.key.algorithms
        if isinstance(decision, Join):
            assert self.state.fetching
        if isinstance(decision, Fetch):
            assert not self.state.fetching, "one fetch at a time"
            assert self.now >= self.state.retry_at, "none within a pause"
            if decision.kid is not None:
                self.charged.append(self.now)
                assert sum(self.now - at < POLICY.cooldown_s for at in self.charged) <= 2
            self.state = started(self.state, decision.kid, self.now, POLICY)

    @rule()
    def the_background_fetches(self) -> None:
        if not self.state.fetching:
            self.state = started(self.state, None, self.now, POLICY)

    @rule(
        keys=st.sampled_from([K1, K1_K2, key_set("k2")]),
        max_age_s=st.none() | st.floats(0, 1e9),
        jitter=st.floats(0, 1, exclude_max=True),
    )
    def fetch_succeeds(self, keys: KeySet, max_age_s: float | None, jitter: float) -> None:
        self.state = fetched(self.now, keys, max_age_s, before=self.state, jitter=jitter)
        self.last_good_end = self.now + self.state.fresh_for_s + POLICY.max_stale_s
        assert self.now < self.state.next_fetch_at <= self.now + self.state.fresh_for_s

    @rule(retry_after_s=st.none() | st.floats(0, 1e9), jitter=st.floats(0, 1, exclude_max=True))
    def fetch_fails(self, retry_after_s: float | None, jitter: float) -> None:
        self.state = broken(self.state, self.now, retry_after_s, jitter)
        assert 0.79 < self.state.retry_at - self.now < MAX_RETRY_AFTER_S + 0.01

    @invariant()
    def known_keys_answer_whatever_else_goes_on(self) -> None:
        keys = usable_keys(self.state, self.now, POLICY)
        assert (keys is not None) == (self.now < self.last_good_end)
        for known in keys.keys if keys is not None else ():
            assert asked(self.state, known.kid, self.now) == Use(known)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = cases(60)


@cases(100)
@given(max_age_s=st.none() | st.floats(-1e9, 1e12), low=st.floats(0.001, 1e6), span=st.floats(0, 1e6), jitter=st.floats(0, 1))
def test_freshness_stays_within_any_clamp_and_keys_are_always_fetched_again_before_its_end(
    max_age_s: float | None, low: float, span: float, jitter: float
) -> None:
    policy = CachePolicy(min_fresh_s=low, max_fresh_s=low + span)
    state = fetched(50.0, max_age_s=max_age_s, policy=policy, jitter=jitter)
    assert low <= state.fresh_for_s <= low + span
    assert 50.0 < state.next_fetch_at <= 50.0 + state.fresh_for_s
