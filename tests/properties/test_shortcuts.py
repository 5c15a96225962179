"""What a gate remembers never answers otherwise than the long way: whatever calls, in whatever order, while time passes, keys
change, fetches fail and the issuer's keys get too old to serve."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from grpc_bearer import (
    Access,
    Authenticator,
    AuthError,
    CachePolicy,
    ClaimRule,
    Issuer,
    Policies,
    Policy,
    Streams,
    VerdictCachePolicy,
)
from grpc_bearer.bearer import bearer_token
from grpc_bearer.gate import Gate, Remembered
from grpc_bearer.jws import parse, parse_header
from grpc_bearer.keys.cache import CacheState, Query, Refuse, Use, decide, failed, started, succeeded
from grpc_bearer.keys.jwks import parse_jwks
from grpc_bearer.keys.refresher import Wait
from grpc_bearer.policy.protos import Declared
from grpc_bearer.verdict_cache import VerdictCache
from tests.properties.ways import Metadata, the_drivers_way, the_long_way, verdict
from tests.support.clock import Clock
from tests.support.fuzzing import cases
from tests.support.generated import BASE64URL
from tests.support.tokens import AUDIENCE, ISSUER, base64url, forged, jwks, key, mint

NOW: Final = 1_800_000_000
HOUR_S: Final = 3600
OTHER: Final = "https://other.example"
K1, K2 = key("k1", "EdDSA"), key("k2", "EdDSA")
SETS: Final = {
    name: parse_jwks(json.dumps(jwks(*keys)).encode(), 10) for name, keys in {"1": [K1], "12": [K1, K2], "2": [K2]}.items()
}

POLICIES: Final = {
    "Any": Policy(),
    "Scoped": Policy(scopes=("orders.read",)),
    "AnyScope": Policy(any_scopes=("admin", "orders.write")),
    "Claim": Policy(claims=(ClaimRule("department", any_of=("ops",)),)),
    "Issuer": Policy(issuers=(OTHER,)),
    "Audience": Policy(audiences=("billing",)),
    "Young": Policy(max_age_s=120),
    "Finish": Policy(streams=Streams.FINISH),
    "Public": Policy(access=Access.PUBLIC),
    "Optional": Policy(access=Access.OPTIONAL),
    "Deny": Policy(access=Access.DENY),
}
SERVICE: Final = "late.v1.Service"
METHODS: Final = [f"/{SERVICE}/{name}" for name in POLICIES] + ["/made.up/Name", "", "no slash"]
TOKENS: Final = {
    "alice": mint(K1, now=NOW, exp=NOW + 24 * HOUR_S, sub="alice"),
    "bob": mint(K2, now=NOW, exp=NOW + HOUR_S, sub="bob", scope="admin", department=["ops"], aud=[AUDIENCE, "billing"]),
    "soon over": mint(K1, now=NOW),
    "of another issuer": mint(K1, now=NOW, exp=NOW + HOUR_S, iss=OTHER),
    "authenticated long ago": mint(K1, now=NOW, exp=NOW + HOUR_S, auth_time=NOW - 100),
    "without kid": mint(K1, now=NOW, exp=NOW + HOUR_S, header={"kid": None}),
    "forged": forged(K1, now=NOW, exp=NOW + HOUR_S),
    "of an unknown key": mint(key("k9", "EdDSA"), now=NOW, exp=NOW + HOUR_S),
    "expired": mint(K1, now=NOW - HOUR_S),
    "malformed": "a.b.c",
}
# Mostly right tokens in the usual form for a method that takes them: else nothing would be remembered when things change.
tokens_of_calls = st.sampled_from([*["alice"] * 4, "bob", "bob", "soon over", "soon over", *TOKENS]).map(TOKENS.__getitem__)
forms = st.sampled_from(["Bearer {}"] * 16 + ["bearer {}", "Bearer  {}", "{}", "Bearer {}=", "Basic {}"])
values = st.builds(str.format, forms, tokens_of_calls)
methods = st.just(METHODS[0]) | st.sampled_from(METHODS)
other_entries: list[tuple[str, str | bytes]] = [("user-agent", "x"), ("authorization", b"Bearer x"), ("authorization-bin", b"")]
entries = st.tuples(st.just("authorization"), values) | st.sampled_from(other_entries)
one_value = st.builds(lambda value: [("user-agent", "x"), ("authorization", value)], values)
calls = one_value | one_value | one_value | st.lists(entries, max_size=3)


class Turning:
    """An issuer's keys, fetched when the test says so: what `Refresher` does, without its threads."""

    def __init__(self, clock: Clock, policy: CachePolicy) -> None:
        self.clock, self.policy, self.state = clock, policy, CacheState()

    def ask(self, query: Query) -> Use | Wait:
        decision = decide(self.state, query, self.clock(), self.policy)
        if isinstance(decision, Refuse):
            raise decision.error
        return decision if isinstance(decision, Use) else Wait(Future())

    def usable_for_s(self) -> float:
        return self.state.fetched_at + self.state.fresh_for_s + self.policy.max_stale_s - self.clock()

    def start(self) -> None: ...
    def close(self) -> None: ...
    def on_change(self, callback: Callable[[], None]) -> None: ...


