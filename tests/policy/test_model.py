"""What a policy can say, and what is wrong with one that makes no sense."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from grpc_bearer import Access, ClaimRule, ConfigurationError, Policy, Streams
from grpc_bearer.policy.model import AUTHENTICATED, DENY, PUBLIC

CLAIM = ClaimRule("department", any_of=("ops",))
REQUIREMENTS: dict[str, Any] = {
    "scopes": ("a",),
    "any_scopes": ("a",),
    "claims": (CLAIM,),
    "issuers": ("https://issuer.example",),
    "audiences": ("orders",),
    "max_age_s": 1,
}


def fault(**fields: Any) -> str:
    """What is wrong with a policy of these fields."""
    with pytest.raises(ConfigurationError) as caught:
        Policy(**fields)
    return str(caught.value)


def test_a_policy_that_says_nothing_requires_a_valid_token_and_ends_streams_with_it() -> None:
    policy = Policy()
    assert policy == AUTHENTICATED
    assert policy.access is Access.AUTHENTICATED
    assert (policy.streams, policy.stream_grace_s) == (Streams.TERMINATE, 0)
    assert policy.requirements() == ()
    assert (PUBLIC.access, DENY.access) == (Access.PUBLIC, Access.DENY)


@pytest.mark.parametrize(("field", "value"), REQUIREMENTS.items())
def test_each_requirement_is_named(field: str, value: Any) -> None:
    assert Policy(**{field: value}).requirements() == (field,)


def test_all_requirements_can_be_had_at_once_and_are_named_in_their_order() -> None:
    assert Policy(**REQUIREMENTS).requirements() == tuple(REQUIREMENTS)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().access = Access.PUBLIC  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLAIM.present = True  # type: ignore[misc]


@pytest.mark.parametrize("access", [Access.PUBLIC, Access.OPTIONAL, Access.DENY])
@pytest.mark.parametrize(("field", "value"), REQUIREMENTS.items())
def test_an_access_that_goes_without_a_token_contradicts_each_requirement(access: Access, field: str, value: Any) -> None:
    assert fault(access=access, **{field: value}) == (
        f"access: {access} and {field} contradict each other: callers without a token could not meet it; drop one of the two"
    )
    assert Policy(access=access).access is access


@pytest.mark.parametrize("access", ["deny", "public", "DENY", "", None, True, 4, Streams.FINISH])
def test_an_access_that_is_none_is_refused_because_it_would_let_callers_in(access: Any) -> None:
    assert fault(access=access) == "access: expected Access.AUTHENTICATED, Access.PUBLIC, Access.OPTIONAL, Access.DENY"


@pytest.mark.parametrize("streams", ["terminate", "finish", None, False, 2, Access.DENY])
def test_streams_that_are_none_are_refused_because_they_would_go_on(streams: Any) -> None:
    assert fault(streams=streams) == "streams: expected Streams.TERMINATE, Streams.FINISH"


@pytest.mark.parametrize("field", ["scopes", "any_scopes", "issuers", "audiences"])
@pytest.mark.parametrize("value", ["abc", ["a"], None, ("",), ("a", ""), ("a", None), ("a", 1), (b"a",), {"a"}])
def test_texts_are_a_tuple_of_non_empty_strings(field: str, value: Any) -> None:
    assert fault(**{field: value}) == f"{field}: expected a tuple of non-empty strings"


@pytest.mark.parametrize("field", ["scopes", "any_scopes"])
@pytest.mark.parametrize("scope", ["a b", "a\tb", 'a"b', "a\\b", "a\n", " a", "caf\u00e9", "a\x7f", "\0"])
def test_a_scope_is_one_token_of_rfc_6749(field: str, scope: str) -> None:
    assert fault(**{field: ("good", scope)}) == (
        f"{field}: {scope!r} is no scope; list scopes one by one, without spaces or quotes"
    )


def test_a_scope_may_have_every_character_of_rfc_6749() -> None:
    every = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\')
    assert Policy(scopes=(every,)).scopes == (every,)


@pytest.mark.parametrize("value", [CLAIM, [CLAIM], (CLAIM, {"name": "x"}), ({"name": "x"},), None])
def test_claims_are_a_tuple_of_claim_rules(value: Any) -> None:
    assert fault(claims=value) == "claims: expected a tuple of ClaimRule"


def test_two_rules_for_a_claim_are_to_be_merged() -> None:
    other = ClaimRule("department", all_of=("ops",))
    assert fault(claims=(CLAIM, other)) == "claims: two rules for the same name; merge them"
    assert Policy(claims=(CLAIM, ClaimRule("department.name", present=True))).claims[0] is CLAIM


@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, float("nan"), float("inf"), "60", True, (1,)])
def test_a_highest_age_is_a_number_of_seconds_above_0(value: Any) -> None:
    assert fault(max_age_s=value) == "max_age_s: expected a number of seconds above 0"
    assert [Policy(max_age_s=good).max_age_s for good in (0.5, 1, 3600.0, None)] == [0.5, 1, 3600.0, None]


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf"), float("-inf"), "30", None, True])
def test_a_grace_is_a_number_of_seconds(value: Any) -> None:
    assert fault(stream_grace_s=value) == "stream_grace_s: expected a number of seconds, 0 or more"
    assert [Policy(stream_grace_s=good).stream_grace_s for good in (0, 0.5, 30)] == [0, 0.5, 30]


def test_a_grace_says_nothing_for_streams_that_finish() -> None:
    assert fault(streams=Streams.FINISH, stream_grace_s=1) == (
        "stream_grace_s: goes with streams = terminate only; drop one of the two"
    )
    assert Policy(streams=Streams.FINISH, stream_grace_s=0).streams is Streams.FINISH


def rule_fault(**fields: Any) -> str:
    """What is wrong with a claim rule of these fields."""
    with pytest.raises(ConfigurationError) as caught:
        ClaimRule(**fields)
    return str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", None, 1, ("a",)])
def test_a_claim_rule_names_its_claim(name: Any) -> None:
    assert rule_fault(name=name, present=True) == "claims: name is missing, or has an empty part between its dots"


@pytest.mark.parametrize("name", ["a", "a.b", "realm_access.roles", "https://shop.example/roles", "a b", "\u00e9"])
def test_a_claim_rule_takes_names_and_paths(name: str) -> None:
    assert ClaimRule(name, present=True).name == name


@pytest.mark.parametrize("field", ["any_of", "all_of"])
@pytest.mark.parametrize("value", ["ops", ["ops"], None, ("",), ("ops", 1), (True,)])
def test_the_values_of_a_claim_rule_are_a_tuple_of_non_empty_strings(field: str, value: Any) -> None:
    assert rule_fault(name="department", **{field: value}) == (
        f"claims: department: {field}: expected a tuple of non-empty strings"
    )


@pytest.mark.parametrize("value", ["yes", "", None, 1, 0])
def test_present_is_a_boolean(value: Any) -> None:
    assert rule_fault(name="department", present=value, any_of=("ops",)) == (
        "claims: department: present: expected True or False"
    )


def test_a_claim_rule_that_requires_nothing_is_refused() -> None:
    assert rule_fault(name="department") == "claims: department: requires nothing; give any_of, all_of or present"


def test_of_several_requirements_that_nobody_without_a_token_could_meet_the_first_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^access: public and scopes contradict each other"):
        Policy(access=Access.PUBLIC, scopes=("a",), audiences=("orders",), max_age_s=60)
