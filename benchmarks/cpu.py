"""CPU time of other processes, their memory, and which cores are whose."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_libc = ctypes.CDLL(None, use_errno=True)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Cores:
    """The servers have one core to themselves; whoever loads them, and the issuer, has the other."""

    server: int
    load: int

    @classmethod
    def of_this_process(cls) -> Self:
        """The first two cores that may be used. With one only, ratios still hold and the servers are not saturated."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[-1] if len(allowed) < 2 else allowed[1])

    @property
    def both(self) -> tuple[int, ...]:
        """All cores that are used, for work before the measuring."""
        return tuple(sorted({self.server, self.load}))


def pin(*cores: int) -> None:
    """Keep this thread, and the threads and processes that it starts from here on, on these cores."""
    os.sched_setaffinity(0, cores)


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Pinned for as long as the context lasts."""
    before = os.sched_getaffinity(0)
    pin(*cores)
    try:
        yield
    finally:
        pin(*before)


class CpuClock:
    """The CPU time that all threads of a process have used, those that ended included, to the nanosecond.

    It is the counter behind `/proc/PID/task/*/schedstat`. That file loses the threads that end, and for one that runs it
    is as old as the last tick; the clock is neither.
    Raises `ProcessLookupError` when there is no such process.
    """

    def __init__(self, pid: int) -> None:
        clock_id = ctypes.c_int()
        if _libc.clock_getcpuclockid(pid, ctypes.byref(clock_id)) != 0:
            raise ProcessLookupError(pid)
        self._clock_id = clock_id.value

    def read_ns(self) -> int:
        """Nanoseconds since the process began."""
        return time.clock_gettime_ns(self._clock_id)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is not shared with files: what it allocated (`/proc/PID/statm`, resident less shared)."""
    _size, resident, shared, *_rest = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return (int(resident) - int(shared)) * _PAGE_BYTES
