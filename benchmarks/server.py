"""A server of one variant, in a process of its own: `python -m benchmarks.server SPEC`. It ends with its standard input.

The service is `IdentityService` with handlers that do nothing: what they return is made once. So a bare call is as cheap as
one of grpc's can be, and any share of it is the least favourable one.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from benchmarks.cpu import pin
from benchmarks.variants import Variant, aio_interceptors, sync_interceptors
from grpc_bearer.v1 import identity_pb2, identity_pb2_grpc

Stack = Literal["sync", "aio", "uvloop"]

UNARY = "/grpc_bearer.v1.IdentityService/WhoAmI"
STREAM = "/grpc_bearer.v1.IdentityService/WatchIdentity"
STREAM_MESSAGES = 10

_IDENTITY = identity_pb2.Identity(issuer="https://issuer.example", subject="user-1", scopes=["orders.read", "orders.write"])
_UNARY_RESPONSE = identity_pb2.WhoAmIResponse(identity=_IDENTITY)
_STREAM_RESPONSE = identity_pb2.WatchIdentityResponse(identity=_IDENTITY)


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What a server is started with.

    `cores`: where it runs. `hold_s`: for how long a stream stays open after its last message. `workers`: threads of a sync
    server. `reload_every_s`: how often ours reloads its policies, 0 for never.
    """

    stack: Stack
    variant: Variant
    issuer: str
    audience: str
    jwks_uri: str
    cores: tuple[int, ...]
    hold_s: float = 0.0
    workers: int = 8
    reload_every_s: float = 0.0

    def source(self) -> tuple[Variant, str, str, str, float]:
        """What its interceptors are made from."""
        return self.variant, self.issuer, self.audience, self.jwks_uri, self.reload_every_s

    def options(self) -> list[tuple[str, int]]:
        """The server options of grpc."""
        return [("grpc.so_reuseport", 0), ("grpc.max_metadata_size", 32 * 1024)]


class SyncService(identity_pb2_grpc.IdentityServiceServicer):
    """For `grpc.server`."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s

    def WhoAmI(self, request: Any, context: Any) -> identity_pb2.WhoAmIResponse:  # noqa: N802
        return _UNARY_RESPONSE

    def WatchIdentity(self, request: Any, context: Any) -> Iterator[identity_pb2.WatchIdentityResponse]:  # noqa: N802
        for _message in range(STREAM_MESSAGES):
            yield _STREAM_RESPONSE
        if self._hold_s:
            time.sleep(self._hold_s)


class AioService(identity_pb2_grpc.IdentityServiceServicer):
    """For `grpc.aio.server`."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s

    async def WhoAmI(self, request: Any, context: Any) -> identity_pb2.WhoAmIResponse:  # noqa: N802
        return _UNARY_RESPONSE

    async def WatchIdentity(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[identity_pb2.WatchIdentityResponse]:
        for _message in range(STREAM_MESSAGES):
            yield _STREAM_RESPONSE
        if self._hold_s:
            await asyncio.sleep(self._hold_s)


def serve_sync(spec: ServerSpec) -> None:
    """Serve until standard input ends."""
    server = grpc.server(
        ThreadPoolExecutor(spec.workers),
        interceptors=sync_interceptors(*spec.source()),
        options=spec.options(),
    )
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(SyncService(spec.hold_s), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None)


async def serve_aio(spec: ServerSpec) -> None:
    """Serve until standard input ends."""
    server = grpc.aio.server(
        interceptors=aio_interceptors(*spec.source()),
        options=spec.options(),
    )
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(AioService(spec.hold_s), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def main() -> None:
    """Serve what the one argument, a `ServerSpec` in JSON, describes; the port is the first line of the output."""
    spec = ServerSpec(**json.loads(sys.argv[1]))
    pin(*spec.cores)
    if spec.stack == "sync":
        serve_sync(spec)
    elif spec.stack == "aio":
        asyncio.run(serve_aio(spec))
    else:
        importlib.import_module("uvloop").run(serve_aio(spec))


if __name__ == "__main__":
    main()
