"""What every measurement needs: an issuer on loopback, files of tokens, and pairs of servers that are loaded at once."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks import pools
from benchmarks.cpu import Cores, pinned
from benchmarks.load import Job, Kind, Round, Target, Tokens
from benchmarks.server import ServerSpec, Stack
from benchmarks.stats import Cost
from benchmarks.variants import Variant
from tests.support.jwks_server import JwksServer
from tests.support.processes import Process
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, new_key

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Algorithm = Literal["RS256", "ES256", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
Pool = Literal["valid", "forged", "expired"]

FEW = 256
"""Tokens of which a caller need not have a new one each call: refusals, which nobody remembers."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one measurement takes."""

    rounds: int = 7
    seconds: float = 1.0
    warmup_s: float = 0.4

    @property
    def total_s(self) -> float:
        """Seconds under load."""
        return self.warmup_s + self.rounds * self.seconds


@dataclass(slots=True)
class Stage:
    """The issuer, its keys and its tokens. `most_calls_s`: calls a second that a server may reach, for the pools' size."""

    timing: Timing
    cores: Cores
    issuer: JwksServer
    keys: dict[Algorithm, SigningKey]
    folder: Path
    most_calls_s: int = 4500
    _pools: dict[tuple[Algorithm, Pool], Path] = field(default_factory=dict)

    def tokens(self, algorithm: Algorithm, pool: Pool) -> Path:
        """The file with tokens of that kind, made when it is asked for first."""
        known = self._pools.get((algorithm, pool))
        if known is None:
            known = self.folder / f"{algorithm}-{pool}"
            self._pools[algorithm, pool] = pools.write(known, self._made(algorithm, pool))
        return known

    def _made(self, algorithm: Algorithm, pool: Pool) -> list[str]:
        key = self.keys[algorithm]
        cores = self.cores.both
        if pool == "valid":
            return pools.many(key, round(self.timing.total_s * self.most_calls_s), ISSUER, cores)
        if pool == "expired":
            return pools.many(key, FEW, ISSUER, cores, exp=1_700_000_000, nbf=1_600_000_000, iat=1_600_000_000)
        return pools.many(SigningKey(key.kid, key.alg, new_key(key.kid, algorithm).private_key), FEW, ISSUER, cores)

    def spec(self, stack: Stack, variant: Variant) -> ServerSpec:
        """A server on the servers' core, with this stage's issuer."""
        return ServerSpec(stack, variant, ISSUER, AUDIENCE, self.issuer.jwks_uri, (self.cores.server,))


@contextmanager
def set_up(timing: Timing) -> Iterator[Stage]:
    """A stage; it is torn down at the end. This process, with the issuer in it, stays off the servers' core meanwhile."""
    keys = {algorithm: new_key(algorithm, algorithm) for algorithm in ALGORITHMS}  # the `kid` is the algorithm's name
    cores = Cores.of_this_process()
    with pinned(cores.load), tempfile.TemporaryDirectory() as folder, JwksServer(*keys.values()) as issuer:
        yield Stage(timing, cores, issuer, keys, Path(folder))


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up."""

    address: str
    pid: int


@contextmanager
def serving(spec: ServerSpec) -> Iterator[Running]:
    """A server in a process of its own, for as long as the context lasts."""
    with Process(sys.executable, "-m", "benchmarks.server", json.dumps(asdict(spec)), cwd=ROOT) as process:
        port = process.line(r"^\d+$")
        yield Running(f"127.0.0.1:{port}", process.pid)


def loaded(job: Job) -> list[list[Round]]:
    """Carry a job out in a process of its own. Raises `AssertionError`, with what it said, when it fails."""
    patience_s = 60 + job.warmup_s + job.rounds * job.seconds
    with Process(sys.executable, "-m", "benchmarks.load", json.dumps(asdict(job)), cwd=ROOT) as process:
        answer = json.loads(process.line(r"^\[", patience_s))
    return [
        [Round(one["calls"], tuple(one["cpu_ns"]), tuple(one["resident"]), one["wall_s"]) for one in targets]
        for targets in answer
    ]


def costs(rounds: Sequence[Sequence[Round]], target: int) -> list[Cost]:
    """What one target cost, round by round, all its processes together."""
    return [Cost(targets[target].calls, sum(targets[target].cpu_ns)) for targets in rounds]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers of one stack under the same load at the same time. `refused`: the variant refuses every call."""

    stack: Stack
    variant: Variant
    base: Variant = "bare"
    algorithm: Algorithm = "RS256"
    kind: Kind = "unary"
    tokens: Tokens = "one"
    pool: Pool = "valid"
    refused: bool = False


def busy(rounds: Sequence[Sequence[Round]]) -> float:
    """The share of all rounds' time that their servers worked, all of them together."""
    wall_s = sum(targets[0].wall_s for targets in rounds)
    return sum(sum(target.cpu_ns) for targets in rounds for target in targets) / wall_s / 1e9


def measure(stage: Stage, pair: Pair) -> tuple[list[Cost], list[Cost], float]:
    """The base's and the variant's costs, round by round, and how busy the two kept their core.

    The base gets the same metadata as the variant.
    """
    timing = stage.timing
    tokens_file = stage.tokens(pair.algorithm, pair.pool)
    with ExitStack() as stack:
        base, variant = (stack.enter_context(serving(stage.spec(pair.stack, name))) for name in (pair.base, pair.variant))
        for_base: Tokens = "cycle" if pair.tokens == "fresh" else pair.tokens
        rounds = loaded(
            Job(
                targets=(
                    Target(base.address, (base.pid,), for_base),
                    Target(variant.address, (variant.pid,), pair.tokens, pair.refused),
                ),
                tokens_file=str(tokens_file),
                cores=(stage.cores.load,),
                kind=pair.kind,
                warmup_s=timing.warmup_s,
                rounds=timing.rounds,
                seconds=timing.seconds,
            )
        )
    return costs(rounds, 0), costs(rounds, 1), busy(rounds)
