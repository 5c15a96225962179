"""`decide` and its transitions under any figures, not the defaults only, and with a model that keeps count by itself.

`tests/keys/test_cache.py` has the rows of the table and the same kind of machine under the default figures.
"""

from __future__ import annotations

import json
import math
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from grpc_bearer import CachePolicy, Reason
from grpc_bearer.keys.cache import (
    MAX_RETRY_AFTER_S,
    CacheState,
    Fetch,
    Join,
    Query,
    Refuse,
    Use,
    decide,
    failed,
    started,
    succeeded,
    usable_keys,
)
from grpc_bearer.keys.jwks import parse_jwks
from tests.support.fuzzing import cases
from tests.support.tokens import jwks, key

SETS: Final = {
    kids: parse_jwks(json.dumps(jwks(*(key(kid, "EdDSA") for kid in kids))).encode(), 10)
    for kids in [("k1",), ("k1", "k2"), ("k2",), ("k2", "k3")]
}
KIDS: Final = ("k1", "k2", "k3", "f1", "f2", "f3", "f4")

seconds = st.sampled_from([0.001, 0.5, 1.0, 10.0, 60.0, 3600.0])
some_policies = st.builds(
    lambda fresh, low, more, at, stale, cooldown, backoff, times: CachePolicy(
        fresh_s=fresh,
        min_fresh_s=low,
        max_fresh_s=low + more,
        refresh_at=at,
        max_stale_s=stale,
        cooldown_s=cooldown,
        backoff_initial_s=backoff,
        backoff_max_s=backoff * times,
    ),
    seconds,
    seconds,
    seconds | st.just(0.0),
    st.sampled_from([0.01, 0.8, 1.0]),
    seconds | st.just(0.0),
    seconds,
    seconds,
    st.sampled_from([1, 4, 60]),
)


class AnyFigures(RuleBasedStateMachine):
    """The model beside it: which kids are published, what was fetched when, and what unknown kids have cost."""

    @initialize(policy=some_policies)
    def begin(self, policy: CachePolicy) -> None:
        self.policy, self.state, self.now = policy, CacheState(), 1_000.0
        self.served: tuple[str, ...] = ()
        self.good_until = -math.inf
        self.not_before = -math.inf
        self.under_way: str | None = None
        self.charged: list[tuple[float, str]] = []
        self.failures = 0

    @rule(
        share=st.sampled_from([0.01, 0.5, 0.999, 1.0, 1.001, 3.0]),
        of=st.sampled_from(["cooldown_s", "fresh", "good", "backoff_max_s"]),
    )
    def time_passes(self, share: float, of: str) -> None:
        spans = {"fresh": self.state.fresh_for_s, "good": self.state.fresh_for_s + self.policy.max_stale_s}
        self.now += share * (spans[of] if of in spans else getattr(self.policy, of))

    @rule(kid=st.sampled_from(KIDS))
    def a_token_comes(self, kid: str) -> None:
        decision = decide(self.state, Query(kid, "EdDSA"), self.now, self.policy)
        warm = self.now < self.good_until
        recent = [of for at, of in self.charged if self.now - at < self.policy.cooldown_s]
        if warm and kid in self.served:
            assert isinstance(decision, Use), "a known key is used, whatever else goes on"
            assert decision.key.kid == kid
        elif self.under_way is not None:
            assert decision == Join(), "one fetch at a time"
        elif self.now < self.not_before:
            assert isinstance(decision, Refuse)
            assert decision.error.reason is Reason.KEYS_UNAVAILABLE, "an outage is never the token's fault"
        elif not warm:
            assert decision == Fetch(None), "without keys the next caller fetches, and it is charged to nobody"
            self.begin_fetch(None)
        elif kid not in recent and len(recent) < 2:
            assert decision == Fetch(kid), "a kid that may be new is looked for"
            self.charged.append((self.now, kid))
            self.begin_fetch(kid)
        else:
            assert isinstance(decision, Refuse), "two refetches a cooldown, one a kid"
            assert decision.error.reason is (Reason.KEYS_UNAVAILABLE if self.failures else Reason.TOKEN_INVALID)

    @rule(asked=st.lists(st.sampled_from(KIDS), min_size=1, max_size=4, unique=True), kids=st.sampled_from(list(SETS)))
    def tokens_come_one_after_the_other_and_what_they_need_is_fetched(self, asked: list[str], kids: tuple[str, ...]) -> None:
        for kid in asked:
            self.a_token_comes(kid)
            self.a_fetch_succeeds(kids, None, 0.0)

    def begin_fetch(self, kid: str | None) -> None:
        self.under_way = kid or "nobody"
        self.state = started(self.state, kid, self.now, self.policy)

    @rule()
    def the_background_fetches_when_it_is_due(self) -> None:
        if self.under_way is None and self.now >= self.state.next_fetch_at:
            self.begin_fetch(None)

    @rule(kids=st.sampled_from(list(SETS)), max_age_s=st.none() | st.floats(-10, 1e7), jitter=st.floats(0, 1, exclude_max=True))
    def a_fetch_succeeds(self, kids: tuple[str, ...], max_age_s: float | None, jitter: float) -> None:
        if self.under_way is None:
            return
        before = self.state
        self.state = succeeded(before, SETS[kids], max_age_s, self.now, self.policy, jitter)
        assert (self.state.generation > before.generation) is (kids != self.served), "changed keys, another generation"
        wanted = self.policy.fresh_s if max_age_s is None else max_age_s
        fresh_s = sorted([self.policy.min_fresh_s, wanted, self.policy.max_fresh_s])[1]  # clamped: the one in the middle
        self.served, self.good_until = kids, self.now + fresh_s + self.policy.max_stale_s
        self.not_before, self.failures, self.under_way = -math.inf, 0, None
        assert self.now < self.state.next_fetch_at <= self.now + fresh_s, "fetched again before they are stale"

    @rule(retry_after_s=st.none() | st.floats(-10, 1e7), jitter=st.floats(0, 1, exclude_max=True))
    def a_fetch_fails(self, retry_after_s: float | None, jitter: float) -> None:
        if self.under_way is None:
            return
        before = self.state
        self.state = failed(before, "HTTP status 503", retry_after_s, self.now, self.policy, jitter)
        self.failures, self.under_way = self.failures + 1, None
        full_s = min(self.policy.backoff_initial_s * 2 ** (self.failures - 1), self.policy.backoff_max_s)
        asked_s = min(retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        self.not_before = self.state.retry_at
        pause_s = self.not_before - self.now
        assert max(0.8 * full_s, asked_s) - 1e-6 <= pause_s <= max(full_s, asked_s) + 1e-6, "it doubles, and is bounded"
        assert self.state.generation == before.generation + (self.now >= self.good_until), "too old is another generation"
        assert self.state.next_fetch_at == self.state.retry_at, "the background tries again as soon as anybody may"
        assert (self.state.key_set, self.state.fetched_at) == (before.key_set, before.fetched_at), "the last good keys stay"

    @invariant()
    def the_state_and_the_model_agree(self) -> None:
        if not hasattr(self, "policy"):
            return
        assert self.state.fetching is (self.under_way is not None)
        assert self.state.failures == self.failures
        keys = usable_keys(self.state, self.now, self.policy)
        assert (keys is not None) is (self.now < self.good_until), "stale keys serve until the limit and not after it"
        assert len(self.state.refetches) <= 2, "what is kept does not grow with the callers"


TestAnyFigures = AnyFigures.TestCase
TestAnyFigures.settings = cases(150)
