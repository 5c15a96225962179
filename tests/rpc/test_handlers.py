"""How handlers end behind our interceptor: with their call, with their wrapper, and with their claims to the last."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import Authenticator, Policies, Policy, Rule, Streams, current_claims
from tests.rpc.interceptors import intercepted
from tests.support.calls import Client, until
from tests.support.matrix import METHODS, SERVICE, handler, handlers
from tests.support.processes import PATIENCE_S
from tests.support.serving import Stack, serving
from tests.support.tokens import mint

OK = grpc.StatusCode.OK


class Lingering:
    """Handlers that begin, and then go on until their call ends. `ended` says whose claims they had at their end."""

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.ended: dict[str, str] = {}
        self.called_back: set[str] = set()

    def _end(self, method: str) -> None:
        self.ended[method] = current_claims().sub or ""


class SyncLingering(Lingering):
    def _until_over(self, method: str, context: Any) -> None:
        context.add_callback(lambda: self.called_back.add(method))
        self.begun.add(method)
        try:
            while context.is_active():
                time.sleep(0.005)
        finally:
            self._end(method)

    def unary_unary(self, _request: MatrixRequest, context: Any) -> MatrixResponse:
        self._until_over("UnaryUnary", context)
        return MatrixResponse()

    def unary_stream(self, _request: MatrixRequest, context: Any) -> Iterator[MatrixResponse]:
        yield MatrixResponse()
        self._until_over("UnaryStream", context)

    def stream_unary(self, requests: Iterator[MatrixRequest], context: Any) -> MatrixResponse:
        context.add_callback(lambda: self.called_back.add("StreamUnary"))
        try:
            for _ in requests:
                self.begun.add("StreamUnary")
        finally:  # an RpcError out of the iterator
            self._end("StreamUnary")
        return MatrixResponse()

    def stream_stream(self, requests: Iterator[MatrixRequest], context: Any) -> Iterator[MatrixResponse]:
        for _ in requests:
            yield MatrixResponse()
            self._until_over("StreamStream", context)


class AioLingering(Lingering):
    async def _until_over(self, method: str, context: Any) -> None:
        context.add_done_callback(lambda _context: self.called_back.add(method))
        self.begun.add(method)
        try:
            await asyncio.Event().wait()
        finally:
            self._end(method)

    async def unary_unary(self, _request: MatrixRequest, context: Any) -> MatrixResponse:
        await self._until_over("UnaryUnary", context)
        return MatrixResponse()

    async def unary_stream(self, _request: MatrixRequest, context: Any) -> AsyncIterator[MatrixResponse]:
        yield MatrixResponse()
        await self._until_over("UnaryStream", context)

    async def stream_unary(self, requests: AsyncIterator[MatrixRequest], context: Any) -> MatrixResponse:
        async for _ in requests:
            await self._until_over("StreamUnary", context)
        return MatrixResponse()

    async def stream_stream(self, requests: AsyncIterator[MatrixRequest], context: Any) -> AsyncIterator[MatrixResponse]:
        async for _ in requests:
            yield MatrixResponse()
            await self._until_over("StreamStream", context)


class WritingLingering(AioLingering):
    async def unary_stream(self, _request: MatrixRequest, context: Any) -> None:  # type: ignore[override]
        await context.write(MatrixResponse())
        await self._until_over("UnaryStream", context)

    async def stream_stream(self, _requests: Any, context: Any) -> None:  # type: ignore[override]
        while await context.read() is not grpc.aio.EOF:
            await context.write(MatrixResponse())
            await self._until_over("StreamStream", context)


LINGERING: dict[str, tuple[Stack, Callable[[], Any]]] = {
    "sync": ("sync", SyncLingering),
    "aio": ("aio", AioLingering),
    "aio, by context.write": ("aio", WritingLingering),
}


@pytest.mark.parametrize(
    ("end", "context_claims"),
    [("its caller cancels", False), ("its caller cancels", True), ("its deadline passes", True)],
    ids=["its caller cancels", "its caller cancels, contexts with claims", "its deadline passes, contexts with claims"],
)
@pytest.mark.parametrize(("stack", "lingering"), LINGERING.values(), ids=LINGERING)
async def test_a_handler_learns_that_its_call_is_over_when(
    end: str, stack: Stack, lingering: Callable[[], Any], context_claims: bool, auth: Authenticator
) -> None:
    made = lingering()
    register = handlers(
        dict(zip(METHODS, (made.unary_unary, made.unary_stream, made.stream_unary, made.stream_stream), strict=True))
    )
    async with (
        serving(stack, auth, register, context_claims=context_claims) as target,
        Client(target) as client,
    ):
        calls = [client.open(method, mint(), timeout=1 if end == "its deadline passes" else PATIENCE_S) for method in METHODS]
        for call in calls:
            await call.write(b"")
        await until(lambda: made.begun == set(METHODS))
        if end == "its caller cancels":
            for call in calls:
                call.cancel()
        await until(lambda: made.called_back == set(METHODS))
        await until(lambda: len(made.ended) == len(METHODS))
    assert made.ended == dict.fromkeys(METHODS, "user-1")


@pytest.mark.parametrize("context_claims", [False, True], ids=["plain contexts", "contexts with claims"])
@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_a_stream_that_nobody_reads_is_closed_when_its_caller_leaves(
    stack: Stack, context_claims: bool, auth: Authenticator
) -> None:
    sent, closed = 0, threading.Event()
    response = MatrixResponse(text="x" * 65_536)

    def stream(_request: MatrixRequest, _context: Any) -> Iterator[MatrixResponse]:
        nonlocal sent
        try:
            while True:
                sent += 1
                yield response
        finally:
            closed.set()

    async def stream_aio(_request: MatrixRequest, _context: Any) -> AsyncIterator[MatrixResponse]:
        nonlocal sent
        try:
            while True:
                sent += 1
                yield response
        finally:
            closed.set()

    register = handlers({"UnaryStream": stream if stack == "sync" else stream_aio})
    async with serving(stack, auth, register, context_claims=context_claims) as target, Client(target) as client:
        call = client.open("UnaryStream", mint())
        await call.write(b"")
        await until(lambda: sent)
        before = 0
        while sent != before:  # until flow control holds the handler back
            before = sent
            await asyncio.sleep(0.1)
        assert not closed.is_set()
        call.cancel()
        await until(closed.is_set)


async def test_a_sync_generator_on_an_aio_server_is_closed_with_its_wrapper_and_has_its_claims_to_the_end(
    auth: Authenticator,
) -> None:
    seen: list[str] = []
    running: list[Any] = []

    def responses() -> Iterator[MatrixResponse]:
        try:
            yield MatrixResponse(subject=current_claims().sub or "")
        finally:
            seen.append(current_claims().sub or "")

    def stream(_request: MatrixRequest, _context: Any) -> Iterator[MatrixResponse]:
        running.append(responses())  # referred to, so that nothing but its wrapper closes it
        return iter(running[0])

    guarded = await intercepted("aio", auth, "UnaryStream", handler("UnaryStream", stream), mint(sub="alice"))
    thread = Context()  # as empty as that of grpc's threads
    wrapped = thread.run(guarded.unary_stream, MatrixRequest(), None)
    assert thread.run(next, wrapped).subject == "alice"
    thread.run(wrapped.close)
    assert seen == ["alice"]


@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_a_function_that_looks_at_its_claims_before_it_returns_an_iterator_finds_them(
    stack: Stack, auth: Authenticator
) -> None:
    def stream(_request: Any, _context: Any) -> Iterator[MatrixResponse]:
        return iter([MatrixResponse(subject=current_claims().sub or "")])

    register = handlers({"UnaryStream": stream, "StreamStream": stream})
    async with serving(stack, auth, register) as target, Client(target) as client:
        for method in ("UnaryStream", "StreamStream"):
            assert (await client.call(method, mint(sub="alice"))).subjects == {"alice"}


async def test_an_asynchronous_generator_is_closed_with_its_wrapper(auth: Authenticator) -> None:
    closed: list[bool] = []

    async def stream(_request: MatrixRequest, _context: Any) -> AsyncIterator[MatrixResponse]:
        try:
            yield MatrixResponse()
        finally:
            closed.append(True)

    auth.reload(policies=Policies(rules=[Rule([f"{SERVICE}/*"], Policy(streams=Streams.FINISH))]))  # else it is no generator
    served = handler("UnaryStream", stream)
    guarded = await intercepted("aio", auth, "UnaryStream", served, mint(), context_claims=True)
    responses = guarded.unary_stream(MatrixRequest(), None)
    await anext(responses)
    await responses.aclose()
    assert closed == [True]
