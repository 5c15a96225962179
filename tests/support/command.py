"""`grpc-bearer` in this process: what it prints where, and how it ends."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from grpc_bearer_server.cli import cli


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int
    out: str
    err: str


class Command:
    """Runs it with these arguments, and with these octets as its standard input."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran:
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
        try:
            with pytest.raises(SystemExit) as end:
                cli(arguments, prog_name="grpc-bearer")
        finally:
            sys.stdin = before
        out, err = self._capture.readouterr()
        assert isinstance(end.value.code, int)
        return Ran(end.value.code, out, err)


def fields(line: str) -> tuple[str, ...]:
    """The columns of a line of a table."""
    return tuple(part.strip() for part in line.split("  ") if part.strip())


def settings(folder: Path, text: str) -> str:
    """A settings file with this text; its path."""
    path = folder / "settings.toml"
    path.write_text(text)
    return str(path)
