"""What gets installed: the wheel's content and metadata, the floors of the dependencies, the lock files."""

from __future__ import annotations

import re
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.wheels import ROOT, build_wheel

LOCKS = ("audit", "bench", "dev", "fuzz", "lowest", "proto")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this work tree."""
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def names_in(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def floor(project: dict[str, Any], distribution: str) -> Version:
    """The lowest version of a dependency that the project allows."""
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    (requirement,) = (r for r in map(Requirement, wanted) if r.name == distribution)
    (lowest,) = (Version(part.version) for part in requirement.specifier if part.operator == ">=")
    return lowest


def test_the_wheel_holds_both_packages_and_the_pytest_plugin_and_nothing_else(contents: set[str]) -> None:
    tops = {name.partition("/")[0] for name in contents}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "grpc_bearer",
        "grpc_bearer_pytest.py",
        "grpc_bearer_server",
    }


def test_the_wheel_tells_pytest_where_its_plugin_is(wheel: Path) -> None:
    (distribution,) = distributions(path=[str(wheel)])
    plugins = [(entry.name, entry.value) for entry in distribution.entry_points if entry.group == "pytest11"]
    assert plugins == [("grpc_bearer", "grpc_bearer_pytest")]


def test_neither_the_base_install_nor_the_service_asks_for_pytest(metadata: Message) -> None:
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    asking = {str(requirement.marker) for requirement in wanted if requirement.name.startswith("pytest")}
    assert asking == {'extra == "dev"'}


def test_the_wheel_says_that_both_packages_are_typed(contents: set[str]) -> None:
    assert {"grpc_bearer/py.typed", "grpc_bearer_server/py.typed"} <= contents


def test_the_wheel_ships_every_proto_at_its_import_path(contents: set[str]) -> None:
    protos = {str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto")}
    assert protos
    assert protos <= contents
    assert {name for name in contents if name.endswith(".proto")} == protos


def test_the_wheel_ships_generated_code_with_its_types(contents: set[str]) -> None:
    for proto in (ROOT / "protos").rglob("*.proto"):
        stem = str(proto.relative_to(ROOT / "protos").with_suffix(""))
        assert {f"{stem}_pb2.py", f"{stem}_pb2.pyi", f"{stem}_pb2_grpc.py", f"{stem}_pb2_grpc.pyi"} <= contents


def test_the_wheel_carries_its_licence(contents: set[str], metadata: Message) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_base_install_asks_for_nothing_of_the_service(project: dict[str, Any], metadata: Message) -> None:
    wanted = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    base = {canonicalize_name(requirement.name) for requirement in wanted if requirement.marker is None}
    assert base == names_in(project["dependencies"])
    assert base.isdisjoint(names_in(project["optional-dependencies"]["server"]))


@pytest.mark.parametrize("generated", sorted(ROOT.glob("interceptors/grpc_bearer/v1/*_pb2_grpc.py")), ids=lambda p: p.stem)
def test_the_grpcio_floor_is_the_version_that_generated_code_insists_on(generated: Path, project: dict[str, Any]) -> None:
    match = re.search(r"^GRPC_GENERATED_VERSION = '([0-9.]+)'$", generated.read_text(), re.MULTILINE)
    assert match is not None
    assert floor(project, "grpcio") == Version(match[1])


@pytest.mark.parametrize("generated", sorted(ROOT.glob("interceptors/grpc_bearer/v1/*_pb2.py")), ids=lambda p: p.stem)
def test_the_protobuf_floor_is_the_version_that_generated_code_insists_on(generated: Path, project: dict[str, Any]) -> None:
    match = re.search(r"^# Protobuf Python Version: ([0-9.]+)$", generated.read_text(), re.MULTILINE)
    assert match is not None
    assert floor(project, "protobuf") == Version(match[1])


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_pinned_and_hashed(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_machine(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    assert re.findall(r"://|--index|--find-links|(?:^|[ =])/", text, re.MULTILINE) == []


def test_the_lowest_lock_holds_exactly_the_floors(project: dict[str, Any]) -> None:
    text = (ROOT / "requirements" / "lowest.lock").read_text()
    pinned = {name: Version(version) for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE)}
    for line in [*project["dependencies"], *project["optional-dependencies"]["server"]]:
        name = Requirement(line).name
        # A lock pins the first release that satisfies the floor, and that may be one with a micro version more.
        assert pinned[name.lower()].release[:2] == floor(project, name).release[:2], name
