"""`python -m benchmarks.start`: how long an import takes beside `import grpc`, and how soon the service is ready."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from tests.support.processes import Process
from tests.support.service import FREE_PORTS, environment_with
from tests.support.tokens import AUDIENCE, ISSUER, jwks, new_key

ROUNDS = 9
_IMPORTS = ("grpc", "grpc_bearer.sync", "grpc_bearer.aio")
_SETTINGS = """
[[issuers]]
issuer = "{issuer}"
audiences = ["{audience}"]
jwks_file = "{path}"
"""


def _import_s(module: str) -> float:
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - before


def _ready_s(settings: Path) -> float:
    """From the start of the process to its saying that it serves, when its keys are there."""
    before = time.perf_counter()
    command = (sys.executable, "-m", "grpc_bearer_server", "serve", "--config", str(settings))
    with Process(*command, env=environment_with(FREE_PORTS)) as service:
        service.line("^serving on ")
        return time.perf_counter() - before


def main() -> int:
    """Print the medians."""
    for name, value in describe().items():
        print(f"{name}: {value}")
    imports: dict[str, list[float]] = {module: [] for module in _IMPORTS}
    ready: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        keys, settings = Path(name) / "jwks.json", Path(name) / "settings.toml"
        keys.write_text(json.dumps(jwks(new_key())), encoding="utf-8")
        settings.write_text(_SETTINGS.format(issuer=ISSUER, audience=AUDIENCE, path=keys), encoding="utf-8")
        for _round in range(ROUNDS):  # by turns, so that a disturbance hits all of them alike
            for module in _IMPORTS:
                imports[module].append(_import_s(module))
            ready.append(_ready_s(settings))
    bare = statistics.median(imports["grpc"])
    print()
    for module, seconds in imports.items():
        print(f"python -c 'import {module}': {1000 * statistics.median(seconds):.0f} ms")
    for module in _IMPORTS[1:]:
        print(f"{module} adds {1000 * (statistics.median(imports[module]) - bare):.0f} ms")
    print(f"grpc-bearer serve, keys in a file: serving after {1000 * statistics.median(ready):.0f} ms (goal: 1000)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
