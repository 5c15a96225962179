"""Settings -> what the library is made of: issuers, policies, an authenticator. Nothing is fetched, nothing listens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from grpc_bearer import Authenticator, Issuer, Policies
from grpc_bearer.v1 import identity_pb2

from .issuer.keys import ALGORITHMS
from .loading import SettingsError
from .settings import DevSettings, Settings

IDENTITY_SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name
HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OWN_SERVICES: Final = (IDENTITY_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)


def issuers_of(settings: Settings, *further: Issuer) -> list[Issuer]:
    """The configured issuers and `further` ones. Raises `SettingsError` when there are none."""
    issuers = [*(issuer.to_issuer() for issuer in settings.issuers), *further]
    if not issuers:
        raise SettingsError(
            "issuers: none is configured, so every call would be refused; "
            "add [[issuers]] to a file for --config, or use the embedded issuer with --dev"
        )
    return issuers


def embedded_issuer(settings: DevSettings, url: str) -> Issuer:
    """The embedded issuer at `url`, as one to accept tokens of."""
    return Issuer(url, audiences=[settings.audience], algorithms=ALGORITHMS)


def policies_of(settings: Settings, services: Iterable[Any] = OWN_SERVICES) -> Policies:
    """The policies of `services` under the settings' rules. Raises `ConfigurationError`."""
    return Policies(
        services=services,
        rules=[rule.to_rule() for rule in settings.rules],
        public_methods=settings.server.public_methods,
        strict=settings.server.strict,
    )


def authenticator_of(settings: Settings, issuers: Sequence[Issuer], policies: Policies) -> Authenticator:
    """The authenticator of the service. Raises `ConfigurationError`."""
    return Authenticator(
        issuers, policies=policies, max_token_bytes=settings.server.max_token_bytes, verdicts=settings.verdicts
    )
