"""Strangers' calls have places of their own: they take nothing from the calls that have a token, nor from other hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server
from grpc_reflection.v1alpha.reflection import enable_server_reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from grpc_bearer import Access, Authenticator, Issuer, Policies, Policy, Rule
from grpc_bearer.v1.identity_pb2 import WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub, add_IdentityServiceServicer_to_server
from grpc_bearer_server.services.health import KeyHealth
from grpc_bearer_server.services.identity import IdentityService
from grpc_bearer_server.strangers import StrangersLimit, host_of
from tests.support.calls import bearer, until
from tests.support.processes import PATIENCE_S
from tests.support.service_client import SERVING, client_of, running
from tests.support.serving import serving
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint

HEALTH = "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
WHO_AM_I = "/grpc_bearer.v1.IdentityService/WhoAmI"
FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls without a token at the same time")
SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, "no message came in time")
FOR_EVER_S = 3600.0


class Strangers:
    """A client without a token."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.health: Any = HealthStub(channel)
        self.reflection: Any = ServerReflectionStub(channel)
        self.identity: Any = IdentityServiceStub(channel)

    def headers_only(self, method: str, token: str | None = None) -> Any:
        """A call of which nothing but its headers is sent."""
        start: Any = self.channel.stream_stream(method)
        return start(metadata=bearer(token), timeout=PATIENCE_S)

    async def check(self) -> int:
        answer = await self.health.Check(HealthCheckRequest(), timeout=PATIENCE_S)
        return int(answer.status)

    def watch(self) -> Any:
        return self.health.Watch(HealthCheckRequest(), timeout=PATIENCE_S)


async def end_of(call: Any) -> tuple[grpc.StatusCode, str]:
    return await call.code(), await call.details()


@asynccontextmanager
async def open_service(
    places: int, message_s: float = FOR_EVER_S, who_am_i: Access = Access.AUTHENTICATED
) -> AsyncIterator[Strangers]:
    """A server with `places` for strangers, and `who_am_i` as the access of WhoAmI."""
    rules = [Rule([WHO_AM_I], Policy(access=who_am_i))]
    issuer = Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))
    with Authenticator([issuer], policies=Policies(rules=rules)) as auth:
        health = KeyHealth(auth, [])
        health.report()

        def register(server: Any) -> None:
            add_HealthServicer_to_server(health, server)
            add_IdentityServiceServicer_to_server(IdentityService(), server)
            enable_server_reflection([], server)

        limit = StrangersLimit(auth, places, message_s=message_s)
        async with serving("aio", auth, register, inner=[limit]) as target, grpc.aio.insecure_channel(target) as channel:
            yield Strangers(channel)
            health.drain()


async def test_a_method_has_a_quarter_of_its_places_for_one_host_and_a_place_is_free_again_when_its_call_ends() -> None:
    async with open_service(8) as strangers:
        watches = [strangers.watch() for _place in range(2)]
        for watch in watches:
            assert (await watch.read()).status == SERVING
        assert await end_of(strangers.watch()) == FULL
        watches[0].cancel()

        async def let_in() -> bool:
            return await strangers.watch().read() is not grpc.aio.EOF

        for _attempt in range(1000):
            if await let_in():
                return
            await asyncio.sleep(0.01)
        pytest.fail("the place was never free again")


async def test_watchers_take_no_places_from_other_methods() -> None:
    async with open_service(4) as strangers:
        watch = strangers.watch()
        await watch.read()
        assert await end_of(strangers.watch()) == FULL
        assert await strangers.check() == SERVING
        listed = strangers.reflection.ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]))
        assert (await listed.read()).HasField("list_services_response")


@pytest.mark.parametrize("method", [f"{HEALTH}/Check", f"{HEALTH}/Watch", REFLECTION])
async def test_a_stranger_who_sends_no_message_keeps_a_place_for_a_limited_time(method: str) -> None:
    async with open_service(4, message_s=0.05) as strangers:
        assert await end_of(strangers.headers_only(method)) == SILENT


async def test_a_reflection_stream_that_falls_silent_is_ended_and_the_places_are_free() -> None:
    async with open_service(4, message_s=0.2) as strangers:
        call = strangers.headers_only(REFLECTION)
        await call.write(ServerReflectionRequest(list_services="").SerializeToString())
        assert await call.read()
        assert await end_of(call) == SILENT
        assert await strangers.check() == SERVING


