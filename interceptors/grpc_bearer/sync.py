"""The interceptor for `grpc.server`: a thin driver of `grpc_bearer.authenticator`.

Facts about grpcio 1.85 that shape it, each held by a test in `tests/rpc/`:
`intercept_service` runs on the one serving thread, so nothing waits there. A token's form and claims are looked at there
(microseconds), so that a refusal never takes a worker of the service; its signature is verified by the worker that goes on
to run the handler. A unary-typed handler is given its worker only to wait for the request message, so every wrapper is
stream-typed: it verifies, and then reads the one message itself. A caller that sends headers and no body holds a worker
only once it has proved who it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc

from .authenticator import MAX_ROUNDS, Authenticator, Candidate, still_no_key
from .claims import Claims, bind_claims
from .errors import AuthError, ConfigurationError, internal, keys_unavailable
from .handlers import BoundedByHandler, Handler, behaviour_of, with_behaviour
from .keys.cache import Use
from .keys.jwks import Key
from .policy import public_methods as public_method_names
from .status import grpc_code, log_refusal, message, trailers, unexpected

__all__ = ["AuthInterceptor", "AuthenticatedContext"]


class AuthenticatedContext(grpc.ServicerContext):
    """A handler's context that has the claims on it: the type to annotate with under `AuthInterceptor(context_claims=True)`."""

    claims: Claims


class _Pending:
    """A call whose token awaits its signature; `key` is None when it awaits its key too."""

    __slots__ = ("candidate", "key", "method")

    def __init__(self, method: str, candidate: Candidate, key: Key | None) -> None:
        self.method = method
        self.candidate = candidate
        self.key = key


_pending: ContextVar[_Pending] = ContextVar("grpc_bearer_pending")


class AuthInterceptor(grpc.ServerInterceptor):
    """Lets a call through to its handler with verified claims, or ends it. Put it first: it has to be the outermost.

    `public_methods`: full names (`/package.Service/Method`) that need no token, besides health and reflection
    (`public_defaults`). `context_claims`: put the claims on the handler's context too (`AuthenticatedContext`).
    `reveal_reasons`: off, a caller gets the bare status code. `max_waiters`: workers that may wait for an issuer's keys at
    the same time; further calls get UNAVAILABLE at once. A quarter of the server's workers is a good figure; it cannot be
    read off the server. `Authenticator.warm()` before serving makes waiting rare.
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
        max_waiters: int = 2,
    ) -> None:
        if max_waiters < 0:
            raise ConfigurationError("max_waiters: has to be 0 or more")
        self._authenticator = authenticator
        self._public = public_method_names(public_methods, with_defaults=public_defaults)
        self._context_claims = context_claims
        self._reveal_reasons = reveal_reasons
        self._waiters = threading.Semaphore(max_waiters)
        self._wrappers = BoundedByHandler(self._wrap)
        # Of its own, so that refusals never queue behind busy handlers. Never shut down: a submit to a closed pool would
        # end grpc's serving thread. Idle threads end with the process.
        self._denial_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grpc-bearer-deny")

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Handler | None], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Called by grpc on the serving thread, in a fresh context for each call."""
        handler = continuation(handler_call_details)
        if handler is None:  # unknown to the server, which answers UNIMPLEMENTED
            return None
        method = handler_call_details.method
        if method in self._public:
            bind_claims(None)
            return handler
        try:
            candidate = self._authenticator.read(handler_call_details.invocation_metadata)
            step = self._authenticator.key_for(candidate)
            _pending.set(_Pending(method, candidate, step.key if isinstance(step, Use) else None))
            return self._wrappers.get(method, handler)
        except AuthError as error:
            return self._denial(method, error)
        except Exception as error:
            return self._denial(method, unexpected(method, error))

    def _denial(self, method: str, error: AuthError) -> Handler:
        def deny(_requests: Iterator[Any], context: grpc.ServicerContext) -> NoReturn:
            self._abort(context, method, error)

        # grpc reads it off the behaviour function, not off the handler.
        deny.experimental_thread_pool = self._denial_pool  # type: ignore[attr-defined]
        # Stream-typed whatever the method's kind: a unary-typed one would wait for the request message first.
        return grpc.stream_unary_rpc_method_handler(deny)

    def _abort(self, context: grpc.ServicerContext, method: str, error: AuthError) -> NoReturn:
        log_refusal(method, error)
        context.set_trailing_metadata(trailers(error, reveal_reason=self._reveal_reasons))
        context.abort(grpc_code(error), message(error, reveal_reason=self._reveal_reasons))
        raise error  # abort raises; on no version of grpcio may a refused call go on

    def _wrap(self, handler: Handler) -> Handler:
        """A stream-typed handler that admits the call before it reads a message."""
        behaviour = behaviour_of(handler)
        one_request = not handler.request_streaming

        def guarded(requests: Iterator[Any], context: grpc.ServicerContext, *send_response: Any) -> Any:
            self._admit(context)
            if not one_request:
                return behaviour(requests, context, *send_response)
            for request in requests:
                return behaviour(request, context, *send_response)
            # The client half-closed without a message: what grpc itself answers to that.
            return context.abort(grpc.StatusCode.UNIMPLEMENTED, "exactly one request message is required")

        return with_behaviour(handler, guarded, request_streaming=True)

    def _admit(self, context: grpc.ServicerContext) -> None:
        """In the worker: bind verified claims, or abort. Returns only for a verified token."""
        pending = _pending.get(None)
        if pending is None:
            self._abort(context, "a method", internal("a guarded handler ran without its interceptor"))
        try:
            key = pending.key if pending.key is not None else self._awaited_key(pending.candidate, context)
            claims = self._authenticator.accept(pending.candidate, key)
            bind_claims(claims)
            if self._context_claims:
                context.claims = claims  # type: ignore[attr-defined]  # grpc's sync context takes attributes
        except AuthError as error:
            self._abort(context, pending.method, error)
        except Exception as error:
            self._abort(context, pending.method, unexpected(pending.method, error))

    def _awaited_key(self, candidate: Candidate, context: grpc.ServicerContext) -> Key:
        step = self._authenticator.key_for(candidate)  # anew: the key may have come while the call queued for this worker
        if isinstance(step, Use):
            return step.key
        if not self._waiters.acquire(blocking=False):
            raise keys_unavailable("as many calls as may wait for keys do so already")
        try:
            limit_s = self._authenticator.wait_limit_s(candidate)
            deadline = time.monotonic() + min(limit_s, context.time_remaining())
            for _round in range(MAX_ROUNDS):
                try:
                    step.flight.result(timeout=max(0.0, deadline - time.monotonic()))
                except TimeoutError:
                    break
                step = self._authenticator.key_for(candidate)
                if isinstance(step, Use):
                    return step.key
            raise still_no_key()
        finally:
            self._waiters.release()
