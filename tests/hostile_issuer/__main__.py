"""`python -m tests.hostile_issuer`: carry out every row and print the tables of `docs/hostile-issuer.md` with their figures.

Exit status 1 when a row did not come out as it has to; the row and what is wrong with it go to stderr.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gen"))  # where pytest finds the tests' own service

OBSERVED_S = 1.0


def main() -> int:
    from tests.hostile_issuer.hours import table
    from tests.hostile_issuer.running import faults, run
    from tests.hostile_issuer.scenarios import SCENARIOS
    from tests.hostile_issuer.table import head, line

    logging.disable()
    wrong = 0
    sys.stdout.write(head())
    for row in SCENARIOS:
        measured = asyncio.run(run(row, OBSERVED_S))
        sys.stdout.write(line(row, measured))
        sys.stdout.flush()
        for fault in faults(row, measured):
            sys.stderr.write(f"{row.name}: {fault}\n")
            wrong += 1
    sys.stdout.write(f"\n{table()}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
