"""Every way a call can be refused: one tree, one table, no I/O.

An error carries what the caller may see (`code`, `reason`, `message`, `caller_metadata`) apart from what is for the log
(`detail`). Neither field ever holds a token, a claim value or the text of another exception: both are constants of this
code base, but for `caller_metadata`, whose keys and meaning are listed with each reason below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

ERROR_DOMAIN: Final = "grpc-bearer"
EXPIRED_AT: Final = "expired_at"
"""In `ErrorInfo.metadata` of TOKEN_EXPIRED: when the token expired (RFC 3339, UTC, whole seconds)."""


class StatusCode(IntEnum):
    """The gRPC status codes that a refusal can carry, by their numbers on the wire (gRPC `statuscodes.md`)."""

    PERMISSION_DENIED = 7
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16

    __hash__ = int.__hash__  # Enum's is a function in Python, and every refusal looks its code up


class Reason(StrEnum):
    """Stable, machine-readable reasons: `google.rpc.ErrorInfo.reason`, domain `grpc-bearer`."""

    TOKEN_MISSING = "TOKEN_MISSING"
    TOKEN_MALFORMED = "TOKEN_MALFORMED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    TOKEN_NOT_YET_VALID = "TOKEN_NOT_YET_VALID"
    TOKEN_INVALID = "TOKEN_INVALID"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
    POLICY_DENIED = "POLICY_DENIED"
    KEYS_UNAVAILABLE = "KEYS_UNAVAILABLE"
    INTERNAL = "INTERNAL"

    __hash__ = str.__hash__  # as above


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reason means to a caller.

    `challenge` is the RFC 6750 §3.1 error code for the `www-authenticate` trailer: a string, "" for a challenge without
    an error code (no credentials were sent), None for no challenge at all (the caller's credentials are not the trouble).
    """

    code: StatusCode
    message: str
    challenge: str | None
    when: str


OUTCOMES: Final[Mapping[Reason, Outcome]] = MappingProxyType(
    {
        Reason.TOKEN_MISSING: Outcome(
            StatusCode.UNAUTHENTICATED,
            "a bearer token is required",
            "",
            "the call has no `authorization` metadata, or one with a scheme other than Bearer",
        ),
        Reason.TOKEN_MALFORMED: Outcome(
            StatusCode.UNAUTHENTICATED,
            "the bearer token is malformed",
            "invalid_request",
            "the header or the token is not well-formed: two `authorization` entries, a character outside RFC 6750, not a "
            "compact JWS, not strict base64url or JSON, a duplicate member, a claim of a wrong type, too long or too deep",
        ),
        Reason.TOKEN_EXPIRED: Outcome(
            StatusCode.UNAUTHENTICATED,
            "the bearer token has expired",
            "invalid_token",
            "`exp` has passed, leeway included; `expired_at` in the ErrorInfo says when (RFC 3339, UTC)",
        ),
        Reason.TOKEN_NOT_YET_VALID: Outcome(
            StatusCode.UNAUTHENTICATED,
            "the bearer token is not yet valid",
            "invalid_token",
            "`nbf` or `iat` is in the future, leeway included",
        ),
        Reason.TOKEN_INVALID: Outcome(
            StatusCode.UNAUTHENTICATED,
            "the bearer token is not valid here",
            "invalid_token",
            "issuer, audience, `alg`, `typ`, lifetime, key or signature is not what this service accepts; the log says which",
        ),
        Reason.INSUFFICIENT_SCOPE: Outcome(
            StatusCode.PERMISSION_DENIED,
            "the bearer token lacks a scope that this method requires",
            "insufficient_scope",
            "the token is valid and lacks a scope; `scopes` (all required) and `any_scopes` (one required) in the ErrorInfo "
            "and `scope` in the challenge say which the method requires",
        ),
        Reason.POLICY_DENIED: Outcome(
            StatusCode.PERMISSION_DENIED,
            "the caller is not permitted to call this method",
            None,
            "the token is valid and its issuer, audience, a claim or its age is not what the method requires, or the method is "
            "closed to everybody; the log says which",
        ),
        Reason.KEYS_UNAVAILABLE: Outcome(
            StatusCode.UNAVAILABLE,
            "the keys to verify the bearer token are not available, try again",
            None,
            "no key set of the issuer could be had: the token may be good, so the call can be retried",
        ),
        Reason.INTERNAL: Outcome(
            StatusCode.INTERNAL,
            "authentication failed for an internal reason",
            None,
            "a bug in authentication: the call is refused, the log has the place",
        ),
    }
)

_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


class AuthError(Exception):
    """A refused call.

    `reason`: which kind (`OUTCOMES` holds its code and public text). `detail`: the exact cause for the log, a constant.
    `caller_metadata`: further facts for the caller, `ErrorInfo.metadata`.
    """

    def __init__(self, reason: Reason, detail: str, caller_metadata: Mapping[str, str] = _NO_METADATA) -> None:
        super().__init__(reason, detail)
        self.reason: Final = reason
        self.detail: Final = detail
        self.caller_metadata: Final = caller_metadata

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

    @property
    def code(self) -> StatusCode:
        """The gRPC status code of the refusal."""
        return OUTCOMES[self.reason].code

    @property
    def message(self) -> str:
        """The constant public text: all that a caller reads."""
        return OUTCOMES[self.reason].message

    @property
    def challenge(self) -> str | None:
        """The RFC 6750 error code for `www-authenticate`; see `Outcome.challenge`."""
        return OUTCOMES[self.reason].challenge


class ConfigurationError(ValueError):
    """A wrong argument or setting. The text says what is wrong, where, and how to mend it; raised at start, never in a call."""


class NoClaimsError(LookupError):
    """`current_claims()` was asked where no verified token is bound: a public method, or outside a call."""


class KeysUnreadableError(ValueError):
    """A JWK Set as a whole cannot be used. The text is a constant with counts at most, fit for a log."""


class FetchError(Exception):
    """A fetch of key material failed. The text is fit for a log: no body, no credentials, no exception text of a library.

    `retry_after_s`: seconds the issuer asked us to wait (`Retry-After`), None when it did not say.
    """

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail: Final = detail
        self.retry_after_s: Final = retry_after_s


def missing(detail: str) -> AuthError:
    """No bearer credentials in the call."""
    return AuthError(Reason.TOKEN_MISSING, detail)


def malformed(detail: str) -> AuthError:
    """The header or the token is not well-formed."""
    return AuthError(Reason.TOKEN_MALFORMED, detail)


def invalid(detail: str) -> AuthError:
    """A well-formed token that is not accepted here."""
    return AuthError(Reason.TOKEN_INVALID, detail)


def keys_unavailable(detail: str) -> AuthError:
    """Infrastructure trouble: never the caller's fault."""
    return AuthError(Reason.KEYS_UNAVAILABLE, detail)


def internal(detail: str) -> AuthError:
    """A bug of ours: fails closed."""
    return AuthError(Reason.INTERNAL, detail)


def denied(detail: str) -> AuthError:
    """A verified caller that lacks a right other than a scope."""
    return AuthError(Reason.POLICY_DENIED, detail)
