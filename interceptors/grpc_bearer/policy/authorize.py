"""Whether verified claims meet a policy (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..claims import Claims, claim_at
from ..errors import AuthError, Reason, denied
from .model import ClaimRule, Policy


def authorize(policy: Policy, claims: Claims, now: float, leeway_s: float) -> None:
    """Raises `AuthError` INSUFFICIENT_SCOPE or POLICY_DENIED unless every requirement holds. `now`: seconds since the epoch."""
    if policy.issuers and claims.iss not in policy.issuers:
        raise denied("iss is none of the issuers that the method accepts")
    if policy.audiences and not set(policy.audiences).intersection(claims.aud):
        raise denied("aud names none of the audiences that the method accepts")
    if not claims.scopes.issuperset(policy.scopes) or (policy.any_scopes and claims.scopes.isdisjoint(policy.any_scopes)):
        raise insufficient_scope(policy)
    for rule in policy.claims:
        if not holds(rule, claims):
            raise denied(f"the claim {rule.name} is not what the method requires")
    if policy.max_age_s is not None:
        since = authenticated_at(claims)
        # The future too: an issuer that gives `auth_time` in milliseconds would lift the limit for good.
        # Compared and not subtracted: an integer too large for a float would raise.
        if since is None or not now - policy.max_age_s - leeway_s <= since <= now + leeway_s:
            raise denied("the caller authenticated too long ago, or the token does not say when")


def insufficient_scope(policy: Policy) -> AuthError:
    """The refusal that says which scopes the method requires (RFC 6750 §3.1): of the service's API, nothing of the token."""
    required = {"scopes": " ".join(policy.scopes), "any_scopes": " ".join(policy.any_scopes)}
    present = MappingProxyType({name: text for name, text in required.items() if text})
    return AuthError(Reason.INSUFFICIENT_SCOPE, "the token lacks a scope that the method requires", present)


def authenticated_at(claims: Claims) -> float | None:
    """When the caller authenticated: `auth_time` (OpenID Connect Core §2) or else `iat`; seconds since the epoch."""
    if "auth_time" not in claims:
        return claims.iat
    value = claims["auth_time"]
    return value if type(value) is int or type(value) is float else None


def holds(rule: ClaimRule, claims: Mapping[str, Any]) -> bool:
    """Whether a claim rule holds."""
    value = claim_at(rule.name, claims)
    if value is None:
        return False
    values = claim_values(value)
    return (not rule.any_of or not values.isdisjoint(rule.any_of)) and values.issuperset(rule.all_of)


def claim_values(value: Any) -> frozenset[str]:
    """What a claim counts as in a rule: itself or its elements, as text. Objects and null count as nothing."""
    elements = value if isinstance(value, tuple) else (value,)
    return frozenset(text for text in map(_text, elements) if text is not None)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else None
