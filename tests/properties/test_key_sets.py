"""JWK Set documents of any shape and with any change: what is loaded is what `json` reads in them, and a choice is unique."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer.errors import KeysUnreadableError
from grpc_bearer.keys.jwks import SUPPORTED_ALGORITHMS, KeySet, NoKey, parse_jwks
from tests.properties.reading import assert_nothing_is_made_up
from tests.support.fuzzing import cases
from tests.support.generated import JSON_VALUES, RSA_ALGORITHMS
from tests.support.tokens import SigningKey, jwks, key

MAX_KEYS: Final = 8
ALGORITHMS: Final = ("EdDSA", "ES256", "ES384", "RS256", "PS512")
SIGNERS: Final = {
    (kid, alg): SigningKey(kid, alg, key(f"of {alg}", alg).private_key) for alg in ALGORITHMS for kid in ("a", "b", None)
}
DOCUMENT: Final = json.dumps(jwks(*(SIGNERS["a", alg] for alg in ALGORITHMS))).encode()


def parsed(document: bytes) -> KeySet | None:
    """None where it is unreadable. Whatever else is raised comes out."""
    try:
        return parse_jwks(document, MAX_KEYS)
    except KeysUnreadableError as error:
        text = str(error)
    assert text.isprintable()
    assert len(text) <= 500
    return None


# -- changes of a good document ----------------------------------------------------------------------------------------


def test_of_a_document_with_any_octet_changed_nothing_is_loaded_that_it_does_not_say() -> None:
    changed_keys = refused = 0
    for at in range(len(DOCUMENT)):
        for other in (DOCUMENT[at] ^ 1, DOCUMENT[at] ^ 0x20, 0x22, 0x80):
            document = DOCUMENT[:at] + bytes([other]) + DOCUMENT[at + 1 :]
            keys = parsed(document)
            if keys is None:
                refused += 1
            else:
                changed_keys += 1
                assert_nothing_is_made_up(keys, document, MAX_KEYS)
    assert min(changed_keys, refused) > 100  # else the above would say nothing


@st.composite
def changed_documents(draw: st.DrawFn) -> bytes:
    """Good documents with stretches dropped, repeated or replaced, and with members of other types."""
    members = [signer.jwk() for signer in draw(st.lists(st.sampled_from(list(SIGNERS.values())), max_size=4))]
    for member in members:
        names = [*member, "d", "key_ops", "crv", "x5c", "oth", "kid"]
        for name in draw(st.lists(st.sampled_from(names), max_size=2)):
            member[name] = draw(
                st.sampled_from(["", "AQAB", "sig", "Ed25519", "P-256", "RS512", ["verify"], None, True]) | JSON_VALUES
            )
    document = json.dumps({"keys": [*members, *draw(st.lists(JSON_VALUES, max_size=1))]}).encode()
    for _ in range(draw(st.integers(0, 2))):
        at, length = draw(st.integers(0, len(document))), draw(st.integers(0, 6))
        put = draw(
            st.sampled_from([b"", document[at : at + length] * 2, b'"kid":"a",', b",", b"}", b"\\u0061", b" ", b"\xff", b"NaN"])
        )
        document = document[:at] + put + document[at + length :]
    return document


@cases(400)
@given(changed_documents())
def test_whatever_happened_to_a_document_it_is_unreadable_or_each_of_its_keys_is_its_own(document: bytes) -> None:
    keys = parsed(document)
    if keys is not None:
        assert_nothing_is_made_up(keys, document, MAX_KEYS)


# -- the choice --------------------------------------------------------------------------------------------------------


def plain_choice(members: list[dict[str, Any]], kid: str | None, algorithm: str) -> list[int]:
    """The members that fit, read as a person reads RFC 7517: same `kid`, if the token has one, and the algorithm."""
    by_type = {"OKP": {"EdDSA"}, "EC": {"ES256"}, "RSA": set(RSA_ALGORITHMS)}
    return [
        index
        for index, member in enumerate(members)
        if kid in (None, member.get("kid"))
        and algorithm in (by_type[member["kty"]] if member.get("crv") != "P-384" else {"ES384"})
        and member.get("alg", algorithm) == algorithm
    ]


published = st.builds(
    lambda signer, with_alg: signer.jwk() if with_alg or signer.alg not in RSA_ALGORITHMS else signer.jwk(alg=None),
    st.sampled_from(list(SIGNERS.values())),
    st.booleans(),
)


@cases(300)
@given(st.lists(published, min_size=1, max_size=6, unique_by=lambda member: json.dumps(member, sort_keys=True)))
def test_the_key_of_a_token_is_the_only_one_that_fits_or_there_is_none(members: list[dict[str, Any]]) -> None:
    keys = parse_jwks(json.dumps({"keys": members}).encode(), MAX_KEYS)
    assert len(keys.keys) == len(members)
    for kid in ("a", "b", "c", None):
        for algorithm in sorted(SUPPORTED_ALGORITHMS):
            fitting, found = plain_choice(members, kid, algorithm), keys.select(kid, algorithm)
            if len(fitting) == 1:
                assert found is keys.keys[fitting[0]]
            elif fitting:
                assert found is NoKey.AMBIGUOUS
            else:
                is_named = kid is None or any(member.get("kid") == kid for member in members)
                assert found is (NoKey.UNFIT if is_named else NoKey.UNKNOWN_KID)
