"""The floor: interceptors that do no more than nobody can do without, for the shares that no checks at all would leave.

A token like the first one is a look-up in a dictionary and a context variable; any other is its raw RS256 signature, verified
by cryptography, in a wrapper made once. Nothing is read of it, nothing is refused for what it says. Not for use.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

Details = grpc.HandlerCallDetails

_verified: ContextVar[str] = ContextVar("floor_verified")
_PADDING, _HASH = PKCS1v15(), SHA256()


class _Signatures:
    def __init__(self, jwks_uri: str) -> None:
        keys = jwt.PyJWKClient(jwks_uri).get_signing_keys()
        self._key: Any = next(key.key for key in keys if key.key_id == "RS256")
        self.known: dict[str, str] = {}

    def verify(self, authorization: str) -> None:
        """Raises `cryptography.exceptions.InvalidSignature`."""
        signing_input, _dot, signature = authorization[7:].rpartition(".")
        self._key.verify(urlsafe_b64decode(signature + "=="), signing_input.encode(), _PADDING, _HASH)
        if not self.known:
            self.known[authorization] = authorization
        _verified.set(authorization)


def _authorization(details: Details) -> str:
    for key, value in details.invocation_metadata:
        if key == "authorization":
            return str(value)
    return ""


class SyncFloor(grpc.ServerInterceptor):
    """For `grpc.server`: verifies in the worker, as ours does."""

    def __init__(self, jwks_uri: str) -> None:
        self._signatures = _Signatures(jwks_uri)
        self._wrapped: dict[int, Any] = {}

    def intercept_service(self, continuation: Callable[[Details], Any], details: Details) -> Any:
        handler = continuation(details)
        authorization = _authorization(details)
        known = self._signatures.known.get(authorization)
        _verified.set(authorization)
        if known is not None:
            return handler
        wrapped = self._wrapped.get(id(handler))
        if wrapped is None:
            wrapped = self._wrapped[id(handler)] = self._wrap(handler)
        return wrapped

    def _wrap(self, handler: Any) -> Any:
        behaviour = handler.unary_unary

        def guarded(requests: Iterator[Any], context: Any) -> Any:
            self._signatures.verify(_verified.get())
            return behaviour(next(requests), context)

        return grpc.stream_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)


class AioFloor(grpc.aio.ServerInterceptor):
    """For `grpc.aio.server`: verifies inline."""

    def __init__(self, jwks_uri: str) -> None:
        self._signatures = _Signatures(jwks_uri)

    async def intercept_service(self, continuation: Callable[[Details], Awaitable[Any]], details: Details) -> Any:
        authorization = _authorization(details)
        if authorization in self._signatures.known:
            _verified.set(authorization)
        else:
            self._signatures.verify(authorization)
        return await continuation(details)
