"""Metadata to claims in three steps, and several issuers apart from one another."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from grpc_bearer import Authenticator, AuthError, FetchOptions, Issuer, Policies, Policy, Reason, Streams
from grpc_bearer.authenticator import DEFAULT_MAX_TOKEN_BYTES
from grpc_bearer.gate import still_no_key, wait_limit_s
from grpc_bearer.keys.cache import Query, Use
from grpc_bearer.keys.refresher import Wait
from grpc_bearer.policy.model import AUTHENTICATED, DENY, PUBLIC
from grpc_bearer.policy.protos import Declared
from tests.support.authenticators import OTHER, background_threads, fetched_from, static
from tests.support.clock import Clock
from tests.support.jwks_server import JwksServer
from tests.support.policies import OPTIONS
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, compact, forged, jwks, key, mint
from tests.support.verdicts import authenticate, metadata, refused
from tests.support.waiting import PATIENCE_S

# -- the steps ---------------------------------------------------------------------------------------------------------


def test_a_call_becomes_claims_in_three_steps() -> None:
    auth = static()
    candidate = auth.gate.read(metadata(mint(sub="alice")))
    assert candidate.query == Query("k1", "RS256")
    step = auth.gate.key_for(candidate)
    assert isinstance(step, Use)
    claims = auth.gate.accept(candidate, step.key, AUTHENTICATED)
    assert (claims.iss, claims.sub, claims.key_id, claims.algorithm) == (ISSUER, "alice", "k1", "RS256")


def test_a_key_that_is_not_at_hand_comes_with_the_flight_that_is_waited_for() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        candidate = auth.gate.read(metadata(mint()))
        step = auth.gate.key_for(candidate)
        assert isinstance(step, Wait)
        step.flight.result(PATIENCE_S)
        assert authenticate(auth, mint()).key_id == "k1"
        assert server.fetches == 1


def test_a_token_that_expired_while_its_key_was_waited_for_is_refused() -> None:
    clock = Clock(1_800_000_000.0)
    auth = static(clock=clock)
    candidate = auth.gate.read(metadata(mint(now=clock())))  # good for a minute
    step = auth.gate.key_for(candidate)
    assert isinstance(step, Use)
    clock.advance(60 + 29.5)
    assert auth.gate.accept(candidate, step.key, AUTHENTICATED).sub == "user-1"  # within the leeway
    clock.advance(0.5)
    with pytest.raises(AuthError) as caught:
        auth.gate.accept(candidate, step.key, AUTHENTICATED)
    assert caught.value.reason is Reason.TOKEN_EXPIRED
    assert caught.value.caller_metadata == {"expired_at": "2027-01-15T08:01:00Z"}


def test_the_clock_that_is_passed_in_rules_over_the_dates() -> None:
    clock = Clock(1_000_000.0)
    auth = static(clock=clock)
    assert authenticate(auth, mint(now=clock())).exp == 1_000_060
    with refused(Reason.TOKEN_NOT_YET_VALID, "iat is in the future"):
        auth.gate.read(metadata(mint()))
    clock.now = time.time()
    with refused(Reason.TOKEN_EXPIRED, "exp has passed"):
        auth.gate.read(metadata(mint(now=1_000_000)))


def test_a_call_waits_no_longer_than_a_fetch_may_take() -> None:
    auth = Authenticator(
        [
            Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key())),
            Issuer(OTHER, audiences=[AUDIENCE], jwks=jwks(key()), fetch=FetchOptions(timeout_s=1.5)),
        ]
    )
    assert wait_limit_s(auth.gate.read(metadata(mint()))) == FetchOptions().timeout_s == 5.0
    assert wait_limit_s(auth.gate.read(metadata(mint(iss=OTHER)))) == 1.5
    error = still_no_key()
    assert (error.reason, error.detail) == (Reason.KEYS_UNAVAILABLE, "the issuer's keys did not come in time")


# -- policies ----------------------------------------------------------------------------------------------------------

METHOD = "/shop.v1.CatalogService/ListItems"


def test_a_method_has_its_policy_unless_it_is_closed_to_everybody() -> None:
    find = {"shop.v1.CatalogService": Declared("shop.v1.CatalogService", {"ListItems": Policy(scopes=("a",)), "Old": DENY})}.get
    auth = static(policies=Policies(find=find))
    assert auth.gate.policy(METHOD) == Policy(scopes=("a",))
    assert auth.gate.policy("/shop.v1.Other/Do") == AUTHENTICATED
    with refused(Reason.POLICY_DENIED, "the method is closed to everybody"):
        auth.gate.policy("/shop.v1.CatalogService/Old")


def test_without_policies_methods_have_what_their_protos_say() -> None:
    assert static().gate.policy(f"/{OPTIONS}/Public") == PUBLIC
    with refused(Reason.POLICY_DENIED, "the method is closed to everybody"):
        static().gate.policy(f"/{OPTIONS}/Deny")


def test_the_policy_is_asked_after_the_signature() -> None:
    policy = Policy(scopes=("a",))
    with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
        authenticate(static(), forged(), policy)
    with refused(Reason.INSUFFICIENT_SCOPE, "the token lacks a scope that the method requires"):
        authenticate(static(), mint(), policy)
    assert authenticate(static(), mint(scope="a"), policy).scopes == {"a"}


@pytest.mark.parametrize(
    ("policy", "ends_after_exp_s"),
    [
        (AUTHENTICATED, 30),
        (Policy(stream_grace_s=10), 40),
        (Policy(streams=Streams.TERMINATE, stream_grace_s=0.5), 30.5),
        (Policy(streams=Streams.FINISH), None),
    ],
)
def test_a_stream_has_until_exp_and_the_leeway_and_the_grace(policy: Policy, ends_after_exp_s: float | None) -> None:
    clock = Clock(1_800_000_000.0)
    gate = static(clock=clock).gate
    candidate = gate.read(metadata(mint(now=clock())))
    step = gate.key_for(candidate)
    assert isinstance(step, Use)
    ends_at = gate.ends_at(gate.accept(candidate, step.key, policy), policy)
    if ends_after_exp_s is None:
        assert ends_at is None
    else:
        assert ends_at == clock() + 60 + ends_after_exp_s
        clock.advance(60)
        assert gate.left_s(ends_at) == ends_after_exp_s
        clock.advance(3600)
        assert gate.left_s(ends_at) == ends_after_exp_s - 3600


# -- the size of a token -----------------------------------------------------------------------------------------------


def test_a_token_may_be_as_long_as_is_said_and_no_longer() -> None:
    token = mint()
    assert authenticate(static(max_token_bytes=len(token)), token).sub == "user-1"
    with refused(Reason.TOKEN_MALFORMED, "token too long"):
        static(max_token_bytes=len(token) - 1).gate.read(metadata(token))


def test_a_token_may_have_16_kib_when_nothing_is_said() -> None:
    assert DEFAULT_MAX_TOKEN_BYTES == 16_384
    room = DEFAULT_MAX_TOKEN_BYTES - len(mint(padding=""))
    fitting, over = mint(padding="x" * (room * 3 // 4 - 2)), mint(padding="x" * (room * 3 // 4 + 2))
    assert DEFAULT_MAX_TOKEN_BYTES - 8 < len(fitting) <= DEFAULT_MAX_TOKEN_BYTES < len(over)
    assert authenticate(static(), fitting).sub == "user-1"
    with refused(Reason.TOKEN_MALFORMED, "token too long"):
        static().gate.read(metadata(over))


# -- several issuers ---------------------------------------------------------------------------------------------------


def two_issuers() -> Authenticator:
    """Each with a key of its own under the same `kid`, and with an audience and an algorithm of its own."""
    return Authenticator(
        [
            Issuer(ISSUER, audiences=["orders"], algorithms=["RS256"], jwks=jwks(key("k1"))),
            Issuer(OTHER, audiences=["billing"], algorithms=["RS256", "ES256"], jwks=jwks(THEIRS, key("e1", "ES256"))),
        ]
    )


THEIRS = SigningKey("k1", "RS256", key("another").private_key)


def test_each_issuer_is_held_to_its_own_keys_audiences_and_algorithms() -> None:
    auth = two_issuers()
    assert authenticate(auth, mint(key("k1"), aud="orders")).iss == ISSUER
    assert authenticate(auth, mint(THEIRS, iss=OTHER, aud="billing")).iss == OTHER
    assert authenticate(auth, mint(key("e1", "ES256"), iss=OTHER, aud="billing")).iss == OTHER
    with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
        authenticate(auth, mint(THEIRS, iss=ISSUER, aud="orders"))
    with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
        authenticate(auth, mint(key("k1"), iss=OTHER, aud="billing"))
    with refused(Reason.TOKEN_INVALID, "aud names none of the accepted audiences"):
        authenticate(auth, mint(THEIRS, iss=OTHER, aud="orders"))
    with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
        authenticate(auth, mint(key("e1", "ES256"), iss=ISSUER, aud="orders"))


@pytest.mark.parametrize(
    "iss", ["", f"{ISSUER}/", ISSUER[:-1], ISSUER.upper(), f" {ISSUER}", f"{ISSUER}\0", f"{ISSUER}\n", "issuer.example", "*"]
)
def test_an_issuer_is_chosen_by_its_exact_name(iss: str) -> None:
    with refused(Reason.TOKEN_INVALID, "iss is not a configured issuer"):
        two_issuers().gate.read(metadata(mint(iss=iss)))


NEVER_ACCEPTED: dict[str, Callable[[], str]] = {
    "no issuer of ours": lambda: mint(iss="https://unlisted.example"),
    "no issuer": lambda: mint(iss=None),
    "iss no string": lambda: mint(iss=[ISSUER]),
    "malformed": lambda: "not.a.token",
    "expired": lambda: mint(now=time.time() - 3600),
    "not yet valid": lambda: mint(nbf=time.time() + 3600),
    "for another audience": lambda: mint(aud="other"),
    "of another type": lambda: mint(header={"typ": "logout+jwt"}),
    "of an algorithm that is not allowed": lambda: mint(key("k1", "PS512")),
    "unsigned": lambda: compact({"alg": "none"}, {"iss": ISSUER}, key()),
    "too long": lambda: "x" * 20_000,
}


@pytest.mark.parametrize("token", NEVER_ACCEPTED.values(), ids=NEVER_ACCEPTED)
def test_a_token_that_could_never_be_accepted_costs_no_fetch_and_no_thread(token: Callable[[], str]) -> None:
    before = background_threads()
    with JwksServer(key()) as server, fetched_from(server) as auth:
        with pytest.raises(AuthError):
            auth.gate.read(metadata(token()))
        assert background_threads() <= before
        assert server.requests == []


def test_a_token_costs_a_fetch_of_its_own_issuer_only() -> None:
    with JwksServer(key()) as ours, JwksServer(key()) as theirs:
        second = Issuer(OTHER, audiences=[AUDIENCE], jwks_uri=theirs.jwks_uri)
        with fetched_from(ours, second) as auth:
            step = auth.gate.key_for(auth.gate.read(metadata(mint(iss=OTHER))))
            assert isinstance(step, Wait)
            step.flight.result(PATIENCE_S)
            assert authenticate(auth, mint(iss=OTHER)).iss == OTHER
            assert (ours.fetches, theirs.fetches) == (0, 1)
