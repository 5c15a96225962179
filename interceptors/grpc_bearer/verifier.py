"""From a parsed JWS and a key to verified claims (pure; RFC 7519 §7.2, RFC 8725, RFC 9068 §4).

Everything that costs no cryptography is validated first, so a token that can never be accepted costs no key look-up, no
fetch and no signature. Signatures are verified by PyJWT's algorithms over cryptography; `Key.verify` holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from .claims import Claims, RegisteredClaims, claim_at
from .errors import EXPIRED_AT, AuthError, Reason, invalid, malformed
from .jws import CompactJws, Header
from .keys.jwks import Key, canonical_algorithm

MAX_NUMERIC_DATE: Final = 253_402_300_799
"""9999-12-31T23:59:59Z: the last second that RFC 3339 and protobuf's Timestamp can say."""

# RFC 7519 §5.1 and RFC 9068 §2.1; "application/" may be left out (RFC 7515 §4.1.9), and media types have no case.
_AT_JWT: Final = frozenset({"at+jwt", "application/at+jwt"})
_ANY_JWT: Final = _AT_JWT | {"jwt", "application/jwt"}

_DATES: Final = ("exp", "nbf", "iat")
_STRINGS: Final = ("sub", "jti", "client_id")
# No standard gives the last two a type: a value of another shape grants nothing, and is no reason to refuse the token.
_SCOPES: Final = ("scope", "scp", "scopes", "permissions")
_TYPED_SCOPES: Final = ("scope", "scp")
_NO_SCOPE: Final = frozenset({""})


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What an issuer's tokens have to be. `audiences` None means any; `max_lifetime_s` None means no limit."""

    issuer: str
    audiences: frozenset[str] | None
    algorithms: frozenset[str]
    leeway_s: float
    max_lifetime_s: float | None
    require_at_jwt: bool
    scope_claims: tuple[str, ...] = ()


def unverified_issuer(claims_set: Mapping[str, Any]) -> str:
    """The `iss` of a token that is not verified yet: only to choose whose rules apply. Raises `AuthError`."""
    issuer = claims_set.get("iss")
    if isinstance(issuer, str):
        return issuer
    raise malformed("iss is not a string") if "iss" in claims_set else invalid("iss is missing")


def validate_header(header: Header, rules: TokenRules) -> str:
    """The algorithm to verify with, in its canonical name. Raises `AuthError` TOKEN_INVALID."""
    algorithm = canonical_algorithm(header.alg)
    if algorithm not in rules.algorithms:
        raise invalid("alg is not allowed for this issuer")
    if header.typ is None:
        if rules.require_at_jwt:
            raise invalid("typ is not at+jwt")
    elif header.typ.lower() not in (_AT_JWT if rules.require_at_jwt else _ANY_JWT):
        raise invalid("typ is not that of an access token")
    return algorithm


def _numeric_date(claims_set: Mapping[str, Any], name: str) -> float | None:
    value = claims_set.get(name)
    # `type is`, because a bool is an int to isinstance; the parser has refused what is not finite.
    if (type(value) is int or type(value) is float) and 0 <= value <= MAX_NUMERIC_DATE:
        return value
    if value is not None or name in claims_set:
        raise malformed(f"{name} is not a NumericDate")
    return None


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(element, str) for element in value)


def _audience(claims_set: Mapping[str, Any]) -> tuple[str, ...]:
    audience = claims_set.get("aud")
    if isinstance(audience, str):
        return (audience,)
    if _strings(audience):
        return tuple(audience)  # type: ignore[arg-type]  # _strings has looked at every element
    if "aud" in claims_set:
        raise malformed("aud is neither a string nor an array of strings")
    return ()


def _granted(value: Any) -> list[str] | None:
    """The scopes in a claim's value: a string with spaces between them, or an array; None for what is neither."""
    if isinstance(value, str):
        return value.split(" ")
    return value if _strings(value) else None


def _scopes(claims_set: Mapping[str, Any], further: tuple[str, ...]) -> frozenset[str]:
    """One set from all the places where issuers put what a token allows; `further` are the configured ones."""
    scopes: list[str] = []
    for name in _SCOPES:
        if name in claims_set:
            granted = _granted(claims_set[name])
            if granted is None and name in _TYPED_SCOPES:
                raise malformed(f"{name} is neither a string nor an array of strings")
            scopes += granted or ()
    for name in further:
        scopes += _granted(claim_at(name, claims_set)) or ()
    found = frozenset(scopes)
    return found - _NO_SCOPE if "" in found else found


def expired(exp: float) -> AuthError:
    """The refusal of an expired token, saying when it expired (RFC 3339, UTC)."""
    at = datetime.fromtimestamp(int(exp), UTC).isoformat()[:19] + "Z"
    return AuthError(Reason.TOKEN_EXPIRED, "exp has passed", {EXPIRED_AT: at})


def is_expired(exp: float, leeway_s: float, now: float) -> bool:
    """RFC 7519 §4.1.4: the current time has to be before `exp`, give or take the leeway."""
    return now >= exp + leeway_s


@dataclass(frozen=True, slots=True)
class ValidClaims(RegisteredClaims):
    """A claims set that its issuer's rules accept, still without a verified signature: nothing of it may be trusted."""

    _members: dict[str, Any]
    aud: tuple[str, ...]
    scopes: frozenset[str]

    @property
    def members(self) -> dict[str, Any]:
        """Every claim."""
        return self._members


def validate_claims(claims_set: dict[str, Any], rules: TokenRules, now: float) -> ValidClaims:
    """Validate types, audience and dates. `now`: seconds since the epoch.

    Raises `AuthError`: TOKEN_MALFORMED before TOKEN_INVALID before TOKEN_EXPIRED before TOKEN_NOT_YET_VALID.
    """
    exp, nbf, iat = [_numeric_date(claims_set, name) for name in _DATES]
    for name in _STRINGS:
        if name in claims_set and type(claims_set[name]) is not str:
            raise malformed(f"{name} is not a string")
    audience = _audience(claims_set)
    scopes = _scopes(claims_set, rules.scope_claims)
    leeway_s = rules.leeway_s
    if rules.audiences is not None and rules.audiences.isdisjoint(audience):
        raise invalid("aud names none of the accepted audiences")
    if exp is None:
        raise invalid("exp is missing")
    if rules.max_lifetime_s is not None and (iat is None or exp - iat > rules.max_lifetime_s):
        raise invalid("the lifetime from iat to exp is missing or over the limit")
    if is_expired(exp, leeway_s, now):
        raise expired(exp)
    if nbf is not None and nbf > now + leeway_s:
        raise AuthError(Reason.TOKEN_NOT_YET_VALID, "nbf is in the future")
    if iat is not None and iat > now + leeway_s:
        raise AuthError(Reason.TOKEN_NOT_YET_VALID, "iat is in the future")
    return ValidClaims(claims_set, audience, scopes)


def verify(jws: CompactJws, valid: ValidClaims, algorithm: str, key: Key) -> Claims:
    """Verify the signature; the claims are the caller's from here on. Raises `AuthError` TOKEN_INVALID."""
    if not key.verify(algorithm, jws.signing_input, jws.signature):
        raise invalid("the signature does not verify")
    return Claims(valid.members, valid.aud, valid.scopes, key.kid, algorithm)
