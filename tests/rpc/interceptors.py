"""Interceptors of either stack, as users have them around ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc

from grpc_bearer import Authenticator, aio, sync
from tests.support.calls import Metadata, bearer
from tests.support.matrix import SERVICE
from tests.support.serving import Stack

Before = Callable[[grpc.HandlerCallDetails], object]
After = Callable[[grpc.HandlerCallDetails, Any], Any]


def interceptor(
    stack: Stack, *, before: Before = lambda _details: None, after: After = lambda _details, handler: handler
) -> Any:
    """One that does `before`, and passes the handler that it gets from further in through `after`."""

    class Sync(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
            before(handler_call_details)
            return after(handler_call_details, continuation(handler_call_details))

    class Aio(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
            before(handler_call_details)
            return after(handler_call_details, await continuation(handler_call_details))

    return Sync() if stack == "sync" else Aio()


class Counting:
    """`arrived` counts the calls that came to the server."""

    def __init__(self, stack: Stack) -> None:
        self.arrived = 0
        self.interceptor = interceptor(stack, before=self._count)

    def _count(self, _details: grpc.HandlerCallDetails) -> None:
        self.arrived += 1


_ATTRIBUTES: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def rewrapping(stack: Stack, context_of: Callable[[Any], Any]) -> Any:
    """One that replaces every handler by its own around it, which hands on a context of its own: as OpenTelemetry's do."""

    def rewrapped(_details: grpc.HandlerCallDetails, handler: Any) -> Any:
        if handler is None:
            return None
        attribute, make = _ATTRIBUTES[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, attribute)

        def unary(request: Any, context: Any) -> Any:
            return behaviour(request, context_of(context))

        def stream(request: Any, context: Any) -> Iterator[Any]:
            yield from behaviour(request, context_of(context))

        async def aio_unary(request: Any, context: Any) -> Any:
            return await behaviour(request, context_of(context))

        async def aio_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async for response in behaviour(request, context_of(context)):
                yield response

        wrappers = {("sync", False): unary, ("sync", True): stream, ("aio", False): aio_unary, ("aio", True): aio_stream}
        wrapper = wrappers[stack, bool(handler.response_streaming)]
        return make(wrapper, handler.request_deserializer, handler.response_serializer)

    return interceptor(stack, after=rewrapped)


class ContextProxy:
    """A context in front of grpc's. `aborted` lists the codes of all that were aborted."""

    aborted: list[grpc.StatusCode]

    def __init__(self, context: Any, aborted: list[grpc.StatusCode]) -> None:
        self._context = context
        self.aborted = aborted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def abort(self, code: grpc.StatusCode, *args: Any, **kwargs: Any) -> Any:
        self.aborted.append(code)
        return self._context.abort(code, *args, **kwargs)


class Details(grpc.HandlerCallDetails):
    """What grpc tells an interceptor of a call."""

    def __init__(self, method: str, metadata: Metadata) -> None:
        self.method = method
        self.invocation_metadata = metadata


async def intercepted(
    stack: Stack, auth: Authenticator, method: str, served: Any, token: str | None = None, **of_interceptor: Any
) -> Any:
    """What ours makes of the handler of one of the matrix service's methods, for a call with this token."""
    details = Details(f"/{SERVICE}/{method}", bearer(token))

    async def continuation(_details: grpc.HandlerCallDetails) -> Any:
        return served

    if stack == "sync":
        return sync.AuthInterceptor(auth, **of_interceptor).intercept_service(lambda _details: served, details)
    return await aio.AuthInterceptor(auth, **of_interceptor).intercept_service(continuation, details)
