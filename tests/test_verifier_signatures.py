"""Whole tokens against real keys: what verifies, and every way in which key, algorithm and signature can disagree."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer import Authenticator, Issuer, Reason
from grpc_bearer.keys.jwks import SUPPORTED_ALGORITHMS, load_key
from tests.support.fuzzing import cases
from tests.support.jwks_server import JwksServer
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    SigningKey,
    base64url,
    claims_set,
    compact,
    forged,
    key,
    mint,
    new_key,
)
from tests.support.verdicts import authenticate, metadata, refusal, refused

ALGORITHMS = sorted(SUPPORTED_ALGORITHMS)
BAD_SIGNATURE = "the signature does not verify"
UNFIT = "no key of the issuer fits alg"
UNKNOWN_KID = "no key of the issuer has this kid"


def accepting(*jwks: dict[str, Any], **options: Any) -> Authenticator:
    """An authenticator of one issuer that allows every algorithm and has these public keys."""
    made_with: dict[str, Any] = {"audiences": [AUDIENCE], "algorithms": ALGORITHMS, "jwks": {"keys": list(jwks)}} | options
    return Authenticator([Issuer(ISSUER, **made_with)])


# -- what verifies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_token_of_each_algorithm_is_accepted_with_its_claims(alg: str) -> None:
    signer = key("k1", alg)
    claims = authenticate(accepting(signer.jwk()), mint(signer, sub="alice", extra={"a": [1]}))
    assert (claims.iss, claims.sub, claims.aud, claims.jti, claims.client_id) == (
        ISSUER,
        "alice",
        (AUDIENCE,),
        "id-1",
        "client-1",
    )
    assert (claims.algorithm, claims.key_id) == (alg, "k1")
    assert claims.scopes == {"orders.read", "orders.write"}
    assert (claims.exp, claims.iat, claims.nbf) == (claims["exp"], claims["iat"], None)
    assert claims["extra"] == {"a": (1,)}


@pytest.mark.parametrize("jwk_alg", ["EdDSA", "Ed25519", None])
@pytest.mark.parametrize("allowed", ["EdDSA", "Ed25519"])
def test_the_two_names_of_eddsa_are_one_wherever_they_stand(allowed: str, jwk_alg: str | None) -> None:
    signer = key("k1", "EdDSA")
    auth = accepting(signer.jwk(alg=jwk_alg), algorithms=[allowed])
    for name in ("EdDSA", "Ed25519"):
        assert authenticate(auth, mint(signer, header={"alg": name})).algorithm == "EdDSA"


def test_the_rsa_and_ecdsa_examples_of_rfc_7515_are_accepted() -> None:
    # RFC 7515 appendices A.2 and A.3, to the letter.
    claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    rsa = {
        "kty": "RSA",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-"
        "pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665"
        "xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "e": "AQAB",
    }
    rsa_signature = (
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZ"
        "cAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-e"
        "OkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    )
    ec = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    ec_signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    joe = Issuer("joe", allow_any_audience=True, jwks={"keys": [rsa, ec]})
    auth = Authenticator([joe], clock=lambda: 1300819379.0)
    for header, signature in (("eyJhbGciOiJSUzI1NiJ9", rsa_signature), ("eyJhbGciOiJFUzI1NiJ9", ec_signature)):
        assert authenticate(auth, f"{header}.{claims}.{signature}")["http://example.com/is_root"] is True


def test_the_eddsa_example_of_rfc_8037_verifies() -> None:
    loaded = load_key({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    signing_input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert loaded.verify("EdDSA", signing_input, base64.urlsafe_b64decode(signature + "=="))
    assert not loaded.verify("EdDSA", signing_input + b"x", base64.urlsafe_b64decode(signature + "=="))


# -- what was changed after signing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_forged_token_is_refused(alg: str) -> None:
    signer = key("k1", alg)
    with refused(Reason.TOKEN_INVALID, BAD_SIGNATURE):
        authenticate(accepting(signer.jwk()), forged(signer))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_token_that_was_changed_in_any_part_is_refused(alg: str) -> None:
    signer = key("k1", alg)
    auth = accepting(signer.jwk())
    header, claims, signature = mint(signer).split(".")
    octets = base64.urlsafe_b64decode(signature + "==")
    changed = [
        (mint(signer, header={"x": 1}).split(".")[0], claims, octets),
        (header, mint(signer, sub="root").split(".")[1], octets),
        (header, claims, octets[:-1] + bytes([octets[-1] ^ 1])),
        (header, claims, bytes([octets[0] ^ 1]) + octets[1:]),
        (header, claims, octets[:-1]),
        (header, claims, octets + b"\0"),
        (header, claims, b"\0" + octets),
        (header, claims, bytes(len(octets))),
        (header, claims, b"\xff" * len(octets)),
        (header, claims, octets + octets),
    ]
    for parts in changed:
        with refused(Reason.TOKEN_INVALID, BAD_SIGNATURE):
            authenticate(auth, f"{parts[0]}.{parts[1]}.{base64url(parts[2])}")


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_whatever_the_signature_it_is_refused_and_nothing_breaks(alg: str) -> None:
    signer = key("k1", alg)
    verifies = load_key(signer.jwk()).verify
    length = len(signer.sign(b"x"))

    @cases(60)
    @given(st.binary(max_size=80) | st.binary(min_size=length, max_size=length))
    def never_verifies(signature: bytes) -> None:
        assert verifies(alg, b"header.claims", signature) is False

    never_verifies()


# -- the algorithm -----------------------------------------------------------------------------------------------------


def unsigned(alg: str, signature: bytes = b"\0") -> str:
    header = base64url(json.dumps({"alg": alg, "kid": "k1"}).encode())
    return f"{header}.{base64url(json.dumps(claims_set()).encode())}.{base64url(signature)}"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512"])
def test_none_and_hmac_are_refused_before_a_key_is_asked_for(alg: str) -> None:
    with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
        accepting(key().jwk()).gate.read(metadata(unsigned(alg)))


def test_the_public_key_is_no_hmac_secret() -> None:
    # RFC 8725 §2.1: the attack that gave allow-lists their place.
    public_key = key().private_key.public_key()
    signing_input = unsigned("HS256").rpartition(".")[0]
    for secret in (
        public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(key().jwk()).encode(),
    ):
        mac = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
        with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
            authenticate(accepting(key().jwk()), f"{signing_input}.{base64url(mac)}")


def test_each_issuer_has_its_own_allow_list() -> None:
    token = mint(key("k1", "ES256"))
    assert authenticate(accepting(key("k1", "ES256").jwk(), algorithms=["ES256"]), token).algorithm == "ES256"
    with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
        authenticate(accepting(key("k1", "ES256").jwk(), algorithms=["RS256", "ES384"]), token)


def signed_as(signer: SigningKey, alg: str) -> str:
    return compact({"alg": alg, "kid": signer.kid}, claims_set(), signer, "EdDSA" if alg == "Ed25519" else alg)


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_with_an_alg_is_for_that_algorithm_alone(alg: str) -> None:
    # RFC 7517 §4.4 and RFC 8725 §3.1. Signed rightly, by the right key, and still refused but for its own.
    auth = accepting(key().jwk(alg="RS256"))
    token = signed_as(key(), alg)
    if alg == "RS256":
        assert authenticate(auth, token).algorithm == alg
    else:
        with refused(Reason.TOKEN_INVALID, UNFIT):
            authenticate(auth, token)


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_without_an_alg_is_for_what_the_issuer_allows(alg: str) -> None:
    assert authenticate(accepting(key().jwk(alg=None)), signed_as(key(), alg)).algorithm == alg
    with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
        authenticate(accepting(key().jwk(alg=None), algorithms=["ES256"]), signed_as(key(), alg))


@pytest.mark.parametrize(("named", "signed"), [("PS256", "RS256"), ("RS256", "PS256"), ("RS512", "RS256")])
def test_a_header_that_names_another_algorithm_than_was_signed_with_is_refused(named: str, signed: str) -> None:
    with refused(Reason.TOKEN_INVALID, BAD_SIGNATURE):
        authenticate(accepting(key().jwk(alg=None)), compact({"alg": named, "kid": "k1"}, claims_set(), key(), signed))


@pytest.mark.parametrize(("key_alg", "named"), [("ES384", "ES256"), ("ES512", "ES256"), ("ES256", "ES512")])
def test_a_curve_is_for_one_algorithm(key_alg: str, named: str) -> None:
    # PyJWT's algorithm objects match nothing: they verify this signature (tests/test_differential.py).
    signer = key("k1", key_alg)
    with refused(Reason.TOKEN_INVALID, UNFIT):
        authenticate(accepting(signer.jwk()), signed_as(signer, named))
    with refused(Reason.TOKEN_INVALID, UNFIT):
        authenticate(accepting(signer.jwk(alg=None)), signed_as(signer, named))
    assert authenticate(accepting(signer.jwk(alg=None)), signed_as(signer, key_alg)).algorithm == key_alg


@pytest.mark.parametrize(("key_alg", "signer_alg"), [("RS256", "ES256"), ("ES256", "EdDSA"), ("EdDSA", "RS256")])
def test_a_kid_of_a_key_of_another_type_is_refused(key_alg: str, signer_alg: str) -> None:
    with refused(Reason.TOKEN_INVALID, UNFIT):
        authenticate(accepting(key("k1", key_alg).jwk()), mint(key("k1", signer_alg)))


# -- the key -----------------------------------------------------------------------------------------------------------


def test_a_kid_chooses_its_key_among_others() -> None:
    auth = accepting(key("k1").jwk(), key("k2").jwk())
    assert authenticate(auth, mint(key("k2"))).key_id == "k2"
    with refused(Reason.TOKEN_INVALID, UNKNOWN_KID):
        authenticate(auth, mint(key("k3")))
    with refused(Reason.TOKEN_INVALID, BAD_SIGNATURE):  # signed by k2, named k1
        authenticate(auth, mint(key("k2"), header={"kid": "k1"}))


def test_a_token_without_a_kid_is_good_for_the_only_key_that_fits() -> None:
    token = mint(key("k1"), header={"kid": None})
    assert authenticate(accepting(key("k1").jwk(), key("k2", "ES256").jwk()), token).key_id == "k1"
    assert authenticate(accepting(key("k1").jwk(kid=None)), token).key_id is None
    with refused(Reason.TOKEN_INVALID, "more than one key of the issuer fits"):
        authenticate(accepting(key("k1").jwk(), key("k2").jwk()), token)
    with refused(Reason.TOKEN_INVALID, UNFIT):
        authenticate(accepting(key("k2", "ES256").jwk()), token)


GOOD = [{}, {"use": None}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"], "use": None}, {"x5c": ["ignored"]}]
BAD: list[dict[str, Any]] = [
    {"use": "enc"},
    {"use": "SIG"},
    {"use": ["sig"]},
    {"key_ops": []},
    {"key_ops": ["sign"]},
    {"key_ops": "verify"},
    {"use": None, "key_ops": ["encrypt"]},
    {"alg": "HS256"},
    {"alg": "ES256"},
    {"alg": "none"},
    {"alg": 256},
    {"kty": "oct"},
    {"kty": "EC"},
    {"kty": None},
    {"d": "AQAB"},
    {"n": None},
    {"n": "AQAB"},
    {"e": "!"},
]


@pytest.mark.parametrize("members", GOOD)
def test_a_key_that_is_for_signatures_verifies(members: dict[str, Any]) -> None:
    assert authenticate(accepting(key("other").jwk(), key().jwk(**members)), mint()).key_id == "k1"


@pytest.mark.parametrize("members", BAD)
def test_a_key_that_is_not_for_signatures_or_not_well_formed_is_no_key(members: dict[str, Any]) -> None:
    auth = accepting(key("other").jwk(), key().jwk(**members))
    with refused(Reason.TOKEN_INVALID, UNKNOWN_KID):
        authenticate(auth, mint())
    assert authenticate(auth, mint(key("other"))).key_id == "other"  # the rest of the set serves


@pytest.mark.parametrize("bits", [1024, 2040, 2047])
def test_an_rsa_key_under_2048_bits_is_no_key(bits: int) -> None:
    short = new_key("short", rsa_bits=bits)
    auth = accepting(key().jwk(), short.jwk())
    with refused(Reason.TOKEN_INVALID, UNKNOWN_KID):
        authenticate(auth, mint(short))
    assert authenticate(auth, mint()).key_id == "k1"  # 2048 bits


def test_key_material_in_a_token_is_never_used_nor_fetched() -> None:
    # RFC 8725 §3.10. The server would serve the forger's key.
    forger = SigningKey("k1", "RS256", key("forger").private_key)
    with JwksServer(forger) as server:
        header = {"jku": server.jwks_uri, "x5u": server.url, "jwk": forger.jwk(), "x5c": ["MIIB"], "x5t": "AA"}
        with refused(Reason.TOKEN_INVALID, BAD_SIGNATURE):
            authenticate(accepting(key().jwk()), mint(forger, header=header))
        assert authenticate(accepting(key().jwk()), mint(header=header)).key_id == "k1"
        assert server.requests == []


def test_a_forged_token_that_could_never_be_accepted_is_refused_for_what_costs_no_key() -> None:
    auth = accepting(key().jwk(), max_lifetime_s=3600)
    wrong: list[dict[str, Any]] = [
        {"aud": "other"},
        {"sub": 5},
        {"exp": None},
        {"exp": time.time() - 100},
        {"nbf": time.time() + 100},
        {"exp": time.time() + 7200},
    ]
    forger = SigningKey("unknown", "RS256", key("forger").private_key)
    for claims in wrong:
        error = refusal(lambda claims=claims: auth.gate.read(metadata(mint(forger, **claims))))  # type: ignore[misc]
        assert error is not None, claims
    candidate = auth.gate.read(metadata(mint(forger)))  # right but for its key
    with refused(Reason.TOKEN_INVALID, UNKNOWN_KID):
        auth.gate.key_for(candidate)
