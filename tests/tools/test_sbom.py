"""`tools/sbom.py` says what a bill of materials lacks. `make sbom` makes the real one; .ci/run calls it."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.sbom import faults

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = {"name": "grpc-bearer", "version": "0.1.0", "dependencies": ["PyJWT>=2.13", "typing-extensions"]}
SBOM: dict[str, Any] = {
    "metadata": {"component": {"bom-ref": "root-component", "name": "grpc-bearer", "version": "0.1.0"}},
    "components": [
        {"bom-ref": "PyJWT==2.15.1", "name": "PyJWT", "version": "2.15.1"},
        {"bom-ref": "cffi==2.1.1", "name": "cffi", "version": "2.1.1"},
        {"bom-ref": "typing_extensions==4.16.0", "name": "typing_extensions", "version": "4.16.0"},
    ],
    "dependencies": [
        {"ref": "root-component", "dependsOn": ["PyJWT==2.15.1", "typing_extensions==4.16.0"]},
        {"ref": "PyJWT==2.15.1", "dependsOn": ["cffi==2.1.1"]},
        {"ref": "cffi==2.1.1"},
        {"ref": "typing_extensions==4.16.0"},
    ],
}


def test_a_document_of_the_distribution_and_all_that_it_depends_on_has_no_fault() -> None:
    assert list(faults(SBOM, PROJECT)) == []


def _of_another_version(sbom: dict[str, Any]) -> None:
    sbom["metadata"]["component"]["version"] = "0.0.9"


def _without_pyjwt(sbom: dict[str, Any]) -> None:
    del sbom["components"][0]


def _with_pyjwt_too_old(sbom: dict[str, Any]) -> None:
    sbom["components"][0]["version"] = "2.12.0"


def _with_pyjwt_only_indirect(sbom: dict[str, Any]) -> None:
    sbom["dependencies"][0]["dependsOn"] = ["typing_extensions==4.16.0"]
    sbom["dependencies"][3]["dependsOn"] = ["PyJWT==2.15.1"]


def _with_a_further_direct_one(sbom: dict[str, Any]) -> None:
    sbom["dependencies"][0]["dependsOn"].append("cffi==2.1.1")


def _with_a_stranger(sbom: dict[str, Any]) -> None:
    sbom["components"].append({"bom-ref": "pip==26.3", "name": "pip", "version": "26.3"})


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_of_another_version, "it is of grpc-bearer 0.0.9, and not of grpc-bearer 0.1.0"),
        (_without_pyjwt, "pyjwt is missing"),
        (_with_pyjwt_too_old, "pyjwt 2.12.0 is not what pyproject.toml asks for"),
        (_with_pyjwt_only_indirect, "pyjwt is not listed as a dependency of grpc-bearer"),
        (_with_a_further_direct_one, "grpc-bearer has 3 dependencies in it, and 2 in pyproject.toml"),
        (_with_a_stranger, "pip is there, and nothing depends on it"),
    ],
)
def test_a_document_that_is_not_of_the_wheel_is_told_apart(spoil: Callable[[dict[str, Any]], None], fault: str) -> None:
    sbom = copy.deepcopy(SBOM)
    spoil(sbom)
    assert list(faults(sbom, PROJECT)) == [fault]


def test_every_dependency_of_pyproject_is_looked_for() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    missing = {fault for fault in faults(SBOM, ours) if fault.endswith(" is missing")}
    assert {"cryptography is missing", "grpcio is missing", "requests is missing"} <= missing
    assert len(missing) == len(ours["dependencies"]) - 1