@pytest.mark.parametrize("method", [f"{HEALTH}/Check", f"{HEALTH}/Watch"])
async def test_a_stranger_who_ends_without_a_message_is_told_so(method: str) -> None:
    async with open_service(4) as strangers:
        call = strangers.headers_only(method)
        await call.done_writing()
        assert await end_of(call) == (grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")


async def test_a_reflection_stream_that_ends_without_a_message_ends_well() -> None:
    async with open_service(4) as strangers:
        call = strangers.headers_only(REFLECTION)
        await call.done_writing()
        assert (await end_of(call))[0] is grpc.StatusCode.OK


@pytest.mark.parametrize("access", [Access.PUBLIC, Access.OPTIONAL])
async def test_a_method_that_a_rule_opens_is_limited_too(access: Access) -> None:
    async with open_service(4, who_am_i=access) as strangers:
        assert not (await strangers.identity.WhoAmI(WhoAmIRequest(), timeout=PATIENCE_S)).HasField("identity")
        holding = strangers.headers_only(WHO_AM_I)
        full = False
        for _attempt in range(1000):  # until the first has its place
            second = strangers.headers_only(WHO_AM_I)
            await asyncio.wait([asyncio.ensure_future(second.code())], timeout=0.05)
            full = second.done() and await end_of(second) == FULL
            second.cancel()
            if full:
                break
        assert full
        holding.cancel()


async def test_a_caller_with_a_token_needs_no_place() -> None:
    async with open_service(4, who_am_i=Access.OPTIONAL) as strangers:
        first = strangers.headers_only(WHO_AM_I)
        second = strangers.headers_only(WHO_AM_I)
        await asyncio.wait([asyncio.ensure_future(call.code()) for call in (first, second)], return_when="FIRST_COMPLETED")
        for _call in range(3):
            answer = await strangers.identity.WhoAmI(WhoAmIRequest(), metadata=bearer(mint()), timeout=PATIENCE_S)
            assert answer.identity.subject == "user-1"
        for call in (first, second):
            call.cancel()


async def test_a_method_that_needs_a_token_answers_strangers_whatever_is_full() -> None:
    async with open_service(4) as strangers:
        watch = strangers.watch()
        await watch.read()
        ends = await asyncio.gather(*(end_of(strangers.headers_only(WHO_AM_I)) for _call in range(20)))
        assert {code for code, _text in ends} == {grpc.StatusCode.UNAUTHENTICATED}


def test_strangers_on_many_connections_cannot_take_up_the_services_calls(tmp_path: Path) -> None:
    limits = ["max_concurrent_rpcs = 12", "max_public_rpcs = 20"]
    with (
        running(tmp_path, limits) as one,
        client_of(one.service) as second,
        client_of(one.service) as third,
    ):
        watches = []  # those that were told stay open
        for client in (second, third) * 10:  # one after another: of more than 12 at once, core itself cancels some
            watch = client.watch_health()
            watches.append((watch, _is_told(watch)))
        assert [watch.code() for watch, is_told in watches if not is_told] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 15
        assert one.client.who_am_i(mint()).subject == "user-1"


def _is_told(watch: Any) -> bool:
    try:
        return bool(next(watch).status == SERVING)
    except grpc.RpcError:
        return False


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:192.0.2.7:50000", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3::4%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:ffff::1]:1", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:50000", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::/64"),
        ("unix:", "unix"),
        ("unix:/run/x:1.sock", "unix"),
        ("", ""),
    ],
)
def test_a_host_is_told_from_its_peer_whatever_its_port(peer: str, host: str) -> None:
    assert host_of(peer) == host


async def test_what_ended_leaves_nothing_behind() -> None:
    with Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))]) as auth:
        limit = StrangersLimit(auth, 4)
        health = KeyHealth(auth, [])
        async with (
            serving("aio", auth, lambda server: add_HealthServicer_to_server(health, server), inner=[limit]) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            watch = Strangers(channel).watch()
            await watch.read()
            assert set(limit.taken.values()) == {1}
            watch.cancel()
            await until(lambda: not limit.taken)
            health.drain()
