"""The interceptor for `grpc.server`: a thin driver of `grpc_bearer.gate`.

Facts about grpcio 1.85 that shape it, each held by a test in `tests/rpc/`:
`intercept_service` runs on the one serving thread, so nothing waits there, and nothing is read there either: a new token
takes that thread only to be handed on, and its form, claims and signature are verified by the worker that goes on to run the
handler. A unary-typed handler is given its worker only to wait for the request message, so every wrapper is stream-typed: it
verifies, and then reads the one message itself. A caller that sends headers and no body holds a worker only once it has
proved who it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Final, NoReturn

import grpc

from .authenticator import Authenticator
from .bearer import authorization_value, has_authorization
from .claims import Claims, bind_claims
from .errors import AuthError, ConfigurationError, internal, keys_unavailable
from .expiry import Alarms
from .gate import MAX_ROUNDS, Candidate, Gate, still_no_key, wait_limit_s
from .handlers import BoundedByHandler, Handler, behaviour_of, closing, with_behaviour
from .keys.cache import Use
from .keys.jwks import Key
from .keys.refresher import Wait
from .observe import Mode, Observer, Verdicts, unexpected
from .policy.model import AUTHENTICATED, Access, Policy, Streams
from .status import grpc_code, message, trailers
from .verdict_cache import Fingerprint
from .verifier import expired

__all__ = ["AuthInterceptor", "AuthenticatedContext"]

_AUTHENTICATED: Final = Access.AUTHENTICATED  # an enum's member costs a look-up that a hit can do without

CANCEL_AFTER_S: Final = 1.0
"""How long after a token's end a stream has to move a message, and learn of it properly, before it is cancelled."""


class AuthenticatedContext(grpc.ServicerContext):
    """A handler's context that has the claims on it: the type to annotate with under `AuthInterceptor(context_claims=True)`.

    `claims` is None where a call goes on without a verified token: on methods with optional access, and in mode "report".
    """

    claims: Claims


class _Pending:
    """A call that its handler's wrapper has to admit: `authorization` is what has to be verified.

    With `claims` that is done. With neither there is nothing to verify: the call goes on without claims.
    """

    __slots__ = ("authorization", "claims", "fingerprint", "gate", "method", "policy")

    def __init__(
        self,
        method: str,
        gate: Gate,
        policy: Policy,
        authorization: str | None = None,
        fingerprint: Fingerprint = "",
        claims: Claims | None = None,
    ) -> None:
        self.method = method
        self.gate = gate
        self.policy = policy
        self.authorization = authorization
        self.fingerprint = fingerprint
        self.claims = claims


_pending: ContextVar[_Pending] = ContextVar("grpc_bearer_pending")
_refusal: ContextVar[tuple[str, AuthError]] = ContextVar("grpc_bearer_refusal")
_STRAY: Final = ("a method", internal("a handler of ours ran without its interceptor"))


class _End:
    """When a stream of this call has to end."""

    __slots__ = ("at", "claims", "pending")

    def __init__(self, pending: _Pending, claims: Claims, at: float) -> None:
        self.pending = pending
        self.claims = claims
        self.at = at

    @property
    def left_s(self) -> float:
        return self.pending.gate.left_s(self.at)


