"""A gRPC call in bare HTTP/2 frames (RFC 9113) by a peer that takes no data: its flow control window is, and stays, 0."""

from __future__ import annotations

import socket
import struct

from tests.support.processes import PATIENCE_S

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _header(name: str, value: str) -> bytes:
    """A literal header field without indexing or Huffman coding (RFC 7541 §6.2.2)."""
    return b"\x00" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def call_that_takes_no_data(target: str, method: str) -> socket.socket:
    """Call `method` with an empty message on a connection whose flow control window for the answer is, and stays, 0."""
    host, port = target.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), PATIENCE_S)
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": target,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    connection.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0))
        + _frame(_HEADERS, _END_HEADERS, 1, b"".join(_header(name, value) for name, value in headers.items()))
        + _frame(_DATA, _END_STREAM, 1, bytes(5))  # not compressed, 0 bytes long
    )
    return connection


def await_response_headers(connection: socket.socket) -> None:
    """Read until the answer to the call has begun: its handler runs then."""
    buffer = b""
    while True:
        while len(buffer) < 9 or len(buffer) < 9 + int.from_bytes(buffer[:3], "big"):
            received = connection.recv(65536)
            assert received, "the connection was closed"
            buffer += received
        kind, length = buffer[3], int.from_bytes(buffer[:3], "big")
        buffer = buffer[9 + length :]
        if kind == _HEADERS:
            return
