"""`grpc.health.v1` that follows the keys: SERVING while every issuer has keys that may serve, NOT_SERVING otherwise.

In place of the servicer that comes with grpcio: that one writes to its watchers with a lock held, so that a peer which takes
no data holds up every further report and the drain for ever (measured, 1.85); a watcher that leaves takes the changes from
the others (1.72); and its streams outlast every grace.
"""

# ruff: noqa: N802  # gRPC methods are named by their proto

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from grpc_bearer import Authenticator

from . import SHUTTING_DOWN

OVERALL: Final = ""
"""The name that asks for the server as a whole."""

_messages: Final[Any] = health_pb2  # List is newer than the stubs

Context = grpc.aio.ServicerContext[Any, Any]


class KeyHealth(HealthServicer):
    """Reports the authenticator's state for the server and each of `services`. Made and used on the event loop."""

    def __init__(self, auth: Authenticator, services: Iterable[str]) -> None:
        self._auth = auth
        self._services = frozenset((OVERALL, *services))
        self._serving = False
        self._draining = False
        self._changed = asyncio.Event()  # of this state; the next one has another
        self._loop = asyncio.get_running_loop()
        auth.on_change(self._on_change)

    def _on_change(self) -> None:
        """From a thread of the authenticator."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.report)

    def report(self) -> None:
        """Report the keys' state now."""
        self._serving = not self._draining and self._auth.ready()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def drain(self) -> None:
        """NOT_SERVING from now on, whatever the keys do. Those who watch are told, and to come again."""
        self._draining = True
        self.report()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The status now; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return self._response(request.service)

    async def List(self, request: Any, context: Context) -> Any:
        """The status of all that Check knows. Where the generated code is too old for it nobody calls this."""
        statuses = {service: self._response(service) for service in self._services}
        return _messages.HealthListResponse(statuses=statuses)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncIterator[HealthCheckResponse]:
        """The status now and at each change, until the server drains."""
        told = None
        while True:
            draining, changed = self._draining, self._changed  # before the peer is told, which can take it long
            response = self._response(request.service)
            if response != told:
                yield response
                told = response
            if draining:
                break
            await changed.wait()
        await context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)

    def _response(self, service: str) -> HealthCheckResponse:
        if service not in self._services:
            return HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
        return HealthCheckResponse(status=HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING)
