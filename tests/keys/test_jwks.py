"""JWK Sets: which members become keys, which one key a token gets, and which documents are refused as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from jwt import PyJWK, PyJWKSet
from jwt.utils import der_to_raw_signature

from grpc_bearer.errors import KeysUnreadableError
from grpc_bearer.keys.jwks import (
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    SUPPORTED_ALGORITHMS,
    Key,
    KeySet,
    NoKey,
    UnusableKeyError,
    canonical_algorithm,
    load_key,
    parse_jwks,
)
from grpc_bearer.strict_json import DuplicateMembers
from tests.adversary.crypto import IDENTITY, small_order_points
from tests.support.fuzzing import cases
from tests.support.tokens import SigningKey, base64url, jwks, key

RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def signer(alg: str, kid: str | None = "k1") -> SigningKey:
    """A signing key for `alg`; one RSA key serves all of RSA's."""
    if alg in RSA_ALGORITHMS:
        return SigningKey(kid, alg, key().private_key)
    return SigningKey(kid, alg, key("any", alg).private_key)


def rsa_jwk(bits: int, exponent: int = 65537) -> dict[str, Any]:
    """An RSA JWK whose modulus has `bits` bits: of no use but for its size."""

    def encoded(number: int) -> str:
        return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))

    return {"kty": "RSA", "n": encoded((1 << (bits - 1)) | 1), "e": encoded(exponent)}


def fault(jwk: Any) -> str:
    with pytest.raises(UnusableKeyError) as caught:
        load_key(jwk)
    return str(caught.value)


def parsed(*members: Any, max_keys: int = 100) -> KeySet:
    return parse_jwks(json.dumps({"keys": members}).encode(), max_keys)


def selected(keys: KeySet, kid: str | None, algorithm: str) -> Any:
    """What the set has for a token: the index of a key, or why there is none."""
    found = keys.select(kid, algorithm)
    return keys.keys.index(found) if isinstance(found, Key) else found


# One key


@pytest.mark.parametrize("alg", sorted(SUPPORTED_ALGORITHMS))
def test_a_published_key_verifies_what_its_private_half_signed_and_nothing_else(alg: str) -> None:
    signing = signer(alg)
    loaded = load_key(signing.jwk())
    signature = signing.sign(b"input")
    assert loaded.algorithms == {alg}
    assert loaded.verify(alg, b"input", signature)
    assert not loaded.verify(alg, b"inpux", signature)
    assert not loaded.verify(alg, b"input", signature[:-1])


@pytest.mark.parametrize("alg", sorted(SUPPORTED_ALGORITHMS))
def test_a_key_without_alg_is_for_every_algorithm_that_fits_its_type_and_curve(alg: str) -> None:
    expected = RSA_ALGORITHMS if alg in RSA_ALGORITHMS else {alg}
    assert load_key(signer(alg).jwk(alg=None)).algorithms == expected


def test_a_key_never_verifies_an_algorithm_it_is_not_for() -> None:
    signing = signer("PS256")
    signature = signing.sign(b"input")
    assert not load_key(signing.jwk(alg="RS256")).verify("PS256", b"input", signature)
    assert not load_key(signing.jwk()).verify("HS256", b"input", signature)


def test_a_p384_key_does_not_verify_es256_though_pyjwt_would_let_it() -> None:
    private = signer("ES384").private_key
    signature = der_to_raw_signature(private.sign(b"input", ec.ECDSA(hashes.SHA256())), private.curve)
    jwk = SigningKey("k1", "ES256", private).jwk()
    assert PyJWK(jwk).Algorithm.verify(b"input", private.public_key(), signature)
    assert fault(jwk) == "alg does not fit kty and crv, or is not supported"
    assert not load_key(jwk | {"alg": "ES384"}).verify("ES256", b"input", signature)


def test_ed25519_is_another_name_of_eddsa() -> None:
    assert canonical_algorithm("Ed25519") == "EdDSA"
    assert canonical_algorithm("ES256") == "ES256"
    assert load_key(signer("EdDSA").jwk(alg="Ed25519")).algorithms == {"EdDSA"}


