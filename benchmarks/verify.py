"""The verify-only lines: CPU time of one verification in multiples of the raw signature's, contenders taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import pools
from benchmarks.machine import version
from benchmarks.peers import (
    JSONWEBTOKEN,
    NODE,
    NODE_PEERS,
    OURS,
    OURS_FAST,
    PYTHON_PEERS,
    Node,
    Task,
    VerifyAll,
    node_is_there,
    raw,
)
from benchmarks.report import Goal, Line
from benchmarks.stage import ALGORITHMS, Algorithm, Stage
from benchmarks.stats import Cost, multiple_of_base
from tests.support.processes import Process
from tests.support.tokens import AUDIENCE, ISSUER

TOKENS = 500
"""Tokens that a contender verifies in a turn."""
WARM_UP_TURNS = 4
"""Turns before it counts: Node's compiler needs some thousand calls."""

_RAW = "raw signature"
_PYJWT = "PyJWT decode"
_GOALS: dict[tuple[str, Algorithm], Goal] = {
    (OURS, "RS256"): Goal("<=", 1.5),
    (OURS_FAST, "RS256"): Goal("<=", 1.3),
    (OURS, "ES256"): Goal("<=", 1.2),
    (OURS, "EdDSA"): Goal("<=", 1.1),
}
_AGAINST = {_PYJWT: Goal("<=", 0.38), JSONWEBTOKEN: Goal("<=", 0.17)}

Turn = Callable[[], Cost]


def _python_turn(verify_all: VerifyAll) -> Cost:
    before = time.process_time_ns()
    verify_all()
    return Cost(TOKENS, time.process_time_ns() - before)


def _node_turn(node: Node, contender: str, task: Task, tokens_file: Path) -> Cost:
    return Cost(*node.verify_all(contender, task, tokens_file))


def _contenders(stage: Stage, algorithm: Algorithm, node: Node | None) -> dict[str, Turn]:
    key = stage.keys[algorithm]
    tokens = pools.many(key, TOKENS, ISSUER, stage.cores.both)
    tokens_file = pools.write(stage.folder / f"{algorithm}-verify", tokens)
    task = Task(algorithm, key, tokens, ISSUER, AUDIENCE, stage.issuer.jwks_uri)
    found: dict[str, Turn] = {_RAW: partial(_python_turn, raw(task))}
    for name, make in PYTHON_PEERS.items():
        verify_all = make(task)
        if verify_all is not None:
            found[name] = partial(_python_turn, verify_all)
    if node is not None:
        for name, algorithms in NODE_PEERS.items():
            if algorithm in algorithms:
                found[name] = partial(_node_turn, node, name, task, tokens_file)
    return found


def _rounds(contenders: Mapping[str, Turn], rounds: int) -> dict[str, list[Cost]]:
    for _turn in range(WARM_UP_TURNS):
        for turn in contenders.values():
            turn()
    # Turn by turn, so that a disturbance of the machine hits all of them alike.
    taken = [{name: turn() for name, turn in contenders.items()} for _round in range(rounds)]
    return {name: [one[name] for one in taken] for name in contenders}


def _lines(algorithm: Algorithm, costs: Mapping[str, Sequence[Cost]]) -> list[Line]:
    section = f"{algorithm}: CPU of one verification, without grpc; raw signature = 1, less is better"
    lines = [
        Line(
            section,
            name,
            multiple_of_base(costs[_RAW], cost),
            "x raw",
            _GOALS.get((name, algorithm)),
            statistics.median(one.us_per_call for one in cost),
        )
        for name, cost in costs.items()
    ]
    if algorithm == "RS256":
        lines += [
            Line(
                "RS256: CPU of ours against a peer's, one verification; less is better",
                f"ours against {peer}",
                multiple_of_base(costs[peer], costs[OURS]),
                "x that",
                goal,
            )
            for peer, goal in _AGAINST.items()
            if peer in costs
        ]
    return lines


def verify_only(stage: Stage, rounds: int, say: Callable[[str], None]) -> list[Line]:
    """The lines of all three algorithms. Everything runs on the core of the load, one after the other."""
    lines: list[Line] = []
    with ExitStack() as stack:
        node = Node(stack.enter_context(Process("node", str(NODE / "verify.mjs")))) if node_is_there() else None
        for algorithm in ALGORITHMS:
            say(f"verify only, {algorithm}")
            lines += _lines(algorithm, _rounds(_contenders(stage, algorithm, node), rounds))
    return lines


def left_out() -> list[str]:
    """Peers that are not installed here, a note each."""
    notes = [
        f"{name} is not installed, its rows are left out: `make bench` installs it"
        for name in ("uvloop", "joserfc", "Authlib")
        if version(name) is None
    ]
    if not node_is_there():
        notes.append("Node's verifiers are left out: run `npm ci` in benchmarks/node, with Node on PATH")
    return notes
