"""`grpc_bearer.v1.IdentityService`: tells callers who they are, from the claims that the interceptor verified."""

# ruff: noqa: N802  # gRPC methods are named by their proto

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from grpc_bearer import Claims, current_claims_or_none
from grpc_bearer.v1.identity_pb2 import (
    Identity,
    WatchIdentityRequest,
    WatchIdentityResponse,
    WhoAmIRequest,
    WhoAmIResponse,
)
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceServicer

from . import SHUTTING_DOWN

EXPIRING_S: Final = 60.0
"""A token with less than this to live is STATE_EXPIRING."""
REPEAT_S: Final = 60.0

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
    """Runs behind `grpc_bearer.aio.AuthInterceptor`, which ends a stream when its token expires. `clock`: its clock."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """End the running streams: they would outlast every grace. Their callers are told to come again."""
        self._draining.set()

    async def WhoAmI(self, request: WhoAmIRequest, context: Context) -> WhoAmIResponse:
        """The identity behind this call's token; none where a rule or mode "report" lets calls go on without one."""
        claims = current_claims_or_none()
        return WhoAmIResponse(identity=None if claims is None else identity_of(claims))

    async def WatchIdentity(self, request: WatchIdentityRequest, context: Context) -> AsyncIterator[WatchIdentityResponse]:
        """The identity at once, every `REPEAT_S`, and at each change of state, until the interceptor or the drain ends it."""
        claims = current_claims_or_none()
        if claims is None:
            yield WatchIdentityResponse()
            await self._draining.wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
        identity = identity_of(claims)
        while True:
            expires_in_s = claims.exp - self._clock()
            expiring = expires_in_s <= EXPIRING_S
            yield WatchIdentityResponse(
                identity=identity,
                state=_State.STATE_EXPIRING if expiring else _State.STATE_ACTIVE,
                expires_in=_duration(expires_in_s),
            )
            if await self._drained(REPEAT_S if expiring else min(REPEAT_S, expires_in_s - EXPIRING_S)):
                await context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)

    async def _drained(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._draining.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
