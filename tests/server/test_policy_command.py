"""`policy`: what each method requires, of services from modules and descriptor sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from policies.v1 import policies_pb2

from grpc_bearer.v1 import policy_pb2
from tests.support.command import Command, fields, settings

POLICIES = ("--module", "policies.v1.policies_pb2")
IDENTITY = "grpc_bearer.v1.IdentityService/WhoAmI"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def test_policy_prints_what_each_method_requires_and_which_rule_says_so(run: Command) -> None:
    ran = run("policy", *POLICIES)
    assert (ran.status, ran.err) == (0, "")
    assert "\x1b" not in ran.out
    lines = {fields(line)[0]: fields(line)[1:] for line in ran.out.splitlines()}
    assert lines["METHOD"] == ("ACCESS", "FROM", "REQUIRES")
    assert lines["/grpc.health.v1.Health/Check"] == ("public", "public by default")
    service = {name.rpartition("/")[2]: line for name, line in lines.items() if name.startswith("/policies.v1.MethodsService")}
    assert service == {
        "Authenticated": ("authenticated", "proto: method option"),
        "Deny": ("deny", "proto: method option"),
        "Empty": ("authenticated", "proto: method option"),
        "Everything": (
            "authenticated",
            "proto: method option",
            "; ".join(
                [
                    "scopes orders.read orders.write",
                    "scope one of admin, staff",
                    "claim department: ops, and one of ops, support",
                    "claim realm_access.roles: present",
                    "issuer https://issuer.example",
                    "audience one of billing, orders",
                    "authenticated at most 3600 s ago",
                    "streams may outlive the token by 30 s",
                ]
            ),
        ),
        "Finish": ("authenticated", "proto: method option", "streams may outlive the token"),
        "Optional": ("optional", "proto: method option"),
        "Plain": ("authenticated", "default"),
        "Public": ("public", "proto: method option"),
    }
    inherits = lines["/policies.v1.DefaultedService/Inherits"]
    assert inherits == ("authenticated", "proto: service option", "scopes orders.read; claim department: ops")


def test_policy_of_nothing_that_is_named_is_that_of_our_own_service(run: Command) -> None:
    assert fields(next(line for line in run("policy").out.splitlines() if IDENTITY in line))[0] == f"/{IDENTITY}"


def test_policy_heeds_the_rules_of_the_settings(run: Command, tmp_path: Path) -> None:
    config = settings(tmp_path, f'[[rules]]\nmethods = ["{IDENTITY}"]\nscopes = ["who"]\n')
    lines = run("policy", "--config", config).out.splitlines()
    assert (f"/{IDENTITY}", "authenticated", "rules[0]", "scopes who") in map(fields, lines)


def test_policy_as_json_has_every_field(run: Command) -> None:
    entries = {entry.pop("method"): entry for entry in json.loads(run("policy", "--json", *POLICIES).out)}
    assert entries["/policies.v1.MethodsService/Everything"] == {
        "source": "proto: method option",
        "access": "authenticated",
        "scopes": ["orders.read", "orders.write"],
        "any_scopes": ["staff", "admin"],
        "claims": [
            {"name": "department", "any_of": ["ops", "support"], "all_of": ["ops"], "present": False},
            {"name": "realm_access.roles", "any_of": [], "all_of": [], "present": True},
        ],
        "issuers": ["https://issuer.example"],
        "audiences": ["orders", "billing"],
        "max_age_s": 3600.0,
        "streams": "terminate",
        "stream_grace_s": 30.0,
    }
    assert len(entries) == 18


# -- where services come from ------------------------------------------------------------------------------------------


def file_of(module: Any) -> FileDescriptorProto:
    """A module's file as protoc puts it into a set: with more in it than generated code has."""
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    for member in file.extension:
        member.json_name = member.name
    return file


def shop(package: str, **options: Any) -> FileDescriptorProto:
    """A file that no module of this process has: a service with one method, whose option is given."""
    file = FileDescriptorProto(
        name=f"{package}/shop.proto", package=package, syntax="proto3", dependency=["grpc_bearer/v1/policy.proto"]
    )
    file.message_type.add(name="Nothing")
    method = file.service.add(name="Shop").method.add(
        name="Buy", input_type=f".{package}.Nothing", output_type=f".{package}.Nothing"
    )
    method.options.Extensions[policy_pb2.policy].CopyFrom(policy_pb2.Policy(**options))
    return file


