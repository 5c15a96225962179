"""What becomes of a stream whose token expires while it runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixResponse

from grpc_bearer import Policy, Reason
from grpc_bearer import Streams as AtExpiry
from tests.rpc.streams import (
    AIO_FORMS,
    FORMS,
    LATER,
    NOW,
    SOON,
    STREAMING,
    SYNC_FORMS,
    Bench,
    Stream,
    SyncStreams,
    each,
    each_method,
    registering,
    token,
)
from tests.support.calls import until
from tests.support.matrix import handlers
from tests.support.serving import Stack

OK = grpc.StatusCode.OK
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


# -- TERMINATE ---------------------------------------------------------------------------------------------------------


@each_method
@each(AIO_FORMS)
async def test_an_idle_asynchronous_stream_ends_with_its_token(stack: Stack, streams_of: Any, method: str) -> None:
    streams, bench = streams_of(), Bench()
    async with bench.client(stack, registering(streams)) as client:
        stream = Stream(client, streams, method, token(SOON))
        await stream.begin()
        began = time.monotonic()
        ended = await stream.ended()
        assert 0.02 < time.monotonic() - began < 10  # not at its first message, and without a second one
    assert (ended.code, ended.message) == (UNAUTHENTICATED, "the bearer token has expired")
    assert ended.info is not None
    assert (ended.reason, dict(ended.info.metadata)) == ("TOKEN_EXPIRED", {"expired_at": "2027-01-15T08:00:00Z"})
    assert ended.texts == (() if method == "StreamUnary" else ("a",))
    assert streams.received == 1
    assert bench.refused == [Reason.TOKEN_EXPIRED]


@each_method
@each(SYNC_FORMS)
async def test_a_synchronous_stream_ends_with_the_first_message_after_its_token(
    stack: Stack, streams_of: Any, method: str
) -> None:
    streams, bench = streams_of(), Bench()
    async with bench.client(stack, registering(streams)) as client:
        stream = Stream(client, streams, method, token(LATER))
        await stream.begin()
        bench.clock.advance(3599.5)
        await stream.move()
        await until(lambda: streams.received == 2)
        bench.clock.advance(0.5)
        await stream.move()
        ended = await stream.ended()
    assert (ended.code, ended.message, ended.reason) == (UNAUTHENTICATED, "the bearer token has expired", "TOKEN_EXPIRED")
    assert ended.texts == (() if method == "StreamUnary" else ("a", "a"))
    assert streams.received == (3 if method == "UnaryStream" else 2)  # what it answers after its time is not sent
    assert bench.refused == [Reason.TOKEN_EXPIRED]


async def test_an_idle_stream_of_a_sync_server_is_cancelled_a_second_after_its_token() -> None:
    async def idle(method: str) -> None:
        streams, bench = SyncStreams(), Bench()
        async with bench.client("sync", registering(streams)) as client:
            stream = Stream(client, streams, method, token(SOON))
            await stream.begin()
            began = time.monotonic()
            ended = await stream.ended()
            assert 0.9 < time.monotonic() - began < 15
        assert (ended.code, ended.reason) == (grpc.StatusCode.CANCELLED, None)
        assert streams.received == 1
        assert bench.refused == [Reason.TOKEN_EXPIRED]

    await asyncio.gather(*map(idle, STREAMING))


@each_method
async def test_an_idle_synchronous_handler_on_an_aio_server_stays_until_its_next_message(method: str) -> None:
    """As measured: it sits in a thread that nothing of grpc.aio reaches."""
    streams, bench = SyncStreams(), Bench()
    async with bench.client("aio", registering(streams)) as client:
        stream = Stream(client, streams, method, token(SOON))
        await stream.begin()
        bench.clock.advance(60)
        await asyncio.sleep(0.3)
        assert not stream.call.done()
        await stream.move()
        assert (await stream.ended()).reason == "TOKEN_EXPIRED"


async def test_a_unary_call_may_outlive_its_token() -> None:
    async def outlives(stack: Stack, streams_of: Any) -> None:
        bench = Bench()

        def slow(request: Any, _context: Any) -> MatrixResponse:
            bench.clock.advance(3600)
            time.sleep(1.5)  # past the moment at which a stream would have been ended
            return MatrixResponse(text=request.text)

        async def slow_aio(request: Any, _context: Any) -> MatrixResponse:
            bench.clock.advance(3600)
            await asyncio.sleep(0.3)
            return MatrixResponse(text=request.text)

        behaviour = slow if streams_of is SyncStreams else slow_aio
        async with bench.client(stack, handlers({"UnaryUnary": behaviour})) as client:
            assert (await client.call("UnaryUnary", token(SOON))).texts == ("a",)
        assert bench.refused == []

    await asyncio.gather(*(outlives(*form) for form in FORMS.values()))


async def test_streams_that_come_to_their_end_before_their_token_does_are_left_alone() -> None:
    async def short(form: str, method: str) -> None:
        stack, streams_of = FORMS[form]
        streams, bench = streams_of(), Bench()
        async with bench.client(stack, registering(streams)) as client:
            stream = Stream(client, streams, method, token(SOON + 0.3))
            await stream.begin()
            ended = await stream.finish()
            await asyncio.sleep(2)  # past the moment at which it would have been ended
        assert (form, method, ended.code, ended.texts) == (form, method, OK, ("a",))
        assert bench.refused == []

    await asyncio.gather(*(short(form, method) for form in FORMS for method in STREAMING))


@each_method
@each(FORMS)
async def test_a_stream_whose_caller_leaves_ends_by_that_and_nothing_is_said_of_its_token(
    stack: Stack, streams_of: Any, method: str
) -> None:
    streams, bench = streams_of(), Bench()
    async with bench.client(stack, registering(streams)) as client:
        stream = Stream(client, streams, method, token(LATER))
        await stream.begin()
        if method != "StreamUnary":
            await stream.call.read()  # grpc.aio leaves a thread behind that has a response nobody takes any more
        stream.call.cancel()
        streams.finish()  # a synchronous handler on an aio server does not learn of it
        await until(streams.ended.is_set)
    assert bench.refused == []


@each_method
@each(FORMS)
async def test_a_token_of_the_year_9999_is_no_trouble(stack: Stack, streams_of: Any, method: str) -> None:
    streams, bench = streams_of(), Bench(Policy(stream_grace_s=3600))
    async with bench.client(stack, registering(streams)) as client:
        stream = Stream(client, streams, method, token(253_402_300_799))
        await stream.begin()
        await stream.move()
        await until(lambda: streams.received == 2)
        assert (await stream.finish()).code is OK
    assert bench.refused == []


# -- FINISH, grace and leeway ------------------------------------------------------------------------------------------


async def test_a_stream_under_finish_goes_on_after_its_token() -> None:
    async def goes_on(form: str, method: str) -> None:
        stack, streams_of = FORMS[form]
        streams, bench = streams_of(), Bench(Policy(streams=AtExpiry.FINISH))
        async with bench.client(stack, registering(streams)) as client:
            stream = Stream(client, streams, method, token(SOON))
            await stream.begin()
            bench.clock.advance(3600)
            await asyncio.sleep(1.5)  # past the moment at which it would have been ended
            await stream.move()
            await until(lambda: streams.received == 2)
            ended = await stream.finish()
        assert (form, method, ended.code) == (form, method, OK)
        assert bench.refused == []

    await asyncio.gather(*(goes_on(form, method) for form in FORMS for method in STREAMING))


@each_method
@each(SYNC_FORMS)
async def test_a_stream_may_go_on_for_the_leeway_and_the_grace(stack: Stack, streams_of: Any, method: str) -> None:
    streams, bench = streams_of(), Bench(Policy(stream_grace_s=100), leeway_s=30)
    async with bench.client(stack, registering(streams)) as client:
        stream = Stream(client, streams, method, token(LATER))
        await stream.begin()
        bench.clock.advance(3600 + 129.5)
        await stream.move()
        await until(lambda: streams.received == 2)
        bench.clock.advance(0.5)
        await stream.move()
        assert (await stream.ended()).reason == "TOKEN_EXPIRED"


@each_method
@each(AIO_FORMS)
@pytest.mark.parametrize(("grace_s", "leeway_s"), [(0.2, 0), (0, 0.2)], ids=["grace", "leeway"])
async def test_an_idle_stream_ends_when_leeway_and_grace_have_passed_too(
    stack: Stack, streams_of: Any, method: str, grace_s: float, leeway_s: float
) -> None:
    streams, bench = streams_of(), Bench(Policy(stream_grace_s=grace_s), leeway_s=leeway_s)
    async with bench.client(stack, registering(streams)) as client:
        stream = Stream(client, streams, method, token(NOW + 0.001))
        await stream.begin()
        began = time.monotonic()
        assert (await stream.ended()).reason == "TOKEN_EXPIRED"
        assert 0.1 < time.monotonic() - began < 10
