"""The kit's issuer: its right tokens are accepted, and each wrong one is refused for just what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grpc_bearer import Authenticator, Reason
from grpc_bearer.testing import Clock, LocalIssuer, SigningKey, new_key
from tests.support.tokens import new_key as new_key_of_the_suite
from tests.support.verdicts import authenticate, refused

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def test_a_token_says_who_for_whom_and_for_how_long(grpc_bearer_issuer: LocalIssuer, grpc_bearer_clock: Clock) -> None:
    with grpc_bearer_issuer.authenticator() as auth:
        claims = authenticate(auth, grpc_bearer_issuer.token())
    now = grpc_bearer_clock()
    assert (claims.iss, claims.aud, claims.sub) == ("https://issuer.example", ("tests",), "user-1")
    assert (claims.iat, claims.exp, claims.scopes) == (now, now + 3600, frozenset())
    assert (claims.key_id, claims.algorithm, claims.client_id) == ("key-1", "ES256", "client-1")


def test_any_claim_can_be_given_and_taken_away(grpc_bearer_issuer: LocalIssuer) -> None:
    with grpc_bearer_issuer.authenticator() as auth:
        token = grpc_bearer_issuer.token(sub=None, scope="a b", groups=["ops"], expires_in_s=10)
        claims = authenticate(auth, token)
    assert (claims.sub, claims.scopes, claims["groups"]) == (None, frozenset({"a", "b"}), ("ops",))
    assert claims.iat is not None
    assert claims.exp - claims.iat == 10


def test_no_two_tokens_have_the_same_jti(grpc_bearer_issuer: LocalIssuer) -> None:
    with grpc_bearer_issuer.authenticator() as auth:
        assert len({authenticate(auth, grpc_bearer_issuer.token()).jti for _ in range(3)}) == 3


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_an_issuer_can_sign_with_any_algorithm_that_a_service_may_allow(alg: str) -> None:
    issuer = LocalIssuer(alg=alg, make_key=new_key_of_the_suite)
    with issuer.authenticator() as auth:
        assert authenticate(auth, issuer.token()).algorithm == alg
        with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
            authenticate(auth, issuer.forged())


@pytest.mark.parametrize("alg", ["none", "HS256", "RS999", ""])
def test_an_algorithm_without_a_key_is_an_error_that_says_what_there_is(alg: str) -> None:
    with pytest.raises(ValueError, match=r"^alg: .* has no key; choose RS256, PS256, ES256 \(or 384, 512\) or EdDSA$"):
        LocalIssuer(alg=alg)


WRONG: dict[str, tuple[Callable[[LocalIssuer], str], Reason, str]] = {
    "expired": (lambda i: i.expired(), Reason.TOKEN_EXPIRED, "exp has passed"),
    "forged": (lambda i: i.forged(), Reason.TOKEN_INVALID, "the signature does not verify"),
    "unsigned": (
        lambda i: i.unsigned(),
        Reason.TOKEN_MALFORMED,
        "not a compact JWS: three non-empty base64url parts",
    ),
    "another audience": (lambda i: i.token(aud="x"), Reason.TOKEN_INVALID, "aud names none of the accepted audiences"),
    "another issuer": (lambda i: i.token(iss="https://x"), Reason.TOKEN_INVALID, "iss is not a configured issuer"),
    "no exp": (lambda i: i.token(exp=None), Reason.TOKEN_INVALID, "exp is missing"),
    "an exp of one's own": (lambda i: i.token(exp="soon"), Reason.TOKEN_MALFORMED, "exp is not a NumericDate"),
    "a header of one's own": (
        lambda i: i.token(header={"typ": "dpop+jwt"}),
        Reason.TOKEN_INVALID,
        "typ is not that of an access token",
    ),
    "a header member less": (
        lambda i: i.token(header={"alg": None}),
        Reason.TOKEN_MALFORMED,
        "JOSE header: alg is not a string",
    ),
    "a key of one's own": (
        lambda i: i.token(key=new_key("key-1", "EdDSA")),
        Reason.TOKEN_INVALID,
        "no key of the issuer fits alg",
    ),
    "a kid that is not published": (
        lambda i: i.token(header={"kid": "key-9"}),
        Reason.TOKEN_INVALID,
        "no key of the issuer has this kid",
    ),
    "octets for a claims set": (
        lambda i: i.compact({"alg": "ES256", "kid": "key-1"}, b"[]"),
        Reason.TOKEN_MALFORMED,
        "claims set: not a JSON object",
    ),
    "octets for a header": (lambda i: i.compact(b"{", i.claims()), Reason.TOKEN_MALFORMED, "JOSE header: not JSON"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_token_is_refused_for_what_is_wrong_with_it(what: str, grpc_bearer_issuer: LocalIssuer) -> None:
    make, reason, detail = WRONG[what]
    with grpc_bearer_issuer.authenticator() as auth, refused(reason, detail):
        authenticate(auth, make(grpc_bearer_issuer))


def test_an_expired_token_was_issued_before_it_expired_and_is_over_for_longer_than_any_leeway(
    grpc_bearer_issuer: LocalIssuer,
) -> None:
    claims = grpc_bearer_issuer.claims(expires_in_s=-1)
    assert claims["iat"] < claims["exp"]
    with grpc_bearer_issuer.authenticator(leeway_s=600) as auth, refused(Reason.TOKEN_EXPIRED, "exp has passed"):
        authenticate(auth, grpc_bearer_issuer.expired())


def test_the_clock_ends_a_token_at_its_second(grpc_bearer_issuer: LocalIssuer, grpc_bearer_clock: Clock) -> None:
    token = grpc_bearer_issuer.token(expires_in_s=60)
    with grpc_bearer_issuer.authenticator(leeway_s=0) as auth:
        grpc_bearer_clock.advance(59.5)
        authenticate(auth, token)
        grpc_bearer_clock.advance(0.5)
        with refused(Reason.TOKEN_EXPIRED, "exp has passed"):
            authenticate(auth, token)


def signed_by_both(issuer: LocalIssuer, **rotation: Any) -> tuple[Authenticator, str, str]:
    """What trusts the issuer after a rotation, a token from before it, and one from after it."""
    before = issuer.token()
    issuer.rotate(**rotation)
    return issuer.authenticator(), before, issuer.token()


def test_after_a_rotation_the_old_key_is_published_beside_the_new_one(grpc_bearer_issuer: LocalIssuer) -> None:
    auth, before, after = signed_by_both(grpc_bearer_issuer)
    with auth:
        assert [authenticate(auth, token).key_id for token in (before, after)] == ["key-1", "key-2"]


def test_without_overlap_the_old_key_is_withdrawn(grpc_bearer_issuer: LocalIssuer) -> None:
    auth, before, after = signed_by_both(grpc_bearer_issuer, overlap=False)
    with auth:
        assert authenticate(auth, after).key_id == "key-2"
        with refused(Reason.TOKEN_INVALID, "no key of the issuer has this kid"):
            authenticate(auth, before)


def test_a_rotation_can_change_the_algorithm_and_the_next_keeps_it(grpc_bearer_issuer: LocalIssuer) -> None:
    auth, before, after = signed_by_both(grpc_bearer_issuer, alg="ES512")
    with auth:
        assert [authenticate(auth, token).algorithm for token in (before, after)] == ["ES256", "ES512"]
    assert grpc_bearer_issuer.rotate().alg == "ES512"


def test_two_issuers_have_keys_of_their_own(grpc_bearer_issuer: LocalIssuer) -> None:
    impostor = LocalIssuer(grpc_bearer_issuer.iss, audience=grpc_bearer_issuer.audience, clock=grpc_bearer_issuer.clock)
    with grpc_bearer_issuer.authenticator() as auth, refused(Reason.TOKEN_INVALID, "the signature does not verify"):
        authenticate(auth, impostor.token())


def test_what_is_set_on_an_issuer_is_in_its_tokens_and_in_who_trusts_it(grpc_bearer_issuer: LocalIssuer) -> None:
    grpc_bearer_issuer.iss, grpc_bearer_issuer.audience, grpc_bearer_issuer.sub = "http://127.0.0.1:1", "orders", "alice"
    with grpc_bearer_issuer.authenticator() as auth:
        claims = authenticate(auth, grpc_bearer_issuer.token())
    assert (claims.iss, claims.aud, claims.sub) == ("http://127.0.0.1:1", ("orders",), "alice")


def test_options_of_the_trusting_side_are_passed_on(grpc_bearer_issuer: LocalIssuer) -> None:
    trusted = grpc_bearer_issuer.issuer(jwks_uri="http://127.0.0.1:1/jwks.json", leeway_s=5, audiences=["a"])
    assert (trusted.jwks, trusted.jwks_uri, trusted.leeway_s) == (None, "http://127.0.0.1:1/jwks.json", 5)
    assert trusted.audiences == ["a"]


def test_a_signing_key_shows_nothing_of_its_private_half() -> None:
    assert repr(new_key("k", "EdDSA")) == "SigningKey(kid='k', alg='EdDSA')"
    assert "d" not in new_key("k", "RS256").jwk()
    assert isinstance(LocalIssuer().key, SigningKey)
