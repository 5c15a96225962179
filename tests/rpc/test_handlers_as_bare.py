"""Handlers of every form do behind our interceptor what they do on a bare server: each is tried on both, and compared."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import Authenticator
from tests.support.calls import Client, Outcome
from tests.support.matrix import GRPCIO, METHODS, handlers
from tests.support.processes import PATIENCE_S
from tests.support.serving import Stack, serving
from tests.support.tokens import mint

OK = grpc.StatusCode.OK
NOTE = (("x-note", "of the handler"), ("x-note-bin", b"\x00\xff"))

Behaviours = dict[str, Callable[..., Any]]


def act(action: str, context: Any) -> Any:
    """What a handler is asked to do. Returns a response, or something to await where the context is asynchronous."""
    match action:
        case "raise":
            raise LookupError("out of the handler")
        case "abort":
            context.set_trailing_metadata(NOTE)
            return context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
        case "set a code":
            context.set_trailing_metadata(NOTE)
            context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
            context.set_details("not now")
        case "send metadata":
            context.set_trailing_metadata(NOTE)
            return context.send_initial_metadata(NOTE)
        case "answer with another type":
            return 42
        case "answer with what it sees":
            seen = [name for name, _ in context.invocation_metadata()]
            bounded = PATIENCE_S / 2 < context.time_remaining() < PATIENCE_S * 2
            return MatrixResponse(text=f"{sorted(seen)} {bounded} {context.peer().partition(':')[0]}")
    return None


def done(action: str, context: Any) -> Any:
    answer = act(action, context)
    return MatrixResponse(text="done") if answer is None else answer


async def done_aio(action: str, context: Any) -> Any:
    answer = act(action, context)
    if inspect.isawaitable(answer):
        answer = await answer
    return MatrixResponse(text="done") if answer is None else answer


def sync_behaviours() -> Behaviours:
    def unary_unary(request: MatrixRequest, context: Any) -> Any:
        return done(request.text, context)

    def unary_stream(request: MatrixRequest, context: Any) -> Iterator[Any]:
        yield done(request.text, context)
        yield MatrixResponse(text="second")

    def stream_unary(requests: Iterator[MatrixRequest], context: Any) -> Any:
        return done("".join(request.text for request in requests), context)

    def stream_stream(requests: Iterator[MatrixRequest], context: Any) -> Iterator[Any]:
        for request in requests:
            yield done(request.text, context)

    return dict(zip(METHODS, (unary_unary, unary_stream, stream_unary, stream_stream), strict=True))


class Unclosable:
    """An iterator that is no generator and has no `close`."""

    def __init__(self, responses: Iterator[Any]) -> None:
        self._responses = responses

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._responses)


def iterator_behaviours() -> Behaviours:
    """Functions that return an iterator, where a response stream is asked for."""

    def unary_stream(request: MatrixRequest, context: Any) -> Iterator[Any]:
        return Unclosable(done(text, context) for text in (request.text, "second"))

    def stream_stream(requests: Iterator[MatrixRequest], context: Any) -> Iterator[Any]:
        return Unclosable(done(request.text, context) for request in requests)

    return sync_behaviours() | {"UnaryStream": unary_stream, "StreamStream": stream_stream}


def aio_behaviours() -> Behaviours:
    async def unary_unary(request: MatrixRequest, context: Any) -> Any:
        return await done_aio(request.text, context)

    async def unary_stream(request: MatrixRequest, context: Any) -> AsyncIterator[Any]:
        yield await done_aio(request.text, context)
        yield MatrixResponse(text="second")

    async def stream_unary(requests: AsyncIterator[MatrixRequest], context: Any) -> Any:
        return await done_aio("".join([request.text async for request in requests]), context)

    async def stream_stream(requests: AsyncIterator[MatrixRequest], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield await done_aio(request.text, context)

    return dict(zip(METHODS, (unary_unary, unary_stream, stream_unary, stream_stream), strict=True))


def writing_behaviours() -> Behaviours:
    async def unary_stream(request: MatrixRequest, context: Any) -> None:
        await context.write(await done_aio(request.text, context))
        await context.write(MatrixResponse(text="second"))

    async def stream_stream(_requests: Any, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(await done_aio(request.text, context))

    return aio_behaviours() | {"UnaryStream": unary_stream, "StreamStream": stream_stream}


FORMS: dict[str, tuple[Stack, Callable[[], Behaviours]]] = {
    "sync": ("sync", sync_behaviours),
    "sync, iterators": ("sync", iterator_behaviours),
    "aio": ("aio", aio_behaviours),
    "aio, by context.write": ("aio", writing_behaviours),
    "sync handlers on an aio server": ("aio", sync_behaviours),
    "sync handlers on an aio server, iterators": ("aio", iterator_behaviours),
}
each_form = pytest.mark.parametrize(("stack", "behaviours"), FORMS.values(), ids=FORMS)


async def acting(client: Client, method: str, action: str) -> Outcome:
    return await client.call(method, mint(), requests=[MatrixRequest(text=action)])


ACTIONS = (
    "answer",
    "raise",
    "abort",
    "set a code",
    "send metadata",
    "answer with another type",
    "answer with what it sees",
)


def leaves_a_thread_behind(stack: Stack, behaviours: Callable[[], Behaviours], method: str, action: str) -> bool:
    """Whether grpcio does: a sync generator on an aio server whose response nobody takes any more is never resumed or closed.

    Up to 1.84 it also goes on after an abort.
    """
    unsendable = ("abort", "answer with another type") if GRPCIO < (1, 85) else ("answer with another type",)
    in_thread = stack == "aio" and behaviours in (sync_behaviours, iterator_behaviours)
    return in_thread and method.endswith("Stream") and action in unsendable


@each_form
async def test_a_guarded_handler_answers_as_a_bare_one(
    stack: Stack, behaviours: Callable[[], Behaviours], auth: Authenticator
) -> None:
    cases = [
        (method, action)
        for method in METHODS
        for action in ACTIONS
        if not leaves_a_thread_behind(stack, behaviours, method, action)
    ]
    seen = []
    servers: list[tuple[Authenticator | None, bool]] = [(None, False), (auth, False), (auth, True)]
    for guard, context_claims in servers:
        async with (
            serving(stack, guard, handlers(behaviours()), context_claims=context_claims) as target,
            Client(target) as client,
        ):
            seen.append([(case, await acting(client, *case)) for case in cases])
    bare, guarded, with_claims = seen
    assert guarded == bare
    assert with_claims == bare


MESSAGES = {
    "none": (),
    "one": (MatrixRequest(text="answer").SerializeToString(),),
    "two": (MatrixRequest(text="answer").SerializeToString(), MatrixRequest(text="raise").SerializeToString()),
    "one that is empty": (b"",),
    "one that cannot be decoded": (b"\xff\xff",),
}


# What a bare server never ends: on aio a unary call without a message runs into its caller's deadline, and a sync server
# that read a stream's undecodable message can often not be stopped any more.
LEFT_OPEN = {("aio", method, "none") for method in ("UnaryUnary", "UnaryStream")}
LEFT_OPEN |= {("sync", method, "one that cannot be decoded") for method in ("StreamUnary", "StreamStream")}


@each_form
async def test_a_guarded_handler_takes_messages_as_a_bare_one(
    stack: Stack, behaviours: Callable[[], Behaviours], auth: Authenticator
) -> None:
    cases = [(method, sent) for method in METHODS for sent in MESSAGES if (stack, method, sent) not in LEFT_OPEN]
    seen = []
    for guard in (None, auth):
        async with serving(stack, guard, handlers(behaviours())) as target, Client(target) as client:
            seen.append({case: await client.send(case[0], MESSAGES[case[1]], mint()) for case in cases})
    bare, guarded = seen
    for method in ("UnaryUnary", "UnaryStream") if stack == "sync" else ():
        without = [outcomes.pop((method, "none")) for outcomes in seen]
        assert {(outcome.code, "exactly one request message" in outcome.message) for outcome in without} == {
            (grpc.StatusCode.UNIMPLEMENTED, True)
        }
    assert guarded == bare
