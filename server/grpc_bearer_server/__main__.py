"""The command `grpc-bearer`. `proto-path` works on the base install; the rest needs the extra `server`, and says so."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Final

_EXTRA: Final = frozenset(
    {
        "click",
        "grpc_health",
        "grpc_reflection",
        "prometheus_client",
        "pydantic",
        "pydantic_settings",
        "rich",
        "starlette",
        "uvicorn",
    }
)


def proto_path() -> str:
    """The folder below which `grpc_bearer/v1/*.proto` stand, for `protoc -I`."""
    spec = importlib.util.find_spec("grpc_bearer")  # not imported: grpc would cost a second of a build's time
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("grpc_bearer is not installed")
    return str(Path(spec.origin).parent.parent)


def main() -> None:
    """Run the command with the process's arguments."""
    if sys.argv[1:] == ["proto-path"]:
        sys.stdout.write(f"{proto_path()}\n")
        return
    try:
        from .cli import cli
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"grpc-bearer: this command needs the package {error.name}; install it with: pip install 'grpc-bearer[server]'\n"
        )
        sys.exit(2)
    cli(prog_name="grpc-bearer")


if __name__ == "__main__":
    main()
