"""A real child process whose output is read line by line as it comes. Ended by its pid, within a bound."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 20.0
"""For whatever takes well under a second on a machine at rest."""


class Process:
    """Starts `command`. Its stdout arrives in `lines`; its stderr is kept, for `stderr` and for the text of a failure."""

    def __init__(self, *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.lines: list[str] = []
        self._came = threading.Condition()
        self._ended = False
        self._read = 0
        self._stderr = tempfile.TemporaryFile(mode="a+")  # noqa: SIM115  # append: its reader moves the child's offset too
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._stderr, text=True, env=env, cwd=cwd)
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with self._came:
                self.lines.append(line.rstrip("\n"))
                self._came.notify_all()
        with self._came:
            self._ended = True
            self._came.notify_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def stderr(self) -> str:
        """What came on stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    def line(self, pattern: str = "", timeout_s: float = PATIENCE_S) -> str:
        """The next line of stdout in which `pattern` (a regular expression) is found, waited for; lines before it are passed.

        Raises `AssertionError`, with all the output, when it does not come in time or the process ends first.
        """

        def next_match() -> int | None:
            matches = (at for at in range(self._read, len(self.lines)) if re.search(pattern, self.lines[at]))
            return next(matches, None)

        with self._came:
            self._came.wait_for(lambda: self._ended or next_match() is not None, timeout_s)
            at = next_match()
            if at is None:
                came = "\n".join(self.lines)
                raise AssertionError(f"no line with {pattern!r} came. stdout:\n{came}\nstderr:\n{self.stderr}")
            self._read = at + 1
            return self.lines[at]

    def send(self, line: str) -> None:
        """Write a line to the process's stdin."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._child.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit status, waited for; stdout is complete then. Raises `subprocess.TimeoutExpired`."""
        status = self._child.wait(timeout_s)
        self._reader.join(PATIENCE_S)
        return status

    def close(self) -> None:
        """End the process: SIGTERM, and SIGKILL to one that does not heed it."""
        for end in (self._child.terminate, self._child.kill):
            if _ends(self._child, end):
                break
        self._reader.join(PATIENCE_S)
        for stream in (self._child.stdin, self._child.stdout, self._stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _ends(child: subprocess.Popen[str], end: Callable[[], None]) -> bool:
    end()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        return False
    return True
