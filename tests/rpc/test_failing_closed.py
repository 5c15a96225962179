"""What goes wrong in authentication itself: the call is refused with a constant text, and what went wrong stays with us."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixResponse

from grpc_bearer import Authenticator, ConfigurationError, Issuer, sync
from grpc_bearer.handlers import behaviour_of
from tests.rpc.interceptors import interceptor
from tests.support.calls import Client, Outcome
from tests.support.matrix import GRPCIO, METHODS, SERVICES, SyncMatrix, handler, handlers, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint

OK = grpc.StatusCode.OK
SECRET = "a text with a claim's value in it"
each_stack = pytest.mark.parametrize("stack", STACKS)


def assert_internal(outcome: Outcome) -> None:
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert outcome.message == "authentication failed for an internal reason"
    assert outcome.info is not None
    assert dict(outcome.info.metadata) == {}
    assert "www-authenticate" not in dict(outcome.trailers)


class BreakingClock:
    """Breaks at its n-th reading, for once."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __call__(self) -> float:
        self._left -= 1
        if self._left == 0:
            raise RuntimeError(SECRET)
        return time.time()


@pytest.mark.parametrize("reading", [1, 2], ids=["where the claims are looked at", "where the signature is verified"])
@pytest.mark.parametrize("method", METHODS)
@each_stack
async def test_an_exception_of_our_own_is_internal_and_keeps_its_text_to_itself(
    stack: Stack, method: str, reading: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "grpc_bearer")
    service = SERVICES[stack]()
    issuers = [Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))]
    with Authenticator(issuers, clock=BreakingClock(reading)) as auth:
        async with serving(stack, auth, registering(service)) as target, Client(target) as client:
            assert_internal(await client.call(method, mint()))
            assert service.ran == 0
            assert (await client.call(method, mint())).code is OK
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


@each_stack
async def test_a_key_source_that_raises_what_it_should_not_is_a_failed_fetch(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_attempt: object) -> Any:
        raise RuntimeError(SECRET)

    with Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], key_source=broken)]) as auth:
        async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
            outcome = await client.call("UnaryUnary", mint())
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "KEYS_UNAVAILABLE")
    assert SECRET not in outcome.message + caplog.text


@pytest.mark.parametrize("method", METHODS)
@each_stack
async def test_a_handler_without_a_function_is_internal(stack: Stack, method: str, auth: Authenticator) -> None:
    hollow: Any = None
    async with serving(stack, auth, handlers({method: hollow})) as target, Client(target) as client:
        assert_internal(await client.call(method, mint()))


def in_another_context(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    return lambda request, context: Context().run(behaviour, request, context)


async def test_a_sync_handler_that_an_outer_interceptor_runs_in_another_context_is_internal(auth: Authenticator) -> None:
    service = SyncMatrix()

    def moved(_details: Any, guarded: Any) -> Any:
        make = grpc.stream_unary_rpc_method_handler
        return make(in_another_context(guarded.stream_unary), guarded.request_deserializer, guarded.response_serializer)

    async with (
        serving("sync", auth, registering(service), outer=[interceptor("sync", after=moved)]) as target,
        Client(target) as client,
    ):
        assert_internal(await client.call("UnaryUnary", mint()))
        assert_internal(await client.call("StreamUnary", mint()))
    assert service.ran == 0


class Keeping(grpc.ServerInterceptor):
    """Asks for a method's handler once, and serves every later call with what it got."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method not in self._kept:
            self._kept[method] = continuation(handler_call_details)
        return self._kept[method]


async def test_a_sync_wrapper_that_an_outer_interceptor_keeps_lets_nobody_else_in(auth: Authenticator) -> None:
    service = SyncMatrix()
    async with serving("sync", auth, registering(service), outer=[Keeping()]) as target, Client(target) as client:
        assert (await client.call("UnaryUnary", mint())).code is OK
        for token in (None, mint()):
            assert_internal(await client.call("UnaryUnary", token))
    assert service.ran == 1


@pytest.mark.parametrize("token", [None, "not.a-token", mint(exp=4_102_444_800)], ids=["no token", "malformed", "valid"])
@each_stack
async def test_an_exception_out_of_an_inner_interceptor_ends_the_call_as_on_a_bare_server(
    stack: Stack, token: str | None, auth: Authenticator
) -> None:
    """On a bare aio server its text goes to the caller: the fact for which no exception of ours may get out."""

    def broken(_details: Any) -> None:
        raise RuntimeError("out of an interceptor")

    service = SERVICES[stack]()
    seen = []
    for guard in (None, auth):
        inner = [interceptor(stack, before=broken)]
        async with serving(stack, guard, registering(service), inner=inner) as target, Client(target) as client:
            seen.append(await client.call("UnaryUnary", token))
    assert seen[0] == seen[1]
    assert seen[0].code is grpc.StatusCode.UNKNOWN
    assert ("out of an interceptor" in seen[0].message) is (stack == "aio")
    assert service.ran == 0


async def test_abort_ends_a_sync_handler_on_an_aio_server_from_grpcio_1_85_on() -> None:
    """The fact for which refusals on an aio server never come from a sync function, and each abort is followed by a raise."""
    went_on: list[bool] = []

    def aborting(_request: Any, context: Any) -> MatrixResponse:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        went_on.append(True)
        return MatrixResponse()

    async with serving("aio", None, handlers({"UnaryUnary": aborting})) as target, Client(target) as client:
        assert (await client.call("UnaryUnary")).code is grpc.StatusCode.PERMISSION_DENIED
    assert went_on == ([] if GRPCIO >= (1, 85) else [True])


def test_fewer_than_no_waiters_is_a_configuration_error(auth: Authenticator) -> None:
    sync.AuthInterceptor(auth, max_waiters=0)
    with pytest.raises(ConfigurationError, match="max_waiters"):
        sync.AuthInterceptor(auth, max_waiters=-1)


def test_a_handler_without_a_function_of_its_kind_has_no_behaviour() -> None:
    hollow: Any = None
    with pytest.raises(TypeError, match="a handler without a behaviour of its kind"):
        behaviour_of(handler("UnaryUnary", hollow))
