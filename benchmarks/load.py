"""The load, in a process of its own: `python -m benchmarks.load JOB`. It loads all its targets at the same time.

Each target has a fixed number of calls under way. After the warm-up the targets' calls and the CPU time of their servers
are read at the end of each round; the calls go on meanwhile. The result is one line of JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import grpc

from benchmarks.cpu import CpuClock, pin, resident_bytes
from benchmarks.server import STREAM, STREAM_MESSAGES, UNARY

Kind = Literal["unary", "stream"]
Tokens = Literal["none", "one", "cycle", "fresh"]
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """One server under load.

    `tokens`: which of the job's tokens its calls carry. "cycle" starts over at the end, "fresh" ends the job there, since
    each is to be seen once. `refused`: the one right answer is UNAUTHENTICATED. `pids`: the processes whose time counts.
    """

    address: str
    pids: tuple[int, ...]
    tokens: Tokens
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """What to load, with what, and for how long.

    `tokens_file`: a token a line. `window`: calls under way to each target. `held`: streams to each target that are opened
    before and stay open, idle; its server has to hold them. `per_s`: calls a second to each target on a timetable, in place
    of a window: servers that are not saturated handle each call by itself, so that differences of CPU time are pure.
    """

    targets: tuple[Target, ...]
    tokens_file: str
    cores: tuple[int, ...]
    kind: Kind = "unary"
    window: int = 16
    warmup_s: float = 0.4
    rounds: int = 7
    seconds: float = 1.0
    held: int = 0
    per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Round:
    """One target in one round: calls that ended, CPU time and memory at the end of each process, how long the round took."""

    calls: int
    cpu_ns: tuple[int, ...]
    resident: tuple[int, ...]
    wall_s: float


def _metadata(tokens: list[str], which: Tokens) -> Iterator[Metadata]:
    if which == "none":
        return itertools.repeat(())
    entries: Iterator[Metadata] = ((("authorization", f"Bearer {token}"),) for token in tokens)
    if which == "one":
        return itertools.repeat(next(entries))
    return itertools.cycle(entries) if which == "cycle" else entries


class _Lane:
    """The calls to one target."""

    def __init__(self, target: Target, kind: Kind, tokens: list[str]) -> None:
        self.calls = 0
        self.used_up = False
        self.wrong: str | None = None
        self._stopping = False
        self._held: list[Any] = []
        self._metadata = _metadata(tokens, target.tokens)
        self._right = grpc.StatusCode.UNAUTHENTICATED if target.refused else grpc.StatusCode.OK
        self._clocks = [CpuClock(pid) for pid in target.pids]
        self._channel = grpc.aio.insecure_channel(target.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._call = self._unary(UNARY) if kind == "unary" else self._stream(STREAM)

    def _unary(self, method: str) -> Any:
        return self._channel.unary_unary(method)

    def _stream(self, method: str) -> Any:
        call: Any = self._channel.unary_stream(method)

        async def whole(request: bytes, metadata: Metadata) -> None:
            messages = 0
            async for _message in call(request, metadata=metadata):
                messages += 1
            if messages != STREAM_MESSAGES:
                self.wrong = f"a stream ended after {messages} messages"

        return whole

    async def hold(self, streams: int) -> None:
        """Open streams, a hundred at a time, read their messages and leave them open."""
        call: Any = self._channel.unary_stream(STREAM)

        async def opened() -> None:
            stream = call(b"", metadata=next(self._metadata))
            self._held.append(stream)
            for _message in range(STREAM_MESSAGES):
                if await stream.read() is grpc.aio.EOF:
                    raise RuntimeError(f"a stream ended early: {await stream.code()}")

        for first in range(0, streams, 100):
            await asyncio.gather(*(opened() for _stream in range(first, min(first + 100, streams))))

    async def _one(self) -> None:
        metadata = next(self._metadata, None)
        if metadata is None:
            self.used_up = True
            return
        code = grpc.StatusCode.OK
        try:
            await self._call(b"", metadata=metadata)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        if code is not self._right:
            self.wrong = f"a call ended with {code.name}"
        self.calls += 1

    async def run(self) -> None:
        """One call after another, until `stop`."""
        while not (self._stopping or self.used_up):
            await self._one()

    async def run_on_timetable(self, per_s: float, start: float) -> None:
        """`per_s` calls a second from `start` on, in the loop's time, until `stop`."""
        loop = asyncio.get_running_loop()
        calls: set[asyncio.Task[None]] = set()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, start + number / per_s - loop.time()))
            if self._stopping or self.used_up:
                break
            call = asyncio.create_task(self._one())
            calls.add(call)
            call.add_done_callback(calls.discard)
        await asyncio.gather(*calls)

    def reading(self) -> tuple[int, list[int]]:
        """Calls and CPU time so far."""
        return self.calls, [clock.read_ns() for clock in self._clocks]

    async def stop(self) -> None:
        """Begin no further calls, and hang up once those under way have ended."""
        self._stopping = True
        for stream in self._held:
            stream.cancel()
        await self._channel.close(grace=5)


async def run(job: Job, tokens: list[str]) -> list[list[Round]]:
    """The rounds, each with a `Round` for each target. Raises `RuntimeError` on a wrong answer or too few tokens."""
    lanes = [_Lane(target, job.kind, tokens) for target in job.targets]
    for lane in lanes:
        await lane.hold(job.held)
    if job.per_s:
        # The lanes take turns, so that no server's call waits for another's.
        now = asyncio.get_running_loop().time()
        starts = [now + number / len(lanes) / job.per_s for number in range(len(lanes))]
        runs = [lane.run_on_timetable(job.per_s, start) for lane, start in zip(lanes, starts, strict=True)]
    else:
        runs = [lane.run() for lane in lanes for _call in range(job.window)]
    workers = [asyncio.create_task(one) for one in runs]
    await asyncio.sleep(job.warmup_s)
    rounds: list[list[Round]] = []
    before, since = [lane.reading() for lane in lanes], time.perf_counter()
    for _round in range(job.rounds):
        await asyncio.sleep(job.seconds)
        after, until = [lane.reading() for lane in lanes], time.perf_counter()
        if any(lane.used_up for lane in lanes):
            break
        rounds.append(
            [
                Round(
                    calls - calls_before,
                    tuple(b - a for a, b in zip(cpu_before, cpu, strict=True)),
                    tuple(resident_bytes(pid) for pid in target.pids),
                    until - since,
                )
                for target, (calls_before, cpu_before), (calls, cpu) in zip(job.targets, before, after, strict=True)
            ]
        )
        before, since = after, until
    for lane in lanes:
        await lane.stop()
    await asyncio.gather(*workers)
    for target, lane in zip(job.targets, lanes, strict=True):
        if lane.wrong is not None:
            raise RuntimeError(f"{target}: {lane.wrong}")
    if 2 * len(rounds) < job.rounds:
        raise RuntimeError(f"the tokens were used up after {len(rounds)} of {job.rounds} rounds; mint more")
    return rounds


def main() -> None:
    """Carry out the job that the one argument describes in JSON."""
    members = json.loads(sys.argv[1])
    job = Job(**members | {"targets": tuple(Target(**target) for target in members["targets"])})
    pin(*job.cores)
    rounds = asyncio.run(run(job, Path(job.tokens_file).read_text(encoding="ascii").split()))
    print(json.dumps([[asdict(target) for target in one] for one in rounds]), flush=True)


if __name__ == "__main__":
    main()
