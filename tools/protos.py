"""Generates the committed code from the protos, or says where it has drifted.

    python tools/protos.py [--check]

Runs with any Python >= 3.11; protoc and its plugins come from the environment `.venv-proto` (requirements/proto.lock), whose
protobuf is older than the development one on purpose: generated code refuses every runtime older than its generator.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / ".venv-proto" / "bin"
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Unit:
    """Proto packages: `source` and `target` are import roots, `packages` are folders below both.

    `shared`: `target` is home to other code too; the protos are shipped beside what is generated from them.
    """

    source: Path
    target: Path
    packages: tuple[Path, ...]
    shared: bool

    @property
    def generated(self) -> tuple[Path, ...]:
        """The folders below `target` in which everything is generated."""
        return self.packages if self.shared else (Path(),)


UNITS = (
    Unit(Path("protos"), Path("interceptors"), (Path("grpc_bearer/v1"),), shared=True),
    Unit(Path("tests/protos"), Path("tests/gen"), (Path("matrix/v1"), Path("policies/v1")), shared=False),
)


def generate(unit: Unit, target: Path) -> None:
    """Write the code generated from `unit` below the import root `target`. Raises CalledProcessError when protoc fails."""
    source = ROOT / unit.source
    protos = {package: sorted((source / package).glob("*.proto")) for package in unit.packages}
    # The plugins are looked up on PATH; theirs must be the ones of the generator's environment.
    environment = {**os.environ, "PATH": os.pathsep.join([str(GENERATOR), os.environ.get("PATH", "")])}
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            str(GENERATOR / "python"),
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={source}",
            f"--proto_path={ROOT / 'protos'}",  # for those that import policy.proto
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *(str(proto) for package in unit.packages for proto in protos[package]),
        ],
        check=True,
        env=environment,
        timeout=TIMEOUT_S,
    )
    for package in unit.packages:
        folder = target / package
        (folder / "__init__.py").write_text('"""Generated from the protos by `make proto`; never edited."""\n')
        if not unit.shared:  # the tests' package has no other owner: its parent folder is generated too
            (folder.parent / "__init__.py").touch()
        else:
            for proto in protos[package]:
                shutil.copyfile(proto, folder / proto.name)


def differences(expected: Path, actual: Path) -> Iterator[str]:
    """Each difference between the two folders as one line; byte-code caches do not count."""
    names = {
        path.relative_to(folder)
        for folder in (expected, actual)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in sorted(names):
        if not (actual / name).is_file():
            yield f"missing: {name}"
        elif not (expected / name).is_file():
            yield f"has no source: {name}"
        elif not filecmp.cmp(expected / name, actual / name, shallow=False):
            yield f"differs: {name}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the committed code from the protos.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the committed code has drifted")
    check = parser.parse_args().check
    drift = []
    for unit in UNITS:
        with tempfile.TemporaryDirectory() as folder:
            generate(unit, Path(folder))
            for part in unit.generated:
                committed = ROOT / unit.target / part
                if check:
                    drift += [f"{unit.target / part}: {line}" for line in differences(Path(folder) / part, committed)]
                else:
                    if committed.exists():
                        shutil.rmtree(committed)
                    shutil.copytree(Path(folder) / part, committed)
    for line in drift:
        print(line, file=sys.stderr)
    if drift:
        print("the generated code has drifted from the protos: run `make proto` and commit the result", file=sys.stderr)
    return 1 if drift else 0


if __name__ == "__main__":
    sys.exit(main())
