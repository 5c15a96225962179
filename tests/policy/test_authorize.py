"""Whether verified claims meet a policy: every requirement with callers that meet it and neighbours that do not."""

from __future__ import annotations

from typing import Any, Final

import pytest

from grpc_bearer import AuthError, ClaimRule, Claims, Policy, Reason
from grpc_bearer.policy.authorize import authorize, insufficient_scope
from tests.support.authenticators import static
from tests.support.tokens import ISSUER, claims_set, compact, key
from tests.support.verdicts import authenticate

NOW: Final = 1_800_000_000
LEEWAY_S: Final = 30.0
ABSENT: Final = object()

OK = None
SCOPE = (Reason.INSUFFICIENT_SCOPE, "the token lacks a scope that the method requires")
ISSUER_DENIED = (Reason.POLICY_DENIED, "iss is none of the issuers that the method accepts")
AUDIENCE_DENIED = (Reason.POLICY_DENIED, "aud names none of the audiences that the method accepts")
TOO_OLD = (Reason.POLICY_DENIED, "the caller authenticated too long ago, or the token does not say when")
CLAIM_DENIED = (Reason.POLICY_DENIED, "the claim x is not what the method requires")

AUTH = static(clock=lambda: NOW)


def verified(**claims: Any) -> Claims:
    """The claims of a token of `NOW` as the verifier hands them over. None is null, `ABSENT` takes a claim away."""
    members = {name: value for name, value in (claims_set(NOW) | claims).items() if value is not ABSENT}
    return authenticate(AUTH, compact({"alg": "RS256", "kid": "k1"}, members, key()))


def refusal(policy: Policy, claims: Claims, now: float = NOW) -> tuple[Reason, str] | None:
    """What a caller of these claims is refused with; None when it may call."""
    try:
        authorize(policy, claims, now, LEEWAY_S)
    except AuthError as error:
        return error.reason, error.detail
    return None


def test_a_policy_that_requires_nothing_is_met_by_every_valid_token() -> None:
    for claims in (verified(), verified(scope=ABSENT, sub=ABSENT, iat=ABSENT, aud=["orders"])):
        assert refusal(Policy(), claims) is None


# -- scopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "any_scopes", "scope", "verdict"),
    [
        (("a",), (), "a", OK),
        (("a",), (), "b a c", OK),
        (("a",), (), "", SCOPE),
        (("a",), (), "b", SCOPE),
        (("a",), (), "A", SCOPE),
        (("a",), (), "ab a.b a:b", SCOPE),
        (("a", "b"), (), "b a", OK),
        (("a", "b"), (), "a", SCOPE),
        (("a", "b"), (), "b", SCOPE),
        ((), ("a", "b"), "a", OK),
        ((), ("a", "b"), "c b", OK),
        ((), ("a", "b"), "a b", OK),
        ((), ("a", "b"), "c", SCOPE),
        ((), ("a", "b"), "", SCOPE),
        (("a",), ("b", "c"), "a c", OK),
        (("a",), ("b", "c"), "a", SCOPE),
        (("a",), ("b", "c"), "b c", SCOPE),
    ],
)
def test_scopes_are_required_all_and_any_scopes_one(
    scopes: tuple[str, ...], any_scopes: tuple[str, ...], scope: str, verdict: Any
) -> None:
    policy = Policy(scopes=scopes, any_scopes=any_scopes)
    assert refusal(policy, verified(scope=scope)) == verdict
    assert refusal(policy, verified(scope=ABSENT, permissions=scope.split())) == verdict


def test_who_lacks_a_scope_is_told_which_are_required_and_nothing_of_the_token() -> None:
    policy = Policy(scopes=("a", "b"), any_scopes=("c", "d"))
    with pytest.raises(AuthError) as caught:
        authorize(policy, verified(scope="a s3cret"), NOW, LEEWAY_S)
    assert caught.value.caller_metadata == {"scopes": "a b", "any_scopes": "c d"}
    assert insufficient_scope(Policy(any_scopes=("c",))).caller_metadata == {"any_scopes": "c"}


# -- issuers and audiences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issuers", "verdict"),
    [
        ((ISSUER,), OK),
        (("https://other.example", ISSUER), OK),
        (("https://other.example",), ISSUER_DENIED),
        ((f"{ISSUER}/",), ISSUER_DENIED),
        ((ISSUER.upper(),), ISSUER_DENIED),
        ((ISSUER[:-1],), ISSUER_DENIED),
    ],
)
def test_the_issuer_has_to_be_one_of_the_policys_to_the_letter(issuers: tuple[str, ...], verdict: Any) -> None:
    assert refusal(Policy(issuers=issuers), verified()) == verdict


