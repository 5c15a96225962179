"""What a header and a claims set have to be before a key is looked at: each check beside the neighbour that passes it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from grpc_bearer.errors import Reason
from grpc_bearer.jws import Header
from grpc_bearer.verifier import (
    TokenRules,
    ValidClaims,
    unverified_issuer,
    validate_claims,
    validate_header,
)
from tests.support.tokens import AUDIENCE, ISSUER, claims_set
from tests.support.verdicts import refusal, refused

END_OF_9999 = 253_402_300_799
NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
RULES = TokenRules(
    issuer=ISSUER,
    audiences=frozenset({AUDIENCE, "billing"}),
    algorithms=frozenset({"RS256", "EdDSA"}),
    leeway_s=30.0,
    max_lifetime_s=None,
    require_at_jwt=False,
)
AT_JWT_ONLY = replace(RULES, require_at_jwt=True)
ANY_AUDIENCE = replace(RULES, audiences=None)
AN_HOUR_AT_MOST = replace(RULES, max_lifetime_s=3600.0)
NO_LEEWAY = replace(RULES, leeway_s=0.0)

WRONG_AUDIENCE = "aud names none of the accepted audiences"
WRONG_TYP = "typ is not that of an access token"
LIFETIME = "the lifetime from iat to exp is missing or over the limit"
NO_STRING = [None, 1, True, ["x"], {"x": "y"}]


def validated(rules: TokenRules = RULES, **claims: Any) -> ValidClaims:
    """The claims of a good set, some of them replaced; None takes one away, `NULL` makes it null."""
    members = claims_set(NOW, **claims)
    return validate_claims({name: None if value is NULL else value for name, value in members.items()}, rules, NOW)


NULL = object()


# -- the header --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alg", "canonical"), [("RS256", "RS256"), ("EdDSA", "EdDSA"), ("Ed25519", "EdDSA")])
def test_an_allowed_algorithm_is_known_by_its_canonical_name(alg: str, canonical: str) -> None:
    assert validate_header(Header(alg, None, None), RULES) == canonical


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "rs256", "RS256 ", "", "RS384", "PS256", "ES256", "ES256K", "Ed448"])
def test_an_algorithm_outside_the_allow_list_is_refused(alg: str) -> None:
    with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
        validate_header(Header(alg, None, None), RULES)


def test_the_newer_name_of_eddsa_is_refused_where_eddsa_is() -> None:
    rules = replace(RULES, algorithms=frozenset({"RS256"}))
    with refused(Reason.TOKEN_INVALID, "alg is not allowed for this issuer"):
        validate_header(Header("Ed25519", None, None), rules)


AT_JWT = ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"]


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "application/jwt", *AT_JWT])
def test_typ_may_be_absent_or_that_of_a_jwt_or_an_access_token(typ: str | None) -> None:
    assert validate_header(Header("RS256", None, typ), RULES) == "RS256"


# RFC 8725 §3.11: a JWT of another kind must not pass for an access token.
@pytest.mark.parametrize("typ", ["", "JOSE", "dpop+jwt", "logout+jwt", "secevent+jwt", "at+jwt ", "application/x/at+jwt", "at"])
def test_any_other_typ_is_refused(typ: str) -> None:
    with refused(Reason.TOKEN_INVALID, WRONG_TYP):
        validate_header(Header("RS256", None, typ), RULES)


@pytest.mark.parametrize("typ", AT_JWT)
def test_an_issuer_of_at_jwt_only_takes_at_jwt(typ: str) -> None:
    assert validate_header(Header("RS256", None, typ), AT_JWT_ONLY) == "RS256"


@pytest.mark.parametrize(("typ", "detail"), [(None, "typ is not at+jwt"), ("JWT", WRONG_TYP), ("application/jwt", WRONG_TYP)])
def test_an_issuer_of_at_jwt_only_takes_nothing_else(typ: str | None, detail: str) -> None:
    with refused(Reason.TOKEN_INVALID, detail):
        validate_header(Header("RS256", None, typ), AT_JWT_ONLY)


# -- iss ---------------------------------------------------------------------------------------------------------------


def test_the_unverified_issuer_is_the_string_that_the_token_names() -> None:
    assert unverified_issuer({"iss": " as it came "}) == " as it came "


def test_a_token_without_an_issuer_is_invalid() -> None:
    with refused(Reason.TOKEN_INVALID, "iss is missing"):
        unverified_issuer({})


@pytest.mark.parametrize("value", NO_STRING)
def test_an_issuer_that_is_no_string_is_malformed(value: Any) -> None:
    with refused(Reason.TOKEN_MALFORMED, "iss is not a string"):
        unverified_issuer({"iss": value})


# -- dates -------------------------------------------------------------------------------------------------------------

DATES = ["exp", "nbf", "iat"]


@pytest.mark.parametrize("name", DATES)
@pytest.mark.parametrize(
    "value",
    [
        str(NOW),
        "",
        True,
        False,
        NULL,
        [NOW],
        {"a": NOW},
        -1,
        -0.5,
        END_OF_9999 + 1,
        1e300,
        float("inf"),
        float("nan"),
        10**400,
    ],
)
def test_what_is_no_number_of_seconds_since_the_epoch_is_malformed(name: str, value: Any) -> None:
    with refused(Reason.TOKEN_MALFORMED, f"{name} is not a NumericDate"):
        validated(**{name: value})


@pytest.mark.parametrize("name", DATES)
@pytest.mark.parametrize("value", [NOW, float(NOW), NOW - 0.25])
def test_a_numeric_date_may_have_a_fraction(name: str, value: Any) -> None:
    assert getattr(validated(**{name: value}), name) == value  # RFC 7519 §2


def test_dates_reach_from_the_epoch_to_the_end_of_the_year_9999() -> None:
    valid = validated(exp=END_OF_9999, nbf=0, iat=0)
    assert (valid.exp, valid.nbf, valid.iat) == (END_OF_9999, 0, 0)


def test_exp_is_required() -> None:
    with refused(Reason.TOKEN_INVALID, "exp is missing"):
        validated(exp=None)


def test_nbf_and_iat_are_not_required() -> None:
    valid = validated(nbf=None, iat=None)
    assert (valid.nbf, valid.iat) == (None, None)


@pytest.mark.parametrize(("rules", "last"), [(RULES, NOW - 29.999), (NO_LEEWAY, NOW + 0.001)])
def test_a_token_is_good_until_exp_and_the_leeway_have_passed(rules: TokenRules, last: float) -> None:
    assert validated(rules, exp=last).exp == last


@pytest.mark.parametrize(("rules", "exp"), [(RULES, NOW - 30), (NO_LEEWAY, NOW), (NO_LEEWAY, 0)])
def test_a_token_has_expired_at_the_very_second_of_exp_and_leeway(rules: TokenRules, exp: float) -> None:
    with refused(Reason.TOKEN_EXPIRED, "exp has passed"):  # RFC 7519 §4.1.4: "on or after"
        validated(rules, exp=exp)


@pytest.mark.parametrize(
    ("exp", "at"),
    [(NOW - 60, "2027-01-15T07:59:00Z"), (NOW - 60.5, "2027-01-15T07:58:59Z"), (0, "1970-01-01T00:00:00Z")],
)
def test_an_expired_token_says_when_it_expired(exp: float, at: str) -> None:
    error = refusal(lambda: validated(exp=exp))
    assert error is not None
    assert error.caller_metadata == {"expired_at": at}


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize(("rules", "last"), [(RULES, NOW + 30), (NO_LEEWAY, NOW)])
def test_a_token_is_good_from_nbf_and_iat_less_the_leeway(name: str, rules: TokenRules, last: float) -> None:
    assert getattr(validated(rules, **{name: last}), name) == last


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize(("rules", "value"), [(RULES, NOW + 30.001), (NO_LEEWAY, NOW + 0.001), (RULES, NOW + 50)])
def test_a_token_whose_nbf_or_iat_is_still_to_come_is_not_yet_valid(name: str, rules: TokenRules, value: float) -> None:
    with refused(Reason.TOKEN_NOT_YET_VALID, f"{name} is in the future"):
        validated(rules, **{name: value})


@pytest.mark.parametrize(("iat", "exp"), [(NOW - 10, NOW + 3590), (NOW - 3000, NOW + 600), (NOW, NOW + 1)])
def test_a_lifetime_within_the_limit_is_good(iat: float, exp: float) -> None:
    assert validated(AN_HOUR_AT_MOST, iat=iat, exp=exp).exp == exp


@pytest.mark.parametrize(("iat", "exp"), [(NOW - 10, NOW + 3590.5), (NOW - 4000, NOW + 60), (None, NOW + 60)])
def test_a_lifetime_over_the_limit_or_of_unknown_length_is_invalid(iat: float | None, exp: float) -> None:
    with refused(Reason.TOKEN_INVALID, LIFETIME):
        validated(AN_HOUR_AT_MOST, iat=iat, exp=exp)
    assert validated(iat=iat, exp=exp).exp == exp  # without a limit


# -- aud ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aud", "seen"),
    [
        ("orders", ("orders",)),
        ("billing", ("billing",)),
        (["orders"], ("orders",)),
        (["other", "orders", "other"], ("other", "orders", "other")),
    ],
)
def test_aud_has_to_name_one_of_the_accepted_audiences(aud: Any, seen: tuple[str, ...]) -> None:
    assert validated(aud=aud).aud == seen


@pytest.mark.parametrize("aud", ["other", "Orders", "order", "orders ", "orders billing", "", [], ["other"], [""], None])
def test_a_token_for_another_audience_or_for_none_is_invalid(aud: Any) -> None:
    with refused(Reason.TOKEN_INVALID, WRONG_AUDIENCE):
        validated(aud=aud)


@pytest.mark.parametrize(("aud", "seen"), [("other", ("other",)), ([], ()), (None, ())])
def test_any_audience_or_none_is_taken_where_that_is_spelled_out(aud: Any, seen: tuple[str, ...]) -> None:
    assert validated(ANY_AUDIENCE, aud=aud).aud == seen


@pytest.mark.parametrize("rules", [RULES, ANY_AUDIENCE])
@pytest.mark.parametrize("aud", [NULL, 1, True, {"orders": 1}, ["orders", 1], ["orders", None], [["orders"]]])
def test_an_aud_that_is_neither_a_string_nor_strings_is_malformed(aud: Any, rules: TokenRules) -> None:
    with refused(Reason.TOKEN_MALFORMED, "aud is neither a string nor an array of strings"):
        validated(rules, aud=aud)


# -- the other registered claims ---------------------------------------------------------------------------------------

STRINGS = ["sub", "jti", "client_id"]


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize("value", [NULL, *NO_STRING[1:]])
def test_sub_jti_and_client_id_of_another_type_are_malformed(name: str, value: Any) -> None:
    with refused(Reason.TOKEN_MALFORMED, f"{name} is not a string"):
        validated(**{name: value})


@pytest.mark.parametrize("name", STRINGS)
@pytest.mark.parametrize("value", ["x", "", None])
def test_sub_jti_and_client_id_are_strings_or_absent(name: str, value: Any) -> None:
    assert getattr(validated(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": " a  b "}, {"a", "b"}),
        ({"scope": "a\tb\u00a0c"}, {"a\tb\u00a0c"}),  # RFC 6749 §3.3: a space, and nothing else, separates
        ({"scope": ""}, set()),
        ({"scope": None}, set()),
        ({"scope": ["a", "b c", ""]}, {"a", "b c"}),
        ({"scope": None, "scp": ["a", "b"]}, {"a", "b"}),
        ({"scope": None, "scp": "a b"}, {"a", "b"}),
        ({"scope": "a b", "scp": ["b", "c"]}, {"a", "b", "c"}),
        ({"scope": None, "scp": []}, set()),
    ],
)
def test_scopes_are_those_of_scope_and_scp_together(claims: dict[str, Any], scopes: set[str]) -> None:
    assert validated(**claims).scopes == scopes


UNREADABLE: list[Any] = [[], "", " ", [1, "b"], ["b", None], [["b"]], {"b": True}, 5, True, None]


@pytest.mark.parametrize("name", ["scopes", "permissions"])
@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("b c", {"a", "b", "c"}),
        (["b", "c", "a", ""], {"a", "b", "c"}),
        # No standard says what these are: what cannot be read grants nothing, and is no reason to refuse the token.
        *((value, {"a"}) for value in UNREADABLE),
    ],
)
def test_scopes_are_those_of_scopes_and_permissions_too(name: str, value: Any, scopes: set[str]) -> None:
    claims: dict[str, Any] = claims_set(NOW, scope="a") | {name: value}
    assert validate_claims(claims, RULES, NOW).scopes == scopes


NO_ROLES: list[Any] = [None, [], "roles", {}, {"roles": {"b": 1}}]


@pytest.mark.parametrize(
    ("name", "claims", "scopes"),
    [
        ("roles", {"roles": ["b", "c"]}, {"a", "b", "c"}),
        ("roles", {"roles": "b c"}, {"a", "b", "c"}),
        ("realm_access.roles", {"realm_access": {"roles": ["b"]}}, {"a", "b"}),
        ("realm_access.roles", {"realm_access.roles": ["c"], "realm_access": {"roles": ["b"]}}, {"a", "c"}),
        ("https://shop.example/roles", {"https://shop.example/roles": ["b"]}, {"a", "b"}),
        *(("realm_access.roles", {"realm_access": value}, {"a"}) for value in NO_ROLES),
        ("roles", {}, {"a"}),
        ("scope", {}, {"a"}),
    ],
)
def test_scopes_are_those_of_the_claims_that_the_issuers_settings_name_too(
    name: str, claims: dict[str, Any], scopes: set[str]
) -> None:
    members = claims_set(NOW, scope="a") | claims
    assert validate_claims(members, replace(RULES, scope_claims=(name,)), NOW).scopes == scopes
    assert validate_claims(members, RULES, NOW).scopes == {"a"}


def test_the_scopes_of_all_places_are_one_set() -> None:
    rules = replace(RULES, scope_claims=("roles", "realm_access.roles"))
    claims = claims_set(
        NOW, scope="a b", scp=["c"], scopes="d", permissions=["e", "a"], roles="f", realm_access={"roles": ["g"]}
    )
    assert validate_claims(claims, rules, NOW).scopes == set("abcdefg")


@pytest.mark.parametrize("name", ["scope", "scp"])
@pytest.mark.parametrize("value", [NULL, 1, True, {"a": 1}, ["a", 1], [["a"]]])
def test_scopes_of_another_type_are_malformed(name: str, value: Any) -> None:
    with refused(Reason.TOKEN_MALFORMED, f"{name} is neither a string nor an array of strings"):
        validated(**{name: value})


def test_a_claim_that_has_no_meaning_here_may_be_anything() -> None:
    assert validated(amr=[1, None], extra={"sub": 5}).members["extra"] == {"sub": 5}


def test_what_is_malformed_comes_before_what_is_invalid_before_what_has_expired_before_what_is_yet_to_come() -> None:
    wrong: dict[str, Any] = {"sub": 5, "aud": "other", "exp": NOW - 100, "nbf": NOW + 100, "iat": NOW + 100}
    reasons = []
    for repaired in ("sub", "aud", "exp", "nbf", "iat"):
        error = refusal(lambda: validated(**wrong))
        assert error is not None
        reasons.append(error.reason)
        del wrong[repaired]
    assert reasons == [
        Reason.TOKEN_MALFORMED,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_NOT_YET_VALID,
        Reason.TOKEN_NOT_YET_VALID,
    ]
    assert validated(**wrong).exp == NOW + 60


@pytest.mark.parametrize(
    ("value", "name"), [(RULES, "leeway_s"), (RULES, "audiences"), (validated(), "aud"), (validated(), "scopes")]
)
def test_what_a_token_is_held_to_and_what_was_found_valid_cannot_be_changed_in_its_place(value: Any, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
