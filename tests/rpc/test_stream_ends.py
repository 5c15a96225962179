"""The end of a stream's token, and handlers and callers that do not make it easy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, ClassVar

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import AuthError, Observation, Reason
from tests.rpc.interceptors import intercepted
from tests.rpc.streams import (
    FORMS,
    LATER,
    SOON,
    STREAMING,
    Bench,
    Stream,
    SyncStreams,
    each,
    each_method,
    registering,
    token,
)
from tests.support.calls import Outcome, bearer, outcome, until
from tests.support.clock import Clock
from tests.support.matrix import SERVICE, handler, handlers
from tests.support.serving import STACKS, Stack, serving

OK = grpc.StatusCode.OK
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


# -- what handlers do about it -----------------------------------------------------------------------------------------


async def a_stream_of(behaviour: Any, exp: float = SOON) -> tuple[Any, list[Reason]]:
    """How a UnaryStream of this handler ends, and what was refused."""
    bench = Bench()
    async with bench.client("aio", handlers({"UnaryStream": behaviour})) as client:
        return await client.call("UnaryStream", token(exp)), bench.refused


async def test_a_timeout_of_the_handlers_own_is_not_taken_for_the_end_of_the_token() -> None:
    async def generator(_request: Any, _context: Any) -> AsyncIterator[MatrixResponse]:
        yield MatrixResponse(text="a")
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    async def writer(_request: Any, context: Any) -> None:
        await context.write(MatrixResponse(text="a"))
        raise TimeoutError

    for behaviour in (generator, writer):
        ended, refused = await a_stream_of(behaviour, LATER)
        assert (ended.code, ended.reason, ended.texts, refused) == (grpc.StatusCode.UNKNOWN, None, ("a",), [])


async def test_a_timeout_that_a_handler_catches_is_its_own_affair() -> None:
    async def generator(_request: Any, _context: Any) -> AsyncIterator[MatrixResponse]:
        for text in ("a", "b"):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(60)
            yield MatrixResponse(text=text)

    ended, refused = await a_stream_of(generator, LATER)
    assert (ended.code, ended.texts, refused) == (OK, ("a", "b"), [])


@pytest.mark.parametrize("how", ["returns", "raises", "goes on"])
@pytest.mark.parametrize("form", ["generator", "writer"])
async def test_a_handler_that_swallows_its_being_cancelled_ends_all_the_same(form: str, how: str) -> None:
    async def swallowed() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            if how == "raises":
                raise TimeoutError("of the handler's own") from None

    async def generator(_request: Any, _context: Any) -> AsyncIterator[MatrixResponse]:
        yield MatrixResponse(text="a")
        await swallowed()
        if how == "goes on":
            bench.clock.advance(1)
            while True:
                yield MatrixResponse(text="too late")

    async def writer(_request: Any, context: Any) -> None:
        async for response in generator(_request, context):
            if response.text == "too late":
                return
            await context.write(response)

    bench = Bench()
    behaviour = generator if form == "generator" else writer
    async with bench.client("aio", handlers({"UnaryStream": behaviour})) as client:
        ended = await client.call("UnaryStream", token(SOON))
    assert (ended.code, ended.reason, ended.texts) == (UNAUTHENTICATED, "TOKEN_EXPIRED", ("a",))
    assert bench.refused == [Reason.TOKEN_EXPIRED]


@pytest.mark.parametrize("how", ["goes on", "returns", "raises"])
@pytest.mark.parametrize("method", ["StreamUnary", "StreamStream"])
@pytest.mark.parametrize("stack", STACKS)
async def test_a_synchronous_handler_that_swallows_the_end_of_its_requests_ends_all_the_same(
    stack: Stack, method: str, how: str
) -> None:
    bench = Bench()

    def read(requests: Iterator[Any]) -> Iterator[MatrixResponse]:
        yield MatrixResponse(text=next(requests).text)
        bench.clock.advance(3600)
        try:
            next(requests)
        except Exception:
            if how == "raises":
                raise RuntimeError("of the handler's own") from None
        if how == "goes on":
            yield MatrixResponse(text="too late")

    def stream_unary(requests: Iterator[Any], _context: Any) -> MatrixResponse:
        return list(read(requests))[-1]

    def stream_stream(requests: Iterator[Any], _context: Any) -> Iterator[MatrixResponse]:
        return read(requests)

    register = handlers({"StreamUnary": stream_unary, "StreamStream": stream_stream})
    async with bench.client(stack, register) as client:
        ended = await client.call(method, token(LATER))
    assert (ended.code, ended.reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert ended.texts == (() if method == "StreamUnary" else ("a",))
    assert set(bench.refused) == {Reason.TOKEN_EXPIRED}


@pytest.mark.parametrize("method", STREAMING)
@pytest.mark.parametrize("stack", STACKS)
async def test_what_a_synchronous_handler_raises_is_its_own_affair(stack: Stack, method: str) -> None:
    def fails(_request: Any, _context: Any) -> Any:
        raise RuntimeError("of the handler's own")

    bench = Bench()
    async with bench.client(stack, handlers({method: fails})) as client:
        assert (await client.call(method, token(LATER))).code is grpc.StatusCode.UNKNOWN
    assert bench.refused == []


async def test_a_synchronous_stream_does_not_go_on_where_abort_returns() -> None:
    """As it does in synchronous handlers on an aio server before grpcio 1.85."""
    bench, ran = Bench(), list[Any]()

    def stream_unary(requests: Iterator[Any], _context: Any) -> MatrixResponse:
        ran.extend(requests)
        return MatrixResponse()

    class Deaf:
        aborted: ClassVar[list[Any]] = []

        def set_trailing_metadata(self, _trailers: Any) -> None: ...

        def abort(self, code: grpc.StatusCode, _message: str) -> None:
            self.aborted.append(code)

    guarded = await intercepted("aio", bench.auth, "StreamUnary", handler("StreamUnary", stream_unary), token(SOON))
    bench.clock.advance(1)
    with pytest.raises(AuthError):
        guarded.stream_unary(iter([MatrixRequest(text="a")]), Deaf())
    assert (Deaf.aborted, ran) == ([UNAUTHENTICATED], [])


async def test_a_stream_that_its_caller_left_before_it_got_a_worker_is_not_ended_once_more() -> None:
    bench, running, go_on, ran = Bench(), threading.Event(), threading.Event(), threading.Event()

    def busy(_request: Any, _context: Any) -> MatrixResponse:
        running.set()
        go_on.wait(20)
        return MatrixResponse()

    def stream_unary(_requests: Iterator[Any], _context: Any) -> MatrixResponse:
        ran.set()
        return MatrixResponse()

    register = handlers({"UnaryUnary": busy, "StreamUnary": stream_unary})
    async with bench.client("sync", register, workers=1) as client:
        working = asyncio.create_task(client.call("UnaryUnary", token(LATER)))
        await until(running.is_set)
        queueing = client.open("StreamUnary", token(SOON))
        await asyncio.sleep(0.2)
        queueing.cancel()
        await asyncio.sleep(0.2)
        go_on.set()
        assert (await working).code is OK
        await until(ran.is_set)
        await asyncio.sleep(1.3)
    assert bench.refused == []


class Closable:
    """A response iterator that is no generator. The token of a stream of `LATER` expires with its second response."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.closed = 0
        self.taken = 0

    def __iter__(self) -> Iterator[MatrixResponse]:
        return self

    def __next__(self) -> MatrixResponse:
        self.taken += 1
        self._clock.advance(1800)
        return MatrixResponse(text="a")

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("stack", STACKS)
async def test_the_responses_of_a_synchronous_handler_are_closed_with_their_stream(stack: Stack) -> None:
    bench = Bench()
    responses = Closable(bench.clock)

    def unary_stream(_request: Any, _context: Any) -> Closable:
        return responses

    async with bench.client(stack, handlers({"UnaryStream": unary_stream})) as client:
        ended = await client.call("UnaryStream", token(LATER))
        await until(lambda: responses.closed == 1)
    assert (ended.reason, ended.texts, responses.taken) == ("TOKEN_EXPIRED", ("a",), 2)


