"""An HTTP/2 client that sends whatever octets it is given (RFC 9113): header values that no gRPC library would let through."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from tests.support.processes import PATIENCE_S

Header = tuple[bytes, bytes]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY, _CONTINUATION = 0x1, 0x3, 0x4, 0x7, 0x9
_ACK, _END_STREAM, _END_HEADERS = 0x1, 0x1, 0x4


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _integer(value: int, prefix_bits: int) -> bytes:
    """RFC 7541 §5.1; the bits in front of the prefix are 0."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([value])
    octets = [most]
    value -= most
    while value >= 0x80:
        octets.append(value % 0x80 + 0x80)
        value //= 0x80
    return bytes([*octets, value])


def _literal(name: bytes, value: bytes) -> bytes:
    """A literal header field without indexing, its name new, nothing in Huffman code (RFC 7541 §6.2.2)."""
    return b"\0" + _integer(len(name), 7) + name + _integer(len(value), 7) + value


def answer_to_headers(target: str, path: str, headers: Sequence[Header]) -> bytes:
    """Send the headers of a gRPC call and no message: the header blocks of the answer, undecoded.

    grpc puts neither status nor message in Huffman code, so both can be read in it. Raises `ConnectionError` when the stream or
    connection ends without headers that end it.
    """
    host, _, port = target.rpartition(":")
    request = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", target.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *headers,
    ]
    block = b"".join(_literal(name, value) for name, value in request)
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection, connection.makefile("rb") as answer:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_HEADERS, _END_HEADERS, 1, block))
        blocks = b""
        while head := answer.read(9):
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            payload = answer.read(size)
            if kind == _SETTINGS and not flags & _ACK:
                connection.sendall(_frame(_SETTINGS, _ACK, 0))
            elif kind in (_RST_STREAM, _GOAWAY):
                raise ConnectionError(f"frame {kind}: {payload!r}")
            elif kind in (_HEADERS, _CONTINUATION):
                blocks += payload
                if kind == _HEADERS and flags & _END_STREAM:
                    return blocks
    raise ConnectionError("the connection ended")
