"""`python -m benchmarks.scale`: how cost and memory grow with processes, open streams, tokens, keys, issuers and rules."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from benchmarks import growth, machine
from benchmarks.command import finish, options, progress
from benchmarks.load import Job, Round, Target, Tokens
from benchmarks.report import Line, Report
from benchmarks.stage import Pair, Stage, Timing, busy, costs, loaded, measure, serving, set_up
from benchmarks.stats import Cost, Ratio, share_of_base, void_because
from benchmarks.variants import Variant

STREAMS = (0, 10, 100, 1_000, 10_000)
TOKENS = (1, 10, 100, 1_000, 10_000, 100_000)
KEYS = (1, 10, 100, 1_000)
ISSUERS = (1, 10, 100)
RULES = (1, 10, 100, 1_000, 5_000)


def open_streams(stage: Stage, numbers: Sequence[int], say: Callable[[str], None]) -> list[Line]:
    """A unary call with more and more idle streams open, on bare and on ours alike; asyncio: a stream takes a sync worker."""
    lines: list[Line] = []
    memory: list[Line] = []
    empty: tuple[float, float] | None = None
    for number in numbers:
        say(f"{number:,} open streams")
        with ExitStack() as stack:
            bare, ours = (
                stack.enter_context(serving(replace(stage.spec("aio", variant), hold_s=3600.0))) for variant in ("bare", "ours")
            )
            rounds = loaded(
                Job(
                    targets=tuple(Target(server.address, (server.pid,), "one") for server in (bare, ours)),
                    tokens_file=str(stage.tokens("RS256", "valid")),
                    cores=(stage.cores.load,),
                    warmup_s=stage.timing.warmup_s,
                    rounds=stage.timing.rounds,
                    seconds=stage.timing.seconds,
                    held=number,
                )
            )
        share = share_of_base(costs(rounds, 0), costs(rounds, 1))
        us = statistics.median(cost.us_per_call for cost in costs(rounds, 1))
        section = "aio, a unary call while streams are open: calls a second of one core's time, bare with as many = 1"
        lines.append(Line(section, f"{number:,} streams", share, "of bare", None, us, False, busy(rounds)))
        kilobytes = (rounds[-1][0].resident[0] / 1024, rounds[-1][1].resident[0] / 1024)
        empty = empty or kilobytes
        if number >= 1000:
            memory += [
                Line("memory of a stream", f"{number:,} streams, {name}", Ratio.single((full - none) / number), "KB a stream")
                for name, none, full in zip(("bare", "ours"), empty, kilobytes, strict=True)
            ]
    return [*lines, *memory]


def _capacity(rounds: Sequence[Sequence[Round]]) -> float:
    """Calls a millisecond when each process had its core to itself."""
    return statistics.median(
        sum(1000 / Cost(target.calls, sum(target.cpu_ns)).us_per_call for target in targets) for targets in rounds
    )


def _processes(stage: Stage, variant: Variant, tokens: Tokens, cores: Sequence[int]) -> list[list[Round]]:
    """As many servers as cores, one on each; the load has all cores when the servers have."""
    load = (stage.cores.load,) if len(cores) == 1 else stage.cores.both
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(replace(stage.spec("aio", variant), cores=(core,)))) for core in cores]
        return loaded(
            Job(
                targets=tuple(Target(server.address, (server.pid,), tokens) for server in servers),
                tokens_file=str(stage.tokens("RS256", "valid")),
                cores=load,
                window=32 // len(cores),
                warmup_s=stage.timing.warmup_s,
                rounds=stage.timing.rounds,
                seconds=stage.timing.seconds,
            )
        )


def processes(stage: Stage, say: Callable[[str], None]) -> list[Line]:
    """Two server processes against one: calls for the CPU time of both cores, as the load takes a share of them meanwhile.

    What is short of 2 is lost to what the cores share: caches and memory.
    """
    lines: list[Line] = []
    cases: tuple[tuple[str, Variant, Tokens], ...] = (
        ("bare", "bare", "one"),
        ("ours, hit", "ours", "one"),
        ("ours, miss", "ours", "fresh"),
    )
    for name, variant, tokens in cases:
        say(f"1 and 2 processes: {name}")
        one = _processes(stage, variant, tokens, (stage.cores.server,))
        two = _processes(stage, variant, tokens, stage.cores.both)
        ratio = Ratio.single(_capacity(two) / _capacity(one))
        us = statistics.median(cost.us_per_call for cost in costs(two, 0))
        section = "aio, two processes: calls a second of both cores' time, one process = 1, more is better"
        lines.append(Line(section, name, ratio, "x one", None, us))
    return lines


def main() -> int:
    """Run what the command line asks for. The exit status."""
    asked = options("How cost and memory grow.", Timing(rounds=5, seconds=1.0))
    say = progress()
    described = machine.describe()
    with set_up(asked.timing) as stage:
        say("control")
        base, variant, _busy = measure(stage, Pair("aio", "bare"))
        control = share_of_base(base, variant)
        parts: dict[str, Callable[[], list[Line]]] = {
            "processes": lambda: processes(stage, say),
            "streams": lambda: open_streams(stage, STREAMS, say),
            "keys": lambda: growth.keys(stage, KEYS),
            "issuers": lambda: growth.issuers(stage, ISSUERS),
            "rules": lambda: growth.rules(stage, RULES),
            "tokens": lambda: growth.distinct_tokens(stage, TOKENS),
            "tokens, hashed": lambda: growth.distinct_tokens(stage, (1, 1_000, 10_000), hashed=True),
        }
        lines = [Line("control", "aio, bare against bare", control, "of bare", control=True)]
        for name, part in parts.items():
            if asked.only in name:
                say(name)
                lines += part()
    found = Report("grpc-bearer: how cost and memory grow", described, lines, void_because([("aio", control)]))
    say("done")
    return finish(found, "scale", asked.out)


if __name__ == "__main__":
    sys.exit(main())
