"""Compact JWS, read strictly: RFC 7515 §7.1 and §5.2 with the choices of RFC 8725."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer.errors import Reason
from grpc_bearer.jws import Header, base64url, parse, parse_header
from tests.support import tokens
from tests.support.fuzzing import cases
from tests.support.verdicts import refusal, refused

NOT_COMPACT = "not a compact JWS: three non-empty base64url parts"
NOT_CANONICAL = "base64url is not canonical"
KID = "JOSE header: kid is not a string of 1 to 512 characters"


def part(value: Any) -> str:
    return tokens.base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


HEADER = part({"alg": "RS256"})
CLAIMS = part({"iss": "x"})


def test_the_example_of_rfc_7515_is_read() -> None:
    # RFC 7515 §3.3: its JSON has line ends and spaces in it, which the signing input keeps.
    header = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    jws = parse(f"{header}.{claims}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert jws.header == Header(alg="HS256", kid=None, typ="JWT")
    assert jws.claims_set == {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
    assert jws.signing_input == f"{header}.{claims}".encode()
    assert jws.signature.hex().startswith("7418dfb49799e0254ffa607dd8adbbba")
    assert len(jws.signature) == 32


@pytest.mark.parametrize(
    "token",
    [
        "",
        "..",
        "a",
        f"{HEADER}.{CLAIMS}",
        f"{HEADER}.{CLAIMS}.",  # what an unsigned JWT looks like (RFC 7519 §6)
        f".{CLAIMS}.AA",
        f"{HEADER}..AA",  # a detached payload
        f"{HEADER}.{CLAIMS}.AA.AA",
        f"{HEADER}.AA.AA.AA.AA",  # a JWE has five parts
        f"{HEADER}.{CLAIMS}.AA==",
        f"{HEADER}=.{CLAIMS}.AA",
        f"{HEADER}.{CLAIMS}.A+A/",
        f"{HEADER}.{CLAIMS}.AA\n",
        f" {HEADER}.{CLAIMS}.AA",
        f"{HEADER}.{CLAIMS}.A A",
        f"{HEADER}.{CLAIMS}.\uff21\uff21",
        json.dumps({"payload": CLAIMS, "protected": HEADER, "signature": "AA"}),
    ],
)
def test_what_is_not_three_base64url_parts_is_malformed(token: str) -> None:
    with refused(Reason.TOKEN_MALFORMED, NOT_COMPACT):
        parse(token)


@pytest.mark.parametrize("octets", [b"\x00", b"\xfb\xff", b"\xfb\xff\xfe", b"four"])
def test_canonical_base64url_is_decoded(octets: bytes) -> None:
    assert base64url(tokens.base64url(octets).encode()) == octets


@pytest.mark.parametrize(
    "text",
    [
        "A",  # no octets have one character
        "AAAAA",
        "AB",  # "AA" with the four spare bits set (RFC 4648 §3.5)
        "AP",
        "AAB",  # "AAA" with the two spare bits set
        "AAAAAD",
    ],
)
def test_a_second_spelling_of_the_same_octets_is_malformed(text: str) -> None:
    with refused(Reason.TOKEN_MALFORMED, NOT_CANONICAL):
        base64url(text.encode())


@pytest.mark.parametrize("before", ["", "-", "_A", "Zz9", "AAAA", "AAAA0", "AAAA-_", "AAAAAAA"])
def test_base64url_is_accepted_exactly_where_encoding_gives_it_back(before: str) -> None:
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        text = before + last
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) % 4 != 1 else b""
        if tokens.base64url(octets) == text:
            assert base64url(text.encode()) == octets
        else:
            assert refusal(lambda text=text: base64url(text.encode())) is not None  # type: ignore[misc]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_each_part_has_to_be_canonical(position: int) -> None:
    parts = [part(b'{"alg":"RS256"} '), part(b'{"iss":"xy"} '), "AA"]
    parse(".".join(parts))
    assert len(parts[position]) % 4 == 2
    parts[position] = parts[position][:-1] + {"A": "B", "I": "J", "g": "h", "Q": "R", "w": "x"}[parts[position][-1]]
    with refused(Reason.TOKEN_MALFORMED, NOT_CANONICAL):
        parse(".".join(parts))


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        ([], "JOSE header: not a JSON object"),
        ("RS256", "JOSE header: not a JSON object"),
        (b"{", "JOSE header: not JSON"),
        (b'{"alg":"none","alg":"RS256"}', "JOSE header: duplicate JSON member"),
        ('{"alg":"RS256"}'.encode("utf-16"), "JOSE header: JSON is not UTF-8"),
        (b'{"alg":"RS256","x":' + b"[" * 40 + b"]" * 40 + b"}", "JOSE header: JSON is too deep"),
        ({}, "JOSE header: alg is not a string"),
        ({"alg": None}, "JOSE header: alg is not a string"),
        ({"alg": ["RS256"]}, "JOSE header: alg is not a string"),
        # RFC 7515 §4.1.11: what is critical and not understood is refused, and we understand no extension.
        ({"alg": "RS256", "crit": ["exp"], "exp": 1}, "JOSE header: crit names an extension that is not understood"),
        ({"alg": "RS256", "crit": ["b64"], "b64": True}, "JOSE header: crit names an extension that is not understood"),
        ({"alg": "RS256", "crit": []}, "JOSE header: crit names an extension that is not understood"),
        ({"alg": "RS256", "crit": None}, "JOSE header: crit names an extension that is not understood"),
        # RFC 7797 §7: a JWT has no b64 header parameter.
        ({"alg": "RS256", "b64": False}, "JOSE header: b64 is not allowed in a JWT"),
        ({"alg": "RS256", "b64": True}, "JOSE header: b64 is not allowed in a JWT"),
        ({"alg": "RS256", "kid": 1}, KID),
        ({"alg": "RS256", "kid": None}, KID),
        ({"alg": "RS256", "kid": ""}, KID),
        ({"alg": "RS256", "kid": "k" * 513}, KID),
        ({"alg": "RS256", "typ": 1}, "JOSE header: typ is not a string"),
        ({"alg": "RS256", "typ": None}, "JOSE header: typ is not a string"),
    ],
)
def test_a_header_that_is_not_well_formed_is_malformed(members: Any, detail: str) -> None:
    with refused(Reason.TOKEN_MALFORMED, detail):
        parse(f"{part(members)}.{CLAIMS}.AA")


@pytest.mark.parametrize(
    ("members", "header"),
    [
        ({"alg": "RS256"}, Header("RS256", None, None)),
        ({"alg": "none"}, Header("none", None, None)),  # well-formed; refused by the allow-list
        ({"alg": "RS256", "kid": "k", "typ": "at+jwt"}, Header("RS256", "k", "at+jwt")),
        ({"alg": "RS256", "kid": "k" * 512}, Header("RS256", "k" * 512, None)),
        ({"alg": "RS256", "kid": "../../\u00e9\n"}, Header("RS256", "../../\u00e9\n", None)),  # only ever compared
        ({"alg": "RS256", "cty": 5, "B64": False, "Crit": ["x"]}, Header("RS256", None, None)),
    ],
)
def test_a_well_formed_header_keeps_the_members_that_we_act_on(members: dict[str, Any], header: Header) -> None:
    assert parse_header(part(members).encode()) == header


@pytest.mark.parametrize("value", ["x", 5, None, {"kty": "oct", "k": "AA"}, ["MIIB"]])
@pytest.mark.parametrize("name", ["jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"])
def test_key_material_in_the_header_is_not_looked_at(name: str, value: Any) -> None:
    assert parse_header(part({"alg": "RS256", name: value}).encode()) == Header("RS256", None, None)


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"[]", "claims set: not a JSON object"),
        (b'"iss"', "claims set: not a JSON object"),
        (b"null", "claims set: not a JSON object"),
        (b"iss", "claims set: not JSON"),
        (b'{"iss":"a","iss":"b"}', "claims set: duplicate JSON member"),
        (b'{"iss":"\xff"}', "claims set: JSON is not UTF-8"),
        (b'{"iss":"\\ud800"}', "claims set: lone surrogate in JSON"),
        (b'{"exp":NaN}', "claims set: NaN or Infinity in JSON"),
        (b'{"exp":1e999}', "claims set: JSON number out of range"),
        (b'{"x":' + b"[" * 40, "claims set: JSON is too deep"),
    ],
)
def test_a_payload_that_is_not_a_strict_json_object_is_malformed(payload: bytes, detail: str) -> None:
    with refused(Reason.TOKEN_MALFORMED, detail):
        parse(f"{HEADER}.{part(payload)}.AA")


@cases(400)
@given(st.lists(st.binary(max_size=20).map(part) | st.text(max_size=6), min_size=3, max_size=3))
def test_whatever_the_text_it_is_read_or_malformed(parts: list[str]) -> None:
    error = refusal(lambda: parse(".".join(parts)))
    assert error is None or error.reason is Reason.TOKEN_MALFORMED
