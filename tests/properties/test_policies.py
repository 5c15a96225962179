"""Policies of any shape: what cannot be meant is refused at the start; no name or claim but the meant one lets anybody in.

`tests/policy/test_properties.py` compares worlds of rules with their plain reading; this is what is thrown at the parts.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer import (
    Access,
    Authenticator,
    AuthError,
    ClaimRule,
    Claims,
    ConfigurationError,
    Issuer,
    Policies,
    Policy,
    Reason,
    Rule,
    Streams,
)
from grpc_bearer.policy.authorize import authorize, claim_values, holds
from grpc_bearer.policy.protos import Declared, policy_of
from grpc_bearer.policy.table import PUBLIC_BY_DEFAULT
from grpc_bearer.v1 import policy_pb2
from tests.support.fuzzing import cases
from tests.support.generated import JSON_VALUES
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint
from tests.support.verdicts import authenticate

NOW: Final = 1_800_000_000
SERVICE: Final = "shop.v1.Orders"
METHODS: Final[dict[str, Policy | None]] = {
    "List": Policy(access=Access.PUBLIC),
    "Add": None,
    "Drop": Policy(access=Access.DENY),
}
POLICIES: Final = Policies(
    public_methods=["/shop.v1.Orders/Open"], find={SERVICE: Declared(SERVICE, METHODS | {"Open": None})}.get
)
PUBLIC: Final = {*PUBLIC_BY_DEFAULT, "/shop.v1.Orders/List", "/shop.v1.Orders/Open"}

# -- names -------------------------------------------------------------------------------------------------------------


def access_of(method: str) -> Access:
    return POLICIES.for_method(method).policy.access


def test_no_name_that_differs_from_a_public_one_by_an_octet_is_public() -> None:
    tried = 0
    for name in PUBLIC:
        assert access_of(name) is Access.PUBLIC
        for at in range(len(name) + 1):
            before, after = name[:at], name[at + 1 :]
            for other in [*map(chr, range(128)), "\u00e9", "\u0130", "\u212a", ""]:
                for changed in (before + other + after, before + other + name[at:]):
                    if changed not in PUBLIC:
                        assert access_of(changed) is not Access.PUBLIC, changed
                        tried += 1
    assert tried > 50_000


@cases(300)
@given(st.text(max_size=30) | st.builds("/{}/{}".format, st.sampled_from([SERVICE, "a", ""]), st.text(max_size=8)))
def test_whatever_a_method_is_called_it_has_a_policy(method: str) -> None:
    entry = POLICIES.for_method(method)
    assert entry.method == method
    assert (entry.policy.access is Access.PUBLIC) is (method in PUBLIC)


# -- policies ----------------------------------------------------------------------------------------------------------

odd: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        ["deny", "public", (), ("a",), ("a b",), ("",), ["a"], ("a", 1), 0, -1, 60, math.inf, math.nan, True, None, {}, 1.5]
    ),
    st.sampled_from(
        [*Access, *Streams, ClaimRule("a", present=True), (ClaimRule("a", ("b",)),), (ClaimRule("a", ("b",)),) * 2]
    ),
    st.tuples(st.text(max_size=4)),
)


@cases(500)
@given(st.dictionaries(st.sampled_from([spec.name for spec in fields(Policy)]), odd, max_size=3))
def test_a_policy_is_refused_with_advice_or_means_one_thing(values: dict[str, Any]) -> None:
    try:
        policy = Policy(**values)
    except ConfigurationError as error:
        assert any(str(error).startswith(f"{name}:") for name in values)
        return
    assert type(policy.access) is Access
    assert type(policy.streams) is Streams
    assert policy.access is Access.AUTHENTICATED or not policy.requirements()
    assert policy.max_age_s is None or 0 < policy.max_age_s < math.inf
    assert 0 <= policy.stream_grace_s < math.inf
    assert hash(policy) == hash(Policy(**values))


@cases(300)
@given(odd | st.text(max_size=6), odd, odd, odd)
def test_a_claim_rule_is_refused_with_advice_or_requires_something(name: Any, any_of: Any, all_of: Any, present: Any) -> None:
    try:
        rule = ClaimRule(name, any_of, all_of, present)
    except ConfigurationError as error:
        assert str(error).startswith("claims: ")
        return
    assert rule.any_of or rule.all_of or rule.present is True
    assert not holds(rule, {}), "a claim that is not there meets nothing"


lists_of_methods = st.sampled_from([(), ["/shop.v1.Orders/Add"], ["shop.v1.Orders/*"], {"/made.up/Name"}]) | odd
policies_of_rules = st.sampled_from([Policy(), Policy(access=Access.PUBLIC), Policy(scopes=("a",))]) | odd


@cases(300)
@given(lists_of_methods, policies_of_rules, lists_of_methods)
def test_a_table_of_odd_rules_is_refused_with_advice_or_is_as_it_says(ruled: Any, policy: Any, public: Any) -> None:
    find = {SERVICE: Declared(SERVICE, METHODS)}.get
    try:
        table = Policies(rules=[Rule(ruled, policy)] if ruled != () else [], public_methods=public, find=find)
    except ConfigurationError as error:
        assert str(error)
        return
    said = {*PUBLIC_BY_DEFAULT, *public, "/shop.v1.Orders/List", *(ruled if policy == Policy(access=Access.PUBLIC) else ())}
    assert all(entry.method in said for entry in table.entries() if entry.policy.access is Access.PUBLIC)


messages = st.builds(
    policy_pb2.Policy,
    access=st.sampled_from([0, 1, 2, 3, 4, 5, 99]),
    scopes=st.lists(st.sampled_from(["a", "b", "", "a b"]), max_size=2),
    max_age_s=st.sampled_from([0, 60]),
    streams=st.sampled_from([0, 1, 2, 7]),
).map(lambda message: bytes(message.SerializeToString()))


@cases(400)
@given(
    st.one_of(
        messages,
        st.builds(
            lambda message, at, put: message[:at] + put + message[at:], messages, st.integers(0, 9), st.binary(max_size=4)
        ),
        st.binary(max_size=12),
    )
)
def test_a_policy_in_a_proto_is_refused_or_says_what_its_bytes_say(octets: bytes) -> None:
    message = policy_pb2.Policy()
    try:
        message.ParseFromString(octets)
    except Exception:  # protobuf's own: no message at all
        return
    try:
        policy = policy_of(message)
    except ConfigurationError:
        return
    assert policy.scopes == tuple(message.scopes)
    assert (policy.access is Access.PUBLIC) is (message.access == policy_pb2.Policy.ACCESS_PUBLIC)
    assert (policy.access is Access.DENY) is (message.access == policy_pb2.Policy.ACCESS_DENY)


# -- claims ------------------------------------------------------------------------------------------------------------

names = st.sampled_from(["department", "realm_access.roles", "realm_access", "a", "auth_time", "x.y.z"])
rules = st.builds(
    lambda name, values, every: ClaimRule(name, values, every, present=True),
    names,
    st.sampled_from([(), ("ops",), ("1", "true")]),
    st.sampled_from([(), ("ops",), ("a", "b")]),
)
some_policies = st.builds(
    Policy,
    scopes=st.sampled_from([(), ("a",), ("a", "b")]),
    any_scopes=st.sampled_from([(), ("a", "c")]),
    claims=st.lists(rules, max_size=2, unique_by=lambda rule: rule.name).map(tuple),
    audiences=st.sampled_from([(), ("orders",), ("billing",)]),
    max_age_s=st.sampled_from([None, 60, 1e300]),
)
members = st.dictionaries(
    st.sampled_from(["department", "realm_access", "realm_access.roles", "auth_time", "a", "x"]),
    JSON_VALUES | st.sampled_from(["ops", ["ops", "a"], {"roles": ["ops"]}, 1, True, 10**400, -1e308, [[]]]),
    max_size=4,
)


SIGNER: Final = key("k1", "EdDSA")
TRUSTING: Final = Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(SIGNER))], clock=lambda: NOW)


def refused(policy: Policy, claims: Claims) -> bool:
    try:
        authorize(policy, claims, NOW, 30.0)
    except AuthError as error:
        assert error.reason in (Reason.INSUFFICIENT_SCOPE, Reason.POLICY_DENIED)
        return True
    return False


@cases(400)
@given(some_policies, some_policies, members, st.sampled_from(["", "a", "a b", "b c"]))
def test_one_requirement_more_never_lets_a_caller_in_whatever_the_claims_are(
    policy: Policy, other: Policy, further: dict[str, Any], scope: str
) -> None:
    claims = authenticate(TRUSTING, mint(SIGNER, now=NOW, scope=scope, **further))
    ruled = {rule.name for rule in policy.claims}
    both = Policy(
        scopes=policy.scopes + other.scopes,
        any_scopes=policy.any_scopes or other.any_scopes,
        claims=policy.claims + tuple(rule for rule in other.claims if rule.name not in ruled),
        audiences=policy.audiences or other.audiences,
        max_age_s=min((s for s in (policy.max_age_s, other.max_age_s) if s is not None), default=None),
    )
    assert refused(both, claims) or not refused(policy, claims)


@cases(300)
@given(JSON_VALUES)
def test_what_a_claim_counts_as_is_text_whatever_the_claim_is(value: Any) -> None:
    frozen = tuple(value) if isinstance(value, list) else value
    assert all(isinstance(text, str) for text in claim_values(frozen))
    if isinstance(value, str | bool | int | float):
        assert len(claim_values(frozen)) == 1