async def test_a_response_that_is_on_its_way_when_the_token_expires_does_not_keep_the_status_away() -> None:
    """On grpc.aio a thread runs one response ahead of the loop, and the first response takes the initial metadata along."""
    for _ in range(50):
        bench = Bench()

        def two(request: Any, _context: Any, clock: Clock = bench.clock) -> Iterator[MatrixResponse]:
            yield MatrixResponse(text=request.text)
            clock.advance(3600)
            yield MatrixResponse(text="too late")

        async with bench.client("aio", handlers({"UnaryStream": two})) as client:
            ended = await client.call("UnaryStream", token(LATER))
        assert (ended.reason, ended.texts) == ("TOKEN_EXPIRED", ("a",))


async def test_a_handler_may_tidy_up_before_its_stream_ends() -> None:
    tidied: list[str] = []

    async def generator(_request: Any, context: Any) -> AsyncIterator[MatrixResponse]:
        try:
            yield MatrixResponse(text="a")
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            tidied.append("generator")

    ended, _refused = await a_stream_of(generator)
    assert (ended.reason, tidied) == ("TOKEN_EXPIRED", ["generator"])


async def ended_with_its_token(stack: Stack, streams_of: Any, method: str, **of_interceptor: Any) -> Outcome:
    """How a stream ends whose token expires: by itself, or with a message where it takes one."""
    streams, bench, is_sync = streams_of(), Bench(), streams_of is SyncStreams
    async with bench.client(stack, registering(streams), **of_interceptor) as client:
        stream = Stream(client, streams, method, token(LATER if is_sync else SOON))
        await stream.begin()
        if is_sync:
            bench.clock.advance(3600)
            await stream.move()
        return await stream.ended()


