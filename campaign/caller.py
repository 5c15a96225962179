"""The good caller: its calls begin on a timetable, whatever becomes of those before: a server that stalls cannot hide it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import grpc

from campaign.attacks import WHO_AM_I

DEADLINE_S: Final = 10.0
CONNECTIONS: Final = 4
"""Enough for what is under way while the server answers late: beyond `max_concurrent_streams` a connection refuses calls."""


class GoodCaller:
    """Calls WhoAmI on connections of its own. `latencies_ms` count from the timetable; `codes`: how the calls ended."""

    def __init__(self, target: str, tokens: Iterable[str]) -> None:
        self.latencies_ms: list[float] = []
        self.codes: Counter[str] = Counter()
        self._tokens = itertools.cycle(tokens)
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(target, options=options) for _connection in range(CONNECTIONS)]
        self._calls: Iterator[Any] = itertools.cycle([channel.unary_unary(WHO_AM_I) for channel in self._channels])

    async def ready(self) -> None:
        """Make a call on each connection, which is there then."""
        await asyncio.gather(*(self.one() for _channel in self._channels))
        self.taken()

    async def one(self, due: float | None = None) -> None:
        """One call, that was to begin at `due` in the loop's time."""
        loop = asyncio.get_running_loop()
        begun = loop.time() if due is None else due
        code = grpc.StatusCode.OK
        try:
            await next(self._calls)(b"", metadata=(("authorization", f"Bearer {next(self._tokens)}"),), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        self.latencies_ms.append((loop.time() - begun) * 1000)
        self.codes[code.name] += 1

    async def run(self, per_s: float, stop: asyncio.Event) -> None:
        """`per_s` calls a second until `stop` is set; all of them have ended then."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        calls = []
        for number in itertools.count():
            due = begin + number / per_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            if stop.is_set():
                break
            calls.append(asyncio.create_task(self.one(due)))
        await asyncio.gather(*calls)

    def taken(self) -> tuple[list[float], Counter[str]]:
        """What there is so far; it begins anew."""
        taken = self.latencies_ms, self.codes
        self.latencies_ms, self.codes = [], Counter()
        return taken

    async def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            await channel.close()
