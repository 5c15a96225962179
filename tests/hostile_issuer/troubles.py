"""Answers that no honest issuer gives: each takes the bare socket over, as `JwksServer.raw`."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import zlib
from contextlib import suppress
from functools import cache
from typing import Any

from jwt.algorithms import OKPAlgorithm

from tests.support.jwks_server import Raw
from tests.support.tokens import SigningKey, jwks, key

OK_LINE = b"HTTP/1.1 200 OK\r\n"
MIB = 1024 * 1024


def answer(body: bytes, *headers: str, length: int | None = None) -> Raw:
    """Status 200 with these headers alone, a `Content-Length` (`length`, if it is to be a lie), and the body."""
    lines = [*headers, f"Content-Length: {len(body) if length is None else length}"]
    text = OK_LINE + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body

    def send(connection: socket.socket) -> None:
        with suppress(OSError):  # the other side has had enough
            connection.sendall(text)

    return send


def endless(opening: bytes, piece: bytes, times: int | None = None) -> Raw:
    """`opening`, then `piece` at full speed for as long as somebody reads it, or so many times."""

    def send(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(opening)
            for _ in itertools.repeat(None) if times is None else range(times):
                connection.sendall(piece)

    return send


def reset(connection: socket.socket) -> None:
    """A connection that is torn down, not closed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def flapping(*sets: tuple[SigningKey, ...]) -> Raw:
    """Each request is answered with the next of these sets, round and round."""
    bodies = itertools.cycle([document(*map(SigningKey.jwk, keys)) for keys in sets])
    return lambda connection: answer(next(bodies))(connection)


def document(*members: Any) -> bytes:
    """A JWK Set of these members, whatever they are."""
    return json.dumps({"keys": members}).encode()


def private(signing_key: SigningKey) -> dict[str, Any]:
    """The JWK as only its owner should have it (Ed25519: RFC 8037 §2)."""
    members: dict[str, Any] = json.loads(OKPAlgorithm.to_jwk(signing_key.private_key))
    return members | {"kid": signing_key.kid, "alg": signing_key.alg, "use": "sig"}


@cache
def zip_bomb(mib: int) -> bytes:
    """So many MiB of white space in gzip: about a thousandth of the size."""
    packer = zlib.compressobj(wbits=31)
    return b"".join([*(packer.compress(b" " * MIB) for _ in range(mib)), packer.flush()])


@cache
def many_keys(count: int) -> bytes:
    """A set of so many right keys (one, over and over: what makes it is not to be measured)."""
    return b'{"keys": [' + b", ".join([json.dumps(key("k1", "EdDSA").jwk()).encode()] * count) + b"]}"


def nothing_but(piece: bytes, size: int) -> bytes:
    """A set of `size` octets at the most, full of the same small member."""
    return b'{"keys":[' + b",".join([piece] * ((size - 11) // (len(piece) + 1))) + b"]}"


def current(*keys: SigningKey) -> bytes:
    """The right JWK Set of these keys."""
    return json.dumps(jwks(*keys)).encode()
