"""The interceptor for `grpc.aio.server`: a thin driver of `grpc_bearer.gate`, with the names of `grpc_bearer.sync`.

Facts about grpcio 1.85 that shape it, each held by a test in `tests/rpc/`: the interceptor runs in the RPC's own task, so
a context variable set here reaches asynchronous handlers with no wrapper, and a cancelled caller cancels the wait. It starts
from a copy of the context at `server.start()`, so the variable is always set. An exception out of here would be sent to the
caller with its text. Synchronous handlers run in a thread that gets no context: those are wrapped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

import grpc

from .aio_handlers import AuthenticatedContext, End, Kind, bounded, carrying, kind_of
from .authenticator import Authenticator
from .bearer import authorization_value, has_authorization
from .claims import Claims, bind_claims
from .errors import AuthError
from .gate import MAX_ROUNDS, Candidate, Gate, still_no_key, wait_limit_s
from .handlers import BoundedByHandler, Handler
from .keys.cache import Use
from .keys.jwks import Key
from .keys.refresher import Wait
from .observe import Mode, Observer, Verdicts, unexpected
from .policy.model import Access, Policy
from .status import grpc_code, message, trailers
from .verifier import expired

__all__ = ["AuthInterceptor", "AuthenticatedContext"]

_AUTHENTICATED: Final = Access.AUTHENTICATED  # an enum's member costs a look-up that a hit can do without


class _Shape(NamedTuple):
    """What a handler is. `is_plain`: nothing has to be added to it for any call, since claims reach it by the context."""

    kind: Kind
    is_plain: bool


Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through to its handler with verified claims, or ends it. Put it first: it has to be the outermost.

    `context_claims`: hand handlers an `AuthenticatedContext`. `reveal_reasons`: off, a caller gets the bare status code.
    `mode`: "report" lets every call go on and only logs and observes what would be refused; handlers get claims that were
    verified, or none. `observer`: is told of every verdict, on the event loop; it must not block.
    Raises `ConfigurationError`.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        context_claims: bool = False,
        reveal_reasons: bool = True,
        mode: Mode = "enforce",
        observer: Observer | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._context_claims = context_claims
        self._reveal_reasons = reveal_reasons
        self._verdicts = Verdicts(mode, observer)
        self._shapes = BoundedByHandler(self._shape)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Called by grpc in the RPC's own task. Inner interceptors find the claims bound."""
        method = handler_call_details.method
        gate = self._authenticator.gate
        access = _AUTHENTICATED
        try:
            metadata = handler_call_details.invocation_metadata
            claims = gate.known(method, metadata)
            if claims is None:
                policy = gate.policy(method)
                access = policy.access
                if access is _AUTHENTICATED or (access is Access.OPTIONAL and has_authorization(metadata)):
                    claims = await self._verified(gate, policy, authorization_value(metadata))
        except AuthError as error:
            return await self._refused(continuation, handler_call_details, error)
        except Exception as error:
            return await self._refused(continuation, handler_call_details, unexpected(method, error))
        bind_claims(claims)
        handler = await continuation(handler_call_details)
        if handler is None or access is Access.PUBLIC:  # None: unknown to the server, which answers UNIMPLEMENTED
            return handler
        if self._verdicts.observed:
            self._verdicts.accepted(method, claims)
        try:
            shape = self._shapes.get(method, handler)
            return handler if shape.is_plain else self._carried(method, handler, shape.kind, gate, claims)
        except Exception as error:
            bind_claims(None)
            return self._denial(method, unexpected(method, error))

    async def _verified(self, gate: Gate, policy: Policy, authorization: str) -> Claims:
        fingerprint = gate.fingerprint(authorization)
        known = gate.recall(fingerprint, policy)
        if known is not None:
            return known
        candidate = gate.read_value(authorization, fingerprint)
        step = gate.key_for(candidate)
        key = step.key if isinstance(step, Use) else await self._awaited_key(gate, candidate, step)
        return gate.accept(candidate, key, policy)

    async def _awaited_key(self, gate: Gate, candidate: Candidate, step: Wait) -> Key:
        deadline = time.monotonic() + wait_limit_s(candidate)
        for _round in range(MAX_ROUNDS):
            try:
                # The flight is a running future: a cancelled caller leaves it to the others who wait.
                await asyncio.wait_for(asyncio.wrap_future(step.flight), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                break
            asked = gate.key_for(candidate)
            if isinstance(asked, Use):
                return asked.key
            step = asked
        raise still_no_key()

    async def _refused(self, continuation: Continuation, details: grpc.HandlerCallDetails, error: AuthError) -> Handler | None:
        bind_claims(None)
        # Asked also to learn whether the method exists: an unknown one stays UNIMPLEMENTED.
        handler = await continuation(details)
        if handler is None:
            return None
        if self._verdicts.enforced:
            return self._denial(details.method, error)
        self._verdicts.refused(details.method, error)
        shape = self._shapes.get(details.method, handler)
        return self._carried(details.method, handler, shape.kind, self._authenticator.gate, None)

    def _denial(self, method: str, error: AuthError) -> Handler:
        # A closure, where sync has one handler that looks into the context: an outer interceptor may have run this one in a
        # task of its own (`asyncio.wait_for`), whose context is gone when the handler runs.
        async def deny(_requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
            await self._abort(context, method, error)

        # Stream-typed whatever the method's kind: a unary-typed one would wait for the request message first.
        return grpc.stream_unary_rpc_method_handler(deny)

    async def _abort(self, context: Any, method: str, error: AuthError) -> NoReturn:
        await context.abort(*self._told(context, method, error))
        raise error  # abort raises; on no version of grpcio may a refused call go on

    def _told(self, context: Any, method: str, error: AuthError) -> tuple[grpc.StatusCode, str]:
        """Report a refusal and set its trailers. What is left to send: code and message."""
        self._verdicts.refused(method, error)
        context.set_trailing_metadata(trailers(error, reveal_reason=self._reveal_reasons))
        return grpc_code(error), message(error, reveal_reason=self._reveal_reasons)

    def _shape(self, handler: Handler) -> _Shape:
        kind = kind_of(handler)
        is_unary = not (handler.request_streaming or handler.response_streaming)
        return _Shape(kind, kind is Kind.COROUTINE and is_unary and not self._context_claims)

    def _carried(self, method: str, handler: Handler, kind: Kind, gate: Gate, claims: Claims | None) -> Handler:
        """The handler itself where nothing has to be added to it; wrapped for this call where something has."""
        if claims is not None and (handler.request_streaming or handler.response_streaming):
            ends_at = gate.ends_at(claims, gate.policy(method))
            if ends_at is not None and self._verdicts.enforced:
                handler = bounded(handler, kind, self._end(method, gate, claims.exp, ends_at))
                kind = kind_of(handler)
        if not self._context_claims and kind in (Kind.COROUTINE, Kind.ASYNC_GENERATOR):
            return handler
        return carrying(handler, kind, with_claims=self._context_claims, claims=claims)

    def _end(self, method: str, gate: Gate, exp: float, ends_at: float) -> End:
        async def abort(context: Any) -> NoReturn:
            await self._abort(context, method, expired(exp))

        def mark(context: Any) -> None:
            code, text = self._told(context, method, expired(exp))
            context.set_code(code)
            context.set_details(text)

        def abort_in_thread(context: Any) -> NoReturn:
            error = expired(exp)
            context.abort(*self._told(context, method, error))
            raise error

        return End(lambda: gate.left_s(ends_at), abort, abort_in_thread, mark)
