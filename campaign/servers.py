"""The servers under attack, as real processes, and what the operating system says of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu import resident_bytes
from campaign.attacks import Server
from tests.support.processes import Process
from tests.support.service import COMMAND, FREE_PORTS, environment_with

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up. `target`: where."""

    name: Server
    process: Process
    target: str


@contextmanager
def serving(name: Server, settings: Path) -> Iterator[Running]:
    """A server by this settings file, for as long as the context lasts."""
    source = ("-m", "campaign.sync_server", str(settings))
    command = (*COMMAND, "serve", "--config", str(settings)) if name == "service" else (sys.executable, *source)
    with Process(*command, env=environment_with(FREE_PORTS), cwd=ROOT) as process:
        yield Running(name, process, process.line("^serving on ").split()[2])


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment: memory that it allocated in bytes, threads, open file descriptors."""

    resident: int
    threads: int
    files: int


def sample(pid: int) -> Sample:
    """Raises `OSError` when there is no such process."""
    return Sample(resident_bytes(pid), int(_status(pid)["Threads"]), sum(1 for _file in Path(f"/proc/{pid}/fd").iterdir()))


def is_there(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def _status(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
