"""What reaches handlers through our wrappers: the end of their calls, and grpc's own options for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import Authenticator, current_claims
from grpc_bearer.handlers import BoundedByHandler, behaviour_of, with_behaviour
from tests.rpc.interceptors import intercepted
from tests.support.calls import Client, until
from tests.support.matrix import METHODS, handler, handlers
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


@pytest.mark.parametrize("context_claims", [False, True], ids=["plain contexts", "contexts with claims"])
@pytest.mark.parametrize("end", ["its caller cancels", "its deadline passes"])
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
        calls = [client.open(method, mint(), timeout=0.5 if end == "its deadline passes" else 20) for method in METHODS]
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
    sent, closed = [0], threading.Event()
    response = MatrixResponse(text="x" * 65_536)

    def stream(_request: MatrixRequest, _context: Any) -> Iterator[MatrixResponse]:
        try:
            while True:
                sent[0] += 1
                yield response
        finally:
            closed.set()

    async def stream_aio(request: MatrixRequest, context: Any) -> AsyncIterator[MatrixResponse]:
        try:
            for each in stream(request, context):
                yield each
        finally:
            closed.set()

    register = handlers({"UnaryStream": stream if stack == "sync" else stream_aio})
    async with serving(stack, auth, register, context_claims=context_claims) as target, Client(target) as client:
        call = client.open("UnaryStream", mint())
        await call.write(b"")
        before = -1
        while sent[0] != before:  # until flow control holds the handler back
            before = sent[0]
            await asyncio.sleep(0.1)
        assert not closed.is_set()
        call.cancel()
        await until(closed.is_set)


async def test_a_sync_generator_on_an_aio_server_is_closed_with_its_claims(auth: Authenticator) -> None:
    seen: list[str] = []

    def stream(_request: MatrixRequest, _context: Any) -> Iterator[MatrixResponse]:
        try:
            yield MatrixResponse(text=current_claims().sub or "")
        finally:
            seen.append(current_claims().sub or "")

    guarded = await intercepted("aio", auth, "UnaryStream", handler("UnaryStream", stream), mint(sub="alice"))
    responses = guarded.unary_stream(MatrixRequest(), None)
    assert next(responses).text == "alice"
    responses.close()
    assert seen == ["alice"]


async def test_an_asynchronous_generator_is_closed_with_its_wrapper(auth: Authenticator) -> None:
    closed: list[bool] = []

    async def stream(_request: MatrixRequest, _context: Any) -> AsyncIterator[MatrixResponse]:
        try:
            yield MatrixResponse()
        finally:
            closed.append(True)

    served = handler("UnaryStream", stream)
    guarded = await intercepted("aio", auth, "UnaryStream", served, mint(), context_claims=True)
    responses = guarded.unary_stream(MatrixRequest(), None)
    await anext(responses)
    await responses.aclose()
    assert closed == [True]


@pytest.mark.parametrize("method", METHODS)
async def test_a_handler_with_a_thread_pool_of_its_own_runs_in_it(method: str, auth: Authenticator) -> None:
    """grpc reads `experimental_thread_pool` off the function that serves the method, and not off its handler."""

    def unary(_request: Any, _context: Any) -> MatrixResponse:
        return MatrixResponse(text=threading.current_thread().name, subject=current_claims().sub or "")

    def stream(request: Any, context: Any) -> Iterator[MatrixResponse]:
        yield unary(request, context)

    behaviour: Any = stream if method.endswith("Stream") else unary
    with ThreadPoolExecutor(1, thread_name_prefix="own-pool") as pool:
        behaviour.experimental_thread_pool = pool
        async with serving("sync", auth, handlers({method: behaviour})) as target, Client(target) as client:
            outcome = await client.call(method, mint(sub="alice"))
    assert (outcome.texts, outcome.subjects) == (("own-pool_0",), {"alice"})


@pytest.mark.parametrize("context_claims", [False, True])
@pytest.mark.parametrize("method", ["UnaryStream", "StreamStream"])
async def test_a_non_blocking_handler_sends_its_responses_later_and_holds_no_worker(
    method: str, context_claims: bool, auth: Authenticator
) -> None:
    senders: list[Callable[[], None]] = []

    def later(_request: Any, context: Any, send_response: Callable[[MatrixResponse | None], None]) -> None:
        subject = current_claims().sub or ""
        assert hasattr(context, "claims") is context_claims

        def send() -> None:
            send_response(MatrixResponse(text="later", subject=subject))
            send_response(None)

        senders.append(send)

    later.experimental_non_blocking = True  # type: ignore[attr-defined]
    register = handlers({method: later, "UnaryUnary": lambda request, _context: MatrixResponse(text=request.text)})
    async with (
        serving("sync", auth, register, workers=1, context_claims=context_claims) as target,
        Client(target) as client,
    ):
        waiting = [asyncio.create_task(client.call(method, mint(sub="alice"))) for _ in range(3)]
        await until(lambda: len(senders) == 3)
        assert (await client.call("UnaryUnary", mint())).code is OK
        assert not any(task.done() for task in waiting)
        for send in senders:
            await asyncio.to_thread(send)
        outcomes = await asyncio.gather(*waiting)
    assert [(outcome.code, outcome.texts, outcome.subjects) for outcome in outcomes] == [(OK, ("later",), {"alice"})] * 3


def test_a_wrapper_is_made_once_for_a_handler_and_anew_for_another() -> None:
    first, second = (handler("UnaryUnary", lambda _request, _context: MatrixResponse()) for _ in range(2))
    made: BoundedByHandler[object] = BoundedByHandler(lambda _handler: object())
    wrapper = made.get("/a/A", first)
    assert made.get("/a/A", first) is wrapper
    assert made.get("/b/B", first) is not wrapper
    assert made.get("/a/A", second) is not wrapper
    assert made.get("/a/A", first) is not wrapper  # one is remembered for a method, the latest


def test_made_up_method_names_do_not_fill_the_memory() -> None:
    served = handler("UnaryUnary", lambda _request, _context: MatrixResponse())
    made: list[object] = []
    bounded: BoundedByHandler[None] = BoundedByHandler(made.append, most=3)
    for name in ("/a", "/b", "/c", "/a", "/b", "/c"):
        bounded.get(name, served)
    assert len(made) == 3
    bounded.get("/d", served)
    bounded.get("/d", served)
    bounded.get("/a", served)
    assert len(made) == 5


@pytest.mark.parametrize("method", METHODS)
def test_a_rebuilt_handler_keeps_its_kind_and_its_serializers(method: str) -> None:
    served = handler(method, lambda _request, _context: MatrixResponse())

    def other(_request: Any, _context: Any) -> None: ...

    rebuilt = with_behaviour(served, other)
    streaming = with_behaviour(served, other, request_streaming=True)
    assert behaviour_of(rebuilt) is behaviour_of(streaming) is other
    assert (rebuilt.request_streaming, rebuilt.response_streaming) == (served.request_streaming, served.response_streaming)
    assert (streaming.request_streaming, streaming.response_streaming) == (True, served.response_streaming)
    for made in (rebuilt, streaming):
        assert made.request_deserializer is served.request_deserializer
        assert made.response_serializer is served.response_serializer
