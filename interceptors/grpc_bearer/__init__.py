"""Bearer token authentication for gRPC services: the public names. The interceptors are in `grpc_bearer.sync` and `.aio`."""

from .authenticator import Authenticator, IssuerStatus
from .claims import Claims, current_claims, current_claims_or_none
from .errors import AuthError, ConfigurationError, FetchError, NoClaimsError, Reason, StatusCode
from .issuer import Issuer
from .keys.cache import CachePolicy
from .keys.remote import FetchOptions
from .keys.source import Attempt, FetchedKeys, KeySource
from .observe import Observation, Observer
from .policy.model import Access, ClaimRule, Policy, Streams
from .policy.table import Policies, Rule
from .verdict_cache import VerdictCachePolicy

__all__ = [
    "Access",
    "Attempt",
    "AuthError",
    "Authenticator",
    "CachePolicy",
    "ClaimRule",
    "Claims",
    "ConfigurationError",
    "FetchError",
    "FetchOptions",
    "FetchedKeys",
    "Issuer",
    "IssuerStatus",
    "KeySource",
    "NoClaimsError",
    "Observation",
    "Observer",
    "Policies",
    "Policy",
    "Reason",
    "Rule",
    "StatusCode",
    "Streams",
    "VerdictCachePolicy",
    "current_claims",
    "current_claims_or_none",
]
