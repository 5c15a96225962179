"""A service of each stack for the kit's servers: it says whose claims it saw."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from grpc_bearer import current_claims
from grpc_bearer.v1 import identity_pb2 as pb
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server

WHO_AM_I = "grpc_bearer.v1.IdentityService/WhoAmI"


def whoever_calls() -> pb.Identity:
    return pb.Identity(subject=current_claims().sub or "")


class SyncIdentity(IdentityServiceServicer):
    def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:  # noqa: N802
        return pb.WhoAmIResponse(identity=whoever_calls())

    def WatchIdentity(self, request: pb.WatchIdentityRequest, context: Any) -> Iterator[pb.WatchIdentityResponse]:  # noqa: N802
        yield pb.WatchIdentityResponse(identity=whoever_calls())


class AioIdentity(IdentityServiceServicer):
    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:  # noqa: N802
        return pb.WhoAmIResponse(identity=whoever_calls())

    async def WatchIdentity(  # noqa: N802
        self, request: pb.WatchIdentityRequest, context: Any
    ) -> AsyncIterator[pb.WatchIdentityResponse]:
        yield pb.WatchIdentityResponse(identity=whoever_calls())


class Aborting(SyncIdentity):
    """Refuses by itself, as a service without grpc-bearer would: with this code and a reason of a domain of its own."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def WhoAmI(self, request: pb.WhoAmIRequest, context: Any) -> pb.WhoAmIResponse:  # noqa: N802
        status = Status(code=self._code.value[0], message="not you")
        status.details.add().Pack(ErrorInfo(reason="KEYS_UNAVAILABLE", domain="service.example"))
        status.details.add().Pack(Status())
        context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
        context.abort(self._code, "not you")
        raise AssertionError("abort raises")


def adding(service: IdentityServiceServicer) -> Any:
    """What the kit's servers register it with."""
    return partial(add_IdentityServiceServicer_to_server, service)
