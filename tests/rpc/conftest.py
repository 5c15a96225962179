"""An issuer that can be made to fail, and an authenticator that needs none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grpc_bearer import Authenticator, Issuer
from tests.support.jwks_server import JwksServer
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key


@pytest.fixture
def issuer() -> Iterator[JwksServer]:
    with JwksServer(key()) as server:
        yield server


@pytest.fixture
def auth() -> Iterator[Authenticator]:
    """Keys given in code: nothing is fetched."""
    with Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))]) as authenticator:
        yield authenticator
