"""Makes the software bill of materials of the wheel, in CycloneDX' JSON, and holds it to what pyproject.toml says.

    python tools/sbom.py WHEEL SBOM

The wheel is installed, with what it asks for and nothing else, into an environment of its own, without pip. cyclonedx-py, of
`.venv-audit`, lists that environment and validates the document against CycloneDX' schema. The versions are those that pip
chooses on this day; what a user gets is up to the user's own lock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
CYCLONEDX: Final = ROOT / ".venv-audit" / "bin" / "cyclonedx-py"
TIMEOUT_S: Final = 300.0


def make(wheel: Path, sbom: Path) -> None:
    """Write the document. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, symlinks=True, with_pip=False)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder)
        subprocess.run([*pip, "install", "--quiet", str(wheel)], check=True, timeout=TIMEOUT_S)
        options = ("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--output-reproducible", "--validate")
        listing = (str(CYCLONEDX), "environment", *options, "--output-format", "JSON", "--output-file", str(sbom), folder)
        subprocess.run(listing, check=True, timeout=TIMEOUT_S)


def faults(sbom: dict[str, Any], project: dict[str, Any]) -> Iterator[str]:
    """What the document lacks or has too much, a line each. `project`: the table of pyproject.toml."""
    ours = sbom["metadata"]["component"]
    if (ours["name"], ours["version"]) != (project["name"], project["version"]):
        yield f"it is of {ours['name']} {ours['version']}, and not of {project['name']} {project['version']}"
    components = {canonicalize_name(each["name"]): each for each in sbom["components"]}
    edges = {each["ref"]: each.get("dependsOn", []) for each in sbom["dependencies"]}
    direct = edges.get(ours["bom-ref"], [])
    wanted = {canonicalize_name(each.name): each for each in map(Requirement, project["dependencies"])}
    for name, requirement in wanted.items():
        if name not in components:
            yield f"{name} is missing"
        elif components[name]["bom-ref"] not in direct:
            yield f"{name} is not listed as a dependency of {ours['name']}"
        elif not requirement.specifier.contains(components[name]["version"]):
            yield f"{name} {components[name]['version']} is not what pyproject.toml asks for"
    if len(direct) > len(wanted):
        yield f"{ours['name']} has {len(direct)} dependencies in it, and {len(wanted)} in pyproject.toml"
    reached, to_visit = set(), [ours["bom-ref"]]
    while to_visit:
        ref = to_visit.pop()
        if ref not in reached:
            reached.add(ref)
            to_visit += edges.get(ref, [])
    for name, component in components.items():
        if component["bom-ref"] not in reached:
            yield f"{name} is there, and nothing depends on it"


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the wheel's software bill of materials.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("sbom", type=Path)
    options = parser.parse_args()
    make(options.wheel, options.sbom)
    document = json.loads(options.sbom.read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = list(faults(document, project))
    for fault in found:
        print(f"sbom: {fault}", file=sys.stderr)
    ours = document["metadata"]["component"]
    print(f"sbom: {ours['name']} {ours['version']}, {len(document['components'])} components: {options.sbom}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
