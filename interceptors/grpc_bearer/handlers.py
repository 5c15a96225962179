"""Method handlers of grpc: their behaviour function by kind, rebuilt handlers, and a bounded memo keyed by identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeAlias, TypeVar

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[..., Any]
T = TypeVar("T")

MAX_METHODS = 10_000

_ATTRIBUTES = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour_of(handler: Handler) -> Behaviour:
    """The function that serves the method. Raises `TypeError` for a handler that has none of its kind."""
    behaviour = getattr(handler, _ATTRIBUTES[bool(handler.request_streaming), bool(handler.response_streaming)])
    if behaviour is None:
        raise TypeError("a handler without a behaviour of its kind")
    return behaviour  # type: ignore[no-any-return]


def with_behaviour(handler: Handler, behaviour: Behaviour, *, request_streaming: bool | None = None) -> Handler:
    """A handler like `handler` around another function, of the same kind unless `request_streaming` says otherwise.

    What grpc reads off the function itself (`experimental_thread_pool`, `experimental_non_blocking`) is carried over.
    """
    original = behaviour_of(handler)
    for attribute in ("experimental_thread_pool", "experimental_non_blocking"):
        if hasattr(original, attribute):
            setattr(behaviour, attribute, getattr(original, attribute))
    streaming = bool(handler.request_streaming) if request_streaming is None else request_streaming
    make = _MAKERS[streaming, bool(handler.response_streaming)]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


@contextmanager
def closing(responses: Any) -> Iterator[None]:
    """Leave a handler's response iterator in the end, so that its `finally` runs now and not when it is collected."""
    try:
        yield
    finally:
        close = getattr(responses, "close", None)
        if close is not None:
            close()


class BoundedByHandler(Generic[T]):
    """What was made of each method's handler, made anew when the handler is another object.

    By identity, because an inner interceptor may return a handler that closes over one call's metadata: what was made of
    that must never serve another call. Bounded, because a generic handler may answer to any name that a caller makes up.
    """

    def __init__(self, make: Callable[[Handler], T], most: int = MAX_METHODS) -> None:
        self._make = make
        self._most = most
        self._made: dict[str, tuple[Handler, T]] = {}

    def get(self, method: str, handler: Handler) -> T:
        """What `make` makes of `handler`, remembered for the method."""
        known = self._made.get(method)
        if known is not None and known[0] is handler:
            return known[1]
        made = self._make(handler)
        if len(self._made) >= self._most:
            self._made.clear()
        self._made[method] = (handler, made)
        return made
