"""Streams that a test moves on message by message: handlers of every form, and what became of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import Authenticator, Issuer, Observation, Policies, Policy, Reason, Rule
from tests.support.calls import Client, Outcome, outcome, until
from tests.support.clock import Clock
from tests.support.matrix import SERVICE, handlers
from tests.support.serving import Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint

STREAMING = ("UnaryStream", "StreamUnary", "StreamStream")
NOW = 1_800_000_000.0
SOON = NOW + 0.3
LATER = NOW + 3600


class Streams:
    """A handler of each streaming kind, which answers one message and waits for the next.

    The next one is the client's or, in UnaryStream, comes with `go_on()`, until `finish()`. `began` is set when the first
    message has been received, `ended` when the handler is left, in whatever way. `received` counts the messages.
    """

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self.received = 0
        self._more = threading.Semaphore(0)
        self._finished = threading.Event()

    def go_on(self) -> None:
        """Have a UnaryStream handler answer once more."""
        self._more.release()

    def finish(self) -> None:
        """Have a UnaryStream handler come to its end."""
        self._finished.set()

    def answer(self, request: MatrixRequest) -> MatrixResponse:
        self.received += 1
        self.began.set()
        return MatrixResponse(text=request.text)

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.ended.set()


class SyncStreams(Streams):
    """Functions and generators."""

    def unary_stream(self, request: Any, context: Any) -> Iterator[MatrixResponse]:
        with self.running():
            yield self.answer(request)
            while not self._finished.is_set() and getattr(context, "is_active", lambda: True)():
                if self._more.acquire(timeout=0.02):
                    yield self.answer(request)

    def stream_unary(self, requests: Any, _context: Any) -> MatrixResponse:
        with self.running():
            return MatrixResponse(text="".join([self.answer(request).text for request in requests]))

    def stream_stream(self, requests: Any, _context: Any) -> Iterator[MatrixResponse]:
        with self.running():
            yield from map(self.answer, requests)


class AioStreams(Streams):
    """Coroutines and asynchronous generators."""

    async def moves(self) -> AsyncIterator[None]:
        """Once for the first message, and once for each `go_on()`."""
        yield
        while not self._finished.is_set():
            if self._more.acquire(blocking=False):
                yield
            await asyncio.sleep(0.005)

    async def unary_stream(self, request: Any, _context: Any) -> AsyncIterator[MatrixResponse]:
        with self.running():
            async for _ in self.moves():
                yield self.answer(request)

    async def stream_unary(self, requests: Any, _context: Any) -> MatrixResponse:
        with self.running():
            return MatrixResponse(text="".join([self.answer(request).text async for request in requests]))

    async def stream_stream(self, requests: Any, _context: Any) -> AsyncIterator[MatrixResponse]:
        with self.running():
            async for request in requests:
                yield self.answer(request)


class WritingStreams(AioStreams):
    """Coroutines that read and write by their context."""

    async def unary_stream(self, request: Any, context: Any) -> None:  # type: ignore[override]
        with self.running():
            async for _ in self.moves():
                await context.write(self.answer(request))

    async def stream_unary(self, _requests: Any, context: Any) -> MatrixResponse:
        with self.running():
            texts = []
            while (request := await context.read()) is not grpc.aio.EOF:
                texts.append(self.answer(request).text)
            return MatrixResponse(text="".join(texts))

    async def stream_stream(self, _requests: Any, context: Any) -> None:  # type: ignore[override]
        with self.running():
            while (request := await context.read()) is not grpc.aio.EOF:
                await context.write(self.answer(request))


FORMS: dict[str, tuple[Stack, type[Any]]] = {
    "sync": ("sync", SyncStreams),
    "aio": ("aio", AioStreams),
    "aio, by context.read and context.write": ("aio", WritingStreams),
    "sync handlers on an aio server": ("aio", SyncStreams),
}
AIO_FORMS = {name: form for name, form in FORMS.items() if form[1] is not SyncStreams}
SYNC_FORMS = {name: form for name, form in FORMS.items() if form[1] is SyncStreams}
each_method = pytest.mark.parametrize("method", STREAMING)


def each(forms: dict[str, tuple[Stack, type[Any]]]) -> pytest.MarkDecorator:
    """For tests that take `stack` and `streams_of`."""
    return pytest.mark.parametrize(("stack", "streams_of"), forms.values(), ids=forms)


def registering(streams: Any) -> Callable[[Any], None]:
    """What `serving` registers them with."""
    return handlers(
        {
            "UnaryStream": streams.unary_stream,
            "StreamUnary": streams.stream_unary,
            "StreamStream": streams.stream_stream,
        }
    )


class Stream:
    """A stream of one of them, from the client's side."""

    def __init__(self, client: Client, streams: Any, method: str, token: str) -> None:
        self.call = client.open(method, token)
        self._streams = streams
        self._method = method

    async def begin(self) -> None:
        """Send the first message, and wait until the handler has it."""
        await self._send()
        if self._method == "UnaryStream":
            await self.call.done_writing()
        await until(self._streams.began.is_set)

    async def move(self) -> None:
        """One message more, from the client or, where it does not stream, from the handler."""
        if self._method == "UnaryStream":
            self._streams.go_on()
        else:
            await self._send()

    async def finish(self) -> Outcome:
        """Come to an end in good order."""
        if self._method == "UnaryStream":
            self._streams.finish()
        else:
            await self.call.done_writing()
        return await self.ended()

    async def ended(self) -> Outcome:
        """How it ended, once the handler has been left."""
        ended = await outcome(self.call)
        await until(self._streams.ended.is_set)
        return ended

    async def _send(self) -> None:
        await self.call.write(MatrixRequest(text="a").SerializeToString())


class Bench:
    """A server whose clock stands still until it is moved, so that no call comes too late, however loaded the machine is."""

    def __init__(self, policy: Policy | None = None, *, leeway_s: float = 0) -> None:
        self.clock = Clock(NOW)
        self.observations: list[Observation] = []
        self.auth = Authenticator(
            [Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()), leeway_s=leeway_s)],
            policies=Policies(rules=[Rule([f"{SERVICE}/*"], policy or Policy())]),
            clock=self.clock,
        )

    @asynccontextmanager
    async def client(self, stack: Stack, register: Any, **of_interceptor: Any) -> AsyncIterator[Client]:
        """A client of a server of the stack, with what `register` registers."""
        made_with = {"observer": self.observations.append} | of_interceptor
        async with serving(stack, self.auth, register, **made_with) as target, Client(target) as client:
            yield client

    @property
    def refused(self) -> list[Reason]:
        """Why calls were refused, in their order."""
        return [observation.reason for observation in self.observations if observation.reason is not None]


def token(exp: float) -> str:
    """One of `NOW`, for the clock of a `Bench`."""
    return mint(now=NOW, exp=exp)
