"""How a call is refused: at once, without its messages, without a worker of the service, and whatever else is in the way."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import Authenticator, Issuer
from tests.rpc.interceptors import ContextProxy, Counting, rewrapping
from tests.support.calls import Client, outcome, until
from tests.support.matrix import METHODS, SERVICES, handlers, registering
from tests.support.processes import PATIENCE_S
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint

OK = grpc.StatusCode.OK
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED

# By form, by claims, and by what only a worker finds out.
REFUSED: dict[str, Callable[[], str | None]] = {
    "TOKEN_MISSING": lambda: None,
    "TOKEN_MALFORMED": lambda: "not.a-token",
    "TOKEN_EXPIRED": lambda: mint(exp=1),
    "TOKEN_INVALID": forged,
}
each_refused = pytest.mark.parametrize("reason", REFUSED)
each_stack = pytest.mark.parametrize("stack", STACKS)


@each_refused
@each_stack
async def test_a_refusal_waits_for_no_message(stack: Stack, reason: str, auth: Authenticator) -> None:
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        outcomes = await asyncio.gather(*(outcome(client.open(method, REFUSED[reason]())) for method in METHODS))
    assert {refused.reason for refused in outcomes} == {reason}


@each_refused
@each_stack
async def test_callers_that_send_headers_only_do_not_shut_out_a_good_one(
    stack: Stack, reason: str, auth: Authenticator
) -> None:
    counting = Counting(stack)
    async with (
        serving(stack, auth, registering(SERVICES[stack]()), workers=4, outer=[counting.interceptor]) as target,
        Client(target) as client,
    ):
        idle = [client.open(method, REFUSED[reason]()) for method in METHODS * 2]
        await until(lambda: counting.arrived == len(idle))
        assert (await client.call("UnaryUnary", mint())).code is OK
        outcomes = await asyncio.gather(*map(outcome, idle))
    assert {refused.reason for refused in outcomes} == {reason}


async def test_a_refusal_for_which_no_token_is_read_does_not_queue_behind_busy_handlers(auth: Authenticator) -> None:
    """A token that has to be read is read by a worker (docs/adr/0016)."""
    running, go_on = threading.Event(), threading.Event()

    def busy(request: MatrixRequest, _context: Any) -> MatrixResponse:
        running.set()
        go_on.wait(PATIENCE_S)
        return MatrixResponse(text=request.text)

    async with serving("sync", auth, handlers({"UnaryUnary": busy}), workers=1) as target, Client(target) as client:
        try:
            working = asyncio.create_task(client.call("UnaryUnary", mint()))
            await until(running.is_set)
            outcomes = [await client.call("UnaryUnary", None) for _ in range(3)]
            assert not working.done()
        finally:
            go_on.set()
        assert (await working).texts == ("a",)
    assert [refused.reason for refused in outcomes] == ["TOKEN_MISSING"] * 3


@each_refused
@each_stack
async def test_a_refusal_is_the_same_through_an_outer_interceptor_that_rewraps(
    stack: Stack, reason: str, auth: Authenticator
) -> None:
    aborted: list[grpc.StatusCode] = []
    outer = rewrapping(stack, lambda context: ContextProxy(context, aborted))
    async with (
        serving(stack, auth, registering(SERVICES[stack]()), workers=4, outer=[outer]) as target,
        Client(target) as client,
    ):
        outcomes = [await client.call(method, REFUSED[reason]()) for method in METHODS]
        outcomes += await asyncio.gather(*(outcome(client.open(method, REFUSED[reason]())) for method in METHODS * 2))
        assert (await client.call("UnaryUnary", mint())).code is OK
    assert {(refused.code, refused.reason) for refused in outcomes} == {(UNAUTHENTICATED, reason)}
    # It gets to see the code: an abort_with_status would pass it by.
    assert aborted == [UNAUTHENTICATED] * len(outcomes)


class Deaf(ContextProxy):
    """A context whose abort does not raise, as that of sync handlers on an aio server before grpcio 1.85."""

    def abort(self, code: grpc.StatusCode, *_args: Any, **_kwargs: Any) -> Any:
        self.aborted.append(code)


class DeafAio(Deaf):
    async def abort(self, code: grpc.StatusCode, *_args: Any, **_kwargs: Any) -> Any:
        super().abort(code)


DEAF: dict[Stack, type[Deaf]] = {"sync": Deaf, "aio": DeafAio}


@each_refused
@each_stack
async def test_a_refused_call_does_not_go_on_where_abort_returns(stack: Stack, reason: str, auth: Authenticator) -> None:
    aborted: list[grpc.StatusCode] = []
    service = SERVICES[stack]()
    outer = rewrapping(stack, lambda context: DEAF[stack](context, aborted))
    async with serving(stack, auth, registering(service), outer=[outer]) as target, Client(target) as client:
        outcomes = [await client.call(method, REFUSED[reason]()) for method in METHODS]
    assert aborted == [UNAUTHENTICATED] * len(METHODS)
    assert OK not in {refused.code for refused in outcomes}
    assert service.ran == 0


@each_refused
@each_stack
async def test_with_reveal_reasons_off_a_caller_gets_the_bare_code(stack: Stack, reason: str, auth: Authenticator) -> None:
    async with (
        serving(stack, auth, registering(SERVICES[stack]()), reveal_reasons=False) as target,
        Client(target) as client,
    ):
        outcomes = [await client.call(method, REFUSED[reason]()) for method in METHODS]
    assert {(refused.code, refused.message, refused.trailers) for refused in outcomes} == {
        (UNAUTHENTICATED, "UNAUTHENTICATED", ())
    }


@each_refused
@each_stack
async def test_a_refusal_is_a_line_in_the_log_without_the_token(
    stack: Stack, reason: str, auth: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "grpc_bearer")
    token = REFUSED[reason]()
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        await client.call("UnaryStream", token)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "grpc_bearer"]
    assert line.startswith(f"refused /matrix.v1.MatrixService/UnaryStream: {reason}: ")
    assert (token or "authorization:") not in line


@each_stack
async def test_calls_are_answered_after_the_authenticator_was_closed(stack: Stack) -> None:
    auth = Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))])
    auth.close()
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        assert (await client.call("UnaryUnary")).reason == "TOKEN_MISSING"
        assert (await client.call("UnaryUnary", mint())).code is OK


async def test_a_bare_unary_handler_holds_its_worker_until_the_message_comes() -> None:
    """The fact that every wrapper and refusal of the sync driver is stream-typed for."""
    counting = Counting("sync")
    register = handlers({"UnaryUnary": lambda request, _context: MatrixResponse(text=request.text)})
    async with (
        serving("sync", None, register, workers=2, outer=[counting.interceptor]) as target,
        Client(target) as client,
    ):
        idle = [client.open("UnaryUnary") for _ in range(2)]
        await until(lambda: counting.arrived == 2)
        shut_out = await client.call("UnaryUnary", timeout=0.3)
        for call in idle:
            call.cancel()
        assert shut_out.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await client.call("UnaryUnary")).texts == ("a",)
