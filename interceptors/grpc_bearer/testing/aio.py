"""A real `grpc.aio.server` on loopback behind the interceptor, and a channel to it; the names are those of `.sync`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from ..aio import AuthInterceptor
from ..authenticator import Authenticator
from .serving import CHANNEL_OPTIONS, SERVER_OPTIONS, channel_credentials, listen

Register = Callable[[grpc.aio.Server], object]


@asynccontextmanager
async def serving(
    *register: Register,
    authenticator: Authenticator,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, Any]] = (),
    tls: bool = False,
    **of_interceptor: Any,
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server on this event loop that runs until the block ends; calls under way are cancelled then.

    `register` adds services: `partial(add_OrdersServicer_to_server, Orders())`. `interceptors` run behind ours, and
    `of_interceptor` is what ours is made with. `options`: the server's. The authenticator stays the caller's to close.
    """
    ours = AuthInterceptor(authenticator, **of_interceptor)
    server = grpc.aio.server(interceptors=[ours, *interceptors], options=[*SERVER_OPTIONS, *options])
    for add in register:
        add(server)
    target = listen(server, tls=tls)
    await server.start()
    try:
        async with _channel(target, tls=tls) as channel:
            yield channel
    finally:
        await server.stop(None)


def _channel(target: str, *, tls: bool) -> grpc.aio.Channel:
    if tls:
        return grpc.aio.secure_channel(target, channel_credentials(), CHANNEL_OPTIONS)
    return grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
