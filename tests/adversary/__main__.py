"""`python -m tests.adversary [sync|aio]...`: run the campaign, print cases by class and wrong verdicts (exit code 1)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gen"))  # where pytest's configuration has it

from tests.adversary.campaign import attack_all
from tests.adversary.report import table, verdicts
from tests.support.serving import STACKS, Stack

_LIMIT_S = 300.0


async def _main(stacks: tuple[Stack, ...]) -> int:
    results = list((await asyncio.wait_for(attack_all(stacks), _LIMIT_S)).values())
    sys.stdout.write(f"{table(results[0].groups)}\n\n{verdicts(results)}\n")
    return 1 if any(result.wrong or result.leaks or result.asked for result in results) else 0


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - set(STACKS)
    if unknown:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(STACKS)}")
    sys.exit(asyncio.run(_main(tuple(stack for stack in STACKS if stack in sys.argv[1:] or not sys.argv[1:]))))
