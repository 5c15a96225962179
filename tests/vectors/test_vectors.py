"""The examples that the RFCs publish: those with a public key verify, none does with a bit flipped, all others are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grpc_bearer import Authenticator, Issuer, Reason
from grpc_bearer.bearer import bearer_token
from grpc_bearer.jws import parse
from grpc_bearer.keys.jwks import Key, UnusableKeyError, load_key
from tests.support.tokens import base64url as encoded
from tests.support.verdicts import authenticate, refused

NOT_COMPACT = "not a compact JWS: three non-empty base64url parts"
CLAIMS = ("rfc7515 A.2, RS256", "rfc7515 A.3, ES256")
"""Those whose payload is a claims set, and whose key is a public one."""
FILES = ("rfc7515.json", "rfc7520.json", "rfc8037.json")


def decoded(text: str) -> bytes:
    """By the standard library, so that a vector is not held against our own decoder."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Signature:
    """One signature of a vector, with the key that has to verify it."""

    vector: str
    alg: str
    jwk: dict[str, Any]
    protected: str
    payload: str
    signature: str

    @property
    def signing_input(self) -> bytes:
        return f"{self.protected}.{self.payload}".encode()

    @property
    def key(self) -> Key:
        return load_key(self.jwk)

    @property
    def compact(self) -> str:
        return f"{self.protected}.{self.payload}.{self.signature}"


