"""What needs no token: the methods named public, exactly, with nothing of ours around their handlers. And what is unknown."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from matrix.v1.matrix_pb2 import MatrixResponse

from grpc_bearer import Authenticator, ConfigurationError, Policies, Policy, Rule, Streams
from tests.rpc.interceptors import intercepted
from tests.support.calls import Client, bearer, outcome
from tests.support.matrix import METHODS, SERVICE, SERVICES, handler, registering
from tests.support.processes import PATIENCE_S
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import forged, mint

OK = grpc.StatusCode.OK
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
PUBLIC = "/shop.v1.CatalogService/ListItems"
each_stack = pytest.mark.parametrize("stack", STACKS)


class Everything(grpc.GenericRpcHandler):
    """Serves whatever name a caller makes up, and says which it was."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method

        def answer(_request: Any, _context: Any) -> MatrixResponse:
            return MatrixResponse(text=name)

        async def answer_aio(_request: Any, _context: Any) -> MatrixResponse:
            return MatrixResponse(text=name)

        return handler("UnaryUnary", answer if self._stack == "sync" else answer_aio)


async def whole(client: Client, method: str, token: str | None = None) -> Any:
    """The outcome of a call with one empty message, by the full name of a method."""
    call: Any = client.channel.unary_unary(method, response_deserializer=MatrixResponse.FromString)
    return await outcome(call(b"", metadata=bearer(token), timeout=PATIENCE_S))


@pytest.mark.parametrize(
    "name",
    [
        "/grpc.health.v1.Health.evil/Check",
        "/grpc.health.v1.Health/Check/",
        "/grpc.health.v1.Health//Check",
        "//grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Check?",
        "/grpc.health.v1.Health/Check%20",
        "/grpc.health.v1.Health/Checks",
        "/grpc.health.v1.Health/check",
        "/grpc.health.v1.health/Check",
        "/Grpc.health.v1.Health/Check",
        "/evil/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/%43heck",
        "/shop.v1.CatalogService/ListItems/../GetItem",
        "/matrix.v1.MatrixService/UnaryUnary",
    ],
)
@each_stack
async def test_a_name_that_only_resembles_a_public_one_needs_a_token(stack: Stack, name: str, auth: Authenticator) -> None:
    auth.reload(policies=Policies(public_methods=[PUBLIC]))
    async with (
        serving(stack, auth, lambda server: server.add_generic_rpc_handlers([Everything(stack)])) as target,
        Client(target) as client,
    ):
        assert (await whole(client, name)).reason == "TOKEN_MISSING"
        assert (await whole(client, name, mint())).texts == (name,)  # names arrive as they were sent
        for public in (CHECK, PUBLIC):
            assert (await whole(client, public)).texts == (public,)
            assert (await whole(client, public, "not.a-token")).texts == (public,)


@each_stack
async def test_without_public_defaults_health_and_reflection_need_a_token(stack: Stack, auth: Authenticator) -> None:
    auth.reload(policies=Policies(public_defaults=False))
    async with (
        serving(stack, auth, lambda server: server.add_generic_rpc_handlers([Everything(stack)])) as target,
        Client(target) as client,
    ):
        for name in (CHECK, WATCH, REFLECTION):
            assert (await whole(client, name)).reason == "TOKEN_MISSING"
            assert (await whole(client, name, mint())).code is OK


@pytest.mark.parametrize("token", [None, "not.a-token", "valid", "forged"])
@pytest.mark.parametrize("generic", [False, True], ids=["registered", "with a generic handler"])
@each_stack
async def test_an_unknown_method_stays_unimplemented(
    stack: Stack, generic: bool, token: str | None, auth: Authenticator
) -> None:
    sent = {"valid": mint(), "forged": forged()}.get(token or "", token)

    def register(server: Any) -> None:
        registering(SERVICES[stack]())(server)
        if generic:
            made = {"Known": handler("UnaryUnary", lambda _request, _context: MatrixResponse())}
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("generic.v1.Service", made)])

    async with serving(stack, auth, register) as target, Client(target) as client:
        for name in (f"/{SERVICE}/Unknown", "/generic.v1.Service/Unknown", "/unknown", "/"):
            refused = await whole(client, name, sent)
            assert (refused.code, refused.message, refused.reason) == (UNIMPLEMENTED, "Method not found!", None)


@each_stack
async def test_what_grpcurl_asks_first_is_answered_as_if_we_were_not_there(stack: Stack, auth: Authenticator) -> None:
    def register(server: Any) -> None:
        registering(SERVICES[stack]())(server)
        reflection.enable_server_reflection([SERVICE], server)

    async with serving(stack, auth, register) as target, Client(target) as client:
        newer = await outcome(client.open(REFLECTION.replace("v1alpha", "v1")))
        assert newer.code is UNIMPLEMENTED  # and not UNAUTHENTICATED, at which grpcurl gives up
        ask: Any = client.channel.stream_stream(
            REFLECTION, response_deserializer=reflection_pb2.ServerReflectionResponse.FromString
        )
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = ask(iter([question.SerializeToString()]))
        (answer,) = [response async for response in listed]
    assert [service.name for service in answer.list_services_response.service] == [SERVICE]


async def test_watchers_of_health_hold_no_worker(auth: Authenticator) -> None:
    """Two that were wrapped starved a pool of two."""

    def register(server: Any) -> None:
        registering(SERVICES["sync"]())(server)
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)

    async with serving("sync", auth, register, workers=2) as target, Client(target) as client:
        watch: Any = client.channel.unary_stream(WATCH, response_deserializer=health_pb2.HealthCheckResponse.FromString)
        watchers: list[Any] = [watch(b"") for _ in range(4)]
        for watcher in watchers:
            assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await client.call("UnaryUnary", mint())).code is OK
        for watcher in watchers:
            watcher.cancel()


@pytest.mark.parametrize("method", METHODS)
@each_stack
async def test_a_public_handler_is_returned_as_it_is(stack: Stack, method: str, auth: Authenticator) -> None:
    served = handler(method, lambda _request, _context: MatrixResponse())
    auth.reload(policies=Policies(public_methods=[f"/{SERVICE}/{method}"]))
    for token in (None, mint(), "not.a-token"):
        assert await intercepted(stack, auth, method, served, token, context_claims=True) is served


@pytest.mark.parametrize("method", METHODS)
async def test_an_asynchronous_handler_is_returned_as_it_is_to_a_valid_call(method: str, auth: Authenticator) -> None:
    auth.reload(policies=Policies(rules=[Rule([f"{SERVICE}/*"], Policy(streams=Streams.FINISH))]))  # no stream to be ended

    async def coroutine(_request: Any, _context: Any) -> None: ...

    async def generator(_request: Any, _context: Any) -> Any:
        yield

    for behaviour in (coroutine, generator):
        served = handler(method, behaviour)
        assert await intercepted("aio", auth, method, served, mint()) is served


def test_a_name_that_would_never_match_is_a_configuration_error() -> None:
    for names in (["Health/Check"], "/grpc.health.v1.Health/Check", ["/grpc.health.v1.Health/*"]):
        with pytest.raises(ConfigurationError, match="public_methods"):
            Policies(public_methods=names)
