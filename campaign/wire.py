"""HTTP/2 connections (RFC 9113) of a client that keeps to no rule: streams without messages, resets, huge headers."""

from __future__ import annotations

import asyncio
import re
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.support.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_WINDOW: Final = 2**31 - 1
_FRAME: Final = 16_384  # the largest that a peer has to take (§4.2)
_CANCEL: Final = 8
_PATIENCE_S: Final = 30.0
_STATUS: Final = re.compile(rb"grpc-status.([0-9]+)", re.DOTALL)

EMPTY_MESSAGE: Final = bytes(5)
"""A gRPC message of no octets, not compressed."""


class Connection(asyncio.Protocol):
    """One connection. `ends` counts how its streams ended: the gRPC status as text, or `reset 7` by the RST_STREAM's code.

    `answered`: streams whose answer has begun. `lost` is set when the server has closed the connection.
    """

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.answered = 0
        self.lost = asyncio.Event()
        self.settled = asyncio.Event()  # the server's settings have come
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._next_stream = 1
        self._open: dict[int, Callable[[], None]] = {}
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def under_way(self) -> int:
        """Streams that have not ended."""
        return len(self._open)

    async def drained(self) -> None:
        """Wait until the server reads again, should it have stopped to."""
        await self._may_write.wait()

    def begin(
        self, block: bytes, *, message: bool = False, end_headers: bool = True, on_end: Callable[[], None] | None = None
    ) -> int:
        """Begin a stream, with an empty message and its end behind the headers or with the headers alone. Its number."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._open[stream] = on_end or _nothing
        pieces = [block[at : at + _FRAME] for at in range(0, len(block), _FRAME)]
        last = len(pieces) - 1
        data = b"".join(
            frame(CONTINUATION if at else HEADERS, END_HEADERS if at == last and end_headers else 0, stream, piece)
            for at, piece in enumerate(pieces)
        )
        if message:
            data += frame(DATA, END_STREAM, stream, EMPTY_MESSAGE)
        self._write(data)
        return stream

    def carry_on(self, stream: int, block: bytes) -> None:
        """A further CONTINUATION of headers that do not end."""
        self._write(frame(CONTINUATION, 0, stream, block))

    def reset(self, stream: int) -> None:
        """RST_STREAM: the client wants no answer any more."""
        self._open.pop(stream, None)
        self.ends["cancelled"] += 1
        self._write(frame(RST_STREAM, 0, stream, struct.pack(">I", _CANCEL)))

    def close(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self.lost.is_set():
            self._transport.write(data)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # No dynamic table: each status of an answer can be read in its octets then.
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _WINDOW)
        update = struct.pack(">I", _WINDOW - 65_535)
        self._write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, update))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self.settled.set()
        self._may_write.set()
        for stream in list(self._open):
            self._ended(stream, "connection lost")

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 9:
            size = int.from_bytes(self._buffer[at : at + 3], "big")
            if len(self._buffer) - at < 9 + size:
                break
            kind, flags = self._buffer[at + 3], self._buffer[at + 4]
            stream = int.from_bytes(self._buffer[at + 5 : at + 9], "big")
            self._frame(kind, flags, stream, bytes(self._buffer[at + 9 : at + 9 + size]))
            at += 9 + size
        del self._buffer[:at]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & END_STREAM:
                found = _STATUS.search(payload)
                self._ended(stream, found[1].decode() if found else "no status")
            else:
                self.answered += 1
        elif kind == RST_STREAM:
            self._ended(stream, f"reset {int.from_bytes(payload, 'big')}")
        elif kind == SETTINGS and not flags & ACK:
            self.settled.set()
            self._write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.ends["goaway"] += 1

    def _ended(self, stream: int, how: str) -> None:
        on_end = self._open.pop(stream, None)
        if on_end is not None:
            self.ends[how] += 1
            on_end()


def _nothing() -> None:
    """What a stream's end does when nobody asked for more."""


async def connect(target: str) -> Connection:
    """A connection whose server has answered with its settings. Raises `OSError`, `TimeoutError` among them."""
    host, _, port = target.rpartition(":")
    async with asyncio.timeout(_PATIENCE_S):
        _transport, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
        await connection.settled.wait()
    return connection
