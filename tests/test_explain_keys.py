"""Explanations that need an issuer's keys: which are fetched, waited for, and named when they are not to be had."""

from __future__ import annotations

from typing import Any

from grpc_bearer import Authenticator, CachePolicy, Reason
from grpc_bearer.explain import explain
from tests.support.authenticators import fetched_from
from tests.support.bad_tokens import NOW, a, issuer
from tests.support.explained import failed, names
from tests.support.jwks_server import JwksServer
from tests.support.key_source import Scripted
from tests.support.tokens import key, mint


def test_keys_are_waited_for() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        server.delay_s = 0.1
        assert explain(auth, mint()).accepted
        assert server.fetches == 1


def test_an_issuer_that_fails_is_named_with_its_error() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        server.status = 503
        explanation = explain(auth, mint())
    assert (explanation.reason, failed(explanation).name) == (Reason.KEYS_UNAVAILABLE, "key")
    assert "HTTP status 503" in failed(explanation).found
    assert explanation.advice is not None
    assert "the token may be good" in explanation.advice
    assert "HTTP status 503" in explanation.advice


def test_an_issuer_that_does_not_answer_is_waited_for_so_long_and_no_longer() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        server.hang()
        explanation = explain(auth, mint(), wait_s=0.05)
        server.resume()
    assert (explanation.reason, explanation.detail) == (
        Reason.KEYS_UNAVAILABLE,
        "the issuer's keys did not come in time",
    )
    assert failed(explanation).found == "no keys"
    assert explanation.advice is not None
    assert "no answer yet" in explanation.advice


def test_keys_of_no_use_are_named() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        server.body = b'{"keys":[{"kty":"oct","k":"AA"}]}'
        explanation = explain(auth, mint())
    assert explanation.advice is not None
    assert "no usable key: keys[0]: secret key material" in explanation.advice


def test_an_unknown_kid_is_looked_for_once_more() -> None:
    with JwksServer(key()) as server, fetched_from(server) as auth:
        assert explain(auth, mint()).accepted
        server.keys = (key(), key("k2"))
        assert explain(auth, mint(key("k2"))).accepted
        server.status = 500
        failing = explain(auth, mint(key("k3")))
    assert failing.detail is not None
    assert "the last fetch of the issuer's keys failed" in failing.detail
    assert "kid k1 for RS256; kid k2 for RS256; the last fetch failed: " in failed(failing).found


def test_keys_that_are_too_old_as_soon_as_they_come_are_no_keys() -> None:
    never_fresh = CachePolicy(fresh_s=1e-9, min_fresh_s=1e-9, max_fresh_s=1e-9, max_stale_s=0)
    with Authenticator([issuer(jwks=None, key_source=Scripted("k1"), cache=never_fresh)], clock=lambda: NOW) as auth:
        explanation = explain(auth, mint(key("k1", "EdDSA"), now=NOW))
    assert explanation.detail == "the issuer's keys did not come in time"


def test_keys_are_fetched_to_say_what_an_issuer_has_that_signs_with_an_alg_that_is_not_allowed() -> None:
    okp = key("okp", "EdDSA")
    with JwksServer(okp) as server, fetched_from(server, algorithms=["RS256"]) as auth:
        advice = explain(auth, mint(okp)).advice
    assert advice is not None
    assert "the issuer's key set has only OKP keys (for EdDSA), but only RS256 is allowed" in advice


def test_an_alg_that_is_not_allowed_stays_the_cause_where_no_keys_can_be_had() -> None:
    with JwksServer() as server, fetched_from(server, algorithms=["RS256"]) as auth:
        server.status = 500
        refused = [explain(auth, mint(key("okp", "EdDSA"))) for _ in range(2)]
        server.hang()
    assert [each.detail for each in refused] == ["alg is not allowed for this issuer"] * 2
    assert refused[0].advice == refused[1].advice


def test_a_token_that_expires_while_its_key_is_waited_for_is_expired() -> None:
    times = [NOW]

    class Late(Scripted):
        def __call__(self, attempt: Any) -> Any:
            times[0] = NOW + 90
            return super().__call__(attempt)

    with Authenticator([issuer(jwks=None, key_source=Late("k1"))], clock=lambda: times[0]) as auth:
        explanation = explain(auth, mint(key("k1", "EdDSA"), now=NOW))
    assert (explanation.reason, failed(explanation).name) == (Reason.TOKEN_EXPIRED, "exp")
    assert names(explanation.steps)[-3:] == ("key", "exp", "signature")
    assert failed(explanation).expected.endswith("also once the key has come")


def test_what_is_worded_and_what_is_decided_are_of_one_moment() -> None:
    times = iter(range(NOW, NOW + 10_000, 100))
    explanation = explain(Authenticator([issuer()], clock=lambda: next(times)), a(exp=NOW + 60))
    outcomes = [(step.name, step.outcome) for step in explanation.steps]
    assert ("exp", "passed") in outcomes
    assert outcomes[-2:] == [("exp", "failed"), ("signature", "not reached")]


def test_a_closed_authenticator_says_so() -> None:
    with JwksServer(key()) as server:
        auth = fetched_from(server)
        auth.close()
        explanation = explain(auth, mint())
    assert explanation.detail == "the authenticator is closed"
