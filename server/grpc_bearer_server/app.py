"""The composition root: the one place where settings, authenticator, interceptor, services and listener meet.

The service is asyncio: idle streams (`WatchIdentity`, `Health.Watch`) would each hold a worker of a synchronous server.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from grpc_bearer import Authenticator, Issuer
from grpc_bearer.aio import AuthInterceptor
from grpc_bearer.v1 import identity_pb2, identity_pb2_grpc

from .listener import bind, channel_options
from .services.health import KeyHealth
from .services.identity import IdentityService
from .settings import Address, ServerSettings

IDENTITY_SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name
HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Service:
    """The gRPC server with all that it serves. Made on the event loop; bound from construction on. Raises `ListenError`."""

    def __init__(self, settings: ServerSettings, auth: Authenticator, issuers: Sequence[Issuer]) -> None:
        self._settings = settings
        interceptor = AuthInterceptor(auth, public_methods=settings.public_methods, reveal_reasons=settings.reveal_reasons)
        self._server = grpc.aio.server(
            interceptors=[interceptor],
            options=channel_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        leeway_s = {issuer.issuer: issuer.leeway_s for issuer in issuers}
        self._identity = IdentityService(leeway_s, reveal_reasons=settings.reveal_reasons)
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(self._identity, self._server)
        self._health = KeyHealth(auth, [IDENTITY_SERVICE])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = (IDENTITY_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        self.address: Final[Address] = bind(self._server, settings)

    async def run(self, stop: asyncio.Event, on_serving: Callable[[Address], None]) -> None:
        """Serve until `stop` is set, then drain: NOT_SERVING, calls in flight finish within `drain_s`, then the server ends."""
        self._health.report()
        await self._server.start()
        try:
            on_serving(self.address)
            await stop.wait()
        finally:
            self._health.drain()
            self._identity.drain()
            await self._server.stop(self._settings.drain_s)

    async def end_now(self) -> None:
        """End the calls in flight too: shortens a drain under way."""
        await self._server.stop(0)


async def serve(settings: ServerSettings, issuers: Sequence[Issuer], on_serving: Callable[[Address], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the calls in flight. Raises `ListenError` and `ConfigurationError`."""
    with Authenticator(issuers, max_token_bytes=settings.max_token_bytes) as auth:
        service = Service(settings, auth, issuers)
        auth.start()
        stop = asyncio.Event()
        hurrying: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly

        def on_signal() -> None:
            if stop.is_set():
                hurrying.add(asyncio.create_task(service.end_now()))
            stop.set()

        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, on_signal)
        try:
            await service.run(stop, on_serving)
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
