"""`python -m benchmarks.tail`: the latency of a good caller when things go wrong, ours against the tutorial interceptor.

The callers begin their calls on a timetable, to a sync and an asyncio server at a time. "Healthy" is the same server with an
issuer that answers; every other latency is a multiple of its own. PyJWT asks for an unknown `kid` at most every 30 s, so
a window has to be longer than that to show what then happens to everybody else.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks import machine, pools
from benchmarks.caller import CallerJob
from benchmarks.command import finish, options, progress
from benchmarks.report import Goal, Line, Report
from benchmarks.server import Stack
from benchmarks.stage import ROOT, Stage, Timing, serving, set_up
from benchmarks.stats import Ratio, percentile
from benchmarks.variants import Variant
from tests.support.processes import Process
from tests.support.tokens import ISSUER, SigningKey, new_key

GOOD_PER_S = 100.0
STEADY = 1.5
"""How far apart the p99 of a healthy window's halves may be: with more, the goal of 1.5 could not be told from noise."""

_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_STACKS: tuple[Stack, ...] = ("sync", "aio")
_HANGS = "the issuer hangs 1 s at a time"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`issuer_delay_s`: how long the issuer hangs each time. `rotates`: it changes its key half-way, unannounced.

    `reload_every_s`: how often the server reloads its policies, which drops what it remembers of tokens.
    """

    name: str
    forged_per_s: float = 0.0
    issuer_delay_s: float = 0.0
    rotates: bool = False
    reload_every_s: float = 0.0
    variants: tuple[Variant, ...] = ("ours", "tutorial")
    goal: Goal | None = None


HEALTHY = Scenario("healthy")
SCENARIOS = (
    HEALTHY,
    Scenario(f"{_HANGS}, a forged kid every 2 s", 0.5, 1.0, goal=Goal("<=", 1.5)),
    Scenario(f"{_HANGS}, 50 forged kids a second", 50.0, 1.0, variants=("ours",), goal=Goal("<=", 1.5)),
    Scenario("the issuer changes its key unannounced, 50 ms to fetch it", 0.0, 0.05, rotates=True),
    Scenario("policies are reloaded ten times a second", reload_every_s=0.1, variants=("ours",)),
)


@dataclass(slots=True)
class Seen:
    """All windows of one server in one scenario: latencies in milliseconds in order, and how calls ended."""

    latencies_ms: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)


Results = dict[tuple[Stack, Variant, Scenario], Seen]


def _calling(job: CallerJob) -> Process:
    return Process(sys.executable, "-m", "benchmarks.caller", json.dumps(asdict(job)), cwd=ROOT)


def _answer(caller: Process, job: CallerJob) -> list[dict[str, Any]]:
    return list(json.loads(caller.line(r"^\[", job.seconds + 60)))


def _job(stage: Stage, addresses: Sequence[str], later: SigningKey, forged_per_s: float) -> CallerJob:
    now = stage.keys["RS256"]
    unknown = [SigningKey(f"forged-{number}", now.alg, now.private_key) for number in range(200)]
    files = {
        "now": [pools.token(now, number, ISSUER) for number in range(200)],
        "later": [pools.token(later, number, ISSUER) for number in range(200)],
        "forged": [pools.token(key, number, ISSUER) for number, key in enumerate(unknown)],
    }
    paths = {name: str(pools.write(stage.folder / name, tokens)) for name, tokens in files.items()}
    return CallerJob(
        addresses=tuple(addresses),
        tokens_file=paths["now"],
        next_file=paths["later"],
        forged_file=paths["forged"],
        good_per_s=GOOD_PER_S,
        forged_per_s=forged_per_s,
        seconds=stage.timing.seconds,
        cores=(stage.cores.load,),
    )


def _window(stage: Stage, variant: Variant, scenario: Scenario, results: Results) -> None:
    later = new_key("rotated", "RS256")
    published = stage.issuer.keys
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(replace(stage.spec(name, variant), reload_every_s=scenario.reload_every_s)))
            for name in _STACKS
        ]
        job = _job(stage, [server.address for server in servers], later, scenario.forged_per_s)
        # The first fetch is no part of it: each server has its keys, and has begun, before the trouble does.
        with _calling(replace(job, seconds=0.5, forged_per_s=0.0)) as caller:
            _answer(caller, job)
        stage.issuer.delay_s = scenario.issuer_delay_s
        try:
            with _calling(job) as caller:
                if scenario.rotates:
                    time.sleep(stage.timing.seconds / 2)
                    stage.issuer.keys = (*published, later)
                    caller.send("rotated")
                answers = _answer(caller, job)
        finally:
            stage.issuer.delay_s = 0.0
            stage.issuer.keys = published
    for name, answer in zip(_STACKS, answers, strict=True):
        seen = results.setdefault((name, variant, scenario), Seen())
        seen.latencies_ms += answer["latencies_ms"]
        seen.codes.update(answer["codes"])


def _lines(results: Results) -> list[Line]:
    lines = []
    for stack in _STACKS:
        for scenario in SCENARIOS:
            section = f"{stack}, {scenario.name}: latency of a good caller, healthy = 1, less is better"
            for variant in scenario.variants:
                seen = results.get((stack, variant, scenario))
                if seen is None:
                    continue
                healthy = results[stack, variant, HEALTHY]
                who = "ours" if variant == "ours" else "tutorial interceptor"
                for name, share in _SHARES.items():
                    found = percentile(seen.latencies_ms, share)
                    ratio = Ratio.single(found / percentile(healthy.latencies_ms, share))
                    goal = scenario.goal if (variant, name) == ("ours", "p99") else None
                    lines.append(Line(section, f"{who}, {name}", ratio, "x healthy", goal, 1000 * found))
                refused = 1 - seen.codes["OK"] / seen.codes.total()
                lines.append(Line(section, f"{who}, good calls refused", Ratio.single(refused), "of all"))
    return lines


def _refused(results: Results) -> list[str]:
    """How good calls ended that did not end well."""
    notes = []
    for (stack, variant, scenario), seen in results.items():
        bad = ", ".join(f"{count} {code}" for code, count in sorted(seen.codes.items()) if code != "OK")
        if bad:
            notes.append(f"{stack}, {variant}, {scenario.name}: {bad} among {seen.codes.total()} good calls")
    return notes


def unsteady(name: str, latencies_ms: Sequence[float]) -> list[str]:
    """Why a run cannot be used: the two halves of a healthy window have another p99. Empty when it can."""
    middle = len(latencies_ms) // 2
    halves = sorted(percentile(half, 0.99) for half in (latencies_ms[:middle], latencies_ms[middle:]))
    if halves[1] <= STEADY * halves[0]:
        return []
    return [f"{name}: the healthy p99 was {halves[0]:.2f} ms in one half of the time and {halves[1]:.2f} ms in the other"]


def main() -> int:
    """Run what the command line asks for. The exit status."""
    asked = options("The latency of a good caller when things go wrong.", Timing(rounds=1, seconds=40.0))
    say = progress()
    described = machine.describe()
    results: Results = {}
    with set_up(asked.timing) as stage:
        for _round in range(asked.timing.rounds):
            for scenario in SCENARIOS:
                if asked.only in scenario.name or scenario is HEALTHY:
                    for variant in scenario.variants:
                        say(f"{variant}: {scenario.name}")
                        _window(stage, variant, scenario, results)
    void = [reason for stack in _STACKS for reason in unsteady(f"{stack}, ours", results[stack, "ours", HEALTHY].latencies_ms)]
    found = Report("grpc-bearer: a good caller while things go wrong", described, _lines(results), void, _refused(results))
    say("done")
    return finish(found, "tail", asked.out)


if __name__ == "__main__":
    sys.exit(main())
