"""How the cost of one call and the memory grow with keys, issuers and distinct tokens; in this process, without grpc's part.

What grpc does for a call does not grow with any of them, and would only hide what does.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import grpc

from benchmarks import pools
from benchmarks.cpu import resident_bytes
from benchmarks.peers import by_gate
from benchmarks.report import Goal, Line
from benchmarks.server import UNARY
from benchmarks.stage import Stage
from benchmarks.stats import Cost, Ratio, multiple_of_base
from grpc_bearer import Authenticator, CachePolicy, Issuer, Policies, Policy, Rule, VerdictCachePolicy, aio
from grpc_bearer.policy.protos import Declared
from tests.support.tokens import AUDIENCE, jwks, new_key

SAMPLE = 500
"""Calls in a turn; their tokens are spread over the keys or issuers."""

_ONE_MORE = Goal("<=", 1.05)
_CACHE = CachePolicy(max_keys=10_000)

_TO_WEIGH = 1_000
"""So many tokens are weighed: all of them are kept."""

Turn = Callable[[], object]
T = TypeVar("T")


def _issuer_name(number: int) -> str:
    return f"https://issuer-{number}.example"


def _resident_growth(make: Callable[[], T]) -> tuple[T, int]:
    gc.collect()
    before = resident_bytes(os.getpid())
    made = make()
    gc.collect()
    return made, resident_bytes(os.getpid()) - before


def _traced_growth(run: Callable[[], object]) -> int:
    """Bytes that Python's allocator holds more after it: the process grows by less where it has room from before."""
    gc.collect()
    tracemalloc.start()
    before, _peak = tracemalloc.get_traced_memory()
    run()
    gc.collect()
    after, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def _taking_turns(turns: Mapping[int, Turn], rounds: int) -> dict[int, list[Cost]]:
    for turn in turns.values():
        turn()
    costs: dict[int, list[Cost]] = {number: [] for number in turns}
    for _round in range(rounds):
        for number, turn in turns.items():
            before = time.process_time_ns()
            turn()
            costs[number].append(Cost(SAMPLE, time.process_time_ns() - before))
    return costs


def _lines(what: str, costs: Mapping[int, Sequence[Cost]], goal: Goal | None = _ONE_MORE) -> list[Line]:
    section = f"one call by the number of {what}: CPU less grpc's part, the least = 1, less is better"
    least, most = min(costs), max(costs)
    return [
        Line(
            section,
            f"{number:,}",
            multiple_of_base(costs[least], cost),
            "x least",
            goal if number == most else None,
            Ratio.of([one.us_per_call for one in cost]).median,
        )
        for number, cost in costs.items()
    ]


def _memory(what: str, unit: str, total: int, number: int, goal: Goal | None = None) -> Line:
    each = total / number / 1024
    return Line("memory", f"{number:,} {what}", Ratio.single(each), unit, goal)


def keys(stage: Stage, numbers: Sequence[int]) -> list[Line]:
    """One issuer with more and more keys. ES256: RSA keys would take minutes to make."""
    made = [new_key(f"key-{number}", "ES256") for number in range(max(numbers))]
    name = _issuer_name(0)
    turns: dict[int, Turn] = {}
    memory = 0
    for number in numbers:
        issuer = Issuer(name, audiences=[AUDIENCE], jwks=jwks(*made[:number]), cache=_CACHE)
        authenticator, memory = _resident_growth(partial(Authenticator, [issuer]))
        turns[number] = by_gate(authenticator.gate, [pools.token(made[at % number], at, name) for at in range(SAMPLE)])
    lines = _lines("keys", _taking_turns(turns, stage.timing.rounds))
    return [*lines, _memory("keys", "KB a key", memory, max(numbers))]


def issuers(stage: Stage, numbers: Sequence[int]) -> list[Line]:
    """More and more issuers, a key each."""
    made = [new_key(f"key-{number}", "ES256") for number in range(max(numbers))]
    listed = [Issuer(_issuer_name(at), audiences=[AUDIENCE], jwks=jwks(key), cache=_CACHE) for at, key in enumerate(made)]
    turns: dict[int, Turn] = {}
    for number in numbers:
        authenticator = Authenticator(listed[:number])
        tokens = [pools.token(made[at % number], at, _issuer_name(at % number)) for at in range(SAMPLE)]
        turns[number] = by_gate(authenticator.gate, tokens)
    return _lines("issuers", _taking_turns(turns, stage.timing.rounds))


