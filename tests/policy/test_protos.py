"""Policies out of protos: what each option becomes, where services are found, and what is too new to be understood."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from matrix.v1 import matrix_pb2, matrix_pb2_grpc
from policies.v1 import policies_pb2, policies_pb2_grpc

from grpc_bearer import Access, ClaimRule, ConfigurationError, Policy, Streams
from grpc_bearer.policy.protos import Declared, find_service, policy_of, services_of
from grpc_bearer.v1 import policy_pb2
from tests.support.policies import DEFAULTED, OPTIONS, SILENT

EVERYTHING = Policy(
    scopes=("orders.read", "orders.write"),
    any_scopes=("staff", "admin"),
    claims=(
        ClaimRule("department", any_of=("ops", "support"), all_of=("ops",)),
        ClaimRule("realm_access.roles", present=True),
    ),
    issuers=("https://issuer.example",),
    audiences=("orders", "billing"),
    max_age_s=3600,
    stream_grace_s=30,
)
DECLARED = {
    OPTIONS: Declared(
        OPTIONS,
        {
            "Plain": None,
            "Empty": Policy(),
            "Authenticated": Policy(),
            "Public": Policy(access=Access.PUBLIC),
            "Optional": Policy(access=Access.OPTIONAL),
            "Deny": Policy(access=Access.DENY),
            "Everything": EVERYTHING,
            "Finish": Policy(streams=Streams.FINISH),
        },
    ),
    DEFAULTED: Declared(
        DEFAULTED,
        {"Inherits": None, "Replaces": Policy(scopes=("orders.write",)), "Empty": Policy()},
        Policy(scopes=("orders.read",), claims=(ClaimRule("department", any_of=("ops",)),)),
    ),
    SILENT: Declared(SILENT, {"One": None, "Two": None}),
}


@pytest.mark.parametrize("name", DECLARED)
def test_each_option_becomes_the_policy_that_it_says(name: str) -> None:
    assert find_service(name) == DECLARED[name]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "policies",
        "policies.v1",
        "policies.v1.SilentService.One",
        f"{SILENT}x",
        f".{SILENT}",
        f"{SILENT}\0",
        "\u00e9",
    ],
)
def test_a_service_that_no_imported_module_has_is_not_found(name: str) -> None:
    assert find_service(name) is None


# -- from message to policy --------------------------------------------------------------------------------------------


def test_what_is_not_said_in_an_option_is_the_default() -> None:
    assert policy_of(policy_pb2.Policy()) == Policy()
    assert policy_of(policy_pb2.Policy(max_age_s=0, stream_grace_s=0)) == Policy()


def test_every_enum_value_of_the_proto_is_understood() -> None:
    assert [policy_of(policy_pb2.Policy(access=value)).access for value in policy_pb2.Policy.Access.values()] == [
        Access.AUTHENTICATED,
        Access.AUTHENTICATED,
        Access.PUBLIC,
        Access.OPTIONAL,
        Access.DENY,
    ]
    assert [policy_of(policy_pb2.Policy(streams=value)).streams for value in policy_pb2.Policy.Streams.values()] == [
        Streams.TERMINATE,
        Streams.TERMINATE,
        Streams.FINISH,
    ]


def test_every_field_of_the_proto_is_read() -> None:
    """A field that is added to the proto and forgotten here would be a requirement that nobody looks at."""
    assert [field.name for field in policy_pb2.Policy.DESCRIPTOR.fields] == list(Policy.__dataclass_fields__)
    assert [field.name for field in policy_pb2.ClaimRule.DESCRIPTOR.fields] == list(ClaimRule.__dataclass_fields__)


FIELD_99 = b"\x98\x06\x01"  # a number in a field that no version has yet


@pytest.mark.parametrize("known", [{}, {"access": policy_pb2.Policy.ACCESS_PUBLIC}, {"scopes": ["a"]}], ids=repr)
def test_a_field_that_is_too_new_is_refused(known: dict[str, Any]) -> None:
    message = policy_pb2.Policy(**known)
    policy_of(message)
    with pytest.raises(ConfigurationError) as caught:
        policy_of(policy_pb2.Policy.FromString(message.SerializeToString() + FIELD_99))
    assert str(caught.value) == "has a field that this version of grpc-bearer does not know; upgrade it"


def test_a_field_of_a_claim_rule_that_is_too_new_is_refused() -> None:
    good = policy_pb2.ClaimRule(name="department", present=True)
    too_new = policy_pb2.ClaimRule.FromString(good.SerializeToString() + FIELD_99)
    policy_of(policy_pb2.Policy(claims=[good]))
    with pytest.raises(ConfigurationError) as caught:
        policy_of(policy_pb2.Policy(claims=[good, too_new]))
    assert str(caught.value) == "has a field that this version of grpc-bearer does not know; upgrade it"


@pytest.mark.parametrize("field", [b"\x08", b"\x40"], ids=["access", "streams"])
def test_an_enum_value_that_is_too_new_is_refused(field: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy_of(policy_pb2.Policy.FromString(field + b"\x63"))
    assert str(caught.value) == "has an enum value that this version of grpc-bearer does not know; upgrade it"


WRONG: dict[str, dict[str, Any]] = {
    "max_age_s: expected a number of seconds above 0": {"max_age_s": -1},
    "stream_grace_s: expected a number of seconds, 0 or more": {"stream_grace_s": -1},
    "scopes: 'a b' is no scope; list scopes one by one, without spaces or quotes": {"scopes": ["a b"]},
    "claims: a: requires nothing; give any_of, all_of or present": {"claims": [policy_pb2.ClaimRule(name="a")]},
    "claims: name is missing, or has an empty part between its dots": {"claims": [policy_pb2.ClaimRule(present=True)]},
    "audiences: expected a tuple of non-empty strings": {"audiences": [""]},
}


@pytest.mark.parametrize(("text", "fields"), WRONG.items(), ids=WRONG)
def test_an_option_is_held_to_what_a_policy_can_say(text: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        policy_of(policy_pb2.Policy(**fields))
    assert str(caught.value) == text


# -- wrong options, where they stand -----------------------------------------------------------------------------------


def registered(service: str, *, option: bytes = b"", default: bytes = b"") -> str:
    """The full name of a service with one method `Do`, new in the pool, with these options as they are on the wire."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"broken/{service}.proto", package="broken", dependency=["grpc_bearer/v1/policy.proto"], syntax="proto3"
    )
    file.message_type.add(name=f"{service}Message")
    made = file.service.add(name=service)
    made.method.add(name="Do", input_type=f".broken.{service}Message", output_type=f".broken.{service}Message")
    # Field 73517, of length-delimited type.
    for options, octets in ((made.options, default), (made.method[0].options, option)):
        if octets:
            options.MergeFromString(b"\xea\xf2\x23" + bytes([len(octets)]) + octets)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return f"broken.{service}"


