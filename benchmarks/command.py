"""What the entry points have in common: options, progress on stderr, the table on stdout, files, exit status."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.chart import svg
from benchmarks.stage import RESULTS, Timing


@dataclass(frozen=True, slots=True)
class Options:
    """`only`: rows with this text in them, "" for all. `out`: the folder for the files."""

    timing: Timing
    only: str
    out: Path


def options(description: str, default: Timing) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=default.rounds, help="rounds of a measurement (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=default.seconds, help="length of a round in seconds (default: %(default)s)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows with this in them; controls always run")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files (default: benchmarks/results)")
    given = parser.parse_args()
    return Options(Timing(given.rounds, given.seconds, default.warmup_s), given.only, given.out)


def progress() -> Callable[[str], None]:
    """A function that says what is going on, with the seconds since the start."""
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", file=sys.stderr, flush=True)

    return say


def finish(found: report.Report, name: str, out: Path) -> int:
    """Print the table and write `name`.json and `name`.svg. The exit status: 1 when the run is void."""
    report.write(found, name, out)
    (out / f"{name}.svg").write_text(svg(found), encoding="utf-8")
    print(report.table(found))
    print(f"\nwritten: {name}.json and {name}.svg")
    return 1 if found.void else 0
