"""How a caller sends its token."""

from __future__ import annotations

import grpc

Metadata = tuple[tuple[str, str], ...]


def bearer(token: str | None) -> Metadata:
    """The metadata that carries a token, on either stack: `stub.Get(request, metadata=bearer(token))`. For None: none."""
    return () if token is None else (("authorization", f"Bearer {token}"),)


def call_credentials(token: str) -> grpc.CallCredentials:
    """The same as credentials: `stub.Get(request, credentials=call_credentials(token))`. grpc sends them over TLS only."""
    return grpc.access_token_call_credentials(token)
