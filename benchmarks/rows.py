"""Which pairs of servers answer the goals, and the lines that they make. Not the full cross product: six minutes are all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from benchmarks.machine import version
from benchmarks.report import Goal, Line
from benchmarks.server import Stack
from benchmarks.stage import Pair, Stage, measure
from benchmarks.stats import quotient, share_of_base

_MISS = "ours, miss: every token new"
_MISS_FAST = "the same, with grpc-bearer[fast]"
_TUTORIAL = "tutorial interceptor: PyJWKClient + decode a call"


@dataclass(frozen=True, slots=True)
class Row:
    """A pair to measure and what its line says."""

    name: str
    pair: Pair
    goal: Goal | None = None

    @property
    def section(self) -> str:
        """Rows with the same base belong together."""
        kind = "unary" if self.pair.kind == "unary" else "stream of 10 messages"
        return f"{self.pair.stack}, {kind}, {self.pair.algorithm}: calls a second of one core's time; bare = 1, more is better"

    @property
    def control(self) -> bool:
        """Whether both servers are the same."""
        return self.pair.base == self.pair.variant


def _stack(stack: Stack, hit: float, miss: float, forged: float) -> Iterator[Row]:
    """A stack in full: unary, RS256."""
    ours = Pair(stack, "ours")
    yield Row("control: bare against bare", Pair(stack, "bare"))
    yield Row("no-op interceptor", Pair(stack, "noop"))
    yield Row("floor: a look-up and a context variable", Pair(stack, "floor"))
    yield Row("ours, hit: same token each call", ours, Goal(">=", hit))
    yield Row("the same, tokens kept by their SHA-256", replace(ours, variant="ours-hashed"))
    yield Row("floor: the raw signature and nothing else", Pair(stack, "floor", tokens="fresh"))
    yield Row(_MISS, replace(ours, tokens="fresh"), Goal(">=", miss))
    yield Row(_MISS_FAST, replace(ours, variant="ours-fast", tokens="fresh"))
    refusing = replace(ours, tokens="cycle", refused=True)
    yield Row("ours, refusing: bad signature", replace(refusing, pool="forged"), Goal(">=", forged))
    yield Row("ours, refusing: expired", replace(refusing, pool="expired"))
    yield Row("ours, refusing: no token", replace(refusing, tokens="none"))
    yield Row(_TUTORIAL, Pair(stack, "tutorial", tokens="fresh"))
    yield Row("the same with an LRU, same token each call", Pair(stack, "tutorial-lru"))


def _further(stack: Stack) -> Iterator[Row]:
    """What differs from the rows of `_stack` enough to be measured."""
    stream = Pair(stack, "ours", kind="stream")
    yield Row("ours, hit: same token each call", stream)
    yield Row(_MISS, replace(stream, tokens="fresh"))
    yield Row(_MISS, Pair(stack, "ours", algorithm="ES256", tokens="fresh"))
    yield Row(_MISS, Pair(stack, "ours", algorithm="EdDSA", tokens="fresh"))


def _uvloop() -> Iterator[Row]:
    yield Row("control: bare against bare", Pair("uvloop", "bare"))
    yield Row("ours, hit: same token each call", Pair("uvloop", "ours"))
    yield Row(_MISS, Pair("uvloop", "ours", tokens="fresh"))
    yield Row(_TUTORIAL, Pair("uvloop", "tutorial", tokens="fresh"))


def rows() -> list[Row]:
    """All rows, in the order of the table."""
    return [
        *_stack("sync", hit=0.97, miss=0.75, forged=0.75),
        *_further("sync"),
        *_stack("aio", hit=0.975, miss=0.80, forged=0.82),
        *_further("aio"),
        *(_uvloop() if version("uvloop") else ()),
    ]


def lines(stage: Stage, wanted: Iterable[Row], say: Callable[[str], None]) -> list[Line]:
    """Measure row by row."""
    measured = []
    for row in wanted:
        say(f"{row.section.partition(':')[0]}: {row.name}")
        base, variant, busy = measure(stage, row.pair)
        us = statistics.median(cost.us_per_call for cost in variant)
        measured.append(Line(row.section, row.name, share_of_base(base, variant), "of bare", row.goal, us, row.control, busy))
    return measured


def saturation(measured: Iterable[Line]) -> list[str]:
    """A note on how busy the servers' core was. Far below 1 the load is too weak, and a call costs more wake-ups."""
    busy = [line.busy for line in measured if line.busy is not None]
    return [f"the servers' core was busy for {min(busy):.0%} of the time or more"] if busy else []


def against_the_tutorial(measured: Iterable[Line]) -> list[Line]:
    """What follows from two lines of one section: ours, with every token new, against the tutorials' interceptor."""
    shares = {(line.section, line.name): line.ratio for line in measured}
    goals = {"sync": 2.4, "aio": 1.4}
    return [
        Line(
            "ours against the tutorial interceptor, every token new: calls a second of one core's time; more is better",
            section.partition(":")[0],
            quotient(ratio, shares[section, _TUTORIAL]),
            "x tutorial",
            Goal(">=", goals[stack]) if (stack := section.partition(",")[0]) in goals else None,
        )
        for (section, name), ratio in shares.items()
        if name == _MISS and (section, _TUTORIAL) in shares
    ]
