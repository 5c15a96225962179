"""The tests' own service (`tests/protos/matrix`), in every form that grpc takes a handler in. It answers with what it saw."""

# ruff: noqa: N802  # gRPC methods are named by their proto

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse
from matrix.v1.matrix_pb2_grpc import MatrixServiceServicer, add_MatrixServiceServicer_to_server

from grpc_bearer import Claims, current_claims, current_claims_or_none
from tests.support.serving import Stack

PROTO = Path(__file__).resolve().parents[1] / "protos/matrix/v1/matrix.proto"
SERVICE = "matrix.v1.MatrixService"
GRPCIO = tuple(int(part) for part in grpc.__version__.split(".")[:2])
"""Its version: some of its behaviour that the tests state depends on it."""
METHODS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")

ClaimsOf = Callable[[Any], Claims | None]
"""How a handler gets at its claims, from its context. With None its answer has no subject."""


def accessor(_context: Any) -> Claims:
    """By `current_claims()`."""
    return current_claims()


def accessor_or_none(_context: Any) -> Claims | None:
    """By `current_claims_or_none()`."""
    return current_claims_or_none()


def attribute(context: Any) -> Claims:
    """By `context.claims`, which `AuthInterceptor(context_claims=True)` puts there."""
    claims: Claims = context.claims
    return claims


def seen(text: str, claims: Claims) -> MatrixResponse:
    """The answer of a handler that saw these claims."""
    return MatrixResponse(text=text, subject=claims.sub or "", scopes=sorted(claims.scopes))


class _Matrix(MatrixServiceServicer):
    """`ran` counts how often a handler got to run."""

    def __init__(self, claims_of: ClaimsOf = accessor) -> None:
        self._claims_of = claims_of
        self.ran = 0

    def saw(self, text: str, context: Any) -> MatrixResponse:
        self.ran += 1
        claims = self._claims_of(context)
        return MatrixResponse(text=text) if claims is None else seen(text, claims)


class SyncMatrix(_Matrix):
    """Functions and generators."""

    def UnaryUnary(self, request: MatrixRequest, context: Any) -> MatrixResponse:
        return self.saw(request.text, context)

    def UnaryStream(self, request: MatrixRequest, context: Any) -> Iterator[MatrixResponse]:
        for _ in range(request.count):
            yield self.saw(request.text, context)

    def StreamUnary(self, request_iterator: Iterator[MatrixRequest], context: Any) -> MatrixResponse:
        return self.saw("".join(request.text for request in request_iterator), context)

    def StreamStream(self, request_iterator: Iterator[MatrixRequest], context: Any) -> Iterator[MatrixResponse]:
        for request in request_iterator:
            yield self.saw(request.text, context)


class AioMatrix(_Matrix):
    """Coroutines and asynchronous generators."""

    async def UnaryUnary(self, request: MatrixRequest, context: Any) -> MatrixResponse:
        return self.saw(request.text, context)

    async def UnaryStream(self, request: MatrixRequest, context: Any) -> AsyncIterator[MatrixResponse]:
        for _ in range(request.count):
            yield self.saw(request.text, context)

    async def StreamUnary(self, request_iterator: AsyncIterator[MatrixRequest], context: Any) -> MatrixResponse:
        return self.saw("".join([request.text async for request in request_iterator]), context)

    async def StreamStream(self, request_iterator: AsyncIterator[MatrixRequest], context: Any) -> AsyncIterator[MatrixResponse]:
        async for request in request_iterator:
            yield self.saw(request.text, context)


class WritingMatrix(_Matrix):
    """Coroutines that read and write by their context."""

    async def UnaryUnary(self, request: MatrixRequest, context: Any) -> MatrixResponse:
        return self.saw(request.text, context)

    async def UnaryStream(self, request: MatrixRequest, context: Any) -> None:  # type: ignore[override]
        for _ in range(request.count):
            await context.write(self.saw(request.text, context))

    async def StreamUnary(self, request_iterator: object, context: Any) -> MatrixResponse:
        texts = []
        while (request := await context.read()) is not grpc.aio.EOF:
            texts.append(request.text)
        return self.saw("".join(texts), context)

    async def StreamStream(self, request_iterator: object, context: Any) -> None:  # type: ignore[override]
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(self.saw(request.text, context))


@dataclass(frozen=True)
class Form:
    """A form of handlers, on a server of a stack."""

    stack: Stack
    service: type[_Matrix]


FORMS = {
    "sync": Form("sync", SyncMatrix),
    "aio": Form("aio", AioMatrix),
    "aio, by context.read and context.write": Form("aio", WritingMatrix),
    "sync handlers on an aio server": Form("aio", SyncMatrix),
}
SERVICES: dict[Stack, type[_Matrix]] = {"sync": SyncMatrix, "aio": AioMatrix}


def registering(service: _Matrix) -> Callable[[Any], None]:
    """What `serving` registers the service with."""
    return lambda server: add_MatrixServiceServicer_to_server(service, server)


_MAKERS: dict[str, Callable[..., Any]] = {
    "UnaryUnary": grpc.unary_unary_rpc_method_handler,
    "UnaryStream": grpc.unary_stream_rpc_method_handler,
    "StreamUnary": grpc.stream_unary_rpc_method_handler,
    "StreamStream": grpc.stream_stream_rpc_method_handler,
}


def handler(method: str, behaviour: Callable[..., Any]) -> Any:
    """A handler for one of `METHODS` around a function of one's own."""
    return _MAKERS[method](behaviour, MatrixRequest.FromString, MatrixResponse.SerializeToString)


def handlers(behaviours: dict[str, Callable[..., Any]]) -> Callable[[Any], None]:
    """What `serving` registers functions of one's own with, by method."""
    made = {method: handler(method, behaviour) for method, behaviour in behaviours.items()}
    return lambda server: server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, made)])
