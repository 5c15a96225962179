"""`grpc.health.v1` that follows the keys: SERVING while every issuer has keys that may serve, NOT_SERVING otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from grpc_health.v1.health import OVERALL_HEALTH, aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from grpc_bearer import Authenticator


class KeyHealth:
    """Keeps `servicer` in step with the authenticator. Made and used on the event loop."""

    def __init__(self, auth: Authenticator, services: Iterable[str]) -> None:
        self.servicer = aio.HealthServicer()
        self._auth = auth
        self._services = (OVERALL_HEALTH, *services)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        auth.on_change(self._on_change)

    def _on_change(self) -> None:
        """From a thread of the authenticator."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def follow(self) -> None:
        """Report the keys' state now and whenever it changes, until cancelled."""
        while True:
            self._changed.clear()
            await self.report()
            await self._changed.wait()

    async def report(self) -> None:
        """Report the keys' state now."""
        status = HealthCheckResponse.SERVING if self._auth.ready() else HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.servicer.set(service, status)

    async def drain(self) -> None:
        """NOT_SERVING from now on, whatever the keys do."""
        await self.servicer.enter_graceful_shutdown()
