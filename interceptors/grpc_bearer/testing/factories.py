"""What the fixtures `grpc_bearer_server` and `grpc_bearer_aio_server` are: servers that trust the test's own issuer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import grpc

from ..authenticator import Authenticator
from ..policy.table import Policies
from . import aio, sync
from .issuer import LocalIssuer


class SyncServers:
    """Call it for a channel to a server with these services. All of them are closed with the stack.

    `policies`: what methods require, by default what their protos say. `jwks_uri`: have keys fetched from there, as in
    earnest; by default the server is given them. `authenticator`: one of your own, yours to close. Further arguments are
    those of `grpc_bearer.testing.sync.serving`.
    """

    def __init__(self, issuer: LocalIssuer, stack: ExitStack) -> None:
        self._issuer = issuer
        self._stack = stack

    def __call__(
        self,
        *register: sync.Register,
        policies: Policies | None = None,
        jwks_uri: str | None = None,
        authenticator: Authenticator | None = None,
        **of_server: Any,
    ) -> grpc.Channel:
        if authenticator is None:
            authenticator = self._stack.enter_context(_trusting(self._issuer, policies, jwks_uri))
        return self._stack.enter_context(sync.serving(*register, authenticator=authenticator, **of_server))


class AioServers:
    """The same for grpc.aio, with one difference: `async with` closes what it has opened, whatever runs asynchronous tests."""

    def __init__(self, issuer: LocalIssuer) -> None:
        self._issuer = issuer

    @asynccontextmanager
    async def __call__(
        self,
        *register: aio.Register,
        policies: Policies | None = None,
        jwks_uri: str | None = None,
        authenticator: Authenticator | None = None,
        **of_server: Any,
    ) -> AsyncIterator[grpc.aio.Channel]:
        with ExitStack() as stack:
            if authenticator is None:
                authenticator = stack.enter_context(_trusting(self._issuer, policies, jwks_uri))
            async with aio.serving(*register, authenticator=authenticator, **of_server) as channel:
                yield channel


def _trusting(issuer: LocalIssuer, policies: Policies | None, jwks_uri: str | None) -> Authenticator:
    source = {} if jwks_uri is None else {"jwks_uri": jwks_uri}
    return issuer.authenticator(policies=policies, **source)
