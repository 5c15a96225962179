"""The pytest plugin of grpc-bearer: fixtures for the tests of services. Override one to have it otherwise.

A module outside the package, because pytest imports it at every start, in every project of the environment: `grpc_bearer`
takes 150 ms to import (measured) and is imported by the first test that asks for a fixture. It is also how grpc-bearer's own
coverage is measured from the first line on: pytest loads plugins before it starts measuring.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from grpc_bearer.testing import AioServers, Clock, JwksServer, LocalIssuer, SyncServers


@pytest.fixture
def grpc_bearer_clock() -> Clock:
    """Seconds since the epoch, standing still until `advance(seconds)`. The issuer and the servers go by it."""
    import time

    from grpc_bearer.testing import Clock

    return Clock(float(int(time.time())))  # a whole second, as `iat` and `exp` are


@pytest.fixture
def grpc_bearer_issuer(grpc_bearer_clock: Clock) -> LocalIssuer:
    """Signs tokens: `grpc_bearer_issuer.token(scope="orders.read")`. Its keys are made once per process."""
    from grpc_bearer.testing import LocalIssuer, shared_key

    return LocalIssuer(clock=grpc_bearer_clock, make_key=shared_key)


@pytest.fixture
def grpc_bearer_jwks_server(grpc_bearer_issuer: LocalIssuer) -> Iterator[JwksServer]:
    """Serves the issuer's keys on loopback, and fails, hangs and slows on command."""
    from grpc_bearer.testing import JwksServer

    with JwksServer(grpc_bearer_issuer.jwks) as server:
        yield server


@pytest.fixture
def grpc_bearer_server(grpc_bearer_issuer: LocalIssuer) -> Iterator[SyncServers]:
    """Starts a `grpc.server` that trusts the issuer: `channel = grpc_bearer_server(partial(add_..._to_server, Servicer()))`."""
    from contextlib import ExitStack

    from grpc_bearer.testing import SyncServers

    with ExitStack() as stack:
        yield SyncServers(grpc_bearer_issuer, stack)


@pytest.fixture
def grpc_bearer_aio_server(grpc_bearer_issuer: LocalIssuer) -> AioServers:
    """Starts a `grpc.aio.server`: `async with grpc_bearer_aio_server(partial(add_..._to_server, Servicer())) as channel:`."""
    from grpc_bearer.testing import AioServers

    return AioServers(grpc_bearer_issuer)
