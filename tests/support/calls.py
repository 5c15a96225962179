"""Calls to the tests' service, and all that a caller gets to see of their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse
from matrix.v1.matrix_pb2_grpc import MatrixServiceStub

from tests.support.matrix import SERVICE
from tests.support.processes import PATIENCE_S

Metadata = tuple[tuple[str, str | bytes], ...]

REQUESTS = (MatrixRequest(text="a", count=2), MatrixRequest(text="b"))
ANSWERS = {"UnaryUnary": ("a",), "UnaryStream": ("a", "a"), "StreamUnary": ("ab",), "StreamStream": ("a", "b")}
"""The texts of the responses to `REQUESTS`."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: grpc.StatusCode
    message: str
    responses: tuple[Any, ...]
    initial_metadata: Metadata
    trailers: Metadata

    @property
    def texts(self) -> tuple[str, ...]:
        """What the responses say."""
        return tuple(response.text for response in self.responses)

    @property
    def subjects(self) -> set[str]:
        """Whose claims the handler saw."""
        return {response.subject for response in self.responses}

    @property
    def info(self) -> ErrorInfo | None:
        """The ErrorInfo of `grpc-status-details-bin`, which has to agree with what gRPC itself says of the call."""
        details = dict(self.trailers).get("grpc-status-details-bin")
        if details is None:
            return None
        status = Status.FromString(details)
        assert (status.code, status.message) == (self.code.value[0], self.message)
        (detail,) = status.details
        info = ErrorInfo()
        assert detail.Unpack(info)
        return info

    @property
    def reason(self) -> str | None:
        """The reason in the ErrorInfo; None for a call that we did not refuse."""
        info = self.info
        return None if info is None else str(info.reason)


def bearer(token: str | None) -> Metadata:
    """The metadata that carries a token; none for None."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


class Client:
    """A client of the matrix service at `target`, to be used as an asynchronous context manager."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.aio.insecure_channel(target)
        # grpc.aio's client puts an error of its own ("Internal error from Core") in place of the status of a stream that
        # ends while it is still sending a message, as a refused one does. The synchronous client does not.
        self._sync_channel = grpc.insecure_channel(target)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self.channel.close()
        self._sync_channel.close()

    async def call(
        self,
        method: str,
        token: str | None = None,
        *,
        metadata: Metadata = (),
        requests: Iterable[MatrixRequest] = REQUESTS,
        timeout: float | None = PATIENCE_S,  # noqa: ASYNC109  # it is the call's
    ) -> Outcome:
        """Make a whole call by the generated stub. A method with one request gets the first of them."""
        messages = list(requests)
        options: Any = {"metadata": bearer(token) + metadata, "timeout": timeout}
        if method.startswith("Stream"):
            return await asyncio.to_thread(self._call_in_thread, method, messages, options)
        return await outcome(getattr(MatrixServiceStub(self.channel), method)(messages[0], **options))

    def _call_in_thread(self, method: str, messages: list[MatrixRequest], options: dict[str, Any]) -> Outcome:
        start: Any = getattr(MatrixServiceStub(self._sync_channel), method)
        if method == "StreamStream":
            return _outcome(start(iter(messages), **options), stream=True)
        return _outcome(start.future(iter(messages), **options), stream=False)

    async def send(self, method: str, messages: Iterable[bytes], token: str | None = None) -> Outcome:
        """Make a whole call, of whatever kind, with these messages and no others: none and too many as well."""
        start: Any = self._sync_channel.stream_stream(_path(method), response_deserializer=MatrixResponse.FromString)
        options: Any = {"metadata": bearer(token), "timeout": PATIENCE_S}
        return await asyncio.to_thread(lambda: _outcome(start(iter(messages), **options), stream=True))

    def open(
        self,
        method: str,
        token: str | None = None,
        *,
        metadata: Metadata = (),
        timeout: float | None = PATIENCE_S,
    ) -> Any:
        """Begin a call, of whatever kind, that sends its headers and no message.

        `method`: one of the matrix service, or a full name. What it returns is grpc.aio's: `write(bytes)` and
        `done_writing()` carry on with the call, `outcome()` waits for its end.
        """
        start: Any = self.channel.stream_stream(_path(method), response_deserializer=MatrixResponse.FromString)
        return start(metadata=bearer(token) + metadata, timeout=timeout)


def _path(method: str) -> str:
    return method if method.startswith("/") else f"/{SERVICE}/{method}"


def _outcome(started: Any, *, stream: bool) -> Outcome:
    """The end of a call of the synchronous client, a stream or a future, waited for."""
    responses: list[MatrixResponse] = []
    with suppress(grpc.RpcError):  # the call itself says how it ended
        for response in started if stream else [started.result()]:
            responses.append(response)  # noqa: PERF402  # an error on the way leaves what came before it
    return Outcome(
        started.code(),
        started.details() or "",
        tuple(responses),
        tuple(started.initial_metadata()),
        tuple(started.trailing_metadata()),
    )


async def outcome(started: Any) -> Outcome:
    """The end of a call of grpc.aio, of either shape, waited for."""
    responses: list[MatrixResponse] = []
    with suppress(grpc.aio.AioRpcError):  # the call itself says how it ended
        if hasattr(started, "__aiter__"):
            async for response in started:
                responses.append(response)  # noqa: PERF401  # an error on the way leaves what came before it
        else:
            responses.append(await started)
    return Outcome(
        await started.code(),
        await started.details() or "",
        tuple(responses),
        tuple(await started.initial_metadata()),
        tuple(await started.trailing_metadata()),
    )


async def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return as soon as the condition holds. Raises `AssertionError` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s"
        await asyncio.sleep(0.005)