BROKEN = {
    "TooNewMethod": ({"option": FIELD_99}, "policy", ".Do", "has a field that"),
    "TooNewDefault": ({"default": b"\x08\x63"}, "default_policy", "", "has an enum value that"),
    "WrongMethod": ({"option": b"\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}, "policy", ".Do", "max_age_s: expected"),
    "Contradicting": ({"default": b"\x08\x02\x12\x01a"}, "default_policy", "", "access: public and scopes contradict"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_option_is_named_with_its_service_and_method(name: str) -> None:
    options, extension, method, text = BROKEN[name]
    service = registered(name, **options)
    with pytest.raises(ConfigurationError) as caught:
        find_service(service)
    assert str(caught.value).startswith(f"(grpc_bearer.v1.{extension}) of {service}{method}: {text}")
    with pytest.raises(ConfigurationError):
        services_of(service)


def test_options_of_services_that_come_into_the_pool_later_are_found() -> None:
    service = registered("Late", option=b"\x08\x04", default=b"\x12\x01a")
    assert find_service(service) == Declared(service, {"Do": Policy(access=Access.DENY)}, Policy(scopes=("a",)))


# -- sources -----------------------------------------------------------------------------------------------------------


def test_a_generated_module_brings_all_its_services() -> None:
    assert services_of(policies_pb2) == tuple(DECLARED.values())
    assert [service.name for service in services_of(matrix_pb2)] == ["matrix.v1.MatrixService"]


@pytest.mark.parametrize("name", DECLARED)
def test_a_full_name_brings_its_service(name: str) -> None:
    assert services_of(name) == (DECLARED[name],)


@pytest.mark.parametrize("name", DECLARED)
def test_a_generated_function_brings_the_service_that_it_registers(name: str) -> None:
    add_to_server = getattr(policies_pb2_grpc, f"add_{name.rpartition('.')[2]}Servicer_to_server")
    assert services_of(add_to_server) == (DECLARED[name],)


def test_a_generated_function_is_asked_without_a_server_and_without_a_servicer() -> None:
    (service,) = services_of(matrix_pb2_grpc.add_MatrixServiceServicer_to_server)
    assert dict(service.methods) == dict.fromkeys(("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"))


def test_a_function_may_register_services_without_protos_and_several_of_them() -> None:
    def add_to_server(servicer: Any, server: Any) -> None:
        server.add_generic_rpc_handlers(())
        server.add_registered_method_handlers("by.hand.Service", {"Do": servicer.Do})
        server.add_registered_method_handlers("by.hand.Service", {"Undo": servicer.Undo})
        server.add_registered_method_handlers(SILENT, {"One": servicer.One, "Third": servicer.Third})

    assert services_of(add_to_server) == (
        Declared("by.hand.Service", {"Do": None, "Undo": None}),
        Declared(SILENT, {"One": None, "Third": None}),
    )


def raising(_servicer: Any, _server: Any) -> None:
    raise ValueError("s3cret")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("no.such.Service", "'no.such.Service' is unknown; import its generated module first, and use its full name"),
        (None, "expected generated *_pb2 modules, add_..._to_server functions, or full service names"),
        (policies_pb2_grpc, "expected generated *_pb2 modules, add_..._to_server functions, or full service names"),
        (raising, "a function was given that is no generated add_..._to_server"),
        (lambda: None, "a function was given that is no generated add_..._to_server"),
        (policies_pb2.PoliciesRequest, "a function was given that is no generated add_..._to_server"),
        (policies_pb2_grpc.SilentServiceServicer, "a function was given that is no generated add_..._to_server"),
        (
            lambda _servicer, server: server.add_generic_rpc_handlers(()),
            "a function was given that registers no method by name; give its *_pb2 module in its place",
        ),
    ],
    ids=[
        "an unknown name",
        "None",
        "a *_pb2_grpc module",
        "a function that raises",
        "a function without arguments",
        "a message class",
        "a servicer class",
        "a function that registers nothing by name",
    ],
)
def test_what_is_no_source_is_a_configuration_error(source: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        services_of(source)
    assert str(caught.value) == f"services: {text}"


def test_what_is_known_of_a_service_cannot_be_changed_in_its_place() -> None:
    with pytest.raises(FrozenInstanceError):
        DECLARED[OPTIONS].default = Policy(access=Access.PUBLIC)  # type: ignore[misc]
