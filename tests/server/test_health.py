"""Health follows the keys: SERVING while every issuer has keys that may serve, told to whoever watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer, HealthStub, add_HealthServicer_to_server

from grpc_bearer import Authenticator, CachePolicy, Issuer
from grpc_bearer_server.services.health import KeyHealth
from tests.support.calls import outcome, until
from tests.support.deaf_peer import await_response_headers, call_that_takes_no_data
from tests.support.jwks_server import JwksServer
from tests.support.processes import PATIENCE_S
from tests.support.serving import serving
from tests.support.tokens import key

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE = "orders.v1.OrdersService"
SHUTTING_DOWN = (grpc.StatusCode.UNAVAILABLE, "the server is shutting down, call again")


def issuer(server: JwksServer) -> Issuer:
    return Issuer(server.url, audiences=["orders"], jwks_uri=server.jwks_uri)


class Watching:
    """A client's Watch."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._answers = aiter(call)

    async def told(self) -> int:
        """The next status that comes."""
        answer: HealthCheckResponse = await anext(self._answers)
        return answer.status

    async def until(self, status: int) -> None:
        """Pass over statuses until this one comes."""
        while await self.told() != status:
            pass

    async def end(self) -> tuple[list[int], grpc.StatusCode, str]:
        """The statuses that are still to come, and how the stream ends."""
        rest = await outcome(self.call)
        return [answer.status for answer in rest.responses], rest.code, rest.message


class Health:
    """The service's side and a client of it."""

    def __init__(self, auth: Authenticator, service: KeyHealth, target: str, channel: grpc.aio.Channel) -> None:
        self.auth = auth
        self.service = service
        self.target = target
        self._channel = channel
        self._stub: Any = HealthStub(channel)

    async def check(self, service: str = "") -> int:
        """What Check says."""
        answer: HealthCheckResponse = await self._stub.Check(HealthCheckRequest(service=service), timeout=PATIENCE_S)
        return answer.status

    async def listed(self) -> dict[str, int]:
        """What List says."""
        messages: Any = health_pb2  # List is newer than the stubs
        answer = await self._stub.List(messages.HealthListRequest(), timeout=PATIENCE_S)
        return {service: told.status for service, told in answer.statuses.items()}

    async def listed_raw(self) -> grpc.StatusCode:
        """How a call of List ends, whether there is a stub for it or not."""
        method: Any = self._channel.unary_unary("/grpc.health.v1.Health/List")
        code: grpc.StatusCode = await method(b"", timeout=PATIENCE_S).code()
        return code

    def watch(self, service: str = "") -> Watching:
        """Begin to watch."""
        return Watching(self._stub.Watch(HealthCheckRequest(service=service), timeout=PATIENCE_S))


@asynccontextmanager
async def health_of(auth: Authenticator) -> AsyncIterator[Health]:
    service = KeyHealth(auth, [SERVICE])

    def register(server: Any) -> None:
        add_HealthServicer_to_server(service, server)

    with auth:
        async with serving("aio", None, register) as target, grpc.aio.insecure_channel(target) as channel:
            yield Health(auth, service, target, channel)
            service.drain()  # or watchers would hold the server's stop


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_it_is_serving_once_every_issuer_has_keys(service: str) -> None:
    with JwksServer(key()) as first, JwksServer(key()) as second:
        second.hang()
        auth = Authenticator([issuer(first), issuer(second)])
        async with health_of(auth) as health:
            watch = health.watch(service)
            assert await watch.told() == NOT_SERVING
            auth.start()
            await until(lambda: auth.status()[0].ready)
            assert await health.check(service) == NOT_SERVING
            second.resume()
            assert await watch.told() == SERVING
            assert await health.check(service) == SERVING


async def test_a_list_has_every_service_with_its_status() -> None:
    # Left out, whoever calls it has a page of traceback written to the log.
    with JwksServer(key()) as server:
        async with health_of(Authenticator([issuer(server)])) as health:
            if not hasattr(HealthServicer, "List"):  # older releases of grpcio-health-checking
                assert await health.listed_raw() is grpc.StatusCode.UNIMPLEMENTED
                return
            assert await health.listed() == {"": NOT_SERVING, SERVICE: NOT_SERVING}
            health.auth.start()
            await health.watch().until(SERVING)
            assert await health.listed() == {"": SERVING, SERVICE: SERVING}
            assert await health.listed_raw() is grpc.StatusCode.OK


async def test_it_is_not_serving_while_the_keys_are_too_stale() -> None:
    short_lived = CachePolicy(
        fresh_s=0.05, min_fresh_s=0.05, max_fresh_s=0.05, max_stale_s=0.1, backoff_initial_s=0.01, backoff_max_s=0.02
    )
    with JwksServer(key()) as server:
        async with health_of(Authenticator([replace(issuer(server), cache=short_lived)])) as health:
            health.auth.start()
            watch = health.watch()
            await watch.until(SERVING)
            server.status = 500
            await watch.until(NOT_SERVING)
            server.status = 200
            await watch.until(SERVING)


async def test_a_service_that_is_not_here_is_unknown() -> None:
    with JwksServer(key()) as server:
        async with health_of(Authenticator([issuer(server)])) as health:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await health.check("orders.v1.Orders")
            assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
            watch = health.watch("orders.v1.Orders")
            assert await watch.told() == HealthCheckResponse.SERVICE_UNKNOWN
            health.auth.start()
            await until(health.auth.ready)
            health.service.drain()
            assert await watch.end() == ([], *SHUTTING_DOWN)


async def test_a_drain_is_not_serving_for_good_and_ends_every_watch() -> None:
    with JwksServer(key()) as server:
        async with health_of(Authenticator([issuer(server)])) as health:
            health.auth.start()
            watch = health.watch()
            await watch.until(SERVING)
            health.service.drain()
            health.service.report()
            assert await health.check() == NOT_SERVING
            assert await watch.end() == ([NOT_SERVING], *SHUTTING_DOWN)
            assert await health.watch().end() == ([NOT_SERVING], *SHUTTING_DOWN)


async def test_a_watcher_that_leaves_takes_nothing_from_the_others() -> None:
    with JwksServer(key()) as server:
        async with health_of(Authenticator([issuer(server)])) as health:
            staying, leaving = health.watch(), health.watch()
            assert [await watch.told() for watch in (staying, leaving)] == [NOT_SERVING] * 2
            leaving.call.cancel()
            assert await health.check() == NOT_SERVING  # the server has heard of it before it answers this
            health.auth.start()
            assert await staying.told() == SERVING


async def test_a_watcher_that_takes_no_data_holds_up_nobody() -> None:
    # grpcio's own servicer writes with a lock held, and the next report waits for that lock.
    with JwksServer(key()) as server:
        async with health_of(Authenticator([issuer(server)])) as health:
            with await asyncio.to_thread(call_that_takes_no_data, health.target, "/grpc.health.v1.Health/Watch") as connection:
                await asyncio.to_thread(await_response_headers, connection)
                watch = health.watch()
                assert await watch.told() == NOT_SERVING
                health.auth.start()
                assert await watch.told() == SERVING
                health.service.drain()
                assert await watch.told() == NOT_SERVING


def test_a_change_after_the_loop_is_closed_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    with JwksServer(key()) as server, Authenticator([issuer(server)]) as auth:

        async def make() -> KeyHealth:
            return KeyHealth(auth, [])

        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            health = runner.run(make())
        assert auth.warm(PATIENCE_S)
        auth.close()  # returns when the callbacks have been called
        assert not [record for record in caplog.records if "on_change" in record.getMessage()]
        del health
