"""`grpc_bearer.v1.IdentityService`: tells callers who they are, from the claims that the interceptor verified."""

# ruff: noqa: N802  # gRPC methods are named by their proto

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from grpc_bearer import Claims, current_claims
from grpc_bearer.status import grpc_code, log_refusal, message, trailers
from grpc_bearer.v1.identity_pb2 import (
    Identity,
    WatchIdentityRequest,
    WatchIdentityResponse,
    WhoAmIRequest,
    WhoAmIResponse,
)
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceServicer
from grpc_bearer.verifier import expired

from . import SHUTTING_DOWN

EXPIRING_S: Final = 60.0
"""A token with less than this to live is STATE_EXPIRING."""
REPEAT_S: Final = 60.0
WATCH_METHOD: Final = "/grpc_bearer.v1.IdentityService/WatchIdentity"

Context = grpc.aio.ServicerContext[Any, Any]
_State = WatchIdentityResponse.State


def plain(value: Any) -> Any:
    """A frozen claim value as what `google.protobuf.Struct` takes. An integer that no double can hold becomes text."""
    if isinstance(value, Mapping):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, tuple):
        return [plain(element) for element in value]
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return str(value)
    return value


def identity_of(claims: Claims) -> Identity:
    """The public form of verified claims. Claims that the token lacks stay unset."""
    members = Struct()
    members.update(plain(claims))
    return Identity(
        issuer=claims.iss,
        subject=claims.sub or "",
        audiences=claims.aud,
        scopes=sorted(claims.scopes),
        key_id=claims.key_id or "",
        expire_time=_timestamp(claims.exp),
        issue_time=None if claims.iat is None else _timestamp(claims.iat),
        client_id=claims.client_id or "",
        claims=members,
        algorithm=claims.algorithm,
    )


def _timestamp(numeric_date: float) -> Timestamp:
    timestamp = Timestamp()
    # By way of timedelta: datetime.fromtimestamp ends earlier on some platforms than year 9999.
    timestamp.FromDatetime(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=numeric_date))
    return timestamp


class IdentityService(IdentityServiceServicer):
    """Runs behind `grpc_bearer.aio.AuthInterceptor`.

    `leeway_s`: by issuer, how long after `exp` a token is still good. `reveal_reasons`: as the interceptor's.
    """

    def __init__(
        self, leeway_s: Mapping[str, float], *, reveal_reasons: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self._leeway_s = leeway_s
        self._reveal_reasons = reveal_reasons
        self._clock = clock
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End the running streams: they would outlast every grace. Their callers are told to come again."""
        self._draining.set()

    async def WhoAmI(self, request: WhoAmIRequest, context: Context) -> WhoAmIResponse:
        """The identity behind this call's token."""
        return WhoAmIResponse(identity=identity_of(current_claims()))

    async def WatchIdentity(self, request: WatchIdentityRequest, context: Context) -> AsyncIterator[WatchIdentityResponse]:
        """The identity at once, every `REPEAT_S`, and at each change of state; UNAUTHENTICATED when the token has expired."""
        claims = current_claims()
        identity = identity_of(claims)
        ends_at = claims.exp + self._leeway_s.get(claims.iss, 0.0)
        while (now := self._clock()) < ends_at:
            expires_in_s = claims.exp - now
            expiring = expires_in_s <= EXPIRING_S
            yield WatchIdentityResponse(
                identity=identity,
                state=_State.STATE_EXPIRING if expiring else _State.STATE_ACTIVE,
                expires_in=_duration(expires_in_s),
            )
            until_change_s = ends_at - now if expiring else expires_in_s - EXPIRING_S
            if await self._drained(min(REPEAT_S, until_change_s)):
                break
        else:
            await self._abort_expired(claims, context)
        await context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)

    async def _drained(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._draining.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _abort_expired(self, claims: Claims, context: Context) -> NoReturn:
        error = expired(claims.exp)
        log_refusal(WATCH_METHOD, error)
        context.set_trailing_metadata(trailers(error, reveal_reason=self._reveal_reasons))
        await context.abort(grpc_code(error), message(error, reveal_reason=self._reveal_reasons))
        raise error


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
