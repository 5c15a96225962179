"""Carrying an attack out, on the event loop that it is called on. Nothing is waited for that a server might not give."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from campaign.attacks import Attack
from campaign.wire import Connection, connect
from tests.support.frames import header_block, literal

_AT_ONCE = 50
"""Connections that are being made at the same time: more than a listening socket's backlog would be dropped."""
_ENDLESS_PIECE = literal(b"x-pad", b"x" * 1000)


@dataclass(slots=True)
class Tally:
    """`begun` calls, and how those that ended did. `connections` that were made, and `lost` ones that the server closed."""

    begun: int = 0
    connections: int = 0
    lost: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def members(self) -> dict[str, Any]:
        """For JSON."""
        return {"begun": self.begun, "connections": self.connections, "lost": self.lost, "ends": dict(self.ends)}


class Load:
    """The clients of one attack on one server. `tokens`: of its calls, without end."""

    def __init__(self, attack: Attack, target: str, tokens: Iterator[str | None]) -> None:
        self._attack = attack
        self._target = target
        self._base = header_block(target, attack.path)
        pad = b"p" * 4000
        self._pad = b"".join(literal(f"x-pad-{number}".encode(), pad) for number in range(-(-attack.pad_bytes // 4000)))
        self._tokens = tokens
        self._connections: set[Connection] = set()
        self._stopping = False
        self.opened = False  # the connections are there, and what is held has been begun
        self.tally = Tally()

    async def run(self, seconds: float, most_calls: int | None = None, stop: asyncio.Event | None = None) -> Tally:
        """Attack for `seconds`, or until so many calls were begun, or until `stop` is set; then hang up.

        The time runs once the connections are there, and what is held has been begun.
        """
        try:
            workers = await self._open(most_calls)
            self.opened = True
            until = workers if most_calls is not None else [asyncio.create_task((stop or asyncio.Event()).wait())]
            await asyncio.wait(until, timeout=seconds)
            self._stopping = True
            for worker in (*workers, *until):
                worker.cancel()
            for ended in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended
        finally:
            self.close()
        return self.tally

    @property
    def ended(self) -> int:
        """Calls that have ended so far, on the connections that there are."""
        return sum(connection.ends.total() for connection in self._connections)

    async def _open(self, most_calls: int | None) -> list[asyncio.Task[None]]:
        attack = self._attack
        workers: list[asyncio.Task[None]] = []
        for first in range(0, attack.connections, _AT_ONCE):
            count = min(_AT_ONCE, attack.connections - first)
            for connection in await asyncio.gather(*(self._connect() for _connection in range(count))):
                if attack.holds:
                    for _stream in range(attack.window):
                        self._begin(connection)
                    await connection.drained()
                else:
                    work = self._endless(connection) if attack.endless else self._calls(connection, most_calls)
                    workers.append(asyncio.create_task(work))
        return workers

    async def _connect(self) -> Connection:
        connection = await connect(self._target)
        self.tally.connections += 1
        self._connections.add(connection)
        return connection

    def _block(self) -> bytes:
        token = next(self._tokens)
        if token is None:
            return self._base + self._pad
        return self._base + literal(b"authorization", b"Bearer " + token.encode()) + self._pad

    def _begin(self, connection: Connection, free: asyncio.Semaphore | None = None) -> int:
        self.tally.begun += 1
        on_end = None if free is None else free.release
        return connection.begin(self._block(), message=self._attack.message, on_end=on_end)

    async def _calls(self, connection: Connection, most_calls: int | None) -> None:
        free = asyncio.Semaphore(self._attack.window)
        while not self._stopping and (most_calls is None or self.tally.begun < most_calls):
            if connection.lost.is_set():
                connection = await self._again(connection)
                free = asyncio.Semaphore(self._attack.window)
            if self._attack.resets:
                connection.reset(self._begin(connection))
                await connection.drained()
                if self.tally.begun % 20 == 0:
                    await asyncio.sleep(0)  # nobody else would get to run
            else:
                await free.acquire()
                self._begin(connection, free)
        for _call in range(0 if most_calls is None or self._attack.resets else self._attack.window):
            await free.acquire()  # the last ones have ended

    async def _endless(self, connection: Connection) -> None:
        """Headers without an end, and again when the server has had enough of them."""
        while not self._stopping:
            self.tally.begun += 1
            stream = connection.begin(self._base, end_headers=False)
            while not connection.lost.is_set() and not self._stopping:
                connection.carry_on(stream, _ENDLESS_PIECE)
                await connection.drained()
                await asyncio.sleep(0.0005)
            if connection.lost.is_set():
                connection = await self._again(connection)

    async def _again(self, connection: Connection) -> Connection:
        """A new connection in place of one that the server has closed."""
        self.tally.lost += 1
        self.tally.ends += connection.ends
        self._connections.discard(connection)
        return await self._connect()

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            self.tally.lost += connection.lost.is_set()
            self.tally.ends += connection.ends
            connection.close()
        self._connections.clear()
