"""What a method can require, as frozen values (pure). The meaning of each field is that of `grpc_bearer/v1/policy.proto`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ..errors import ConfigurationError

# RFC 6749 §3.3: scope-token. Also what keeps a scope from breaking out of the www-authenticate challenge.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+", re.ASCII)


class Access(StrEnum):
    """Who may call a method."""

    AUTHENTICATED = "authenticated"
    PUBLIC = "public"
    OPTIONAL = "optional"
    DENY = "deny"


class Streams(StrEnum):
    """What happens to a stream when its token expires."""

    TERMINATE = "terminate"
    FINISH = "finish"


def _texts(field: str, values: object) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, str) and value for value in values):
        raise ConfigurationError(f"{field}: expected a tuple of non-empty strings")


def _member(field: str, value: object, kind: type[StrEnum]) -> None:
    # A bare string equals its member and is none, so `is` would tell "deny" from Access.DENY and let callers in.
    if not isinstance(value, kind):
        raise ConfigurationError(f"{field}: expected {', '.join(f'{kind.__name__}.{name}' for name in kind.__members__)}")


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """What one claim has to hold: one of `any_of`, each of `all_of`, or only to be there (`present`).

    `name`: a claim, or a path into nested objects with dots between the names. Raises `ConfigurationError`.
    """

    name: str
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    present: bool = False

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str) or not all(name.split(".")):
            raise ConfigurationError("claims: name is missing, or has an empty part between its dots")
        _texts(f"claims: {self.name}: any_of", self.any_of)
        _texts(f"claims: {self.name}: all_of", self.all_of)
        if not isinstance(self.present, bool):
            raise ConfigurationError(f"claims: {self.name}: present: expected True or False")
        if not (self.any_of or self.all_of or self.present):
            raise ConfigurationError(f"claims: {self.name}: requires nothing; give any_of, all_of or present")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a call of a method requires. All requirements have to hold; they go with `Access.AUTHENTICATED` only.

    `max_age_s`: seconds since `auth_time` (else `iat`), None for no limit. `stream_grace_s`: how long a stream may go on
    after its token has expired, with `Streams.TERMINATE`.
    Raises `ConfigurationError` that names the field and how to mend it.
    """

    access: Access = Access.AUTHENTICATED
    scopes: tuple[str, ...] = ()
    any_scopes: tuple[str, ...] = ()
    claims: tuple[ClaimRule, ...] = ()
    issuers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    max_age_s: float | None = None
    streams: Streams = Streams.TERMINATE
    stream_grace_s: float = 0.0

    def __post_init__(self) -> None:
        _member("access", self.access, Access)
        _member("streams", self.streams, Streams)
        for field in ("scopes", "any_scopes", "issuers", "audiences"):
            _texts(field, getattr(self, field))
        for field in ("scopes", "any_scopes"):
            for scope in getattr(self, field):
                if not _SCOPE.fullmatch(scope):
                    raise ConfigurationError(
                        f"{field}: {scope!r} is no scope; list scopes one by one, without spaces or quotes"
                    )
        claims: object = self.claims
        if not isinstance(claims, tuple) or not all(isinstance(rule, ClaimRule) for rule in claims):
            raise ConfigurationError("claims: expected a tuple of ClaimRule")
        names = [rule.name for rule in self.claims]
        if len(set(names)) != len(names):
            raise ConfigurationError("claims: two rules for the same name; merge them")
        if self.max_age_s is not None and not _seconds(self.max_age_s, above=0):
            raise ConfigurationError("max_age_s: expected a number of seconds above 0")
        if not _seconds(self.stream_grace_s):
            raise ConfigurationError("stream_grace_s: expected a number of seconds, 0 or more")
        if self.stream_grace_s and self.streams is not Streams.TERMINATE:
            raise ConfigurationError("stream_grace_s: goes with streams = terminate only; drop one of the two")
        if self.access is not Access.AUTHENTICATED and self.requirements():
            raise ConfigurationError(
                f"access: {self.access} and {self.requirements()[0]} contradict each other: "
                "callers without a token could not meet it; drop one of the two"
            )

    def requirements(self) -> tuple[str, ...]:
        """The names of the fields that require something beyond a valid token."""
        fields = ("scopes", "any_scopes", "claims", "issuers", "audiences", "max_age_s")
        return tuple(field for field in fields if getattr(self, field))


def _seconds(value: object, above: float = -1) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and value >= 0 and value > above


AUTHENTICATED: Final = Policy()
PUBLIC: Final = Policy(access=Access.PUBLIC)
DENY: Final = Policy(access=Access.DENY)
