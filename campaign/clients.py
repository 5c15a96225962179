"""`python -m campaign.clients`: a good caller while hostile ones are at work, against the same load sent by good callers.

Attack and twin take turns on one and the same server, so that both meet it, and the machine, in the same state.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.command import progress
from benchmarks.stats import percentile
from campaign.attacker import files_as_far_as_allowed
from campaign.attacks import ATTACKS, OK, Attack, Server, Wallet
from campaign.caller import GoodCaller
from campaign.servers import ROOT, Running, sample, serving
from tests.support.jwks_server import JwksServer
from tests.support.processes import Process
from tests.support.service import trusting
from tests.support.tokens import new_key

GOOD_PER_S: Final = 100.0
GOAL: Final = 3.0
COOLDOWN_S: Final = 30.0
MEMORY_MIB: Final = 256
"""What one attack may add to a server's memory."""
ALL_MEMORY_MIB: Final = 640
"""What a server may have more than at its start when all attacks are over: the allocator keeps what bursts have taken."""
_REMEMBERED: Final = 1000
"""`verdicts.max_entries`: few enough for the flood of accepted tokens to overrun in its first second."""
_EVER_NEW: Final = 15_000
_MIB: Final = 1024 * 1024


@dataclass(slots=True)
class Seen:
    """The good caller in all windows of one kind, and what was sent meanwhile. `p99s_ms`: one for each window."""

    p99s_ms: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    begun: int = 0
    ends: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Row:
    """One attack on one server. `growth`: of its memory, in bytes, at the most while it was under attack."""

    server: Server
    attack: Attack
    hostile: Seen
    twin: Seen
    growth: int
    fetches: int

    @property
    def ratio(self) -> float:
        """The good caller's p99 in multiples of that beside good callers: the median of the rounds' ratios.

        Each is of two windows next to each other, so that another program's burst spoils one round and not the figure.
        """
        rounds = zip(self.hostile.p99s_ms, self.twin.p99s_ms, strict=True)
        return statistics.median(hostile / twin for hostile, twin in rounds)

    def faults(self, fetches_at_most: int) -> list[str]:
        """What must not be. A ratio above the goal is not among it: another program may have had the core."""
        who = f"{self.server}, {self.attack.name}"
        found = [
            f"{who}: {count} good calls ended with {code}"
            for seen in (self.hostile, self.twin)
            for code, count in seen.codes.items()
            if code != "OK"
        ]
        wrong = {end: count for end, count in self.hostile.ends.items() if end not in self.attack.ends}
        if wrong:
            found.append(f"{who}: the attacker's calls ended with {wrong}")
        if OK not in self.attack.ends and self.hostile.ends[OK]:
            found.append(f"{who}: {self.hostile.ends[OK]} of the attacker's calls were accepted")
        if self.fetches > fetches_at_most:
            found.append(f"{who}: {self.fetches} fetches, more than {fetches_at_most}")
        if self.growth > MEMORY_MIB * _MIB:
            found.append(f"{who}: {self.growth // _MIB} MiB of memory")
        return found


