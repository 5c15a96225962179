"""What the end-to-end tests share: the Node programs, and our interceptors in front of a server of either stack."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest

from grpc_bearer import Authenticator, aio, sync

Stack = Literal["sync", "aio"]
STACKS: tuple[Stack, ...] = ("sync", "aio")
WORKERS = 16
MAX_WAITERS = WORKERS // 4  # what the documentation advises

ROOT = Path(__file__).resolve().parents[2]
NODE_PROGRAMS = Path(__file__).resolve().parent / "node"
NEEDS_NODE = [
    pytest.mark.needs_tool("node"),
    pytest.mark.skipif(not (NODE_PROGRAMS / "node_modules").is_dir(), reason="run npm ci in tests/e2e/node"),
]


@asynccontextmanager
async def serving(stack: Stack, auth: Authenticator, register: Callable[[Any], None]) -> AsyncIterator[str]:
    """The address of a server behind our interceptor. `register` adds services that fit the stack to it.

    Block in other threads only (`asyncio.to_thread`): the aio server runs on this loop.
    """
    options = (("grpc.so_reuseport", 0),)
    if stack == "aio":
        aio_server = grpc.aio.server(interceptors=[aio.AuthInterceptor(auth)], options=options)
        register(aio_server)
        port = aio_server.add_insecure_port("127.0.0.1:0")
        await aio_server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await aio_server.stop(grace=5)
        return
    with ThreadPoolExecutor(WORKERS) as pool:
        server = grpc.server(pool, interceptors=[sync.AuthInterceptor(auth, max_waiters=MAX_WAITERS)], options=options)
        register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(grace=5).wait(10)
