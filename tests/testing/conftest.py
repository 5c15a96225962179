"""The plugin's fixtures, also where the environment's install of grpc-bearer is another work tree's."""

from grpc_bearer_pytest import (
    grpc_bearer_aio_server,
    grpc_bearer_clock,
    grpc_bearer_issuer,
    grpc_bearer_jwks_server,
    grpc_bearer_server,
)

__all__ = [
    "grpc_bearer_aio_server",
    "grpc_bearer_clock",
    "grpc_bearer_issuer",
    "grpc_bearer_jwks_server",
    "grpc_bearer_server",
]
