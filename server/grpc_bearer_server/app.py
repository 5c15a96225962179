"""The composition root: the one place where settings, authenticator, interceptor, services and listener meet.

The service is asyncio: idle streams (`WatchIdentity`, `Health.Watch`) would each hold a worker of a synchronous server.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from grpc_bearer import Authenticator, Issuer, Observer
from grpc_bearer.aio import AuthInterceptor
from grpc_bearer.v1 import identity_pb2_grpc

from .assembly import IDENTITY_SERVICE, OWN_SERVICES, authenticator_of, issuers_of, policies_of
from .listener import bind, channel_options, raise_file_limit
from .metrics import Metrics, MetricsServer
from .reload import Loaded, Reloader
from .services.health import KeyHealth
from .services.identity import IdentityService
from .settings import Address, ServerSettings
from .strangers import StrangersLimit


class Service:
    """The gRPC server with all that it serves. Made on the event loop; bound from construction on. Raises `ListenError`."""

    def __init__(self, settings: ServerSettings, auth: Authenticator, observer: Observer | None, *, reflection: bool) -> None:
        self._settings = settings
        interceptor = AuthInterceptor(auth, reveal_reasons=settings.reveal_reasons, mode=settings.mode, observer=observer)
        self._server = grpc.aio.server(
            interceptors=[interceptor, StrangersLimit(auth, settings.max_public_rpcs)],
            options=channel_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )
        self._identity = IdentityService()
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(self._identity, self._server)
        self._health = KeyHealth(auth, [IDENTITY_SERVICE])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflection:
            enable_server_reflection(OWN_SERVICES, self._server)
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


async def serve(
    loaded: Loaded, further: Sequence[Issuer], on_serving: Callable[[Address, Address | None], None], *, reflection: bool
) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the calls in flight. SIGHUP: look at the settings file now.

    `further`: issuers besides the configured ones. `on_serving` is told the addresses of the service and of the metrics.
    `reflection`: on, whatever the settings say.
    Raises `ListenError`, `SettingsError` and `ConfigurationError`.
    """
    settings = loaded.settings
    raise_file_limit()
    with ExitStack() as stack:
        auth = stack.enter_context(authenticator_of(settings, issuers_of(settings, *further), policies_of(settings)))
        reloader = Reloader(loaded, lambda new: auth.reload(issuers=issuers_of(new, *further), policies=policies_of(new)))
        metrics = Metrics(auth, reloader)
        exposed = None
        if settings.metrics.listen is not None:
            exposed = stack.enter_context(MetricsServer(settings.metrics.listen, metrics.registry)).address
        observer = None if exposed is None else metrics.observe
        service = Service(settings.server, auth, observer, reflection=reflection or settings.server.reflection)
        auth.start()
        stop, asked = asyncio.Event(), asyncio.Event()
        stack.enter_context(_signals(service, stop, asked))
        following = asyncio.create_task(reloader.follow(settings.server.reload_s, asked))
        stack.callback(following.cancel)
        await service.run(stop, lambda address: on_serving(address, exposed))


@contextmanager
def _signals(service: Service, stop: asyncio.Event, reload: asyncio.Event) -> Iterator[None]:
    hurrying: set[asyncio.Task[None]] = set()  # the loop itself holds its tasks weakly

    def on_stop() -> None:
        if stop.is_set():
            hurrying.add(asyncio.create_task(service.end_now()))
        stop.set()

    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGHUP: reload.set}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
