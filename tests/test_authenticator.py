"""The settings of an authenticator, the state that an operator sees, and the life of what is behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from grpc_bearer import Authenticator, AuthError, CachePolicy, ConfigurationError, Issuer, IssuerStatus, Policies, Reason
from grpc_bearer.policy.model import AUTHENTICATED, PUBLIC
from tests.support.authenticators import OTHER, background_threads, fetched_from, static
from tests.support.clock import Clock
from tests.support.jwks_server import JwksServer
from tests.support.logs import logged
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint, new_key
from tests.support.verdicts import authenticate, metadata, refused
from tests.support.waiting import PATIENCE_S, eventually

METHOD = "/shop.v1.CatalogService/ListItems"
CLOCK = Clock()

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
            auth.gate.key_for(auth.gate.read(metadata(mint())))
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
            auth.gate.key_for(auth.gate.read(metadata(mint(key("k2")))))
        with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
            authenticate(auth, forged())
        assert server.fetches == 1


def test_the_authenticator_is_closed_by_an_error_in_its_block_too() -> None:
    with JwksServer(key()) as server:
        auth = fetched_from(server)
        with pytest.raises(ZeroDivisionError), auth:
            raise ZeroDivisionError
        with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
            auth.gate.key_for(auth.gate.read(metadata(mint())))
        assert not auth.warm(0)


# -- reload ------------------------------------------------------------------------------------------------------------


def issuer(name: str = ISSUER, **options: Any) -> Issuer:
    return Issuer(name, **({"audiences": [AUDIENCE], "jwks": jwks(key())} | options))


def test_a_reload_makes_another_gate_and_leaves_the_one_in_use_as_it_is() -> None:
    auth = Authenticator([issuer()], policies=Policies(public_methods=[METHOD]), max_token_bytes=2000, clock=CLOCK)
    before = auth.gate
    auth.reload(issuers=[issuer(OTHER)], policies=Policies())
    after = auth.gate
    assert (list(before.trusted), before.policy(METHOD)) == ([ISSUER], PUBLIC)
    assert (list(after.trusted), after.policy(METHOD)) == ([OTHER], AUTHENTICATED)
    assert (after.max_token_bytes, after.clock) == (2000, CLOCK)


def test_issuers_and_policies_can_be_reloaded_each_without_the_other() -> None:
    policies = Policies(public_methods=[METHOD])
    auth = Authenticator([issuer()], policies=policies)
    auth.reload(issuers=[issuer(OTHER)])
    assert (list(auth.gate.trusted), auth.gate.policies) == ([OTHER], policies)
    trusted = auth.gate.trusted
    auth.reload(policies=Policies())
    assert auth.gate.trusted is trusted
    assert auth.gate.policies is not policies


def test_an_issuer_that_is_gone_is_refused_from_the_next_call_on() -> None:
    auth = Authenticator([issuer(), issuer(OTHER)])
    assert authenticate(auth, mint()).iss == ISSUER
    auth.reload(issuers=[issuer(OTHER)])
    with refused(Reason.TOKEN_INVALID, "iss is not a configured issuer"):
        authenticate(auth, mint())
    assert authenticate(auth, mint(iss=OTHER)).iss == OTHER


def test_a_key_that_is_gone_is_refused_from_the_next_call_on() -> None:
    auth = Authenticator([issuer(jwks=jwks(key(), key("k2")))])
    assert authenticate(auth, mint(key("k2"))).key_id == "k2"
    auth.reload(issuers=[issuer()])
    with refused(Reason.TOKEN_INVALID, "no key of the issuer has this kid"):
        authenticate(auth, mint(key("k2")))


def test_an_issuer_of_equal_settings_keeps_its_keys_and_costs_no_fetch() -> None:
    with JwksServer(key()) as server:
        made_with: dict[str, Any] = {"jwks": None, "jwks_uri": server.jwks_uri}
        with Authenticator([issuer(**made_with)]) as auth:
            assert auth.warm(PATIENCE_S)
            before = auth.gate.trusted[ISSUER]
            for _ in range(10):
                auth.reload(issuers=[issuer(OTHER), issuer(**made_with)], policies=Policies())
                assert auth.gate.trusted[ISSUER] is before
                assert authenticate(auth, mint()).key_id == "k1"
            assert server.fetches == 1
            server.keys = (key("k2"),)
            auth.reload(issuers=[issuer(**made_with, leeway_s=5)])
            assert auth.warm(PATIENCE_S)
            assert auth.status()[0].key_ids == ("k2",)
            assert server.fetches == 2


def test_the_threads_of_issuers_come_and_go_with_them() -> None:
    with JwksServer(key()) as server, JwksServer(key()) as theirs:
        before = background_threads()
        here = issuer(jwks=None, jwks_uri=server.jwks_uri)
        there = issuer(OTHER, jwks=None, jwks_uri=theirs.jwks_uri)
        with Authenticator([here]) as auth:
            auth.reload(issuers=[there])
            assert background_threads() <= before
            assert theirs.requests == []  # nobody has asked for keys yet
            auth.start()
            auth.reload(issuers=[here, there])
            assert eventually(auth.ready)  # once started, new ones are started too
            assert (server.fetches, theirs.fetches) == (1, 1)
            auth.reload(issuers=[there])
            assert eventually(lambda: len(background_threads() - before) == 1)
        assert eventually(lambda: background_threads() <= before)


BAD_ISSUERS: dict[str, Callable[[], list[Issuer]]] = {
    "none": list,
    "one twice": lambda: [issuer(OTHER), issuer(), issuer(OTHER)],
    "one without keys": lambda: [issuer(OTHER), issuer("https://third.example", jwks={"keys": []})],
}


@pytest.mark.parametrize("issuers", BAD_ISSUERS.values(), ids=BAD_ISSUERS)
def test_a_bad_reload_changes_nothing(issuers: Callable[[], list[Issuer]]) -> None:
    calls: list[None] = []
    with JwksServer(key()) as server, fetched_from(server) as auth:
        assert auth.warm(PATIENCE_S)
        auth.on_change(lambda: calls.append(None))
        gate, threads = auth.gate, background_threads()
        with pytest.raises(ConfigurationError):
            auth.reload(issuers=issuers(), policies=Policies(public_methods=[METHOD]))
        assert auth.gate is gate
        assert background_threads() == threads
        assert authenticate(auth, mint()).key_id == "k1"
        assert (server.fetches, calls) == (1, [])


def test_on_change_is_called_after_a_reload_and_after_the_fetches_of_new_issuers() -> None:
    seen: list[tuple[tuple[str, bool], ...]] = []
    with JwksServer(key()) as server, static() as auth:
        auth.on_change(lambda: seen.append(tuple((status.issuer, status.ready) for status in auth.status())))
        auth.start()
        server.hang()
        auth.reload(issuers=[issuer(OTHER, jwks=None, jwks_uri=server.jwks_uri)])
        assert ((OTHER, False),) in seen
        server.resume()
        assert eventually(lambda: ((OTHER, True),) in seen)


def test_a_callback_that_fails_after_a_reload_is_a_line_in_the_log() -> None:
    def failing() -> None:
        raise ValueError("s3cret")

    called: list[None] = []
    auth = static()
    auth.on_change(failing)
    auth.on_change(lambda: called.append(None))
    with logged() as lines:
        auth.reload(policies=Policies())
    assert lines == [(logging.ERROR, "after a reload, an on_change callback failed: ValueError")]
    assert called == [None]


def test_a_reload_after_the_end_starts_nothing() -> None:
    with JwksServer(key()) as server:
        before = background_threads()
        auth = static()
        auth.start()
        auth.close()
        auth.reload(issuers=[issuer(jwks=None, jwks_uri=server.jwks_uri)])
        with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
            authenticate(auth, mint())
        assert background_threads() <= before
        assert server.requests == []