@pytest.mark.parametrize(
    ("audiences", "aud", "verdict"),
    [
        (("orders",), "orders", OK),
        (("billing", "orders"), "orders", OK),
        (("billing",), ["orders", "billing"], OK),
        (("billing",), "orders", AUDIENCE_DENIED),
        (("billing",), ["orders", "Billing", "billing/"], AUDIENCE_DENIED),
    ],
)
def test_aud_has_to_name_one_of_the_policys_audiences_too(audiences: tuple[str, ...], aud: Any, verdict: Any) -> None:
    assert refusal(Policy(audiences=audiences), verified(aud=aud)) == verdict


# -- claims ------------------------------------------------------------------------------------------------------------

PRESENT = {"present": True}
WHATEVER: list[Any] = ["", "a", 0, 0.5, False, [], {}, [None]]
ANY = {"any_of": ("a", "b")}
ALL = {"all_of": ("a", "b")}
ANY_AND_ALL = {"any_of": ("a", "b"), "all_of": ("c",)}


@pytest.mark.parametrize(
    ("rule", "value", "verdict"),
    [
        # Present: whatever it is, but null.
        *((PRESENT, value, OK) for value in WHATEVER),
        *((PRESENT, value, CLAIM_DENIED) for value in (None, ABSENT)),
        # One value.
        (ANY, "a", OK),
        (ANY, "b", OK),
        *((ANY, value, CLAIM_DENIED) for value in ("c", "A", "ab", "a b", "", 1, True, None, ABSENT, {"a": "a"}, {"x": "a"})),
        (ALL, "a", CLAIM_DENIED),
        ({"all_of": ("a",)}, "a", OK),
        # Its elements.
        (ANY, ["c", "b"], OK),
        (ALL, ["b", "c", "a"], OK),
        *((ANY, value, CLAIM_DENIED) for value in ([], ["c"], [["a"]], [{"a": "a"}], [None])),
        *((ALL, value, CLAIM_DENIED) for value in ([], ["a"], ["b", "c"], [["a", "b"]], ["a b"])),
        # Together.
        (ANY_AND_ALL, ["a", "c"], OK),
        (ANY_AND_ALL, ["a", "b"], CLAIM_DENIED),
        (ANY_AND_ALL, ["c"], CLAIM_DENIED),
        (ANY | PRESENT, "a", OK),
        (ANY | PRESENT, "c", CLAIM_DENIED),
        # Numbers and booleans, by their JSON text.
        ({"any_of": ("42",)}, 42, OK),
        ({"any_of": ("42",)}, "42", OK),
        ({"any_of": ("42",)}, [7, 42], OK),
        ({"any_of": ("42",)}, 42.5, CLAIM_DENIED),
        ({"any_of": ("-1",)}, -1, OK),
        ({"any_of": ("0.5",)}, 0.5, OK),
        ({"any_of": ("1",)}, True, CLAIM_DENIED),
        ({"any_of": ("1",)}, 1, OK),
        ({"any_of": ("true",)}, True, OK),
        ({"any_of": ("true",)}, False, CLAIM_DENIED),
        ({"any_of": ("false",)}, False, OK),
        ({"any_of": ("false",)}, None, CLAIM_DENIED),
        ({"any_of": ("0",)}, False, CLAIM_DENIED),
        ({"any_of": ("True", "False")}, [True, False], CLAIM_DENIED),
        ({"any_of": ("null", "None")}, None, CLAIM_DENIED),
        ({"any_of": ("null", "None")}, [None], CLAIM_DENIED),
        ({"all_of": ("true", "7", "a")}, ["a", 7, True, None], OK),
    ],
)
def test_a_claim_has_to_hold_what_its_rule_says(rule: dict[str, Any], value: Any, verdict: Any) -> None:
    assert refusal(Policy(claims=(ClaimRule("x", **rule),)), verified(x=value)) == verdict


NAMESPACED = "https://shop.example/roles"


