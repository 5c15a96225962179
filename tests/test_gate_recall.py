"""Accepted tokens that come again: for how long they are taken as read, and what ends that at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from grpc_bearer import Authenticator, CachePolicy, ClaimRule, Issuer, Policies, Policy, Reason, Streams
from grpc_bearer.claims import Claims
from grpc_bearer.explain import explain
from grpc_bearer.gate import Candidate, Gate
from grpc_bearer.keys.cache import Use
from grpc_bearer.keys.jwks import Key
from grpc_bearer.keys.refresher import Refresher, Wait
from grpc_bearer.policy.model import AUTHENTICATED
from grpc_bearer.verdict_cache import VerdictCachePolicy
from tests.support.authenticators import OTHER, static
from tests.support.clock import Clock
from tests.support.key_source import Scripted, key_for, query
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint
from tests.support.verdicts import refusal, refused
from tests.support.waiting import PATIENCE_S

NOW = 1_800_000_000.0
FIRST, SECOND = key("k1", "EdDSA"), key("k2", "EdDSA")


def use_of(gate: Gate, token: str) -> tuple[Candidate, Key]:
    """The token as far as it is read before its signature, and its key."""
    authorization = f"Bearer {token}"
    candidate = gate.read_value(authorization, gate.fingerprint(authorization))
    step = gate.key_for(candidate)
    assert isinstance(step, Use), "the key is not at hand"
    return candidate, step.key


def accept(gate: Gate, token: str, policy: Policy = AUTHENTICATED) -> Claims:
    """The claims of a token that is verified, and remembered by that: it is seen for the second time."""
    use_of_it = use_of(gate, token)
    gate.cache.is_seen_again(use_of_it[0].fingerprint)
    return gate.accept(*use_of_it, policy)


def recall(gate: Gate, token: str, policy: Policy = AUTHENTICATED) -> Claims | None:
    return gate.recall(gate.fingerprint(f"Bearer {token}"), policy)


def known(gate: Gate, token: str) -> bool:
    return recall(gate, token) is not None


def remembering(clock: Clock | None = None, leeway_s: float = 30.0, max_age_s: float = 300.0) -> Gate:
    """Keys given in code, which are good for ever."""
    issuer = Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()), leeway_s=leeway_s)
    return Authenticator([issuer], verdicts=VerdictCachePolicy(max_age_s=max_age_s), clock=clock or Clock(NOW)).gate


# -- for how long ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifetime_s", "leeway_s", "max_age_s", "remembered_for_s"),
    [
        (60, 30.0, 300.0, 90.0),
        (60, 0.0, 300.0, 60.0),
        (3600, 30.0, 300.0, 300.0),
        (3600, 30.0, 86_400.0, 3630.0),
        (270, 30.0, 300.0, 300.0),
        (3600, 30.0, 0.5, 0.5),
    ],
)
def test_a_token_is_remembered_until_its_end_or_the_cap(
    lifetime_s: int, leeway_s: float, max_age_s: float, remembered_for_s: float
) -> None:
    clock = Clock(NOW)
    gate, token = remembering(clock, leeway_s, max_age_s), mint(now=NOW, exp=int(NOW) + lifetime_s)
    accept(gate, token)
    clock.advance(remembered_for_s - 0.25)
    verdict = recall(gate, token)
    assert verdict is not None
    assert verdict.sub == "user-1"
    clock.advance(0.25)
    assert not known(gate, token)
    assert len(gate.cache) == 0  # and gives its room back


def test_a_hit_does_not_lengthen_the_time() -> None:
    clock = Clock(NOW)
    gate, token = remembering(clock), mint(now=NOW, exp=int(NOW) + 3600)
    accept(gate, token)
    for _ in range(29):
        clock.advance(10)
        assert known(gate, token)
    clock.advance(10)
    assert not known(gate, token)


def test_a_token_that_was_accepted_within_the_leeway_is_remembered_for_what_is_left_of_it() -> None:
    clock = Clock(NOW + 80)
    gate, token = remembering(clock), mint(now=NOW)  # exp is NOW + 60
    accept(gate, token)
    clock.advance(9.75)
    assert known(gate, token)
    clock.advance(0.25)
    assert not known(gate, token)
    with refused(Reason.TOKEN_EXPIRED, "exp has passed"):
        accept(gate, token)


class Fetched:
    """A gate whose keys come from a source in code, on one clock with the tokens."""

    def __init__(self, *kids: str, cache: CachePolicy | None = None) -> None:
        self.source, self.clock = Scripted(*kids), Clock(NOW)
        issuer = Issuer(ISSUER, audiences=[AUDIENCE], key_source=self.source)
        gate = Authenticator([issuer], clock=self.clock).gate
        policy = cache or CachePolicy()
        self.keys = Refresher(self.source, policy, name=ISSUER, timeout_s=20.0, monotonic=self.clock, jitter=lambda: 0.0)
        self.gate = replace(gate, trusted={ISSUER: replace(gate.trusted[ISSUER], keys=self.keys)})

    def __enter__(self) -> Fetched:
        key_for(self.keys, self.source.kids[0])
        return self

    def __exit__(self, *_error: object) -> None:
        self.keys.close()

    def fetch(self, *kids: str) -> None:
        """Have the keys fetched anew, as a `kid` never seen does; then they are those of `kids`."""
        self.source.kids = kids
        step = self.keys.ask(query("never seen"))
        assert isinstance(step, Wait)
        step.flight.result(PATIENCE_S)


def test_a_token_is_remembered_no_longer_than_its_keys_may_serve() -> None:
    with Fetched("k1", cache=CachePolicy(min_fresh_s=1, fresh_s=60, max_stale_s=10)) as fetched:
        token = mint(FIRST, now=NOW, exp=int(NOW) + 3600)
        fetched.clock.advance(30)
        accept(fetched.gate, token)
        fetched.clock.advance(39.75)
        assert known(fetched.gate, token)
        fetched.clock.advance(0.25)
        assert not known(fetched.gate, token)
        assert fetched.source.calls == 1


# -- what ends it at once ----------------------------------------------------------------------------------------------


def test_a_key_that_is_removed_takes_its_tokens_along_at_the_very_next_call() -> None:
    with Fetched("k1", "k2") as fetched:
        first, second = mint(FIRST, now=NOW), mint(SECOND, now=NOW)
        for token in (first, second):
            accept(fetched.gate, token)
            assert known(fetched.gate, token)
        fetched.fetch("k2")
        assert not known(fetched.gate, first)
        assert not known(fetched.gate, second)  # of the former set as well: it costs one signature, and is known again
        assert accept(fetched.gate, second).key_id == "k2"
        assert known(fetched.gate, second)
        assert not known(fetched.gate, first)


def test_the_same_keys_fetched_anew_change_nothing() -> None:
    with Fetched("k1") as fetched:
        token = mint(FIRST, now=NOW)
        accept(fetched.gate, token)
        before = fetched.keys.state.generation
        fetched.fetch("k1")
        assert (fetched.keys.state.generation, fetched.source.calls) == (before, 2)
        assert known(fetched.gate, token)


def test_a_key_that_comes_to_the_set_is_a_change_of_the_set() -> None:
    with Fetched("k1") as fetched:
        token = mint(FIRST, now=NOW)
        accept(fetched.gate, token)
        fetched.fetch("k1", "k2")
        assert not known(fetched.gate, token)


@pytest.mark.parametrize("kids", [("k2",), ("k1", "k2")], ids=["without it", "with its like"])
def test_a_token_is_not_remembered_when_the_set_of_its_key_has_been_replaced_meanwhile(kids: tuple[str, ...]) -> None:
    """A slow call must not bring back what a faster change has taken away."""
    with Fetched("k1") as fetched:
        gate, token = fetched.gate, mint(FIRST, now=NOW)
        candidate, its_key = use_of(gate, token)
        gate.cache.is_seen_again(candidate.fingerprint)
        fetched.fetch(*kids)
        assert gate.accept(candidate, its_key, AUTHENTICATED).key_id == "k1"
        assert not known(gate, token)
        assert len(gate.cache) == 0


def test_the_headers_that_are_remembered_are_bounded_and_a_long_one_is_not() -> None:
    gate, most = static().gate, 0
    for number in range(1_010):
        accept(gate, mint(header={"x": number}))
        most = max(most, len(gate.headers))
    assert most == 1_000
    assert 0 < len(gate.headers) < 1_000
    before = set(gate.headers)
    accept(gate, mint(header={"x": "y" * 600}))
    assert set(gate.headers) == before


def test_a_header_is_read_once_and_a_refused_tokens_never_remembered() -> None:
    gate = static().gate
    with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
        accept(gate, forged())
    assert not gate.headers
    for jti in ("1", "2"):
        accept(gate, mint(jti=jti))
    assert len(gate.headers) == 1


def issuers(*names: str) -> list[Issuer]:
    return [Issuer(name, audiences=[AUDIENCE], jwks=jwks(key())) for name in names]


RELOADS: dict[str, Callable[[Authenticator], None]] = {
    "of the same issuers": lambda auth: auth.reload(issuers=issuers(ISSUER)),
    "of issuers without its own": lambda auth: auth.reload(issuers=issuers(OTHER)),
    "of other rules": lambda auth: auth.reload(policies=Policies(public_methods=["/a.B/C"])),
    "of nothing": lambda auth: auth.reload(),
}


@pytest.mark.parametrize("reload", RELOADS.values(), ids=RELOADS)
def test_after_a_reload_nothing_is_remembered(reload: Callable[[Authenticator], None]) -> None:
    auth, token = static(), mint()
    accept(auth.gate, token)
    old = auth.gate
    reload(auth)
    assert not known(auth.gate, token)
    assert known(old, token)  # a call under way keeps to the version it began with


def test_what_a_call_under_way_finds_after_a_reload_is_not_remembered_for_later_ones() -> None:
    auth, token = static(), mint()
    old = auth.gate
    candidate, its_key = use_of(old, token)
    auth.reload(issuers=issuers(ISSUER))
    for _ in range(2):
        old.accept(candidate, its_key, AUTHENTICATED)
    assert known(old, token)
    assert not known(auth.gate, token)


# -- what gets in ------------------------------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[], str]] = {
    "forged": forged,
    "expired": lambda: mint(exp=int(time.time()) - 3600),
    "not yet valid": lambda: mint(nbf=int(time.time()) + 3600),
    "for another audience": lambda: mint(aud="billing"),
    "of another issuer": lambda: mint(iss=OTHER),
    "of an unknown key": lambda: mint(key("k9")),
    "of an algorithm that is not allowed": lambda: mint(key("k1", "PS512")),
    "malformed": lambda: "a.b.c",
}


@pytest.mark.parametrize("bearing", REFUSED.values(), ids=REFUSED)
def test_a_token_that_is_refused_is_never_remembered(bearing: Callable[[], str]) -> None:
    gate, token = static().gate, bearing()
    assert refusal(lambda: accept(gate, token)) is not None
    assert not known(gate, token)
    assert len(gate.cache) == 0


def test_a_token_that_expires_while_its_key_is_waited_for_is_not_remembered() -> None:
    clock = Clock(NOW)
    gate = static(clock=clock).gate
    candidate, its_key = use_of(gate, mint(now=NOW))
    clock.advance(90)
    with refused(Reason.TOKEN_EXPIRED, "exp has passed"):
        gate.accept(candidate, its_key, AUTHENTICATED)
    assert len(gate.cache) == 0


def test_a_token_is_known_by_all_of_what_the_call_carries() -> None:
    gate, token = static().gate, mint()
    accept(gate, token)
    assert known(gate, token)
    for other in (token[:-1], f"{token} ", f" {token}", f"{token}=", token.swapcase(), ""):
        assert not known(gate, other)
    assert gate.recall(gate.fingerprint(token), AUTHENTICATED) is None
    assert gate.recall(gate.fingerprint(f"bearer {token}"), AUTHENTICATED) is None  # another spelling is verified for itself


def test_the_hash_of_a_remembered_token_is_no_credential() -> None:
    gate, token = static(verdicts=VerdictCachePolicy(hashed=True)).gate, mint()
    accept(gate, token)
    assert known(gate, token)
    fingerprint = gate.fingerprint(f"Bearer {token}")
    assert fingerprint in gate.cache.young
    for value in (fingerprint, fingerprint.hex() if isinstance(fingerprint, bytes) else ""):
        assert gate.known("/a.B/C", [("authorization", value)]) is None
        with (
            refused(Reason.TOKEN_MALFORMED, "authorization is not text")
            if isinstance(value, bytes)
            else refused(Reason.TOKEN_MISSING, "authorization is of another scheme")
        ):
            gate.read([("authorization", value)])


def test_with_the_memory_off_every_token_is_verified_anew() -> None:
    gate, token = static(verdicts=VerdictCachePolicy(max_entries=0)).gate, mint()
    for _ in range(2):
        assert accept(gate, token).sub == "user-1"
        assert not known(gate, token)


# -- the policy is asked each time -------------------------------------------------------------------------------------

SCOPED = Policy(scopes=("admin",))
LACKS_A_SCOPE = "the token lacks a scope that the method requires"


def test_a_token_that_lacks_a_scope_is_remembered_and_refused_each_time() -> None:
    gate, token = static().gate, mint()
    with refused(Reason.INSUFFICIENT_SCOPE, LACKS_A_SCOPE):
        accept(gate, token, SCOPED)
    for _ in range(3):
        with refused(Reason.INSUFFICIENT_SCOPE, LACKS_A_SCOPE):
            recall(gate, token, SCOPED)
        assert known(gate, token)  # for the methods that it may call


UNMET: dict[str, tuple[Policy, Reason]] = {
    "scopes": (SCOPED, Reason.INSUFFICIENT_SCOPE),
    "any scope": (Policy(any_scopes=("admin", "root")), Reason.INSUFFICIENT_SCOPE),
    "a claim": (Policy(claims=(ClaimRule("department", any_of=("ops",)),)), Reason.POLICY_DENIED),
    "an issuer": (Policy(issuers=(OTHER,)), Reason.POLICY_DENIED),
    "an audience": (Policy(audiences=("billing",)), Reason.POLICY_DENIED),
    "an age": (Policy(max_age_s=1), Reason.POLICY_DENIED),
}


@pytest.mark.parametrize(("policy", "reason"), UNMET.values(), ids=UNMET)
def test_a_known_token_is_held_to_the_policy_of_each_method(policy: Policy, reason: Reason) -> None:
    gate, token = static().gate, mint(auth_time=1)
    accept(gate, token)
    error = refusal(lambda: recall(gate, token, policy))
    assert error is not None
    assert error.reason is reason
    first_time = refusal(lambda: accept(static().gate, token, policy))
    assert first_time is not None
    assert (error.detail, error.caller_metadata) == (first_time.detail, first_time.caller_metadata)


def test_an_age_is_looked_at_on_each_hit() -> None:
    clock = Clock(NOW)
    policy, token = Policy(max_age_s=100), mint(now=NOW, exp=int(NOW) + 3600, auth_time=int(NOW))
    gate = remembering(clock)
    accept(gate, token, policy)
    clock.advance(100 + 30)
    assert recall(gate, token, policy) is not None
    clock.advance(0.5)
    with refused(Reason.POLICY_DENIED, "the caller authenticated too long ago, or the token does not say when"):
        recall(gate, token, policy)
    assert known(gate, token)


@pytest.mark.parametrize(
    ("policy", "ends_after_exp_s"),
    [
        (AUTHENTICATED, 30.0),
        (Policy(stream_grace_s=10), 40.0),
        (Policy(streams=Streams.FINISH), None),
        (Policy(scopes=()), 30.0),
    ],
)
def test_a_known_tokens_stream_ends_as_the_method_says(policy: Policy, ends_after_exp_s: float | None) -> None:
    gate, token = remembering(), mint(now=NOW)
    accept(gate, token, Policy(streams=Streams.FINISH, scopes=("orders.read",)))
    claims = recall(gate, token, policy)
    assert claims is not None
    assert gate.ends_at(claims, policy) == (None if ends_after_exp_s is None else NOW + 60 + ends_after_exp_s)


def test_the_verdict_of_a_hit_is_that_of_the_first_time() -> None:
    gate, token, policy = remembering(), mint(now=NOW), Policy(scopes=("orders.read",), stream_grace_s=5)
    first = accept(gate, token, policy)
    again = recall(gate, token, policy)
    assert again == first
    assert again is not None
    assert (again.aud, again.scopes, again.key_id, again.algorithm) == (first.aud, first.scopes, "k1", "RS256")


def test_what_remembered_tokens_have_in_common_is_kept_once() -> None:
    gate, tokens = remembering(), [mint(now=NOW, jti=f"id-{number}", roles=["a", {"b": []}]) for number in range(2)]
    for token in tokens:
        accept(gate, token)
    first, second = (recall(gate, token) for token in tokens)
    assert first is not None
    assert second is not None
    assert (first["jti"], second["jti"]) == ("id-0", "id-1")
    assert first["roles"] == second["roles"] == ("a", {"b": ()})
    for name in ("iss", "client_id", "scope"):
        assert first[name] is second[name]
    assert first.scopes is second.scopes
    assert first.aud is second.aud
    assert all(one is other for one, other in zip(first, second, strict=True))


def test_what_tokens_have_in_common_is_bounded_whatever_their_claims_are_called() -> None:
    gate = remembering()
    long = "x" * 300
    for number in range(1_100):
        claims: dict[str, Any] = {f"claim-{number}": 1, long: 2}
        accept(gate, mint(now=NOW, jti=f"id-{number}", **claims))
    assert len(gate.in_common) <= 1_020
    assert long not in gate.in_common


# -- explain -----------------------------------------------------------------------------------------------------------


def test_an_explanation_neither_writes_the_memory_nor_reads_it() -> None:
    auth, token = static(), mint()
    assert explain(auth, token).accepted
    assert len(auth.gate.cache) == 0
    verified = accept(auth.gate, token)
    assert known(auth.gate, token)
    explained = explain(auth, token)
    assert explained.claims == verified
    assert explained.claims is not verified  # it was verified anew
    assert {step.outcome for step in explained.steps} == {"passed"}
    assert len(auth.gate.cache) == 1
