"""Metadata of any shape -> at most one token: the reading of RFC 6750 by hand, octet by octet, says the same."""

from __future__ import annotations

import json
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer import AuthError, Reason
from grpc_bearer.bearer import authorization_value, bearer_token, has_authorization
from grpc_bearer.jws import parse, parse_header
from tests.properties.reading import assert_read_as_written
from tests.support.fuzzing import cases
from tests.support.generated import BASE64URL, JSON_VALUES
from tests.support.tokens import base64url

TOKEN_CHARACTERS: Final = frozenset(BASE64URL + "-._~+/")
LIMIT: Final = 40

names = st.sampled_from(["authorization", "Authorization", "authorization-bin", "authorization ", "proxy-authorization", "x"])
values = st.text(max_size=10) | st.binary(max_size=10) | st.just("Bearer a.b.c")
metadata_of_calls = st.lists(st.tuples(names, values), max_size=4)
octets = st.characters(max_codepoint=0xFF)
schemes = st.sampled_from(
    ["Bearer", "bearer", "BEARER", "Bearer", "Bear", "Bearers", "Basic", "", "Bearer\t", "Bea\u0072er", "\u212aBearer"]
)
authorizations = st.builds(
    "{}{}{}".format,
    schemes,
    st.text(alphabet=" ", max_size=3) | st.text(octets, max_size=2),
    st.text(alphabet=sorted(TOKEN_CHARACTERS), max_size=LIMIT + 2)
    | st.text(octets, max_size=6)
    | st.sampled_from(["a==", "=", "a=b", "a b"]),
)


def token_by_hand(value: str) -> str | None:
    """credentials = "Bearer" 1*SP b64token; b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="."""
    if [ord(char) | 0x20 for char in value[:6]] != [ord(char) for char in "bearer"]:
        return None
    at = 6
    while value[at : at + 1] == " ":
        at += 1
    token = value[at:]
    stripped = token.rstrip("=")
    return token if at > 6 and stripped and TOKEN_CHARACTERS.issuperset(stripped) else None


@cases(600)
@given(authorizations)
def test_a_token_is_found_exactly_where_the_grammar_read_by_hand_finds_one(value: str) -> None:
    by_hand = token_by_hand(value)
    try:
        token = bearer_token(value, LIMIT)
    except AuthError as error:
        assert error.reason in (Reason.TOKEN_MISSING, Reason.TOKEN_MALFORMED)
        assert by_hand is None or len(by_hand) > LIMIT
    else:
        assert token == by_hand


@cases(300)
@given(metadata_of_calls)
def test_the_one_entry_of_a_call_is_found_and_none_or_two_are_a_refusal(metadata: list[tuple[str, str | bytes]]) -> None:
    found = [value for name, value in metadata if name == "authorization"]
    assert has_authorization(metadata) is bool(found)
    try:
        value = authorization_value(metadata)
    except AuthError as error:
        assert error.reason is (Reason.TOKEN_MALFORMED if found else Reason.TOKEN_MISSING)
        assert len(found) != 1 or isinstance(found[0], bytes)
    else:
        assert found == [value]


parts = st.one_of(
    st.text(alphabet=BASE64URL, max_size=12),
    st.text(max_size=6),
    st.sampled_from(["eyJhbGciOiJFUzI1NiJ9", "e30", "e31", "eyJhIjoxfQ", "AA", "AB", "", "AA=", "A A", "AA\n"]),
)


@cases(400)
@given(st.lists(parts, max_size=5) | st.tuples(st.just("eyJhbGciOiJFUzI1NiJ9"), st.just("e30"), parts).map(list))
def test_a_jws_that_is_read_is_written_back_as_it_was(of_token: list[str]) -> None:
    """So no two texts are one token, and nothing of a text is passed over."""
    token = ".".join(of_token)
    try:
        jws = parse(token)
    except AuthError as error:
        assert error.reason is Reason.TOKEN_MALFORMED
        return
    assert_read_as_written(jws, token)


headers = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from(["ES256", "k1", "JWT", "", None, 5, True, [], {}, ["x"]]) | JSON_VALUES
        for name in ("alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5c", "zip", "enc", "cty")
    },
)


@cases(400)
@given(headers, st.booleans())
def test_a_header_is_read_exactly_where_its_members_are_what_the_rfc_says(members: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps(members, ensure_ascii=ascii_only).encode()
    kid, typ = members.get("kid", "x"), members.get("typ", "")
    right = (
        isinstance(members.get("alg"), str)
        and isinstance(kid, str)
        and 0 < len(kid) <= 512
        and isinstance(typ, str)
        and members.keys().isdisjoint({"crit", "b64"})
    )
    try:
        header = parse_header(base64url(text).encode())
    except AuthError as error:
        assert error.reason is Reason.TOKEN_MALFORMED
        assert not right or any("\ud800" <= char <= "\udfff" for char in json.dumps(members, ensure_ascii=False))
    else:
        assert right
        assert header == (members["alg"], members.get("kid"), members.get("typ"))