ALG = "alg does not fit kty and crv, or is not supported"
CRV = "kty or crv is not supported"
MEMBERS = "the key's members cannot be read"
OPS = "key_ops does not have verify"
SECRET = "secret key material: a published set must hold public keys only"
SIZE = "an RSA key has to have 2048 to 8192 bits"


@pytest.mark.parametrize(
    ("alg", "changes", "expected"),
    [
        ("RS256", {"kty": None}, "kty is missing"),
        ("RS256", {"kty": 1}, "kty is not a string"),
        ("RS256", {"kty": "rsa"}, CRV),
        ("RS256", {"kty": "EC"}, CRV),
        ("ES256", {"crv": None}, CRV),
        ("ES256", {"crv": "secp256k1"}, CRV),
        ("ES256", {"crv": ["P-256"]}, "crv is not a string"),
        ("ES256", {"crv": "P-384"}, ALG),
        ("ES256", {"kty": "OKP"}, CRV),
        ("EdDSA", {"crv": "Ed448"}, CRV),
        ("EdDSA", {"crv": "X25519"}, CRV),
        ("EdDSA", {"kty": "EC"}, CRV),
        ("RS256", {"use": "enc"}, "use is not sig"),
        ("RS256", {"use": 1}, "use is not a string"),
        ("RS256", {"key_ops": ["sign"]}, OPS),
        ("RS256", {"key_ops": []}, OPS),
        ("RS256", {"key_ops": "verify"}, OPS),
        ("RS256", {"alg": "ES256"}, ALG),
        ("RS256", {"alg": "HS256"}, ALG),
        ("RS256", {"alg": "none"}, ALG),
        ("RS256", {"alg": "RSA-OAEP"}, ALG),
        ("ES256", {"alg": "ES384"}, ALG),
        ("EdDSA", {"alg": "Ed448"}, ALG),
        ("RS256", {"alg": 256}, "alg is not a string"),
        ("RS256", {"kid": ""}, "kid is empty"),
        ("RS256", {"kid": 7}, "kid is not a string"),
        ("RS256", {"n": None}, MEMBERS),
        ("RS256", {"n": 5}, MEMBERS),
        ("RS256", {"e": None}, MEMBERS),
        ("RS256", {"e": "AQ"}, MEMBERS),  # 1: every signature would be right
        ("RS256", {"n": "%" * 400}, MEMBERS),
        ("ES256", {"x": None}, MEMBERS),
        ("ES256", {"y": "AAAA"}, MEMBERS),
        ("EdDSA", {"x": "AAAA"}, MEMBERS),
        *(("RS256", {name: "AQAB"}, SECRET) for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")),
    ],
)
def test_a_key_that_contradicts_itself_is_not_usable(alg: str, changes: dict[str, Any], expected: str) -> None:
    assert fault(signer(alg).jwk(**changes)) == expected


@pytest.mark.parametrize("name", ["kty", "crv", "use", "alg", "kid"])
def test_a_member_that_is_null_is_not_taken_for_absent(name: str) -> None:
    assert fault(signer("ES256").jwk() | {name: None}) in (f"{name} is not a string", "kty is missing")


def test_null_key_ops_are_not_taken_for_absent() -> None:
    assert fault(signer("ES256").jwk() | {"key_ops": None}) == OPS


@pytest.mark.parametrize("operations", [["verify"], ["sign", "verify"]])
def test_key_ops_with_verify_are_usable(operations: list[str]) -> None:
    assert load_key(signer("ES256").jwk(key_ops=operations)).kid == "k1"


def test_a_symmetric_key_is_never_usable() -> None:
    assert fault({"kty": "oct", "alg": "HS256", "k": base64url(b"secret")}) == SECRET
    assert fault({"kty": "oct"}) == SECRET


@pytest.mark.parametrize("bits", [MIN_RSA_BITS, MAX_RSA_BITS])
def test_rsa_sizes_at_the_limits_are_usable(bits: int) -> None:
    assert load_key(rsa_jwk(bits)).algorithms == RSA_ALGORITHMS


@pytest.mark.parametrize("bits", [512, 1024, MIN_RSA_BITS - 1, MAX_RSA_BITS + 1])
def test_rsa_sizes_beyond_the_limits_are_not_usable(bits: int) -> None:
    assert fault(rsa_jwk(bits)) == SIZE


def test_a_short_modulus_padded_with_zeros_is_not_usable() -> None:
    short = rsa_jwk(1024)
    assert fault(short | {"n": "A" * 256 + short["n"]}) == SIZE


SMALL_ORDER = small_order_points()


@pytest.mark.parametrize("point", SMALL_ORDER.values(), ids=SMALL_ORDER)
def test_an_ed25519_key_of_small_order_is_not_usable_because_it_verifies_what_nobody_signed(point: bytes) -> None:
    # The fact first: cryptography takes the key, and this constant for a signature of every eighth message or more.
    public_key = Ed25519PublicKey.from_public_bytes(point)
    nobodys = IDENTITY + bytes(32)

    def verifies(message: bytes) -> bool:
        try:
            public_key.verify(nobodys, message)
        except InvalidSignature:
            return False
        return True

    assert any(verifies(b"%d" % number) for number in range(1_000))
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url(point)}
    assert fault(jwk) == "an Ed25519 key of small order, or not in its canonical form"
    load_key(key("any", "EdDSA").jwk())  # the neighbour