VECTORS: dict[str, dict[str, Any]] = {
    f"{path.removesuffix('.json')} {vector['name']}": vector
    for path in FILES
    for vector in json.loads((Path(__file__).parent / path).read_text(encoding="utf-8"))["vectors"]
}
_KTY = {"HS": "oct", "RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


def signatures(name: str) -> Iterator[Signature]:
    """All signatures of a vector, in whatever serialisation; none for `none`."""
    vector = VECTORS[name]
    if "compact" in vector:
        protected, payload, signature = vector["compact"].split(".")
        signed: list[tuple[str, dict[str, Any], str]] = [(protected, {}, signature)] if signature else []
    else:
        members = vector["json"]
        payload = members.get("payload", "")
        signed = [(e.get("protected", ""), e.get("header", {}), e["signature"]) for e in members.get("signatures", [members])]
    for protected, header, signature in signed:
        alg = (header | (json.loads(decoded(protected)) if protected else {}))["alg"]
        (jwk,) = [jwk for jwk in vector["keys"] if jwk["kty"] == _KTY[alg[:2]]]
        yield Signature(name, alg, jwk, protected, payload or vector["detached"], signature)


EVERY = [signature for name in VECTORS for signature in signatures(name)]
SYMMETRIC = [each for each in EVERY if each.alg == "HS256"]
PUBLIC = [each for each in EVERY if each.alg != "HS256"]
COMPACT = [each for each in PUBLIC if "compact" in VECTORS[each.vector]]
IN_JSON = {name: vector["json"] for name, vector in VECTORS.items() if "json" in vector}


def ids(of: list[Signature]) -> list[str]:
    return [f"{each.vector}: {each.alg}" for each in of]


def test_the_vectors_are_all_of_the_appendices_and_the_section() -> None:
    names = {name.partition(",")[0] for name in VECTORS}
    assert {f"rfc7515 A.{number}" for number in range(1, 8)} | {f"rfc7520 4.{number}" for number in range(1, 9)} <= names
    assert names >= {"rfc8037 A.4"}
    for path in FILES:
        source = json.loads((Path(__file__).parent / path).read_text(encoding="utf-8"))["source"]
        assert source.startswith(f"RFC {path[3:7]}, ")
    assert {each.alg for each in EVERY} == {"HS256", "RS256", "ES256", "ES512", "PS384", "EdDSA"}


@pytest.mark.parametrize("each", PUBLIC, ids=ids(PUBLIC))
def test_a_published_signature_verifies_by_its_published_key(each: Signature) -> None:
    assert each.key.verify(each.alg, each.signing_input, decoded(each.signature))


@pytest.mark.parametrize("each", COMPACT, ids=ids(COMPACT))
def test_a_published_header_and_signature_are_read_as_what_they_are(each: Signature) -> None:
    jws = parse(f"{each.protected}.e30.{each.signature}")  # over a claims set, as not every example is
    assert (jws.header.alg, jws.signature) == (each.alg, decoded(each.signature))
    assert bearer_token(f"Bearer {each.compact}", 16_384) == each.compact


@pytest.mark.parametrize("each", COMPACT, ids=ids(COMPACT))
def test_no_published_signature_verifies_with_any_one_of_its_bits_flipped(each: Signature) -> None:
    key, signature = each.key, decoded(each.signature)
    for bit in range(8 * len(signature)):
        number = int.from_bytes(signature, "big") ^ 1 << bit
        assert not key.verify(each.alg, each.signing_input, number.to_bytes(len(signature), "big")), bit


@pytest.mark.parametrize("each", COMPACT, ids=ids(COMPACT))
def test_no_published_signature_verifies_over_an_input_with_a_bit_flipped(each: Signature) -> None:
    key, signature = each.key, decoded(each.signature)
    for index, octet in enumerate(each.signing_input):
        flipped = each.signing_input[:index] + bytes([octet ^ 1 << index % 8]) + each.signing_input[index + 1 :]
        assert not key.verify(each.alg, flipped, signature), index


@pytest.mark.parametrize("name", CLAIMS)
def test_a_published_token_is_accepted_whole_and_only_as_it_is(name: str) -> None:
    (each,) = signatures(name)
    joe = Issuer("joe", allow_any_audience=True, jwks={"keys": VECTORS[name]["keys"]})
    auth = Authenticator([joe], clock=lambda: 1_300_819_379.0)  # a second before its exp
    assert dict(authenticate(auth, each.compact)) == {
        "iss": "joe",
        "exp": 1_300_819_380,
        "http://example.com/is_root": True,
    }
    other = encoded(b'{"iss":"joe","exp":1300819380,"http://example.com/is_root":false}')
    with refused(Reason.TOKEN_INVALID, "the signature does not verify"):
        authenticate(auth, f"{each.protected}.{other}.{each.signature}")


@pytest.mark.parametrize("each", SYMMETRIC, ids=ids(SYMMETRIC))
def test_a_published_mac_is_right_and_its_key_and_token_are_refused(each: Signature) -> None:
    # That it is right, so that it is refused for being a MAC and not for a typo.
    mac = hmac.digest(decoded(each.jwk["k"]), each.signing_input, hashlib.sha256)
    assert encoded(mac) == each.signature
    with pytest.raises(UnusableKeyError, match="secret key material"):
        load_key(each.jwk)


def test_the_published_hs256_token_is_refused_for_its_alg_and_the_unsigned_one_for_its_form() -> None:
    keys = VECTORS["rfc7515 A.2, RS256"]["keys"]
    auth = Authenticator([Issuer("joe", allow_any_audience=True, jwks={"keys": keys})], clock=lambda: 1_300_819_379.0)
    with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
        authenticate(auth, VECTORS["rfc7515 A.1, HS256"]["compact"])
    with refused(Reason.TOKEN_MALFORMED, NOT_COMPACT):
        authenticate(auth, VECTORS["rfc7515 A.5, none"]["compact"])


def test_a_published_token_without_its_payload_is_refused() -> None:
    with refused(Reason.TOKEN_MALFORMED, NOT_COMPACT):
        parse(VECTORS["rfc7520 4.5, HS256, detached"]["compact"])


NO_CLAIMS = [each for each in COMPACT if each.vector not in CLAIMS]


@pytest.mark.parametrize("each", NO_CLAIMS, ids=ids(NO_CLAIMS))
def test_a_published_token_whose_payload_is_no_claims_set_is_refused_for_that(each: Signature) -> None:
    with refused(Reason.TOKEN_MALFORMED, "claims set: not JSON"):
        parse(each.compact)


@pytest.mark.parametrize("name", IN_JSON)
def test_a_published_json_serialisation_is_refused_as_it_is_and_in_base64url(name: str) -> None:
    text = json.dumps(IN_JSON[name], separators=(",", ":"))
    with refused(Reason.TOKEN_MALFORMED, "bearer credentials are not well-formed"):
        bearer_token(f"Bearer {text}", 16_384)
    for token in (text, encoded(text.encode())):
        with refused(Reason.TOKEN_MALFORMED, NOT_COMPACT):
            parse(token)
