"""Clients of the running service, each on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from grpc_bearer.v1.identity_pb2 import Identity, WatchIdentityRequest, WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.calls import Outcome, bearer
from tests.support.jwks_server import JwksServer
from tests.support.processes import PATIENCE_S
from tests.support.service import Service, serving_process, trusting
from tests.support.tokens import key
from tests.support.waiting import eventually

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
IDENTITY_SERVICE = "grpc_bearer.v1.IdentityService"


class Client:
    """A client on a connection of its own."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options)
        self._identity: Any = IdentityServiceStub(self.channel)
        self._health: Any = HealthStub(self.channel)

    def who_am_i(self, token: str | None, timeout_s: float = PATIENCE_S) -> Identity:
        identity: Identity = self.asking(token, timeout_s).result().identity
        return identity

    def asking(self, token: str | None, timeout_s: float = PATIENCE_S) -> Any:
        """A WhoAmI under way."""
        return self._identity.WhoAmI.future(WhoAmIRequest(), metadata=bearer(token), timeout=timeout_s)

    def watch_identity(self, token: str | None) -> Any:
        return self._identity.WatchIdentity(WatchIdentityRequest(), metadata=bearer(token), timeout=PATIENCE_S)

    def watch_health(self, service: str = "") -> Any:
        return self._health.Watch(HealthCheckRequest(service=service), timeout=PATIENCE_S)

    def health(self, service: str = "") -> int:
        answer: HealthCheckResponse = self._health.Check(HealthCheckRequest(service=service), timeout=PATIENCE_S)
        return answer.status

    def services(self) -> list[str]:
        """What reflection lists."""
        stub: Any = ServerReflectionStub(self.channel)
        (answer,) = stub.ServerReflectionInfo(iter([ServerReflectionRequest(list_services="")]), timeout=PATIENCE_S)
        return [service.name for service in answer.list_services_response.service]


@contextmanager
def client_of(service: Service, credentials: grpc.ChannelCredentials | None = None) -> Iterator[Client]:
    client = Client(service.target, credentials)
    try:
        yield client
    finally:
        client.channel.close()


def end_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends that does not end well."""
    with pytest.raises(grpc.RpcError):
        call.result()
    return call.code(), call.details()


def end_of_stream(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a stream ends that has nothing more to say."""
    with pytest.raises(grpc.RpcError):
        next(call)
    return call.code(), call.details()


def reason_of(call: Any) -> str | None:
    """The reason in the trailers of a refused call; None where it was not refused."""
    if call.exception() is None:
        return None
    return Outcome(call.code(), call.details(), (), (), tuple(call.trailing_metadata())).reason


@dataclass(frozen=True)
class Running:
    """A service that trusts an issuer of ours, and a client of it."""

    issuer: JwksServer
    service: Service
    client: Client


@contextmanager
def running(folder: Path, server: Sequence[str] = (), of_issuer: str = "", **variables: str) -> Iterator[Running]:
    """`server`: lines of `[server]`; `of_issuer`: what follows in its table, and further tables."""
    with JwksServer(key()) as issuer:
        config = "\n".join(["[server]", *server, trusting(issuer, of_issuer)])
        with serving_process(folder, config=config, **variables) as service, client_of(service) as client:
            assert eventually(lambda: client.health() == SERVING)
            yield Running(issuer, service, client)