@pytest.mark.parametrize(
    ("name", "claims", "holds"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["admin"]}}, True),
        ("realm_access.roles", {"realm_access": {"roles": "admin"}}, True),
        ("a.b.c.d", {"a": {"b": {"c": {"d": "admin"}}}}, True),
        ("realm_access.roles", {"realm_access": {"roles": None}}, False),
        ("realm_access.roles", {"realm_access": {}}, False),
        ("realm_access.roles", {"realm_access": ["roles", "admin"]}, False),
        ("realm_access.roles", {"realm_access": [{"roles": ["admin"]}]}, False),
        ("realm_access.roles", {"realm_access": "admin"}, False),
        ("realm_access.roles", {"realm_access": {"roles": {"admin": True}}}, False),
        ("realm_access.roles", {"roles": ["admin"]}, False),
        ("realm_access.roles", {"x": {"realm_access": {"roles": ["admin"]}}}, False),
        ("realm_access.roles", {}, False),
        # A claim of just that name goes before the path, whatever it holds (RFC 7519 §4.2: names may have dots).
        (NAMESPACED, {NAMESPACED: ["admin"]}, True),
        (NAMESPACED, {NAMESPACED: ["user"], "https://shop": {"example/roles": ["admin"]}}, False),
        (NAMESPACED, {NAMESPACED: None, "https://shop": {"example/roles": ["admin"]}}, False),
        (NAMESPACED, {"https://shop": {"example/roles": ["admin"]}}, True),
        # Only as a whole: a path does not go through names with dots.
        ("shop.example.roles", {"shop.example": {"roles": ["admin"]}}, False),
        ("sub", {"sub": "admin"}, True),
        ("aud", {"aud": ["orders", "admin"]}, True),
    ],
)
def test_a_name_with_dots_is_a_claim_of_that_name_or_a_path(name: str, claims: dict[str, Any], holds: bool) -> None:
    expected = None if holds else (Reason.POLICY_DENIED, f"the claim {name} is not what the method requires")
    assert refusal(Policy(claims=(ClaimRule(name, any_of=("admin",)),)), verified(**claims)) == expected


def test_all_claim_rules_have_to_hold_and_the_first_that_does_not_is_told() -> None:
    policy = Policy(claims=(ClaimRule("x", present=True), ClaimRule("y", any_of=("a",))))
    assert refusal(policy, verified(x=1, y="a")) is None
    assert refusal(policy, verified(y="a")) == CLAIM_DENIED
    assert refusal(policy, verified()) == CLAIM_DENIED
    assert refusal(policy, verified(x=1)) == (Reason.POLICY_DENIED, "the claim y is not what the method requires")


# -- age ---------------------------------------------------------------------------------------------------------------

HOUR = Policy(max_age_s=3600)
UNREADABLE: list[Any] = [None, str(NOW), True, [NOW], {}, 0, -1, 10**400]


@pytest.mark.parametrize(
    ("claims", "verdict"),
    [
        ({"iat": NOW}, OK),
        ({"iat": NOW - 3600}, OK),
        ({"iat": NOW - 3630}, OK),  # the leeway
        ({"iat": NOW - 3630.5}, TOO_OLD),
        ({"iat": ABSENT}, TOO_OLD),
        # auth_time goes before iat (OpenID Connect Core §2), which does not stand in where that cannot be read.
        ({"auth_time": NOW - 3600, "iat": NOW - 7200}, OK),
        ({"auth_time": NOW - 3630}, OK),
        ({"auth_time": NOW - 3631}, TOO_OLD),
        ({"auth_time": NOW - 3600.5, "iat": ABSENT}, OK),
        *(({"auth_time": value}, TOO_OLD) for value in UNREADABLE),
        # The future, give or take the leeway: for instance milliseconds.
        ({"auth_time": NOW + 30}, OK),
        ({"auth_time": NOW + 31}, TOO_OLD),
        ({"auth_time": NOW * 1000}, TOO_OLD),
    ],
)
def test_the_caller_has_to_have_authenticated_not_too_long_ago(claims: dict[str, Any], verdict: Any) -> None:
    assert refusal(HOUR, verified(**claims)) == verdict
    assert refusal(Policy(), verified(**claims)) is None


def test_age_is_that_of_the_moment_of_the_call() -> None:
    claims = verified(exp=NOW + 86_400)
    assert refusal(HOUR, claims, NOW + 3630) is None
    assert refusal(HOUR, claims, NOW + 3631) == TOO_OLD


# -- together ----------------------------------------------------------------------------------------------------------


def test_every_requirement_has_to_hold_and_they_are_looked_at_in_this_order() -> None:
    policy = Policy(
        issuers=(ISSUER,),
        audiences=("billing",),
        scopes=("a",),
        any_scopes=("b", "c"),
        claims=(ClaimRule("x", any_of=("1",)),),
        max_age_s=60,
    )
    claims: dict[str, Any] = {"scope": "d", "auth_time": NOW - 3600}
    for verdict, mended in (
        (AUDIENCE_DENIED, {"aud": ["orders", "billing"]}),
        (SCOPE, {"scope": "a c"}),
        (CLAIM_DENIED, {"x": 1}),
        (TOO_OLD, {"auth_time": NOW - 10}),
    ):
        assert refusal(policy, verified(**claims)) == verdict
        claims |= mended
    assert refusal(policy, verified(**claims)) is None
