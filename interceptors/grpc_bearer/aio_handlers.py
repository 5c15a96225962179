"""Handlers of `grpc.aio`, told apart by how grpc runs them, and wrapped so that claims reach them and streams end in time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

import grpc

from .claims import Claims
from .handlers import Behaviour, Handler, behaviour_of, closing, with_behaviour


class AuthenticatedContext(grpc.aio.ServicerContext[Any, Any]):
    """A handler's context that has the claims on it: the type to annotate with under `AuthInterceptor(context_claims=True)`.

    `claims` is None where a call goes on without a verified token: on methods with optional access, and in mode "report".
    """

    claims: Claims


class _ContextWithClaims:
    """Stands in front of grpc's own context, which takes no attributes, and hands everything else on to it."""

    def __init__(self, context: Any, claims: Claims | None) -> None:
        self._context = context
        self.claims = claims

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


AuthenticatedContext.register(_ContextWithClaims)


class Kind(Enum):
    """How grpc.aio runs a behaviour function; a wrapper has to keep it, or to know what it changes it to."""

    COROUTINE = "async def"
    ASYNC_GENERATOR = "async def with yield"
    SYNC_UNARY = "def, one response"
    SYNC_STREAM = "def, a response iterator"


def kind_of(handler: Handler) -> Kind:
    """How grpc.aio runs the handler. Raises `TypeError` for a handler without a behaviour of its kind."""
    behaviour = behaviour_of(handler)
    if inspect.iscoroutinefunction(behaviour):
        return Kind.COROUTINE
    if inspect.isasyncgenfunction(behaviour):
        return Kind.ASYNC_GENERATOR
    return Kind.SYNC_STREAM if handler.response_streaming else Kind.SYNC_UNARY


def _of_kind(handler: Handler, kind: Kind, *behaviours: Behaviour) -> Handler:
    """The handler around the function for its kind; there is one for each, in the order of `Kind`."""
    return with_behaviour(handler, dict(zip(Kind, behaviours, strict=True))[kind])


@dataclass(frozen=True, slots=True)
class End:
    """When a stream has to end, and how.

    `abort` on the event loop, `abort_in_thread` in that of a synchronous handler. Where that has sent responses, `mark` and
    return: an abort would overtake the first response on its way, and the call would never end (measured).
    """

    left_s: Callable[[], float]
    abort: Callable[[Any], Awaitable[NoReturn]]
    abort_in_thread: Callable[[Any], NoReturn]
    mark: Callable[[Any], None]


class _Writes:
    """Stands in front of a context, and keeps its first write whole where the handler is cancelled in it.

    That write sends the initial metadata too, and grpc.aio takes note of it when it is done: a status in between would send
    them once more, which core refuses, and the call would never end (measured).
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._first: asyncio.Future[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        if self._first is None:
            self._first = asyncio.ensure_future(self._context.write(message))
            await asyncio.shield(self._first)
        else:
            await self._context.write(message)

    async def settled(self) -> None:
        """Return when no first write is on its way: when the caller has read enough of it, or left."""
        if self._first is not None:
            await asyncio.wait([self._first])


class _PastEndError(Exception):
    """Ends a synchronous handler that asks for one message more."""


class _Requests:
    """A synchronous handler's request iterator. `is_past_end`: it has come to a message after the end."""

    def __init__(self, messages: Iterator[Any], end: End) -> None:
        self._messages = messages
        self._end = end
        self.is_past_end = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        message = next(self._messages)
        if self._end.left_s() <= 0:
            self.is_past_end = True
            raise _PastEndError
        return message


def bounded(handler: Handler, kind: Kind, end: End) -> Handler:
    """The handler of a stream, ended in time: at once where it is asynchronous, at its next message where it is not.

    An async generator becomes a coroutine that writes its responses: grpc awaits a generator's writes by itself, and what
    is cancelled there ends the call without a status (measured). The status waits behind responses that are on their way to
    a caller who does not read; grpc.aio has no means to cut that short.
    """
    behaviour = behaviour_of(handler)

    async def within(writes: _Writes, work: Awaitable[Any]) -> Any:
        scope = asyncio.timeout(max(0.0, end.left_s()))
        try:
            async with scope:
                result = await work
        except TimeoutError:
            if not scope.expired():  # the handler's own
                raise
        else:
            if not scope.expired():  # a handler may take its being cancelled for a reason to come to an end of its own
                return result
        await writes.settled()
        return await end.abort(writes)

    async def write_all(request: Any, writes: _Writes) -> None:
        async with aclosing(behaviour(request, writes)) as responses:
            async for response in responses:
                if end.left_s() <= 0:  # a handler may swallow its being cancelled and go on
                    await writes.settled()
                    await end.abort(writes)
                await writes.write(response)

    async def coroutine(request: Any, context: Any) -> Any:
        writes = _Writes(context)
        return await within(writes, behaviour(request, writes))

    async def async_generator(request: Any, context: Any) -> Any:
        writes = _Writes(context)
        return await within(writes, write_all(request, writes))

    def sync_unary(request: Any, context: Any) -> Any:
        requests = _Requests(request, end)
        try:
            response = behaviour(requests, context)
        except Exception:
            if not requests.is_past_end:
                raise
        else:
            if not requests.is_past_end:
                return response
        return end.abort_in_thread(context)

    def sync_stream(request: Any, context: Any) -> Iterator[Any]:
        requests = _Requests(request if handler.request_streaming else iter(()), end)
        try:
            responses = behaviour(requests if handler.request_streaming else request, context)
            with closing(responses):
                for response in responses:
                    if end.left_s() <= 0:
                        break
                    yield response
                else:
                    if not requests.is_past_end:
                        return
        except Exception:
            if not requests.is_past_end:
                raise
        end.mark(context)

    return _of_kind(handler, kind, coroutine, async_generator, sync_unary, sync_stream)


def carrying(handler: Handler, kind: Kind, *, with_claims: bool, claims: Claims | None) -> Handler:
    """The handler for one call, of the same kind: in this context if it runs in a thread, with `claims` on its context."""
    behaviour = behaviour_of(handler)
    here = copy_context()

    def own(context: Any) -> Any:
        return _ContextWithClaims(context, claims) if with_claims else context

    async def coroutine(request: Any, context: Any) -> Any:
        return await behaviour(request, own(context))

    async def async_generator(request: Any, context: Any) -> AsyncIterator[Any]:
        async with aclosing(behaviour(request, own(context))) as responses:
            async for response in responses:
                yield response

    def sync_unary(request: Any, context: Any) -> Any:
        return here.run(behaviour, request, own(context))

    def sync_stream(request: Any, context: Any) -> Iterator[Any]:
        responses = iter(here.run(behaviour, request, own(context)))
        try:
            while True:
                try:
                    response = here.run(next, responses)
                except StopIteration:
                    return
                yield response
        finally:
            close = getattr(responses, "close", None)
            if close is not None:
                here.run(close)

    return _of_kind(handler, kind, coroutine, async_generator, sync_unary, sync_stream)
