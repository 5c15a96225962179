"""A bound on calls that nobody had to prove anything for: those without a token, to methods that are open without one.

Each call under way counts against the server's `max_concurrent_rpcs`, and a stranger's may go on for ever: `Health.Watch` by
its nature, reflection by silence, and any other by headers without a message, for which grpc waits before it asks the
handler (measured, 1.85: 100 connections of 100 streams shut everybody out). Here they have few places of their own.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc

from grpc_bearer import Access, Authenticator, current_claims_or_none
from grpc_bearer.handlers import behaviour_of

MESSAGE_S: Final = 10.0
"""How long a stranger's next message may take. Not the server's: a watcher is told nothing for as long as nothing changes."""
HOST_SHARE: Final = 4
"""One host has a quarter of a method's places at the most, so that it cannot have all of them."""

_OPEN: Final = (Access.PUBLIC, Access.OPTIONAL)
_FULL: Final = "too many calls without a token at the same time"
_SILENT: Final = "no message came in time"


class _FullError(Exception):
    """There is no place."""


class _NoMessageError(Exception):
    """The requests ended before the one that is needed."""


class StrangersLimit(grpc.aio.ServerInterceptor):
    """Goes inside `AuthInterceptor`. `places`: strangers' calls at the same time to one method; further ones end with
    RESOURCE_EXHAUSTED. For handlers that are coroutines and asynchronous generators.

    A call of a method that needs a token, and any call with verified claims, passes untouched.
    """

    def __init__(self, auth: Authenticator, places: int, *, message_s: float = MESSAGE_S) -> None:
        self._auth = auth
        self._places = places
        self._places_of_host = max(1, places // HOST_SHARE)
        self._message_s = message_s
        self.taken: Final[Counter[str | tuple[str, str]]] = Counter()  # by method, and by method and host

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Called by grpc in the RPC's own task."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or current_claims_or_none() is not None or self._auth.gate.policy(method).access not in _OPEN:
            return handler
        return self._limited(method, handler)

    def _limited(self, method: str, handler: Any) -> Any:
        """The handler as a stream-typed one: grpc then leaves it to us to wait for the message."""
        behaviour = behaviour_of(handler)

        # By `context.read`, and not by the iterator that grpc hands over: on grpcio 1.72 one that is left before its end keeps
        # the call's place on its connection until the garbage is collected (measured).
        async def asked(context: Any) -> Any:
            return self._paced(context) if handler.request_streaming else await self._only(context)

        async def unary(_requests: AsyncIterator[Any], context: Any) -> Any:
            try:
                with self._place(method, context):
                    return await behaviour(await asked(context), context)
            except (TimeoutError, _FullError, _NoMessageError) as error:
                await _abort(context, error)

        async def stream(_requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            try:
                with self._place(method, context):
                    async with aclosing(behaviour(await asked(context), context)) as responses:
                        async for response in responses:
                            yield response
            except (TimeoutError, _FullError, _NoMessageError) as error:
                await _abort(context, error)

        serializers = handler.request_deserializer, handler.response_serializer
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(stream, *serializers)
        return grpc.stream_unary_rpc_method_handler(unary, *serializers)

    @contextmanager
    def _place(self, method: str, context: Any) -> Iterator[None]:
        """Hold a place for as long as the call lasts. Raises `_FullError`."""
        of_host = method, host_of(context.peer())
        if self.taken[method] >= self._places or self.taken[of_host] >= self._places_of_host:
            raise _FullError
        for key in (method, of_host):
            self.taken[key] += 1
        try:
            yield
        finally:
            for key in (method, of_host):
                self.taken[key] -= 1
                if not self.taken[key]:
                    del self.taken[key]  # hosts come and go

    async def _next(self, context: Any) -> Any:
        """The next message, `EOF` after the last."""
        async with asyncio.timeout(self._message_s):
            return await context.read()

    async def _only(self, context: Any) -> Any:
        message = await self._next(context)
        if message is grpc.aio.EOF:
            raise _NoMessageError
        return message

    async def _paced(self, context: Any) -> AsyncIterator[Any]:
        while (message := await self._next(context)) is not grpc.aio.EOF:
            yield message


async def _abort(context: Any, error: Exception) -> NoReturn:
    if isinstance(error, _FullError):
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _FULL)
    elif isinstance(error, TimeoutError):
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, _SILENT)
    else:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
    raise error  # abort raises


def host_of(peer: str) -> str:
    """The host of a `context.peer()`, without the port. IPv6: its /64, since a host has as many addresses in it as it likes."""
    kind, _, rest = peer.partition(":")
    text = unquote(rest).rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return kind  # a Unix socket: all that use it are one host
    if isinstance(address, ipaddress.IPv4Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
