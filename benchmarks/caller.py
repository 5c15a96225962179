"""Good callers and, when asked, forging ones: `python -m benchmarks.caller JOB`. Latencies are its one line of JSON.

Calls begin on a fixed timetable, and a latency counts from the time in it: a call that had to begin late has waited too. A
line on standard input makes the good callers take their tokens from the second file from then on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks.cpu import pin
from benchmarks.server import UNARY

DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class CallerJob:
    """Each server gets `good_per_s` calls a second with `tokens_file`'s tokens, and `forged_per_s` with `forged_file`'s.

    `next_file`: the good callers' tokens after a line on standard input. `seconds`: for how long.
    """

    addresses: tuple[str, ...]
    tokens_file: str
    next_file: str
    forged_file: str
    good_per_s: float
    forged_per_s: float
    seconds: float
    cores: tuple[int, ...]


class _Caller:
    """Calls one server on a timetable."""

    def __init__(self, address: str, tokens: Iterator[str]) -> None:
        self.latencies_ms: list[float] = []
        self.codes: Counter[str] = Counter()
        self._tokens = tokens
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._call: Any = self._channel.unary_unary(UNARY)

    async def _one(self, token: str, due: float) -> None:
        code = grpc.StatusCode.OK
        try:
            await self._call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        self.latencies_ms.append((asyncio.get_running_loop().time() - due) * 1000)
        self.codes[code.name] += 1

    async def ready(self) -> None:
        """Wait for the connection."""
        await self._channel.channel_ready()

    async def run(self, per_s: float, seconds: float) -> None:
        """Begin `per_s` calls a second for `seconds`, and wait for all of them."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        calls = []
        for number in range(round(per_s * seconds)):
            due = begin + number / per_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            calls.append(asyncio.create_task(self._one(next(self._tokens), due)))
        await asyncio.gather(*calls)
        await self._channel.close()


class _Switch:
    """Tokens of the first file, and of the second once a line has come on standard input."""

    def __init__(self, first: list[str], second: list[str]) -> None:
        self._first = itertools.cycle(first)
        self._second = itertools.cycle(second)
        self._switched = False
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self._switched = bool(sys.stdin.readline())

    def __iter__(self) -> Iterator[str]:
        while True:
            yield next(self._second if self._switched else self._first)


async def run(job: CallerJob, good: Iterator[str], forged: Iterator[str]) -> list[dict[str, Any]]:
    """For each server: latencies of its good caller in milliseconds, in order of their end, and how its calls ended."""
    callers = [_Caller(address, good) for address in job.addresses]
    forgers = [_Caller(address, forged) for address in job.addresses]
    await asyncio.gather(*(caller.ready() for caller in (*callers, *forgers)))
    await asyncio.gather(
        *(caller.run(job.good_per_s, job.seconds) for caller in callers),
        *(forger.run(job.forged_per_s, job.seconds) for forger in forgers),
    )
    return [{"latencies_ms": caller.latencies_ms, "codes": caller.codes} for caller in callers]


def _tokens(path: str) -> list[str]:
    return Path(path).read_text(encoding="ascii").split()


def main() -> None:
    """Carry out the job that the one argument describes in JSON."""
    job = CallerJob(**json.loads(sys.argv[1]))
    pin(*job.cores)
    good = _Switch(_tokens(job.tokens_file), _tokens(job.next_file))
    print(json.dumps(asyncio.run(run(job, iter(good), itertools.cycle(_tokens(job.forged_file))))), flush=True)


if __name__ == "__main__":
    main()