@each_method
@each(FORMS)
async def test_claims_on_the_context_and_expiry_go_together(stack: Stack, streams_of: Any, method: str) -> None:
    ended = await ended_with_its_token(stack, streams_of, method, context_claims=True)
    assert (ended.code, ended.reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")


@each_method
@each(FORMS)
async def test_with_reveal_reasons_off_a_stream_ends_with_the_bare_code(stack: Stack, streams_of: Any, method: str) -> None:
    ended = await ended_with_its_token(stack, streams_of, method, reveal_reasons=False)
    assert (ended.code, ended.message, ended.trailers) == (UNAUTHENTICATED, "UNAUTHENTICATED", ())


# -- callers that do not read ------------------------------------------------------------------------------------------

LARGE = MatrixResponse(text="x" * 100_000)


class Flood:
    """Handlers that answer without end, and so come to wait for their caller to read."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = threading.Event()

    def sync(self, _request: Any, _context: Any) -> Iterator[MatrixResponse]:
        try:
            while True:
                self.sent += 1
                yield LARGE
        finally:
            self.ended.set()

    async def generator(self, _request: Any, _context: Any) -> AsyncIterator[MatrixResponse]:
        try:
            while True:
                self.sent += 1
                yield LARGE
        finally:
            self.ended.set()

    async def writer(self, _request: Any, context: Any) -> None:
        try:
            while True:
                self.sent += 1
                await context.write(LARGE)
        finally:
            self.ended.set()


def unread(channel: grpc.aio.Channel, exp: float) -> Any:
    """A UnaryStream whose caller does not read."""
    start: Any = channel.unary_stream(f"/{SERVICE}/UnaryStream", response_deserializer=MatrixResponse.FromString)
    return start(b"", metadata=bearer(token(exp)))


@pytest.mark.parametrize("form", ["generator", "writer"])
async def test_a_caller_that_does_not_read_does_not_hold_an_asynchronous_handler(form: str) -> None:
    """The status waits behind the messages on their way, for as long as the caller likes: grpc.aio cannot reset a stream."""
    flood, bench, was_ended = Flood(), Bench(), list[bool]()

    def observer(observation: Observation) -> None:
        bench.observations.append(observation)
        was_ended.append(flood.ended.is_set())

    async with bench.client("aio", handlers({"UnaryStream": getattr(flood, form)}), observer=observer) as client:
        call = unread(client.channel, SOON)
        await until(flood.ended.is_set)
        sent = flood.sent
        await asyncio.sleep(0.2)
        assert not call.done()
        ended = await outcome(call)
    assert ended.reason == "TOKEN_EXPIRED"
    assert len(ended.responses) <= sent == flood.sent
    assert was_ended == [False, True]  # when it was let in, and when its status was made
    assert bench.refused == [Reason.TOKEN_EXPIRED]


@pytest.mark.parametrize("form", ["generator", "writer"])
async def test_a_first_response_that_waits_for_its_caller_does_not_keep_the_status_away(form: str) -> None:
    large = MatrixResponse(text="x" * 20_000_000)  # more than flow control lets through

    async def generator(_request: Any, _context: Any) -> AsyncIterator[MatrixResponse]:
        yield large

    async def writer(_request: Any, context: Any) -> None:
        await context.write(large)

    bench = Bench()
    register = handlers({"UnaryStream": generator if form == "generator" else writer})
    options = [("grpc.max_receive_message_length", -1)]
    async with (
        serving("aio", bench.auth, register, observer=bench.observations.append) as target,
        grpc.aio.insecure_channel(target, options) as channel,
    ):
        call = unread(channel, SOON)
        await asyncio.sleep(0.5)
        ended = await outcome(call)
    assert (ended.reason, len(ended.responses)) == ("TOKEN_EXPIRED", 1)
    assert bench.refused == [Reason.TOKEN_EXPIRED]


@pytest.mark.parametrize("form", ["generator", "writer"])
async def test_a_caller_that_does_not_read_may_leave(form: str) -> None:
    flood, bench = Flood(), Bench()
    async with bench.client("aio", handlers({"UnaryStream": getattr(flood, form)})) as client:
        call = unread(client.channel, LATER)
        await until(lambda: flood.sent > 0)
        call.cancel()
        await until(flood.ended.is_set)
    assert bench.refused == []


async def test_a_caller_that_does_not_read_is_cut_off_by_a_sync_server() -> None:
    flood, bench = Flood(), Bench()
    async with bench.client("sync", handlers({"UnaryStream": flood.sync})) as client:
        call = unread(client.channel, SOON)
        await until(flood.ended.is_set)
        ended = await outcome(call)
    assert ended.code is grpc.StatusCode.CANCELLED
    assert bench.refused == [Reason.TOKEN_EXPIRED]
