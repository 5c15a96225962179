"""The interceptors that are measured: none, one that does nothing, ours, and what the tutorials teach; for both stacks."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import grpc
import jwt

from benchmarks import extras
from benchmarks.floor import AioFloor, SyncFloor
from grpc_bearer import Authenticator, CachePolicy, Issuer, Policies, VerdictCachePolicy, aio, sync

Variant = Literal["bare", "noop", "floor", "ours", "ours-fast", "ours-hashed", "tutorial", "tutorial-lru"]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Details = grpc.HandlerCallDetails

_claims: ContextVar[dict[str, Any]] = ContextVar("tutorial_claims")


def authenticator(issuer: str, audience: str, jwks_uri: str, *, hashed: bool = False) -> Authenticator:
    """Ours, as a user would set it up. Raises `RuntimeError` when the keys cannot be had."""
    ours = Authenticator(
        [Issuer(issuer, audiences=[audience], jwks_uri=jwks_uri, cache=CachePolicy(max_keys=10_000))],
        verdicts=VerdictCachePolicy(hashed=hashed),
    )
    if not ours.warm(10.0):
        raise RuntimeError("the benchmark's own issuer did not answer")
    return ours


def reloading(authenticator: Authenticator, every_s: float) -> Authenticator:
    """One whose policies are swapped again and again, by turns for others and back, as by a reload of a configuration."""

    def reload() -> None:
        for number in itertools.count():
            time.sleep(every_s)
            authenticator.reload(policies=Policies(public_methods=["/some.Service/Method"] if number % 2 else []))

    if every_s:
        threading.Thread(target=reload, daemon=True).start()
    return authenticator


def _ours(variant: Variant, issuer: str, audience: str, jwks_uri: str, reload_every_s: float) -> Authenticator:
    extras.use(variant == "ours-fast")
    return reloading(authenticator(issuer, audience, jwks_uri, hashed=variant == "ours-hashed"), reload_every_s)


def _tutorial_check(issuer: str, audience: str, jwks_uri: str, *, lru: bool) -> Callable[[str], dict[str, Any]]:
    client = jwt.PyJWKClient(jwks_uri)

    def check(token: str) -> dict[str, Any]:
        key = client.get_signing_key_from_jwt(token)
        algorithms = ["RS256", "ES256", "EdDSA"]
        return dict(jwt.decode(token, key.key, algorithms=algorithms, audience=audience, issuer=issuer))

    # The LRU is what one finds beside it: it goes on accepting a token that has expired or whose key is gone.
    return lru_cache(maxsize=4096)(check) if lru else check


def _token(details: Details) -> str:
    value = dict(details.invocation_metadata).get("authorization", "")
    return str(value).removeprefix("Bearer ")


class SyncNoop(grpc.ServerInterceptor):
    """Hands the call on."""

    def intercept_service(self, continuation: Callable[[Details], Handler | None], details: Details) -> Handler | None:
        return continuation(details)


class SyncTutorial(grpc.ServerInterceptor):
    """The shape of grpc's own authentication example, with PyJWT's documented way to use a `jwks_uri`."""

    def __init__(self, check: Callable[[str], dict[str, Any]]) -> None:
        def abort(_request: Any, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid token")

        self._check = check
        self._abort: Handler = grpc.unary_unary_rpc_method_handler(abort)

    def intercept_service(self, continuation: Callable[[Details], Handler | None], details: Details) -> Handler | None:
        try:
            _claims.set(self._check(_token(details)))
        except jwt.PyJWTError:
            return self._abort
        return continuation(details)


class AioNoop(grpc.aio.ServerInterceptor):
    """Hands the call on."""

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler | None]], details: Details
    ) -> Handler | None:
        return await continuation(details)


class AioTutorial(grpc.aio.ServerInterceptor):
    """The same as `SyncTutorial`, in an event loop."""

    def __init__(self, check: Callable[[str], dict[str, Any]]) -> None:
        async def abort(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid token")

        self._check = check
        self._abort: Handler = grpc.unary_unary_rpc_method_handler(abort)

    async def intercept_service(
        self, continuation: Callable[[Details], Awaitable[Handler | None]], details: Details
    ) -> Handler | None:
        try:
            _claims.set(self._check(_token(details)))
        except jwt.PyJWTError:
            return self._abort
        return await continuation(details)


def sync_interceptors(
    variant: Variant, issuer: str, audience: str, jwks_uri: str, reload_every_s: float = 0.0
) -> list[grpc.ServerInterceptor]:
    """The interceptors of a variant, for `grpc.server`."""
    if variant == "bare":
        return []
    if variant == "noop":
        return [SyncNoop()]
    if variant == "floor":
        return [SyncFloor(jwks_uri)]
    if variant.startswith("ours"):
        return [sync.AuthInterceptor(_ours(variant, issuer, audience, jwks_uri, reload_every_s))]
    return [SyncTutorial(_tutorial_check(issuer, audience, jwks_uri, lru=variant == "tutorial-lru"))]


def aio_interceptors(
    variant: Variant, issuer: str, audience: str, jwks_uri: str, reload_every_s: float = 0.0
) -> list[grpc.aio.ServerInterceptor]:
    """The interceptors of a variant, for `grpc.aio.server`."""
    if variant == "bare":
        return []
    if variant == "noop":
        return [AioNoop()]
    if variant == "floor":
        return [AioFloor(jwks_uri)]
    if variant.startswith("ours"):
        return [aio.AuthInterceptor(_ours(variant, issuer, audience, jwks_uri, reload_every_s))]
    return [AioTutorial(_tutorial_check(issuer, audience, jwks_uri, lru=variant == "tutorial-lru"))]