class AuthInterceptor(grpc.ServerInterceptor):
    """Lets a call through to its handler with verified claims, or ends it. Put it first: it has to be the outermost.

    `context_claims`: put the claims on the handler's context too (`AuthenticatedContext`). `reveal_reasons`: off, a caller
    gets the bare status code. `mode`: "report" lets every call go on and only logs and observes what would be refused;
    handlers get claims that were verified, or none. `observer`: is told of every verdict, in the thread that made it; it must
    not block. `max_waiters`: workers that may wait for an issuer's keys at the same time; further calls get UNAVAILABLE at
    once. A quarter of the server's workers is a good figure; it cannot be read off the server. `Authenticator.warm()` before
    serving makes waiting rare.
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
        max_waiters: int = 2,
    ) -> None:
        if max_waiters < 0:
            raise ConfigurationError("max_waiters: has to be 0 or more")
        self._authenticator = authenticator
        self._context_claims = context_claims
        self._reveal_reasons = reveal_reasons
        self._verdicts = Verdicts(mode, observer)
        self._waiters = threading.Semaphore(max_waiters)
        self._wrappers = BoundedByHandler(self._wrap)
        self._alarms = Alarms()
        # Of its own, so that refusals never queue behind busy handlers. Never shut down: a submit to a closed pool would
        # end grpc's serving thread. Idle threads end with the process.
        self._denial_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grpc-bearer-deny")
        self._denial = self._denying()

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Handler | None], handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Called by grpc on the serving thread, in a fresh context for each call."""
        handler = continuation(handler_call_details)
        if handler is None:  # unknown to the server, which answers UNIMPLEMENTED
            return None
        method = handler_call_details.method
        gate = self._authenticator.gate
        try:
            metadata = handler_call_details.invocation_metadata
            claims = gate.known(method, metadata)
            if claims is None:
                policy = gate.policy(method)
                if policy.access is not _AUTHENTICATED and (policy.access is Access.PUBLIC or not has_authorization(metadata)):
                    return self._unasked(method, handler, gate, policy)
                authorization = authorization_value(metadata)
                fingerprint = gate.fingerprint(authorization)
                claims = gate.recall(fingerprint, policy)
                if claims is None:
                    _pending.set(_Pending(method, gate, policy, authorization, fingerprint))
                    return self._wrappers.get(method, handler)
            if self._context_claims or handler.request_streaming or handler.response_streaming:
                policy = gate.policy(method)
                if self._context_claims or policy.streams is Streams.TERMINATE:
                    _pending.set(_Pending(method, gate, policy, claims=claims))
                    return self._wrappers.get(method, handler)
            if self._verdicts.observed:
                self._verdicts.accepted(method, claims)
            bind_claims(claims)
            return handler  # itself, where nothing has to be added to it: the hot path
        except AuthError as error:
            return self._refused(method, handler, gate, error)
        except Exception as error:
            return self._refused(method, handler, gate, unexpected(method, error))

    def _unasked(self, method: str, handler: Handler, gate: Gate, policy: Policy) -> Handler:
        """A call that may go on without a token."""
        bind_claims(None)
        if policy.access is Access.PUBLIC:
            return handler
        self._verdicts.accepted(method, None)
        return self._without_claims(method, handler, gate)

    def _refused(self, method: str, handler: Handler, gate: Gate, error: AuthError) -> Handler:
        if not self._verdicts.enforced:
            self._verdicts.refused(method, error)
            bind_claims(None)
            return self._without_claims(method, handler, gate)

        _refusal.set((method, error))
        return self._denial

    def _denying(self) -> Handler:
        """The handler of refused calls. It finds what to say in the call's context, so that one serves them all."""

        def deny(_requests: Iterator[Any], context: grpc.ServicerContext) -> NoReturn:
            self._abort(context, *_refusal.get(_STRAY))

        # grpc reads it off the behaviour function, not off the handler.
        deny.experimental_thread_pool = self._denial_pool  # type: ignore[attr-defined]
        # Stream-typed whatever the method's kind: a unary-typed one would wait for the request message first.
        return grpc.stream_unary_rpc_method_handler(deny)

    def _without_claims(self, method: str, handler: Handler, gate: Gate) -> Handler:
        if not self._context_claims:
            return handler
        _pending.set(_Pending(method, gate, AUTHENTICATED))
        return self._wrappers.get(method, handler)

    def _abort(self, context: grpc.ServicerContext, method: str, error: AuthError) -> NoReturn:
        self._verdicts.refused(method, error)
        context.set_trailing_metadata(trailers(error, reveal_reason=self._reveal_reasons))
        context.abort(grpc_code(error), message(error, reveal_reason=self._reveal_reasons))
        raise error  # abort raises; on no version of grpcio may a refused call go on

    def _wrap(self, handler: Handler) -> Handler:
        """A stream-typed handler that admits the call before it reads a message."""
        behaviour = behaviour_of(handler)
        one_request = not handler.request_streaming
        is_stream = bool(handler.request_streaming or handler.response_streaming)

        def guarded(requests: Iterator[Any], context: grpc.ServicerContext, *send_response: Any) -> Any:
            end = self._admit(context, is_stream)
            if end is not None:
                return self._run_until(end, handler, behaviour, requests, context, *send_response)
            return (
                _run(behaviour, requests, context, *send_response)
                if one_request
                else behaviour(requests, context, *send_response)
            )

        return with_behaviour(handler, guarded, request_streaming=True)

    def _admit(self, context: grpc.ServicerContext, is_stream: bool) -> _End | None:
        """In the worker: bind verified claims, or abort. Returns only for a call that may go on; for a stream, its end."""
        pending = _pending.get(None)
        if pending is None:
            self._abort(context, *_STRAY)
        gate, claims = pending.gate, pending.claims
        ends_at: float | None = None
        try:
            if pending.authorization is not None:
                candidate = gate.read_value(pending.authorization, pending.fingerprint)
                step = gate.key_for(candidate)
                key = step.key if isinstance(step, Use) else self._awaited_key(gate, candidate, step, context)
                claims = gate.accept(candidate, key, pending.policy)
            if claims is not None:
                if is_stream:
                    ends_at = gate.ends_at(claims, pending.policy)
                if self._verdicts.observed:
                    self._verdicts.accepted(pending.method, claims)
        except AuthError as error:
            self._refuse_in_worker(context, pending, error)
        except Exception as error:
            self._refuse_in_worker(context, pending, unexpected(pending.method, error))
        bind_claims(claims)
        if self._context_claims:
            context.claims = claims  # type: ignore[attr-defined]  # grpc's sync context takes attributes
        return None if claims is None or ends_at is None else _End(pending, claims, ends_at)

    def _refuse_in_worker(self, context: grpc.ServicerContext, pending: _Pending, error: AuthError) -> None:
        if self._verdicts.enforced:
            self._abort(context, pending.method, error)
        self._verdicts.refused(pending.method, error)

    def _awaited_key(self, gate: Gate, candidate: Candidate, step: Wait, context: grpc.ServicerContext) -> Key:
        if not self._waiters.acquire(blocking=False):
            raise keys_unavailable("as many calls as may wait for keys do so already")
        try:
            deadline = time.monotonic() + min(wait_limit_s(candidate), context.time_remaining())
            for _round in range(MAX_ROUNDS):
                try:
                    step.flight.result(timeout=max(0.0, deadline - time.monotonic()))
                except TimeoutError:
                    break
                asked = gate.key_for(candidate)
                if isinstance(asked, Use):
                    return asked.key
                step = asked
            raise still_no_key()
        finally:
            self._waiters.release()

    def _run_until(
        self, end: _End, handler: Handler, behaviour: Any, requests: Iterator[Any], context: grpc.ServicerContext, *rest: Any
    ) -> Any:
        """Run a stream that ends with its token: with the next message or, when none moves, by cancelling the call."""
        if self._verdicts.enforced:
            alarm = self._alarms.at(max(0.0, end.left_s) + CANCEL_AFTER_S, lambda: self._cancel(end, context))
            if not context.add_callback(alarm.cancel):
                alarm.cancel()
            requests = self._until(end, requests, context)
        served = behaviour(requests, context, *rest) if handler.request_streaming else _run(behaviour, requests, context, *rest)
        iterates = handler.response_streaming and not rest  # with `send_response`, the handler sends by itself
        return self._responses_until(end, served, context) if iterates and self._verdicts.enforced else served

    def _responses_until(self, end: _End, responses: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        with closing(responses):
            yield from self._until(end, responses, context)

    def _until(self, end: _End, messages: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for each in messages:
            if end.left_s <= 0:
                self._abort(context, end.pending.method, expired(end.claims.exp))
            yield each

    def _cancel(self, end: _End, context: grpc.ServicerContext) -> None:
        self._verdicts.refused(end.pending.method, expired(end.claims.exp))
        context.cancel()


def _run(behaviour: Any, requests: Iterator[Any], context: grpc.ServicerContext, *rest: Any) -> Any:
    """Run a handler of one request: read it off the stream."""
    for request in requests:
        return behaviour(request, context, *rest)
    # The client half-closed without a message: what grpc itself answers to that.
    return context.abort(grpc.StatusCode.UNIMPLEMENTED, "exactly one request message is required")
