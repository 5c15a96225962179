"""No combination of rules lets a call through that the plain reading of the table refuses, nor the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer import (
    Access,
    Authenticator,
    AuthError,
    ClaimRule,
    ConfigurationError,
    Issuer,
    Policies,
    Policy,
    Rule,
    Streams,
)
from grpc_bearer.bearer import has_authorization
from grpc_bearer.keys.cache import Use
from grpc_bearer.policy.authorize import authorize
from grpc_bearer.policy.protos import Declared, find_service
from tests.policy.reading import Said, Service, World, is_served, is_wrong, listed_methods, may_call, meets, what_is_said
from tests.support.fuzzing import cases
from tests.support.policies import DEFAULTED, OPTIONS, SILENT
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, claims_set, compact, jwks, key
from tests.support.verdicts import authenticate, refusal

NOW: Final = 1_800_000_000
LEEWAY_S: Final = 30.0
OTHER: Final = "https://other.example"
ABSENT: Final = object()
SIGNER = key("k1", "EdDSA")
FORGER = SigningKey("k1", "EdDSA", key("forger", "EdDSA").private_key)

# What `policies.proto` says, read by a person.
IN_PROTOS = (
    Service(
        OPTIONS,
        {
            "Plain": None,
            "Empty": {},
            "Authenticated": {"access": "authenticated"},
            "Public": {"access": "public"},
            "Optional": {"access": "optional"},
            "Deny": {"access": "deny"},
            "Everything": {
                "scopes": ["orders.read", "orders.write"],
                "any_scopes": ["staff", "admin"],
                "claims": [
                    {"name": "department", "any_of": ["ops", "support"], "all_of": ["ops"]},
                    {"name": "realm_access.roles", "present": True},
                ],
                "issuers": [ISSUER],
                "audiences": ["orders", "billing"],
                "max_age_s": 3600,
                "stream_grace_s": 30,
            },
            "Finish": {"streams": "finish"},
        },
    ),
    Service(
        DEFAULTED,
        {"Inherits": None, "Replaces": {"scopes": ["orders.write"]}, "Empty": {}},
        {"scopes": ["orders.read"], "claims": [{"name": "department", "any_of": ["ops"]}]},
    ),
    Service(SILENT, {"One": None, "Two": None}),
)

# -- worlds ------------------------------------------------------------------------------------------------------------


def some(*values: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


texts = some("ops", "admin", "1", "true")
claim_rules = st.builds(
    lambda name, rule: {"name": name} | rule,
    st.sampled_from(["department", "department", "realm_access.roles", "realm_access"]),
    st.fixed_dictionaries({}, optional={"any_of": texts, "all_of": texts, "present": st.just(True)}).filter(bool),
)
REQUIREMENTS: dict[str, st.SearchStrategy[Any]] = {
    "scopes": some("orders.read", "orders.write"),
    "any_scopes": some("staff", "admin"),
    "claims": st.lists(claim_rules, min_size=1, max_size=2, unique_by=lambda rule: str(rule["name"])),
    "issuers": some(ISSUER, OTHER),
    "audiences": some("orders", "billing"),
    "max_age_s": st.sampled_from([60, 3600]),
    "access": st.just("authenticated"),
}
requirements: st.SearchStrategy[Said] = st.lists(st.sampled_from(list(REQUIREMENTS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: REQUIREMENTS[name] for name in names})
)
open_or_closed = st.sampled_from([{"access": access} for access in ("public", "optional", "deny")])
policies: st.SearchStrategy[Said] = st.one_of(requirements, requirements, open_or_closed)

METHODS_IN_PROTOS = [f"{service.name}/{name}" for service in IN_PROTOS for name in service.methods]
services_elsewhere = st.builds(
    Service,
    st.sampled_from(["late.v1.Service", "grpc.health.v1.Health"]),
    st.fixed_dictionaries({}, optional={"Check": st.none() | policies, "Do": st.none() | policies}),
    st.none() | policies,
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Of all kinds. Most of those that are strict are complete."""
    services = [*IN_PROTOS, *draw(st.lists(services_elsewhere, max_size=2, unique_by=lambda service: service.name))]
    targets = st.sampled_from([f"{service.name}/{name}" for service in services for name in [*service.methods, "*", "*"]])
    ruled = draw(st.lists(targets, max_size=8, unique=draw(st.integers(0, 9)) > 0))
    rules = [(ruled[start : start + 2], draw(policies)) for start in range(0, len(ruled), 2)]
    unruled = targets.filter(lambda target: "*" not in target and (target not in ruled or draw(st.integers(0, 9)) == 0))
    world = World(
        services=services,
        listed=draw(st.lists(st.sampled_from([OPTIONS, DEFAULTED, SILENT]), max_size=3, unique=True)),
        rules=rules,
        public_methods=draw(st.lists(unruled.map("/{}".format), max_size=3)),
        public_defaults=draw(st.booleans()),
        strict=draw(st.sampled_from([False, False, True])),
    )
    lacking = [method[1:] for method in listed_methods(world) if what_is_said(world, method) is None]
    if world.strict and lacking and draw(st.integers(0, 4)):
        return replace(world, rules=[*rules, (lacking, draw(policies))])
    return world


