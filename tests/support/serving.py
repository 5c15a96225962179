"""A real server on loopback, of either stack, with our interceptor in front of it or bare."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal

import grpc

from grpc_bearer import Authenticator, aio, sync

Stack = Literal["sync", "aio"]
STACKS: tuple[Stack, ...] = ("sync", "aio")
WORKERS = 16
MAX_WAITERS = WORKERS // 4  # what the documentation advises


@asynccontextmanager
async def serving(
    stack: Stack,
    auth: Authenticator | None,
    register: Callable[[Any], None],
    *,
    workers: int = WORKERS,
    outer: Sequence[Any] = (),
    inner: Sequence[Any] = (),
    options: Sequence[tuple[str, Any]] = (),
    **of_interceptor: Any,
) -> AsyncIterator[str]:
    """The address of a server behind our interceptor; a bare one where `auth` is None.

    `register` adds services to it. `outer` and `inner` are interceptors on either side of ours, `of_interceptor` is what
    ours is made with. Block in other threads only (`asyncio.to_thread`): the aio server runs on this loop.
    """
    pool = ThreadPoolExecutor(workers)
    interceptors = [*outer, *_ours(stack, auth, {"max_waiters": workers // 4} | of_interceptor), *inner]
    every_option = [("grpc.so_reuseport", 0), *options]
    try:
        run = _serving_aio if stack == "aio" else _serving_sync
        async with run(pool, register, interceptors, every_option) as target:
            yield target
    finally:
        await asyncio.to_thread(pool.shutdown)


def _ours(stack: Stack, auth: Authenticator | None, made_with: dict[str, Any]) -> list[Any]:
    if auth is None:
        return []
    if stack == "sync":
        return [sync.AuthInterceptor(auth, **made_with)]
    del made_with["max_waiters"]  # asyncio waits without a worker, so nobody counts
    return [aio.AuthInterceptor(auth, **made_with)]


@asynccontextmanager
async def _serving_sync(
    pool: ThreadPoolExecutor, register: Callable[[Any], None], interceptors: list[Any], options: list[tuple[str, Any]]
) -> AsyncIterator[str]:
    server = grpc.server(pool, interceptors=interceptors, options=options)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await asyncio.to_thread(server.stop(grace=5).wait, 10)


@asynccontextmanager
async def _serving_aio(
    pool: ThreadPoolExecutor, register: Callable[[Any], None], interceptors: list[Any], options: list[tuple[str, Any]]
) -> AsyncIterator[str]:
    server = grpc.aio.server(pool, interceptors=interceptors, options=options)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=5)
