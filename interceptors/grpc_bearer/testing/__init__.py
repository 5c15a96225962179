"""For the tests of services: an issuer, its JWKS server, a clock, real servers, and what a refusal has to be.

The fixtures `grpc_bearer_*` hand these out where pytest is installed (`grpc_bearer_pytest`); nothing here needs pytest.
"""

from .calls import bearer, call_credentials
from .clock import Clock
from .factories import AioServers, SyncServers
from .issuer import LocalIssuer
from .jwks_server import JwksServer
from .keys import SigningKey, new_key, shared_key
from .refusals import Refusal, assert_permission_denied, assert_unauthenticated, assert_unavailable
from .wrong_tokens import WRONG_TOKENS, WrongToken

__all__ = [
    "WRONG_TOKENS",
    "AioServers",
    "Clock",
    "JwksServer",
    "LocalIssuer",
    "Refusal",
    "SigningKey",
    "SyncServers",
    "WrongToken",
    "assert_permission_denied",
    "assert_unauthenticated",
    "assert_unavailable",
    "bearer",
    "call_credentials",
    "new_key",
    "shared_key",
]