@pytest.mark.parametrize("value", [None, 1, "key", [], DuplicateMembers()])
def test_what_is_no_json_object_is_no_key(value: Any) -> None:
    assert fault(value) == "not a JSON object, or one with duplicate members"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
jwk_members = ("kty", "crv", "use", "key_ops", "alg", "kid", "n", "e", "x", "y", "d")
near_jwks = st.builds(
    lambda alg, changes: signer(alg).jwk() | changes,
    st.sampled_from(["RS256", "ES256", "EdDSA"]),
    st.dictionaries(st.sampled_from(jwk_members), json_values, max_size=3),
)


@cases(100)
@given(near_jwks | json_values)
def test_loading_a_key_raises_nothing_but_that_it_is_unusable(jwk: Any) -> None:
    try:
        loaded = load_key(jwk)
    except UnusableKeyError:
        return
    assert loaded.algorithms <= SUPPORTED_ALGORITHMS


@cases(100)
@given(st.binary(max_size=64) | json_values.map(lambda value: json.dumps(value).encode()))
def test_reading_a_document_raises_nothing_but_that_it_is_unreadable(document: bytes) -> None:
    with pytest.raises(KeysUnreadableError):
        parse_jwks(document, 100)


def test_the_repr_of_a_key_and_of_a_set_hold_no_key_material() -> None:
    keys = parsed(signer("RS256").jwk())
    for text in (repr(keys), repr(keys.keys[0])):
        assert signer("RS256").jwk()["n"] not in text
        assert "PublicKey" not in text


# The choice of the one key


def test_a_kid_names_the_key_that_has_it_and_fits_the_algorithm() -> None:
    keys = parsed(signer("RS256", "a").jwk(), signer("ES256", "b").jwk(), signer("EdDSA", "a").jwk())
    assert selected(keys, "a", "RS256") == 0
    assert selected(keys, "a", "EdDSA") == 2
    assert selected(keys, "b", "ES256") == 1


def test_a_kid_of_the_set_with_another_algorithm_is_unfit_and_not_unknown() -> None:
    keys = parsed(signer("RS256", "a").jwk())
    assert selected(keys, "a", "ES256") is NoKey.UNFIT
    assert selected(keys, "b", "RS256") is NoKey.UNKNOWN_KID


def test_a_token_without_kid_gets_the_only_key_that_fits_its_algorithm() -> None:
    keys = parsed(signer("RS256", "a").jwk(), signer("ES256", None).jwk())
    assert selected(keys, None, "RS256") == 0
    assert selected(keys, None, "ES256") == 1
    assert selected(keys, None, "EdDSA") is NoKey.UNFIT


def test_a_key_without_kid_is_not_found_by_a_kid() -> None:
    assert selected(parsed(signer("RS256", None).jwk()), "a", "RS256") is NoKey.UNKNOWN_KID


def test_two_keys_that_fit_are_a_refusal_and_never_a_trial_of_both() -> None:
    keys = parsed(signer("RS256", "a").jwk(), key("second").jwk(kid="a"), key("third").jwk(kid="a"))
    assert selected(keys, "a", "RS256") is NoKey.AMBIGUOUS
    assert selected(keys, None, "RS256") is NoKey.AMBIGUOUS


