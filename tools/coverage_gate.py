"""Fails when a line or a branch of the security core is not covered by the tests that have just run.

    python tools/coverage_gate.py

Reads the data that `make test` left behind. The core is what decides whether a call is let in.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "interceptors" / "grpc_bearer"
CORE = (
    "aio.py",
    "aio_handlers.py",
    "authenticator.py",
    "bearer.py",
    "expiry.py",
    "gate.py",
    "jws.py",
    "keys/*.py",
    "observe.py",
    "policy/*.py",
    "strict_json.py",
    "sync.py",
    "verdict_cache.py",
    "verifier.py",
)
TIMEOUT_S = 60.0


def measured() -> dict[Path, dict[str, Any]]:
    """coverage.py's report, by absolute path. Raises CalledProcessError when there are no data."""
    report = ROOT / "coverage.json"
    command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(report)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=TIMEOUT_S)
    files: dict[str, dict[str, Any]] = json.loads(report.read_text())["files"]
    return {(ROOT / name).resolve(): data for name, data in files.items()}


def gaps(path: Path, files: dict[Path, dict[str, Any]]) -> list[str]:
    """What is uncovered in one module, a line of text each."""
    name = path.relative_to(ROOT)
    data = files.get(path)
    if data is None:
        return [f"{name}: was not measured at all"]
    lines = [f"{name}:{line}: never runs" for line in data["missing_lines"]]
    branches = [f"{name}:{start}: never goes to {end if end > 0 else 'the exit'}" for start, end in data["missing_branches"]]
    return lines + branches


def main() -> int:
    files = measured()
    core = sorted(path for pattern in CORE for path in LIBRARY.glob(pattern))
    found = [gap for path in core for gap in gaps(path, files)]
    for gap in found:
        print(gap)
    branches = sum(files[path]["summary"]["num_branches"] for path in core if path in files)
    print(f"coverage gate: {len(core)} modules of the core, {branches} branches, {len(found)} gaps")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
