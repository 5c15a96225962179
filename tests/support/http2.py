"""An HTTP/2 client that sends whatever octets it is given (RFC 9113): header values that no gRPC library would let through."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from tests.support.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Header,
    frame,
    header_block,
)
from tests.support.processes import PATIENCE_S


def answer_to_headers(target: str, path: str, headers: Sequence[Header]) -> bytes:
    """Send the headers of a gRPC call and no message: the header blocks of the answer, undecoded.

    grpc puts neither status nor message in Huffman code, so both can be read in it. Raises `ConnectionError` when the stream or
    connection ends without headers that end it.
    """
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as connection, connection.makefile("rb") as answer:
        connection.sendall(
            PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, header_block(target, path, headers))
        )
        blocks = b""
        while head := answer.read(9):
            size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            payload = answer.read(size)
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
            elif kind in (RST_STREAM, GOAWAY):
                raise ConnectionError(f"frame {kind}: {payload!r}")
            elif kind in (HEADERS, CONTINUATION):
                blocks += payload
                if kind == HEADERS and flags & END_STREAM:
                    return blocks
    raise ConnectionError("the connection ended")