def test_a_key_without_alg_competes_for_each_algorithm_of_its_type() -> None:
    keys = parsed(signer("RS256", "a").jwk(), key("second").jwk(kid="a", alg=None))
    assert selected(keys, "a", "RS256") is NoKey.AMBIGUOUS
    assert selected(keys, "a", "PS512") == 1


def test_a_key_listed_twice_is_one_key() -> None:
    keys = parsed(signer("RS256", "a").jwk(), signer("RS256", "a").jwk(use=None))
    assert selected(keys, "a", "RS256") == 0
    assert len(keys.keys) == 1


# A document (the rows "a bad key in a good set" and "empty, non-JSON or keyless document")


def test_a_bad_key_in_a_good_set_is_left_out_and_reported_and_the_rest_works() -> None:
    good = signer("RS256", "good").jwk()
    keys = parsed(signer("ES256").jwk(use="enc"), good, "junk", {"kty": "oct", "k": "c2VjcmV0"})
    assert selected(keys, "good", "RS256") == 0
    assert keys.skipped == (
        "keys[0]: use is not sig",
        "keys[2]: not a JSON object, or one with duplicate members",
        f"keys[3]: {SECRET}",
    )


def test_pyjwt_would_lose_the_whole_set_to_one_bad_member() -> None:
    members = [signer("RS256").jwk(), {"kty": "oct"}]
    with pytest.raises(KeyError):
        PyJWKSet(members)
    assert [loaded.kid for loaded in parsed(*members).keys] == ["k1"]


def test_a_key_with_a_duplicate_member_is_left_out_alone() -> None:
    good, bad = (json.dumps(signer(alg, alg).jwk()) for alg in ("RS256", "ES256"))
    keys = parse_jwks(f'{{"keys": [{bad[:-1]}, "kid": "other"}}, {good}]}}'.encode(), 100)
    assert [loaded.kid for loaded in keys.keys] == ["RS256"]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", "the JWK Set cannot be read: not JSON"),
        (b"<html><title>Sign in</title></html>", "the JWK Set cannot be read: not JSON"),
        (b'{"keys": []', "the JWK Set cannot be read: not JSON"),
        (b'\xff\xfe{"keys": []}', "the JWK Set cannot be read: JSON is not UTF-8"),
        (b"[" * 10_000, "the JWK Set cannot be read: JSON is too deep"),
        (b"[]", "not a JWK Set: expected an object with an array `keys`"),
        (b"{}", "not a JWK Set: expected an object with an array `keys`"),
        (b'{"keys": {}}', "not a JWK Set: expected an object with an array `keys`"),
        (b'{"keys": [], "keys": []}', "not a JWK Set: expected an object with an array `keys`"),
        (b'{"keys": []}', "the JWK Set has no usable key: it is empty"),
        (b'{"keys": [1]}', "the JWK Set has no usable key: keys[0]: not a JSON object, or one with duplicate members"),
    ],
)
def test_a_document_without_a_usable_key_is_unreadable_as_a_whole(document: bytes, expected: str) -> None:
    with pytest.raises(KeysUnreadableError) as caught:
        parse_jwks(document, 100)
    assert str(caught.value) == expected


def test_more_keys_than_allowed_are_refused_before_any_is_loaded() -> None:
    members = [signer("RS256", f"k{index}").jwk() for index in range(4)]
    assert len(parsed(*members, max_keys=4).keys) == 4
    with pytest.raises(KeysUnreadableError, match="has 4 keys, more than the 3 that are allowed"):
        parsed(*members, max_keys=3)


def test_the_report_of_a_set_without_a_usable_key_is_bounded() -> None:
    with pytest.raises(KeysUnreadableError) as caught:
        parsed(*[{"kty": "oct"}] * 100)
    assert len(str(caught.value)) <= 500


def test_the_digest_tells_documents_apart() -> None:
    one, other = (json.dumps(jwks(signer("RS256", kid))).encode() for kid in ("a", "b"))
    assert parse_jwks(one, 100).digest == parse_jwks(one, 100).digest
    assert parse_jwks(one, 100).digest != parse_jwks(other, 100).digest
