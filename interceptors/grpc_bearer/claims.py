"""The verified claims set, and how a handler gets at it (pure).

`current_claims()` reads a context variable that the interceptor binds for one RPC. It has no default: where nothing was
verified there is nothing to read, and the accessor raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from .errors import NoClaimsError


class RegisteredClaims:
    """The registered claims of a claims set whose types were validated, as attributes. None: the claim is not there."""

    __slots__ = ()

    _members: Mapping[str, Any]

    @property
    def iss(self) -> str:
        """RFC 7519 §4.1.1: the issuer."""
        return self._members["iss"]  # type: ignore[no-any-return]

    @property
    def exp(self) -> float:
        """RFC 7519 §4.1.4: when the token expires; seconds since the epoch."""
        return self._members["exp"]  # type: ignore[no-any-return]

    @property
    def sub(self) -> str | None:
        """RFC 7519 §4.1.2: the principal."""
        return self._members.get("sub")

    @property
    def nbf(self) -> float | None:
        """RFC 7519 §4.1.5: not before; seconds since the epoch."""
        return self._members.get("nbf")

    @property
    def iat(self) -> float | None:
        """RFC 7519 §4.1.6: issued at; seconds since the epoch."""
        return self._members.get("iat")

    @property
    def jti(self) -> str | None:
        """RFC 7519 §4.1.7: the token's identifier."""
        return self._members.get("jti")

    @property
    def client_id(self) -> str | None:
        """RFC 8693 §4.3: the client that the token was issued to."""
        return self._members.get("client_id")


@dataclass(frozen=True, eq=False, repr=False)
class Claims(RegisteredClaims, Mapping[str, Any]):
    """The claims set of a verified token (RFC 7519 §4): registered claims as attributes, every claim as a mapping member.

    Frozen to the depth: nested objects are read-only mappings, arrays are tuples. `exp`, `nbf` and `iat` are NumericDates,
    in seconds since the epoch. `aud` is a tuple whether the token had a string or an array. `scopes` is the union of the
    claims `scope` (RFC 8693 §4.2), `scp`, `scopes`, `permissions`, and those that `Issuer.scope_claims` names. `key_id` and
    `algorithm` name what the signature was verified with; `key_id` is None where the issuer's key has no `kid`.
    """

    # By hand: what `slots=True` makes of a frozen class answers to an assignment to a property with a TypeError of its own.
    __slots__ = ("_members", "algorithm", "aud", "key_id", "scopes")

    _members: Mapping[str, Any]
    aud: tuple[str, ...]
    scopes: frozenset[str]
    key_id: str | None
    algorithm: str

    def __getitem__(self, name: str) -> Any:
        value = self._members[name]
        # Frozen when it is asked for: most calls ask for few claims, and every new token would pay for all.
        return deep_frozen(value) if type(value) is list or type(value) is dict else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        # Claim values are personal data: a log line that formats this object must not spill them.
        return f"<Claims: {', '.join(sorted(self._members))}>"


_IN_COMMON: Final = frozenset({"iss", "aud", "scope", "scp", "client_id", "azp"})
_MAX_SHARED: Final = 1_000
_MAX_SHARED_LENGTH: Final = 256


def compacted(claims: Claims, shared: dict[Any, Any]) -> Claims:
    """The same claims in less memory, to be kept: what tokens have in common comes out of `shared`, which is filled with it."""
    if len(shared) > _MAX_SHARED:
        shared.clear()

    def one(value: Any) -> Any:
        return shared.setdefault(value, value) if len(value) <= _MAX_SHARED_LENGTH else value

    members = {
        one(name): one(value) if name in _IN_COMMON and type(value) is str else value for name, value in claims._members.items()
    }
    return Claims(members, one(claims.aud), one(claims.scopes), claims.key_id, claims.algorithm)


def deep_frozen(value: Any) -> Any:
    """`value`, as the JSON parser made it, with objects as read-only mappings and arrays as tuples, to the depth."""
    if type(value) is dict:
        return MappingProxyType({name: deep_frozen(member) for name, member in value.items()})
    if type(value) is list:
        return tuple([deep_frozen(element) for element in value])
    return value


def claim_at(name: str, claims: Mapping[str, Any]) -> Any:
    """The claim of just this name or, when there is none, at this path; None when there is neither."""
    if name in claims:  # https://example.com/roles: names may have dots (RFC 7519 §4.2)
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


_bound: ContextVar[Claims | None] = ContextVar("grpc_bearer_claims")


bind_claims: Final[Callable[[Claims | None], object]] = _bound.set
"""Bind the claims of the RPC whose context this runs in; None where nothing was verified. For the drivers."""


def current_claims() -> Claims:
    """The verified claims of the RPC that is being served.

    Reaches every handler kind, sync and asyncio. It does not reach threads that a handler starts itself, `add_callback`
    functions, or `run_in_executor`: pass the claims along, or use `contextvars.copy_context().run` (measured on grpcio 1.85).
    Raises `NoClaimsError` on a public method and outside a call.
    """
    claims = _bound.get(None)
    if claims is None:
        raise NoClaimsError("no verified claims here: the method is public, or this is not inside a guarded call")
    return claims


def current_claims_or_none() -> Claims | None:
    """As `current_claims`, with None in place of the error."""
    return _bound.get(None)
