"""The kit's servers, of either stack: real ones, closed in the end, made with whatever the test gives them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from grpc_bearer import Observation, Policies, Policy, Rule
from grpc_bearer.testing import (
    AioServers,
    Clock,
    JwksServer,
    LocalIssuer,
    SyncServers,
    assert_permission_denied,
    assert_unauthenticated,
    assert_unavailable,
    bearer,
    call_credentials,
)
from grpc_bearer.v1.identity_pb2 import WatchIdentityRequest, WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.authenticators import background_threads
from tests.support.processes import PATIENCE_S
from tests.support.waiting import eventually
from tests.testing.services import WHO_AM_I, AioIdentity, SyncIdentity, adding

RULES = Policies(rules=[Rule([WHO_AM_I], Policy(scopes=("profile",)))])


def who_am_i(channel: grpc.Channel, token: str | None, **of_call: Any) -> str:
    stub: Any = IdentityServiceStub(channel)
    answer = stub.WhoAmI(WhoAmIRequest(), metadata=bearer(token), timeout=PATIENCE_S, **of_call)
    return str(answer.identity.subject)


async def who_am_i_aio(channel: grpc.aio.Channel, token: str | None, **of_call: Any) -> str:
    stub: Any = IdentityServiceStub(channel)
    answer = await stub.WhoAmI(WhoAmIRequest(), metadata=bearer(token), timeout=PATIENCE_S, **of_call)
    return str(answer.identity.subject)


def test_a_sync_server_trusts_the_issuer(grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer) -> None:
    channel = grpc_bearer_server(adding(SyncIdentity()))
    assert who_am_i(channel, grpc_bearer_issuer.token(sub="alice")) == "alice"
    for token, reason in ((None, "TOKEN_MISSING"), (grpc_bearer_issuer.forged(), "TOKEN_INVALID")):
        with assert_unauthenticated(reason):
            who_am_i(channel, token)


async def test_an_aio_server_trusts_the_issuer(grpc_bearer_aio_server: AioServers, grpc_bearer_issuer: LocalIssuer) -> None:
    async with grpc_bearer_aio_server(adding(AioIdentity())) as channel:
        assert await who_am_i_aio(channel, grpc_bearer_issuer.token(sub="alice")) == "alice"
        for token, reason in ((None, "TOKEN_MISSING"), (grpc_bearer_issuer.forged(), "TOKEN_INVALID")):
            with assert_unauthenticated(reason):
                await who_am_i_aio(channel, token)


def test_a_sync_server_goes_by_the_policies_that_it_is_given(
    grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    channel = grpc_bearer_server(adding(SyncIdentity()), policies=RULES)
    assert who_am_i(channel, grpc_bearer_issuer.token(scope="profile")) == "user-1"
    with assert_permission_denied("INSUFFICIENT_SCOPE") as refusal:
        who_am_i(channel, grpc_bearer_issuer.token())
    assert refusal.metadata == {"scopes": "profile"}


async def test_an_aio_server_goes_by_the_policies_that_it_is_given(
    grpc_bearer_aio_server: AioServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    async with grpc_bearer_aio_server(adding(AioIdentity()), policies=RULES) as channel:
        assert await who_am_i_aio(channel, grpc_bearer_issuer.token(scope="profile")) == "user-1"
        with assert_permission_denied("INSUFFICIENT_SCOPE") as refusal:
            await who_am_i_aio(channel, grpc_bearer_issuer.token())
    assert refusal.metadata == {"scopes": "profile"}


def test_a_sync_server_goes_by_the_clock(
    grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer, grpc_bearer_clock: Clock
) -> None:
    channel = grpc_bearer_server(adding(SyncIdentity()))
    token = grpc_bearer_issuer.token(expires_in_s=60)
    assert who_am_i(channel, token) == "user-1"
    grpc_bearer_clock.advance(90)
    with assert_unauthenticated("TOKEN_EXPIRED"):
        who_am_i(channel, token)


def test_a_sync_server_fetches_its_keys_and_sees_a_rotation_and_survives_an_outage(
    grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer, grpc_bearer_jwks_server: JwksServer
) -> None:
    channel = grpc_bearer_server(adding(SyncIdentity()), jwks_uri=grpc_bearer_jwks_server.jwks_uri)
    before = grpc_bearer_issuer.token()
    assert who_am_i(channel, before) == "user-1"
    grpc_bearer_issuer.rotate()
    after = grpc_bearer_issuer.token()
    assert [who_am_i(channel, token) for token in (after, before)] == ["user-1", "user-1"]
    grpc_bearer_jwks_server.fail()
    assert [who_am_i(channel, token) for token in (after, before)] == ["user-1", "user-1"]
    assert grpc_bearer_jwks_server.fetches == 2


async def test_an_aio_server_fetches_its_keys_and_sees_a_rotation(
    grpc_bearer_aio_server: AioServers, grpc_bearer_issuer: LocalIssuer, grpc_bearer_jwks_server: JwksServer
) -> None:
    async with grpc_bearer_aio_server(adding(AioIdentity()), jwks_uri=grpc_bearer_jwks_server.jwks_uri) as channel:
        assert await who_am_i_aio(channel, grpc_bearer_issuer.token()) == "user-1"
        grpc_bearer_issuer.rotate("EdDSA")
        assert await who_am_i_aio(channel, grpc_bearer_issuer.token()) == "user-1"
    assert grpc_bearer_jwks_server.fetches == 2


def test_an_issuer_that_was_never_there_makes_calls_unavailable(
    grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer, grpc_bearer_jwks_server: JwksServer
) -> None:
    grpc_bearer_jwks_server.fail(500)
    channel = grpc_bearer_server(adding(SyncIdentity()), jwks_uri=grpc_bearer_jwks_server.jwks_uri)
    with assert_unavailable():
        who_am_i(channel, grpc_bearer_issuer.token())


def test_a_caller_can_send_its_token_as_credentials_over_tls(
    grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    channel = grpc_bearer_server(adding(SyncIdentity()), tls=True)
    token = grpc_bearer_issuer.token(sub="alice")
    assert who_am_i(channel, None, credentials=call_credentials(token)) == "alice"
    with assert_unauthenticated("TOKEN_EXPIRED"):
        who_am_i(channel, None, credentials=call_credentials(grpc_bearer_issuer.expired()))


async def test_a_caller_of_grpc_aio_can_send_its_token_as_credentials_over_tls(
    grpc_bearer_aio_server: AioServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    async with grpc_bearer_aio_server(adding(AioIdentity()), tls=True) as channel:
        credentials = call_credentials(grpc_bearer_issuer.token(sub="alice"))
        assert await who_am_i_aio(channel, None, credentials=credentials) == "alice"


class SyncInner(grpc.ServerInterceptor):
    def __init__(self) -> None:
        self.asked = 0

    def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        self.asked += 1
        return continuation(handler_call_details)


class AioInner(grpc.aio.ServerInterceptor):
    def __init__(self) -> None:
        self.asked = 0

    async def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        self.asked += 1
        return await continuation(handler_call_details)


async def test_servers_take_interceptors_options_and_what_ours_is_made_with(
    grpc_bearer_server: SyncServers, grpc_bearer_aio_server: AioServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    seen: list[Observation] = []
    small = [("grpc.max_receive_message_length", 1)]
    token = grpc_bearer_issuer.token()
    inner, aio_inner = SyncInner(), AioInner()
    channel = grpc_bearer_server(adding(SyncIdentity()), interceptors=[inner], options=small, observer=seen.append)
    stub: Any = IdentityServiceStub(channel)
    stub.WhoAmI(WhoAmIRequest(), metadata=bearer(token))
    too_large: Any = channel.unary_unary(f"/{WHO_AM_I}")
    with pytest.raises(grpc.RpcError) as caught:
        too_large(b"\x0a\x00", metadata=bearer(token))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    async with grpc_bearer_aio_server(adding(AioIdentity()), interceptors=[aio_inner], observer=seen.append) as aio_channel:
        await who_am_i_aio(aio_channel, token)
    assert (inner.asked, aio_inner.asked) == (2, 1)
    assert [each.reason for each in seen] == [None, None, None]


async def test_servers_take_an_authenticator_of_ones_own_and_leave_it_open(
    grpc_bearer_server: SyncServers,
    grpc_bearer_aio_server: AioServers,
    grpc_bearer_issuer: LocalIssuer,
    grpc_bearer_jwks_server: JwksServer,
) -> None:
    with grpc_bearer_issuer.authenticator(jwks_uri=grpc_bearer_jwks_server.jwks_uri) as auth:
        async with grpc_bearer_aio_server(adding(AioIdentity()), authenticator=auth) as channel:
            assert await who_am_i_aio(channel, grpc_bearer_issuer.token()) == "user-1"
        channel_of_sync = grpc_bearer_server(adding(SyncIdentity()), authenticator=auth)
        grpc_bearer_issuer.rotate()
        assert who_am_i(channel_of_sync, grpc_bearer_issuer.token()) == "user-1"  # fetched: it is not closed


def test_what_was_opened_is_closed_with_the_test(grpc_bearer_issuer: LocalIssuer, grpc_bearer_jwks_server: JwksServer) -> None:
    with ExitStack() as stack:
        open_one = SyncServers(grpc_bearer_issuer, stack)
        servers: list[grpc.Server] = []  # held: grpc stops a server that nobody holds
        services = (adding(SyncIdentity()), servers.append)
        channels = [open_one(*services, jwks_uri=grpc_bearer_jwks_server.jwks_uri) for _ in range(2)]
        stubs: list[Any] = [IdentityServiceStub(channel) for channel in channels]
        for stub in stubs:
            stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.token()))
        assert background_threads()
    assert eventually(lambda: not background_threads())
    assert [server.wait_for_termination(0) for server in servers] == [False, False]  # True: it is still running
    for stub in stubs:
        with pytest.raises(ValueError, match="closed channel"):
            stub.WhoAmI(WhoAmIRequest())


@pytest.mark.parametrize("error", [None, LookupError()])
async def test_what_an_aio_server_opened_is_closed_with_the_block_whatever_its_end(
    error: Exception | None,
    grpc_bearer_aio_server: AioServers,
    grpc_bearer_issuer: LocalIssuer,
    grpc_bearer_jwks_server: JwksServer,
) -> None:
    jwks_uri = grpc_bearer_jwks_server.jwks_uri
    stubs: list[Any] = []  # made while the channel is open: grpc crashes over one made later
    servers: list[grpc.aio.Server] = []

    async def used() -> None:
        async with grpc_bearer_aio_server(adding(AioIdentity()), servers.append, jwks_uri=jwks_uri) as channel:
            await who_am_i_aio(channel, grpc_bearer_issuer.token())
            stubs.append(IdentityServiceStub(channel))
            assert background_threads()
            if error is not None:
                raise error

    if error is None:
        await used()
    else:
        with pytest.raises(LookupError):
            await used()
    assert eventually(lambda: not background_threads())
    assert not await servers[0].wait_for_termination(0)  # True: it is still running
    with pytest.raises(grpc.aio.UsageError):
        await stubs[0].WhoAmI(WhoAmIRequest())


class Endless(SyncIdentity):
    """Streams until its caller is gone."""

    def __init__(self) -> None:
        self.gone = threading.Event()

    def WatchIdentity(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        context.add_callback(self.gone.set)
        yield from super().WatchIdentity(request, context)
        self.gone.wait(PATIENCE_S)


def test_a_call_that_is_under_way_at_the_end_is_cancelled(grpc_bearer_issuer: LocalIssuer) -> None:
    service = Endless()
    with ExitStack() as stack:
        stub: Any = IdentityServiceStub(SyncServers(grpc_bearer_issuer, stack)(adding(service)))
        call = stub.WatchIdentity(WatchIdentityRequest(), metadata=bearer(grpc_bearer_issuer.token()))
        assert next(call).identity.subject == "user-1"
    assert service.gone.is_set()
