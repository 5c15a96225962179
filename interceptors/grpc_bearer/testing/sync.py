"""A real `grpc.server` on loopback behind the interceptor, and a channel to it. `.aio` has the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from ..authenticator import Authenticator
from ..sync import AuthInterceptor
from .serving import CHANNEL_OPTIONS, SERVER_OPTIONS, channel_credentials, listen

Register = Callable[[grpc.Server], object]


@contextmanager
def serving(
    *register: Register,
    authenticator: Authenticator,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
    options: Sequence[tuple[str, Any]] = (),
    tls: bool = False,
    workers: int = 4,
    **of_interceptor: Any,
) -> Iterator[grpc.Channel]:
    """A channel to a server that runs until the block ends; calls under way are cancelled then.

    `register` adds services: `partial(add_OrdersServicer_to_server, Orders())`. `interceptors` run behind ours, and
    `of_interceptor` is what ours is made with. `options`: the server's. The authenticator stays the caller's to close.
    """
    with ThreadPoolExecutor(workers) as pool:
        ours = AuthInterceptor(authenticator, **of_interceptor)
        server = grpc.server(pool, interceptors=[ours, *interceptors], options=[*SERVER_OPTIONS, *options])
        for add in register:
            add(server)
        target = listen(server, tls=tls)
        server.start()
        try:
            with _channel(target, tls=tls) as channel:
                yield channel
        finally:
            server.stop(None).wait()


def _channel(target: str, *, tls: bool) -> grpc.Channel:
    if tls:
        return grpc.secure_channel(target, channel_credentials(), CHANNEL_OPTIONS)
    return grpc.insecure_channel(target, CHANNEL_OPTIONS)