def rules(stage: Stage, numbers: Sequence[int]) -> list[Line]:
    """More and more methods, each with a rule of its own that asks for a scope."""
    name, key = _issuer_name(0), stage.keys["ES256"]
    issuer = Issuer(name, audiences=[AUDIENCE], jwks=jwks(key))
    tokens = [pools.token(key, at, name) for at in range(SAMPLE)]
    turns: dict[int, Turn] = {}
    memory = 0
    for number in numbers:
        methods = [f"Method{at}" for at in range(number)]
        declared = Declared("some.Service", dict.fromkeys(methods))
        listed = [Rule([f"some.Service/{method}"], Policy(scopes=("orders.read", "orders.write"))) for method in methods]
        policies, memory = _resident_growth(partial(Policies, rules=listed, find={declared.name: declared}.get))
        gate = Authenticator([issuer], policies=policies).gate
        turns[number] = by_gate(gate, tokens, methods=[f"/some.Service/{method}" for method in methods])
    lines = _lines("methods with rules", _taking_turns(turns, stage.timing.rounds))
    return [*lines, _memory("methods with rules", "KB a method", memory, max(numbers))]


class _Details(NamedTuple):
    """What grpc hands to an interceptor."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


class _Tokens:
    """Many tokens in one piece of memory: each call gets a string of its own, as from grpc, and nobody shares it with us."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._all = "".join(tokens).encode()
        ends = list(itertools.accumulate(map(len, tokens)))
        self._slices = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def details(self, number: int) -> _Details:
        """A call that carries the token of that number."""
        return _Details(UNARY, (("authorization", "Bearer " + self._all[self._slices[number]].decode()),))


async def _behaviour(_request: Any, _context: Any) -> None:
    """A handler; nobody runs it here."""


_HANDLER: Any = grpc.unary_unary_rpc_method_handler(_behaviour)


async def _continuation(_details: Any) -> Any:
    return _HANDLER


async def _intercepted(interceptor: aio.AuthInterceptor, tokens: _Tokens, numbers: Iterable[int]) -> None:
    for number in numbers:
        handler: Any = await interceptor.intercept_service(_continuation, tokens.details(number))  # type: ignore[arg-type]
        if handler is not _HANDLER:
            raise RuntimeError("a good token was refused")


def distinct_tokens(stage: Stage, numbers: Sequence[int], *, hashed: bool = False) -> list[Line]:
    """More and more tokens that come again and again: what a call costs then, and what is kept of each of them.

    `hashed`: they are kept by their SHA-256.
    """
    verdicts, kept_by = VerdictCachePolicy(hashed=hashed), ", kept by their SHA-256" if hashed else ""
    most = max(numbers)
    name = _issuer_name(0)
    tokens = _Tokens(pools.many(stage.keys["RS256"], most, name, stage.cores.both))
    issuer = Issuer(name, audiences=[AUDIENCE], jwks=jwks(stage.keys["RS256"]))
    turns: dict[int, Turn] = {}
    lines: list[Line] = []
    with asyncio.Runner() as runner:
        for number in numbers:
            interceptor = aio.AuthInterceptor(Authenticator([issuer], verdicts=verdicts))
            # Twice, because a token is remembered when it is seen again.
            first = partial(runner.run, _intercepted(interceptor, tokens, [*range(number)] * 2))
            memory = _traced_growth(first) if number == _TO_WEIGH else first()
            if memory is not None:
                goal = Goal("<=", 1.6)
                lines.append(_memory(f"tokens kept{kept_by}", "KB a token", memory, number, goal))
            sample = [at * max(1, number // SAMPLE) % number for at in range(SAMPLE)]

            def turn(interceptor: aio.AuthInterceptor = interceptor, sample: list[int] = sample) -> None:
                runner.run(_intercepted(interceptor, tokens, sample))

            turns[number] = turn
        costs = _taking_turns(turns, stage.timing.rounds)
    return [*_lines(f"distinct tokens, each seen before{kept_by}", costs, goal=None), *lines]
