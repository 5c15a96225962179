"""The test kit's JWKS server, with keys of the test's own: right, slow, failing or hostile, on command."""

from __future__ import annotations

import ssl

from grpc_bearer.testing import jwks_server
from grpc_bearer.testing.jwks_server import DISCOVERY_PATH, JWKS_PATH, Raw
from tests.support.tokens import SigningKey, jwks

__all__ = ["DISCOVERY_PATH", "JWKS_PATH", "JwksServer", "Raw"]


class JwksServer(jwks_server.JwksServer):
    """Serves the JWK Set of `keys`, which can be set while it runs."""

    def __init__(self, *keys: SigningKey, tls: ssl.SSLContext | None = None) -> None:
        self.keys: tuple[SigningKey, ...] = keys
        super().__init__(lambda: jwks(*self.keys), tls=tls)