class _Campaign:
    """All attacks on one server. `say`: what is going on."""

    def __init__(self, running: Running, issuer: JwksServer, wallet: Path, seconds: float, rounds: int) -> None:
        self._running = running
        self._issuer = issuer
        self._wallet = wallet
        self._seconds = seconds
        self._rounds = rounds

    async def row(self, attack: Attack, good: Sequence[str]) -> Row:
        """Attack and twin in turns."""
        target, pid = self._running.target, self._running.process.pid
        seen = {"twin": Seen(), "attack": Seen()}
        job = {"attack": attack.name, "target": target, "wallet": str(self._wallet)}
        growth, fetches = 0, self._issuer.fetches
        caller = GoodCaller(target, good)
        with Process(sys.executable, "-m", "campaign.attacker", json.dumps(job), cwd=ROOT) as attacker:
            await asyncio.to_thread(attacker.line, "^ready")
            for _round in range(self._rounds):
                for which, into in seen.items():
                    before = sample(pid).resident
                    most = await self._window(attacker, which, caller, into)
                    if which == "attack":
                        growth = max(growth, most - before)
        await caller.close()
        return Row(self._running.name, attack, seen["attack"], seen["twin"], growth, self._issuer.fetches - fetches)

    async def _window(self, attacker: Process, which: str, caller: GoodCaller, into: Seen) -> int:
        """The most memory of the server meanwhile, in bytes."""
        await caller.ready()
        stop = asyncio.Event()
        calling = asyncio.create_task(caller.run(GOOD_PER_S, stop))
        attacker.send(f"{which} {self._seconds}")
        answer = asyncio.create_task(asyncio.to_thread(attacker.line, "^{", 90.0))
        most = 0
        while not answer.done():
            most = max(most, sample(self._running.process.pid).resident)
            await asyncio.wait([answer], timeout=0.1)
        stop.set()
        await calling
        latencies, codes = caller.taken()
        into.p99s_ms.append(percentile(latencies, 0.99))
        into.codes += codes
        tally = json.loads(answer.result())
        into.begun += tally["begun"] or tally["connections"]
        into.ends += Counter(tally["ends"])
        return most


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    head = (
        "server",
        "attack",
        "sent",
        "good calls",
        "succeeded",
        "p99",
        "p99 beside good callers",
        "ratio",
        "memory",
        "fetches",
    )
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        good = row.hostile.codes
        cells = (
            row.server,
            row.attack.name,
            f"{row.hostile.begun:,}",
            f"{good.total():,}",
            f"{100 * good['OK'] / good.total():.4g} %",
            f"{statistics.median(row.hostile.p99s_ms):.1f} ms",
            f"{statistics.median(row.twin.p99s_ms):.1f} ms",
            f"{row.ratio:.2f}",
            f"+{max(0, row.growth) / _MIB:.1f} MiB",
            str(row.fetches),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


async def _attacked(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    say = progress()
    rows: list[Row] = []
    faults: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rsa, ed25519 = new_key("rsa"), new_key("ed25519", "EdDSA")
        wallet = Wallet.filled(rsa, ed25519, _EVER_NEW)
        (folder / "wallet.json").write_text(json.dumps(asdict(wallet)), encoding="ascii")
        issuer = stack.enter_context(JwksServer(rsa, ed25519))
        settings = folder / "settings.toml"
        settings.write_text(
            trusting(issuer, f"cache = {{ cooldown_s = {COOLDOWN_S} }}\n[verdicts]\nmax_entries = {_REMEMBERED}\n")
        )
        for name in ("service", "library"):
            running = stack.enter_context(serving(name, settings))
            campaign = _Campaign(running, issuer, folder / "wallet.json", options.seconds, options.rounds)
            before = sample(running.process.pid).resident
            for attack in ATTACKS:
                if name in attack.servers and options.only in attack.name:
                    say(f"{name}: {attack.name}")
                    begun = asyncio.get_running_loop().time()
                    rows.append(await campaign.row(attack, wallet.good))
                    cooldowns = 1 + int((asyncio.get_running_loop().time() - begun) // COOLDOWN_S)
                    faults += rows[-1].faults(2 * cooldowns + 1)  # and one of the background
                    say(f"  sent {rows[-1].hostile.begun}, ratio {rows[-1].ratio:.2f}, ends {dict(rows[-1].hostile.ends)}")
            more = (sample(running.process.pid).resident - before) // _MIB
            say(f"{name}: {more} MiB more than at the start")
            if more > ALL_MEMORY_MIB:
                faults.append(f"{name}: {more} MiB more than at the start")
            running.process.close()
    return rows, faults


def main() -> int:
    """The exit status: 1 when a good call failed, or a bound did not hold."""
    parser = argparse.ArgumentParser(description="A good caller while hostile ones are at work.")
    parser.add_argument("--seconds", type=float, default=0.6, help="of each of the windows (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="windows of each kind (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only attacks with this in their names")
    options = parser.parse_args()
    files_as_far_as_allowed()
    described = machine.describe()
    rows, faults = asyncio.run(_attacked(options))
    print(markdown(rows))
    print()
    print("; ".join(f"{name} {value}" for name, value in described.items() if value != "not installed"))
    for row in rows:
        if row.ratio > GOAL:
            print(f"above the goal of {GOAL:g}: {row.server}, {row.attack.name}: {row.ratio:.2f}")
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
