"""`python -m benchmarks`: one table of ratios, a JSON file and a chart, in under six minutes.

Exit status 1: a control came out unequal, and the run is void.
"""

from __future__ import annotations

import sys

from benchmarks import machine
from benchmarks.command import finish, options, progress
from benchmarks.report import Report
from benchmarks.rows import against_the_tutorial, lines, rows, saturation
from benchmarks.stage import Timing, set_up
from benchmarks.stats import void_because
from benchmarks.verify import left_out, verify_only

VERIFY_TURNS = 3
"""Turns of the verify-only table to each round of the servers."""


def main() -> int:
    """Run what the command line asks for. The exit status."""
    asked = options("What authentication costs a Python gRPC server, in ratios to a bare one.", Timing())
    say = progress()
    described = machine.describe()
    wanted = [row for row in rows() if row.control or asked.only in f"{row.section}: {row.name}"]
    with set_up(asked.timing) as stage:
        served = lines(stage, wanted, say)
        verified = verify_only(stage, VERIFY_TURNS * asked.timing.rounds, say) if not asked.only else []
    found = Report(
        title="grpc-bearer: what authentication costs",
        machine=described,
        lines=[*served, *against_the_tutorial(served), *verified],
        void=void_because([(line.section.partition(":")[0], line.ratio) for line in served if line.control]),
        notes=[*saturation(served), *left_out()],
    )
    say("done")
    return finish(found, "bench", asked.out)


if __name__ == "__main__":
    sys.exit(main())
