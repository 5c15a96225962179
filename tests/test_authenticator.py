"""Metadata to claims in three steps, several issuers apart from one another, and the state that an operator sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from grpc_bearer import Authenticator, AuthError, CachePolicy, ConfigurationError, FetchOptions, Issuer, IssuerStatus, Reason
from grpc_bearer.authenticator import DEFAULT_MAX_TOKEN_BYTES, still_no_key
from grpc_bearer.keys.cache import Query, Use
from grpc_bearer.keys.refresher import Wait
from tests.support.clock import Clock
from tests.support.jwks_server import JwksServer
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, compact, forged, jwks, key, mint, new_key
from tests.support.verdicts import authenticate, metadata, refused
from tests.support.waiting import PATIENCE_S, eventually

OTHER = "https://other.example"


def static(**options: Any) -> Authenticator:
    return Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))], **options)


def background_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "grpc-bearer-keys"}


def fetched_from(server: JwksServer, *further: Issuer, **options: Any) -> Authenticator:
    made_with: dict[str, Any] = {"audiences": [AUDIENCE], "jwks_uri": server.jwks_uri} | options
    return Authenticator([Issuer(ISSUER, **made_with), *further])


# -- the steps ---------------------------------------------------------------------------------------------------------


def test_a_call_becomes_claims_in_three_steps() -> None:
    auth = static()
    candidate = auth.read(metadata(mint(sub="alice")))
    assert candidate.query == Query("k1", "RS256")
    step = auth.key_for(candidate)
    assert isinstance(step, Use)
    claims = auth.accept(candidate, step.key)
    assert (claims.iss, claims.sub, claims.key_id, claims.algorithm) == (ISSUER, "alice", "k1", "RS256")


def test_a_key_that_is_not_at_hand_comes_with_the_flight_that_is_waited_for() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        candidate = auth.read(metadata(mint()))
        step = auth.key_for(candidate)
        assert isinstance(step, Wait)
        step.flight.result(PATIENCE_S)
        assert authenticate(auth, mint()).key_id == "k1"
        assert server.fetches == 1


def test_a_token_that_expired_while_its_key_was_waited_for_is_refused() -> None:
    clock = Clock(1_800_000_000.0)
    auth = static(clock=clock)
    candidate = auth.read(metadata(mint(now=clock())))  # good for a minute
    step = auth.key_for(candidate)
    assert isinstance(step, Use)
    clock.advance(60 + 29.5)
    assert auth.accept(candidate, step.key).sub == "user-1"  # within the leeway
    clock.advance(0.5)
    with pytest.raises(AuthError) as caught:
        auth.accept(candidate, step.key)
    assert caught.value.reason is Reason.TOKEN_EXPIRED
    assert caught.value.caller_metadata == {"expired_at": "2027-01-15T08:01:00Z"}


def test_the_clock_that_is_passed_in_rules_over_the_dates() -> None:
    clock = Clock(1_000_000.0)
    auth = static(clock=clock)
    assert authenticate(auth, mint(now=clock())).exp == 1_000_060
    with refused(Reason.TOKEN_NOT_YET_VALID, "iat is in the future"):
        auth.read(metadata(mint()))
    clock.now = time.time()
    with refused(Reason.TOKEN_EXPIRED, "exp has passed"):
        auth.read(metadata(mint(now=1_000_000)))


def test_a_call_waits_no_longer_than_a_fetch_may_take() -> None:
    auth = Authenticator(
        [
            Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key())),
            Issuer(OTHER, audiences=[AUDIENCE], jwks=jwks(key()), fetch=FetchOptions(timeout_s=1.5)),
        ]
    )
    assert auth.wait_limit_s(auth.read(metadata(mint()))) == FetchOptions().timeout_s == 5.0
    assert auth.wait_limit_s(auth.read(metadata(mint(iss=OTHER)))) == 1.5
    error = still_no_key()
    assert (error.reason, error.detail) == (Reason.KEYS_UNAVAILABLE, "the issuer's keys did not come in time")


# -- the size of a token -----------------------------------------------------------------------------------------------


def test_a_token_may_be_as_long_as_is_said_and_no_longer() -> None:
    token = mint()
    assert authenticate(static(max_token_bytes=len(token)), token).sub == "user-1"
    with refused(Reason.TOKEN_MALFORMED, "token too long"):
        static(max_token_bytes=len(token) - 1).read(metadata(token))


def test_a_token_may_have_16_kib_when_nothing_is_said() -> None:
    assert DEFAULT_MAX_TOKEN_BYTES == 16_384
    room = DEFAULT_MAX_TOKEN_BYTES - len(mint(padding=""))
    fitting, over = mint(padding="x" * (room * 3 // 4 - 2)), mint(padding="x" * (room * 3 // 4 + 2))
    assert DEFAULT_MAX_TOKEN_BYTES - 8 < len(fitting) <= DEFAULT_MAX_TOKEN_BYTES < len(over)
    assert authenticate(static(), fitting).sub == "user-1"
    with refused(Reason.TOKEN_MALFORMED, "token too long"):
        static().read(metadata(over))


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
        two_issuers().read(metadata(mint(iss=iss)))


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
            auth.read(metadata(token()))
        assert background_threads() <= before
        assert server.requests == []


def test_a_token_costs_a_fetch_of_its_own_issuer_only() -> None:
    with JwksServer(key()) as ours, JwksServer(key()) as theirs:
        second = Issuer(OTHER, audiences=[AUDIENCE], jwks_uri=theirs.jwks_uri)
        with fetched_from(ours, second) as auth:
            step = auth.key_for(auth.read(metadata(mint(iss=OTHER))))
            assert isinstance(step, Wait)
            step.flight.result(PATIENCE_S)
            assert authenticate(auth, mint(iss=OTHER)).iss == OTHER
            assert (ours.fetches, theirs.fetches) == (0, 1)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_that_make_no_sense_are_configuration_errors() -> None:
    one = Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))
    with pytest.raises(ConfigurationError, match=r"^issuers: empty, so every call would be refused; list at least one Issuer$"):
        Authenticator([])
    with pytest.raises(ConfigurationError, match=r"^issuers: 'https://issuer.example' is listed twice; merge the two$"):
        Authenticator([one, Issuer(ISSUER, audiences=["billing"], jwks=jwks(key()))])
    with pytest.raises(ConfigurationError, match=r"^max_token_bytes: has to be 1 or more$"):
        Authenticator([one], max_token_bytes=0)
    assert Authenticator([one], max_token_bytes=1).ready()
    with pytest.raises(ConfigurationError, match=r"^jwks: the JWK Set has no usable key"):
        Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks={"keys": []})])


# -- the keys' state ---------------------------------------------------------------------------------------------------


def test_construction_fetches_nothing_and_starts_no_thread() -> None:
    with JwksServer(key()) as server:
        before = background_threads()
        auth = fetched_from(server)
        assert background_threads() <= before
        assert not auth.ready()
        assert auth.status() == (IssuerStatus(ISSUER, False, (), None, False, 0, None, ()),)
        assert server.requests == []


def test_warm_waits_until_every_issuer_has_keys() -> None:
    with JwksServer(key(), key("k2", "ES256")) as server, JwksServer(key("k3")) as theirs:
        theirs.delay_s = 0.05
        second = Issuer(OTHER, audiences=[AUDIENCE], jwks_uri=theirs.jwks_uri)
        with fetched_from(server, second) as auth:
            assert auth.warm(PATIENCE_S)
            assert auth.ready()
            first, other = auth.status()
    assert (first.issuer, first.ready, first.key_ids, first.stale) == (ISSUER, True, ("k1", "k2"), False)
    assert (other.issuer, other.key_ids) == (OTHER, ("k3",))
    assert first.fetched_age_s is not None
    assert 0 <= first.fetched_age_s < PATIENCE_S
    assert (first.failures, first.last_error, first.skipped) == (0, None, ())


def test_warm_gives_up_in_time_and_then_nothing_is_ready() -> None:
    with JwksServer(key()) as server, JwksServer(key()) as hanging:
        hanging.hang()
        second = Issuer(OTHER, audiences=[AUDIENCE], jwks_uri=hanging.jwks_uri)
        with fetched_from(server, second) as auth:
            assert not auth.warm(0.05)
            assert eventually(lambda: auth.status()[0].ready)
            assert not auth.status()[1].ready
            assert not auth.ready()
            hanging.resume()
            assert auth.warm(PATIENCE_S)


def test_keys_given_in_code_are_ready_at_once() -> None:
    with static() as auth:
        assert auth.ready()
        assert auth.warm(0)
        (status,) = auth.status()
    assert (status.ready, status.key_ids, status.stale, status.failures) == (True, ("k1",), False, 0)
    assert status.fetched_age_s is not None


def test_start_does_not_wait_and_begins_one_fetch() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        server.hang()
        auth.start()
        auth.start()
        assert not auth.ready()
        server.resume()
        assert eventually(auth.ready)
        assert server.fetches == 1


def test_status_tells_of_skipped_keys_and_of_failed_fetches() -> None:
    short = new_key("short", rsa_bits=1024)
    policy = CachePolicy(fresh_s=0.05, min_fresh_s=0.05, max_fresh_s=0.05, max_stale_s=3600)
    with JwksServer(key(), short) as server, fetched_from(server, cache=policy) as auth:
        assert auth.warm(PATIENCE_S)
        (status,) = auth.status()
        assert status.key_ids == ("k1",)
        assert status.skipped == ("keys[1]: an RSA key has to have 2048 to 8192 bits",)
        server.status = 503
        assert eventually(lambda: auth.status()[0].stale)
        assert eventually(lambda: auth.status()[0].failures > 0)
        (status,) = auth.status()
        assert status.ready
        assert status.last_error is not None
        assert "503" in status.last_error
        assert authenticate(auth, mint()).key_id == "k1"  # stale keys serve


def test_keys_that_are_too_stale_are_neither_ready_nor_listed() -> None:
    policy = CachePolicy(fresh_s=0.05, min_fresh_s=0.05, max_fresh_s=0.05, max_stale_s=0, backoff_initial_s=60)
    with JwksServer(key()) as server, fetched_from(server, cache=policy) as auth:
        assert auth.warm(PATIENCE_S)
        server.status = 503
        assert eventually(lambda: auth.status()[0].failures > 0 and not auth.ready())
        (status,) = auth.status()
        assert (status.ready, status.key_ids, status.stale) == (False, (), False)
        assert status.fetched_age_s is not None
        with pytest.raises(AuthError) as caught:
            auth.key_for(auth.read(metadata(mint())))
        assert caught.value.reason is Reason.KEYS_UNAVAILABLE


def test_on_change_is_called_after_the_fetches_of_every_issuer() -> None:
    seen: list[tuple[bool, ...]] = []
    with JwksServer(key()) as server, JwksServer(key()) as theirs:
        theirs.status = 500
        soon = CachePolicy(backoff_initial_s=0.02, backoff_max_s=0.02)
        second = Issuer(OTHER, audiences=[AUDIENCE], jwks_uri=theirs.jwks_uri, cache=soon)
        third = Issuer("static", audiences=[AUDIENCE], jwks=jwks(key()))
        with fetched_from(server, second, third) as auth:
            auth.on_change(lambda: seen.append(tuple(status.ready for status in auth.status())))
            auth.start()
            assert eventually(lambda: (True, False, True) in seen)
            theirs.status = 200
            assert eventually(lambda: (True, True, True) in seen)


def test_close_ends_the_threads_and_leaves_the_keys_at_hand() -> None:
    with JwksServer(key()) as server:
        before = background_threads()
        with fetched_from(server) as auth:
            assert auth.warm(PATIENCE_S)
            assert len(background_threads() - before) == 1
        auth.close()
        assert background_threads() <= before
        assert authenticate(auth, mint()).key_id == "k1"
        with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
            auth.key_for(auth.read(metadata(mint(key("k2")))))
        with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
            authenticate(auth, forged())
        assert server.fetches == 1


def test_the_authenticator_is_closed_by_an_error_in_its_block_too() -> None:
    with JwksServer(key()) as server:
        auth = fetched_from(server)
        with pytest.raises(ZeroDivisionError), auth:
            raise ZeroDivisionError
        with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
            auth.key_for(auth.read(metadata(mint())))
        assert not auth.warm(0)