def written(folder: Path, *files: FileDescriptorProto, name: str = "set.binpb") -> str:
    path = folder / name
    path.write_bytes(FileDescriptorSet(file=files).SerializeToString())
    return str(path)


def test_a_descriptor_set_has_its_policies(run: Command, tmp_path: Path) -> None:
    proto_set = written(tmp_path, file_of(policy_pb2), shop("shop.one", scopes=["buy"]), file_of(policies_pb2))
    ran = run("policy", "--proto-set", proto_set, "--proto-set", proto_set, *POLICIES)
    assert ran.err == ""
    lines = list(map(fields, ran.out.splitlines()))
    assert ("/shop.one.Shop/Buy", "authenticated", "proto: method option", "scopes buy") in lines
    assert ("/policies.v1.SilentService/One", "authenticated", "default") in lines


def test_a_service_without_a_package_is_found(run: Command, tmp_path: Path) -> None:
    file = shop("bare")
    file.ClearField("package")
    for method in file.service[0].method:
        method.input_type = method.output_type = ".Nothing"
    assert "/Shop/Buy" in run("policy", "--proto-set", written(tmp_path, file)).out


def test_a_file_that_is_loaded_already_has_to_have_the_same_services(run: Command, tmp_path: Path) -> None:
    assert run("policy", "--proto-set", written(tmp_path, shop("shop.two", scopes=["buy"]))).status == 0
    other = written(tmp_path, shop("shop.two", scopes=["sell"]), name="other")
    ran = run("policy", "--proto-set", other)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"grpc-bearer: --proto-set: shop.two/shop.proto in {other} is not the one that is loaded already\n"


def test_a_set_without_what_it_imports_says_how_to_make_it(run: Command, tmp_path: Path) -> None:
    file = shop("shop.three")
    file.dependency.append("not/there.proto")
    ran = run("policy", "--proto-set", written(tmp_path, file))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith("does not fit the rest; make the set with protoc --include_imports\n")


BROKEN_MODULES = {
    "nope": "there is no module nope; set PYTHONPATH to the folder above it",
    "nope.v1.nope_pb2": "there is no module nope; set PYTHONPATH to the folder above it",
    "policies/v1/policies_pb2.py": "there is no module policies/v1/policies_pb2; set PYTHONPATH to the folder above it",
    "json": "json has no service in it; name a module that protoc made, as orders.v1.orders_pb2",
    "grpc_bearer.v1.policy_pb2": "grpc_bearer.v1.policy_pb2 has no service in it; name a module that protoc made",
    "policies.v1.policies_pb2_grpc": "policies.v1.policies_pb2_grpc has no service in it; name a module that protoc made",
    "broken_for_a_test": "broken_for_a_test cannot be imported: RuntimeError: two lines",
    ".policies_pb2": ".policies_pb2 cannot be imported: TypeError: ",
}


@pytest.mark.parametrize(("name", "said"), BROKEN_MODULES.items(), ids=BROKEN_MODULES)
def test_a_module_that_does_not_do_is_one_line(
    name: str, said: str, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_for_a_test.py").write_text('raise RuntimeError("two\\nlines")')
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = run("policy", "--module", name)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err


@pytest.mark.parametrize(("name", "paths"), [("here_pb2", []), ("here_too_pb2", [""])])
def test_a_module_in_the_present_folder_is_found(
    name: str, paths: list[str], run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text("from policies.v1.policies_pb2 import DESCRIPTOR")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*paths, *(path for path in sys.path if path)])
    assert "/policies.v1.SilentService/One" in run("policy", "--module", name).out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "has no service in it"),
        (b'syntax = "proto3";', "is no descriptor set; make it with protoc --descriptor_set_out"),
        (FileDescriptorSet(file=[file_of(policy_pb2)]).SerializeToString(), "has no service in it"),
    ],
)
def test_a_set_that_does_not_do_is_one_line(content: bytes | None, said: str, run: Command, tmp_path: Path) -> None:
    path = tmp_path / "set"
    if content is not None:
        path.write_bytes(content)
    ran = run("policy", "--proto-set", str(path))
    assert (ran.status, ran.out, ran.err) == (2, "", f"grpc-bearer: --proto-set: {path} {said}\n")
