"""The interceptor for `grpc.aio.server`: a thin driver of `grpc_bearer.authenticator`, with the names of `grpc_bearer.sync`.

Facts about grpcio 1.85 that shape it, each held by a test in `tests/rpc/`: the interceptor runs in the RPC's own task, so
a context variable set here reaches asynchronous handlers with no wrapper, and a cancelled caller cancels the wait. It starts
from a copy of the context at `server.start()`, so the variable is always set. An exception out of here would be sent to the
caller with its text. Synchronous handlers run in a thread that gets no context: those are wrapped.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from contextvars import copy_context
from enum import Enum
from typing import Any, NoReturn

import grpc

from .authenticator import MAX_ROUNDS, Authenticator, Candidate, still_no_key
from .claims import Claims, bind_claims
from .errors import AuthError
from .handlers import BoundedByHandler, Handler, behaviour_of, with_behaviour
from .keys.cache import Use
from .keys.jwks import Key
from .keys.refresher import Wait
from .policy import public_methods as public_method_names
from .status import grpc_code, log_refusal, message, trailers, unexpected

__all__ = ["AuthInterceptor", "AuthenticatedContext"]


class AuthenticatedContext(grpc.aio.ServicerContext[Any, Any]):
    """A handler's context that has the claims on it: the type to annotate with under `AuthInterceptor(context_claims=True)`."""

    claims: Claims


class _ContextWithClaims:
    """Stands in front of grpc's own context, which takes no attributes, and hands everything else on to it."""

    def __init__(self, context: Any, claims: Claims) -> None:
        self._context = context
        self.claims = claims

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


AuthenticatedContext.register(_ContextWithClaims)


class _Kind(Enum):
    """How grpc.aio runs a behaviour function; a wrapper has to keep it."""

    COROUTINE = "async def"
    ASYNC_GENERATOR = "async def with yield"
    SYNC_UNARY = "def, one response"
    SYNC_STREAM = "def, a response iterator"


def _kind(handler: Handler) -> _Kind:
    behaviour = behaviour_of(handler)
    if inspect.iscoroutinefunction(behaviour):
        return _Kind.COROUTINE
    if inspect.isasyncgenfunction(behaviour):
        return _Kind.ASYNC_GENERATOR
    return _Kind.SYNC_STREAM if handler.response_streaming else _Kind.SYNC_UNARY


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through to its handler with verified claims, or ends it. Put it first: it has to be the outermost.

    `public_methods`: full names (`/package.Service/Method`) that need no token, besides health and reflection
    (`public_defaults`). `context_claims`: hand handlers an `AuthenticatedContext`. `reveal_reasons`: off, a caller gets
    the bare status code.
    Raises `ConfigurationError`.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        public_methods: Iterable[str] = (),
        public_defaults: bool = True,
        context_claims: bool = False,
        reveal_reasons: bool = True,
    ) -> None:
        self._authenticator = authenticator
        self._public = public_method_names(public_methods, with_defaults=public_defaults)
        self._context_claims = context_claims
        self._reveal_reasons = reveal_reasons
        self._kinds = BoundedByHandler(_kind)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by grpc in the RPC's own task. Inner interceptors find the claims bound."""
        bind_claims(None)
        method = handler_call_details.method
        if method in self._public:
            return await continuation(handler_call_details)
        try:
            claims = await self._claims(handler_call_details.invocation_metadata)
        except AuthError as error:
            return await self._refused(continuation, handler_call_details, error)
        except Exception as error:
            return await self._refused(continuation, handler_call_details, unexpected(method, error))
        bind_claims(claims)
        handler = await continuation(handler_call_details)
        if handler is None:  # unknown to the server, which answers UNIMPLEMENTED
            return None
        try:
            return self._carried(method, handler, claims)
        except Exception as error:
            bind_claims(None)
            return self._denial(method, unexpected(method, error))

    async def _claims(self, metadata: Any) -> Claims:
        candidate = self._authenticator.read(metadata)
        step = self._authenticator.key_for(candidate)
        key = step.key if isinstance(step, Use) else await self._awaited_key(candidate, step)
        return self._authenticator.accept(candidate, key)

    async def _awaited_key(self, candidate: Candidate, step: Wait) -> Key:
        deadline = time.monotonic() + self._authenticator.wait_limit_s(candidate)
        for _round in range(MAX_ROUNDS):
            try:
                # The flight is a running future: a cancelled caller leaves it to the others who wait.
                await asyncio.wait_for(asyncio.wrap_future(step.flight), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                break
            asked = self._authenticator.key_for(candidate)
            if isinstance(asked, Use):
                return asked.key
            step = asked
        raise still_no_key()

    async def _refused(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
        error: AuthError,
    ) -> Handler | None:
        # Asked only whether the method exists: an unknown one stays UNIMPLEMENTED.
        if await continuation(details) is None:
            return None
        return self._denial(details.method, error)

    def _denial(self, method: str, error: AuthError) -> Handler:
        async def deny(_requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
            log_refusal(method, error)
            context.set_trailing_metadata(trailers(error, reveal_reason=self._reveal_reasons))
            await context.abort(grpc_code(error), message(error, reveal_reason=self._reveal_reasons))
            raise error  # abort raises; on no version of grpcio may a refused call go on

        # Stream-typed whatever the method's kind: a unary-typed one would wait for the request message first.
        return grpc.stream_unary_rpc_method_handler(deny)

    def _carried(self, method: str, handler: Handler, claims: Claims) -> Handler:
        """The handler itself where the context variable reaches it; wrapped for this call where it does not."""
        kind = self._kinds.get(method, handler)
        if kind in (_Kind.COROUTINE, _Kind.ASYNC_GENERATOR) and not self._context_claims:
            return handler
        return with_behaviour(handler, _carrying(behaviour_of(handler), kind, claims if self._context_claims else None))


def _carrying(behaviour: Callable[..., Any], kind: _Kind, claims: Claims | None) -> Callable[..., Any]:
    """`behaviour` for one call, of the same kind: in this context if it runs in a thread, with `claims` on its context."""

    def own(context: Any) -> Any:
        return context if claims is None else _ContextWithClaims(context, claims)

    here = copy_context()

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

    return {
        _Kind.COROUTINE: coroutine,
        _Kind.ASYNC_GENERATOR: async_generator,
        _Kind.SYNC_UNARY: sync_unary,
        _Kind.SYNC_STREAM: sync_stream,
    }[kind]