def policy_of(said: Said) -> Policy:
    """What is said, in the library's words."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}
    fields["access"] = Access(said.get("access", "authenticated"))
    fields["streams"] = Streams(said.get("streams", "terminate"))
    fields["claims"] = tuple(
        ClaimRule(rule["name"], tuple(rule.get("any_of", ())), tuple(rule.get("all_of", ())), rule.get("present", False))
        for rule in said.get("claims", [])
    )
    return Policy(**fields)


def built(world: World) -> Policies:
    """The world, in the library's words. Raises `ConfigurationError`."""
    declared = {
        service.name: Declared(
            service.name,
            {name: None if said is None else policy_of(said) for name, said in service.methods.items()},
            None if service.default is None else policy_of(service.default),
        )
        for service in world.services[len(IN_PROTOS) :]
    }
    return Policies(
        services=world.listed,
        rules=[Rule(targets, policy_of(said)) for targets, said in world.rules],
        public_methods=world.public_methods,
        public_defaults=world.public_defaults,
        strict=world.strict,
        find=lambda name: declared.get(name) or (None if name.startswith("grpc.health") else find_service(name)),
    )


# -- calls -------------------------------------------------------------------------------------------------------------

held = st.sampled_from(
    [ABSENT, None, "ops", ["ops", "admin"], ["ops", "admin", 1, True], 1, 1.0, True, ["admin", None], [], {}]
)
members_of_tokens = st.fixed_dictionaries(
    {
        "iss": st.sampled_from([ISSUER, ISSUER, OTHER]),
        "aud": st.sampled_from(["orders", ["orders", "billing"], ["orders", "else"]]),
        "scope": st.sampled_from(["orders.read orders.write staff", "orders.write admin", "orders.read", "", ABSENT]),
        "permissions": st.sampled_from([ABSENT, ["orders.read", "staff"], ["admin"], []]),
        "department": held,
        "realm_access": st.builds(lambda roles: {} if roles is ABSENT else {"roles": roles}, held) | held,
        "realm_access.roles": st.sampled_from([ABSENT, ABSENT, ABSENT, None, "ops", ["admin"]]),
        "iat": st.sampled_from([NOW, NOW - 60, NOW - 91, NOW - 3600, NOW - 3631, ABSENT]),
        "auth_time": st.sampled_from([ABSENT] * 3 + [NOW - 90, NOW - 91, NOW - 3630, NOW + 30, NOW + 31, None, str(NOW), True]),
    }
).map(lambda members: {name: value for name, value in (claims_set(NOW) | members).items() if value is not ABSENT})
EVERY_METHOD = [
    f"/{name}"
    for name in (
        *METHODS_IN_PROTOS,
        f"{SILENT}/Three",
        f"{DEFAULTED}/Unheard",
        "late.v1.Service/Do",
        "late.v1.Service/Check",
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Do",
        "made.up/Name",
    )
]
sent = st.sampled_from(["nothing", "another scheme", "a bad token", "a good token", "a good token", "a good token"])


def token(members: Mapping[str, Any], signer: SigningKey = SIGNER) -> str:
    return compact({"alg": "EdDSA", "kid": "k1"}, dict(members), signer)


def metadata(sends: str, members: Mapping[str, Any]) -> list[tuple[str, str | bytes]]:
    signer = FORGER if sends == "a bad token" else SIGNER
    value = {"nothing": None, "another scheme": "Basic YTpi"}.get(sends, f"Bearer {token(members, signer)}")
    return [("user-agent", "x")] if value is None else [("user-agent", "x"), ("authorization", value)]


def trusting(policies: Policies | None = None) -> Authenticator:
    issuers = [Issuer(iss, audiences=[AUDIENCE], jwks=jwks(SIGNER), leeway_s=LEEWAY_S) for iss in (ISSUER, OTHER)]
    return Authenticator(issuers, policies=policies, clock=lambda: NOW)


def gets_through(auth: Authenticator, method: str, of_call: list[tuple[str, str | bytes]]) -> bool:
    """What the drivers do."""
    gate = auth.gate
    try:
        policy = gate.policy(method)
        if policy.access is Access.PUBLIC or (policy.access is Access.OPTIONAL and not has_authorization(of_call)):
            return True
        candidate = gate.read(of_call)
        step = gate.key_for(candidate)
        assert isinstance(step, Use)
        gate.accept(candidate, step.key, policy)
    except AuthError:
        return False
    return True


# -- the properties ----------------------------------------------------------------------------------------------------


@cases(400)
@given(worlds())
def test_each_method_has_the_policy_of_the_plain_reading(world: World) -> None:
    if is_wrong(world):
        with pytest.raises(ConfigurationError):
            built(world)
        return
    policies = built(world)
    for method in [*EVERY_METHOD, *EVERY_METHOD]:  # looked up, and remembered
        said = what_is_said(world, method) if is_served(world, method) else {"access": "deny"}
        assert policies.for_method(method).policy == policy_of(said or {}), method


AUTH = trusting()


@cases(600)
@given(requirements, members_of_tokens)
def test_a_caller_meets_a_policy_exactly_where_the_plain_reading_says_so(said: Said, members: dict[str, Any]) -> None:
    claims = authenticate(AUTH, token(members))
    refused_with = refusal(lambda: authorize(policy_of(said), claims, NOW, LEEWAY_S))
    assert (refused_with is None) is meets(said, members, NOW, LEEWAY_S)


@cases(150)
@given(worlds().filter(lambda world: not is_wrong(world)), st.data())
def test_a_call_gets_through_exactly_where_the_plain_reading_lets_it(world: World, data: st.DataObject) -> None:
    auth = trusting(built(world))
    ruled = [f"/{target}" for targets, _said in world.rules for target in targets if "*" not in target]
    for method in data.draw(st.lists(st.sampled_from([*EVERY_METHOD, *ruled]), min_size=3, max_size=3)):
        sends, members = data.draw(sent), data.draw(members_of_tokens)
        expected = may_call(world, method, sends=sends, claims=members, now=NOW, leeway_s=LEEWAY_S)
        assert gets_through(auth, method, metadata(sends, members)) is expected, (method, sends)