BASE: Final = Authenticator(
    [Issuer(iss, audiences=[AUDIENCE], jwks=jwks(K1)) for iss in (ISSUER, OTHER)],
    policies=Policies(find={SERVICE: Declared(SERVICE, POLICIES)}.get),
).gate


def gate_of(clock: Clock, keys: Turning, verdicts: VerdictCachePolicy) -> Gate:
    """`BASE` with a clock, keys and a memory of its own."""
    trusted = {iss: replace(each, keys=keys) for iss, each in BASE.trusted.items()}
    cache = VerdictCache[Remembered](verdicts, lambda remembered: remembered.token_bytes)
    return replace(BASE, trusted=trusted, clock=clock, cache=cache, cached_for_s=verdicts.max_age_s, headers={})


class AnyOrderOfCalls(RuleBasedStateMachine):
    """Each call is answered twice: as a driver does it, and by the long way."""

    @initialize(
        hashed=st.booleans(),
        max_entries=st.sampled_from([2, 4, 10_000]),
        max_age_s=st.sampled_from([50.0, 300.0, 86_400.0]),
        max_stale_s=st.sampled_from([0, 60, 86_400]),
    )
    def begin(self, hashed: bool, max_entries: int, max_age_s: float, max_stale_s: int) -> None:
        self.clock = Clock(NOW)
        self.keys = Turning(self.clock, CachePolicy(max_stale_s=max_stale_s))
        verdicts = VerdictCachePolicy(max_entries=max_entries, max_age_s=max_age_s, hashed=hashed)
        self.gate = gate_of(self.clock, self.keys, verdicts)
        self.keys_come("12", None)

    @rule(method=methods, call=calls, times=st.integers(1, 4))
    def a_call_comes(self, method: str, call: Metadata, times: int) -> None:
        for _ in range(times):
            quick = verdict(the_drivers_way, self.gate, method, call)
            note(f"{method} {call}: {quick}")
            assert quick == verdict(the_long_way, self.gate, method, call)

    @rule(names=st.lists(st.sampled_from(["alice", "bob", "soon over", "without kid"]), min_size=1, max_size=3))
    def right_calls_come_again_and_again(self, names: list[str]) -> None:
        for name in names:
            self.a_call_comes(METHODS[0], [("authorization", f"Bearer {TOKENS[name]}")], 3)

    @rule(seconds=st.sampled_from([*[0.5, 10.0, 10.0, 30.0] * 3, 61.0, 61.0, 300.0, 601.0, 5_000.0, 90_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(keys=st.sampled_from(list(SETS)), max_age_s=st.none() | st.sampled_from([0.0, 61.0, 1e6]))
    def keys_come(self, keys: str, max_age_s: float | None) -> None:
        self.keys.state = succeeded(self.keys.state, SETS[keys], max_age_s, self.clock(), self.keys.policy, 0.0)

    @rule()
    def a_fetch_fails(self) -> None:
        self.keys.state = failed(self.keys.state, "HTTP status 503", None, self.clock(), self.keys.policy, 0.0)

    @rule(kid=st.sampled_from(["k2", "k9", None]))
    def a_fetch_begins(self, kid: str | None) -> None:
        if not self.keys.state.fetching:
            self.keys.state = started(self.keys.state, kid, self.clock(), self.keys.policy)


TestAnyOrderOfCalls = AnyOrderOfCalls.TestCase
TestAnyOrderOfCalls.settings = cases(250)


# -- the shortcuts of one token ----------------------------------------------------------------------------------------

rough_values = st.one_of(
    values,
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["Bearer ", "bearer ", "Bearer  ", "Bearer", "Basic ", ""]),
        st.text(alphabet=BASE64URL[::7] + ".=~+/ \t\u00e9", max_size=30),
        st.sampled_from(["", " ", "=", ".", "\n"]),
    ),
    st.builds("Bearer {}".format, st.integers(0, 2_000).map(lambda length: "a.b." + "A" * length)),
)


@cases(500)
@given(rough_values, st.sampled_from([256, 300, 1_000, 16_384]))
def test_a_value_in_the_usual_form_is_read_as_one_in_any_other_form(value: str, max_token_bytes: int) -> None:
    """The reader asks RFC 6750's pattern only of what is no compact JWS. Nobody may be able to tell."""
    clock = Clock(NOW)
    gate = replace(gate_of(clock, Turning(clock, CachePolicy()), VerdictCachePolicy()), max_token_bytes=max_token_bytes)

    def said_of(read: Callable[[], object]) -> object:
        try:
            return read()
        except AuthError as error:
            return (error.reason, error.detail)

    assert said_of(lambda: gate.read_value(value).jws) == said_of(
        lambda: gate.candidate(parse(bearer_token(value, max_token_bytes))).jws
    )


header_members = st.fixed_dictionaries(
    {"alg": st.sampled_from(["EdDSA", "RS256", "none"])},
    optional={"kid": st.text(max_size=5), "typ": st.sampled_from(["JWT", "at+jwt", 5])},
)


@cases(200)
@given(st.lists(header_members, min_size=1, max_size=6))
def test_a_header_that_is_known_is_what_would_be_read_of_it(headers: list[dict[str, object]]) -> None:
    parts = [base64url(json.dumps(members).encode()).encode() for members in headers]
    known = {}
    for part in parts:
        try:
            known[part] = parse_header(part)
        except AuthError:
            continue
    claims = base64url(b"{}")
    for part in [*parts, *parts]:
        token = f"{part.decode()}.{claims}.AA"
        try:
            expected = parse(token)
        except AuthError:
            assert part not in known
            continue
        assert parse(token, known) == expected


def warm_gate() -> Gate:
    clock = Clock(NOW)
    keys = Turning(clock, CachePolicy())
    keys.state = succeeded(keys.state, SETS["12"], None, NOW, keys.policy, 0.0)
    return gate_of(clock, keys, VerdictCachePolicy())


@pytest.mark.parametrize("other", ["Bearer a.b.c", "Basic YTpi", "", b"Bearer x", "the same"])
@pytest.mark.parametrize("known_comes_last", [False, True])
def test_a_known_token_beside_another_entry_is_refused_as_an_unknown_one_is(other: str | bytes, known_comes_last: bool) -> None:
    gate, value = warm_gate(), f"Bearer {TOKENS['alice']}"
    for _ in range(3):
        assert verdict(the_drivers_way, gate, METHODS[0], [("authorization", value)])[0] == "claims"
    two: Metadata = [("authorization", value), ("authorization", value if other == "the same" else other)]
    call = two[::-1] if known_comes_last else two
    assert gate.known(METHODS[0], call) is None
    assert verdict(the_drivers_way, gate, METHODS[0], call)[2] == "more than one authorization entry"


def test_the_machine_above_remembers_what_is_accepted_and_nothing_else() -> None:
    gate = warm_gate()
    for name, token in TOKENS.items():
        call = [("authorization", f"Bearer {token}")]
        for _ in range(3):
            verdict(the_drivers_way, gate, METHODS[0], call)
        assert (gate.known(METHODS[0], call) is not None) is (
            name in ("alice", "bob", "soon over", "of another issuer", "authenticated long ago")
        )
