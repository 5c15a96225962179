"""Call metadata -> bearer token: RFC 6750 §2.1 to the letter, on values that grpcio hands over as they came."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grpc_bearer.bearer import authorization_value, bearer_token, has_authorization
from grpc_bearer.errors import Reason
from tests.support.fuzzing import cases
from tests.support.verdicts import refusal, refused

LIMIT = 100
NOT_WELL_FORMED = "bearer credentials are not well-formed"
OTHER_SCHEME = "authorization is of another scheme"


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Bearer a.b.c", "a.b.c"),
        ("bearer a.b.c", "a.b.c"),  # RFC 9110 §11.1: a scheme has no case
        ("BEARER a.b.c", "a.b.c"),
        ("bEaReR   a.b.c", "a.b.c"),  # 1*SP
        ("Bearer AZaz09-._~+/", "AZaz09-._~+/"),
        ("Bearer dG9rZW4==", "dG9rZW4=="),  # a b64token: no JWT, and the JWS parser says so
        ("Bearer " + "t" * LIMIT, "t" * LIMIT),
        ("Bearer" + " " * 58 + "t" * LIMIT, "t" * LIMIT),  # the scheme and its spaces have room of their own
    ],
)
def test_well_formed_credentials_give_their_token(value: str, token: str) -> None:
    assert bearer_token(value, LIMIT) == token


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer ",
        "Bearer =",
        "Bearer a=b",
        "Bearer a b",
        "Bearer a,b",
        'Bearer "a"',
        "Bearer a ",
        "Bearer a\n",
        "Bearer a\r\nx: y",
        "Bearer a\0",
        "Bearer\ta",  # str.split() would take these two
        "Bearer\u00a0a",
        "Bearer \ta",
        "Bearer a\u00e9",
        "Bearer \uff41",  # a fullwidth letter
        "Bearer,a",
        "bearer:a",
    ],
)
def test_bearer_credentials_outside_the_grammar_are_malformed(value: str) -> None:
    with refused(Reason.TOKEN_MALFORMED, NOT_WELL_FORMED):
        bearer_token(value, LIMIT)


@pytest.mark.parametrize(
    "value", ["", " ", "a.b.c", "Basic dXNlcjpwYXNz", "DPoP a.b.c", "Bearertoken", "Bearer-x a", "BearerX a", " Bearer a"]
)
def test_another_scheme_counts_as_no_token(value: str) -> None:
    with refused(Reason.TOKEN_MISSING, OTHER_SCHEME):
        bearer_token(value, LIMIT)


@pytest.mark.parametrize(
    "value",
    [
        "Bearer " + "t" * (LIMIT + 1),
        "Bearer " + "t" * 10**6,
        "Bearer" + " " * 59 + "t" * LIMIT,
        "Basic " + "t" * 10**6,
        "\0" * (LIMIT + 65),
    ],
)
def test_over_long_credentials_are_malformed_whatever_they_hold(value: str) -> None:
    with refused(Reason.TOKEN_MALFORMED, "token too long"):
        bearer_token(value, LIMIT)


@cases(400)
@given(
    scheme=st.sampled_from(["Bearer", "bearer", "Basic", "Bear\u00ebr", ""]),
    gap=st.text(alphabet=" \t\u00a0", max_size=3),
    rest=st.text(max_size=12) | st.from_regex(r"[A-Za-z0-9._~+/=-]{0,12}", fullmatch=True),
)
@example(scheme="Bearer", gap=" ", rest="a")
def test_whatever_the_value_only_scheme_spaces_and_an_ascii_token_pass(scheme: str, gap: str, rest: str) -> None:
    value = scheme + gap + rest
    error = refusal(lambda: bearer_token(value, LIMIT))
    if error is not None:
        assert error.reason in (Reason.TOKEN_MISSING, Reason.TOKEN_MALFORMED)
        return
    token = bearer_token(value, LIMIT)
    assert value.lower() == "bearer" + " " * (len(value) - len(token) - 6) + token.lower()
    assert len(value) > len(token) + 6
    assert token.isascii()
    assert not set(token) & set(" \t,\"'\\")


def test_the_one_authorization_entry_is_found_among_others() -> None:
    others: list[tuple[str, str | bytes]] = [("authorization-bin", b"\x01"), ("x-authorization", "Bearer b")]
    assert authorization_value(iter([*others, ("authorization", "Bearer a"), *others])) == "Bearer a"


@pytest.mark.parametrize("entries", [[], [("proxy-authorization", "Bearer a")], [("authorization-bin", b"Bearer a")]])
def test_no_authorization_entry_is_a_missing_token(entries: list[tuple[str, str | bytes]]) -> None:
    with refused(Reason.TOKEN_MISSING, "no authorization entry"):
        authorization_value(entries)


@pytest.mark.parametrize("second", ["Bearer b", "Bearer a", "", b"\x01"])
def test_two_authorization_entries_are_malformed_even_when_they_agree(second: str | bytes) -> None:
    with refused(Reason.TOKEN_MALFORMED, "more than one authorization entry"):
        authorization_value([("authorization", "Bearer a"), ("authorization", second)])


def test_an_authorization_entry_of_bytes_is_malformed() -> None:
    with refused(Reason.TOKEN_MALFORMED, "authorization is not text"):
        authorization_value([("authorization", b"Bearer a")])


@pytest.mark.parametrize("value", ["Bearer a", "Basic YTpi", "", " ", b"\x01"])
def test_whatever_is_in_an_authorization_entry_there_is_one(value: str | bytes) -> None:
    others: list[tuple[str, str | bytes]] = [("user-agent", "x")]
    assert has_authorization([*others, ("authorization", value)])
    assert has_authorization(iter([("authorization", value), ("authorization", value), *others]))


@pytest.mark.parametrize("entries", [[], [("proxy-authorization", "Bearer a")], [("authorization-bin", b"Bearer a")]])
def test_an_entry_of_another_name_is_no_authorization_entry(entries: list[tuple[str, str | bytes]]) -> None:
    assert not has_authorization(entries)
