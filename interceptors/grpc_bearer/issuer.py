"""An issuer as its user configures it: whose tokens, for which audiences, verified with whose keys."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

from .errors import ConfigurationError
from .keys.cache import CachePolicy
from .keys.jwks import SUPPORTED_ALGORITHMS, canonical_algorithm
from .keys.refresher import Keys, Refresher, StaticKeys
from .keys.remote import DiscoverySource, FetchOptions, JwksUriSource, url_fault
from .keys.source import FileSource, InlineSource, KeySource
from .verifier import TokenRules

DEFAULT_ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
_DISCOVERY_PATH: Final = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer whose tokens are accepted.

    `issuer`: the exact `iss`. `audiences`: a token has to name one of them in `aud`; required, unless
    `allow_any_audience` is spelled out. `algorithms`: allowed for this issuer (RFC 8725 §3.1); asymmetric ones only.

    Where the keys come from, at most one of: `jwks_uri`, `jwks_file`, `jwks` (a JWK Set as a dict), `discovery_uri`, or
    `key_source`, a callable of one's own. With none of them it is OpenID discovery under `issuer`.

    `leeway_s`: clock skew granted to `exp`, `nbf` and `iat`. `max_lifetime_s`: `exp` at most this long after `iat`, which
    is required then. `require_at_jwt`: `typ` has to be `at+jwt` (RFC 9068 §2.1). `scope_claims`: where scopes are read from
    besides `scope`, `scp`, `scopes` and `permissions`: claims, or paths into nested ones such as `realm_access.roles`.

    Raises `ConfigurationError` that names the argument and how to mend it.
    """

    issuer: str
    _: KW_ONLY
    audiences: Sequence[str] = ()
    allow_any_audience: bool = False
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS
    jwks_uri: str | None = None
    jwks_file: str | os.PathLike[str] | None = None
    jwks: Mapping[str, Any] | None = None
    discovery_uri: str | None = None
    key_source: KeySource | None = None
    leeway_s: float = 30.0
    max_lifetime_s: float | None = None
    require_at_jwt: bool = False
    scope_claims: Sequence[str] = ()
    fetch: FetchOptions = FetchOptions()
    cache: CachePolicy = CachePolicy()

    def __post_init__(self) -> None:
        issuer: object = self.issuer
        if not isinstance(issuer, str) or not issuer:
            raise ConfigurationError("issuer: expected the exact `iss` of the tokens, a non-empty string")
        audiences = self._strings("audiences")
        algorithms = self._strings("algorithms")
        self._strings("scope_claims")
        if not audiences and not self.allow_any_audience:
            raise self._fault("audiences", "is empty; list what `aud` has to name, or spell out allow_any_audience=True")
        if audiences and self.allow_any_audience:
            raise self._fault("audiences", "and allow_any_audience contradict each other; drop one of them")
        if not algorithms:
            raise self._fault("algorithms", f"is empty; choose from {', '.join(sorted(SUPPORTED_ALGORITHMS))}")
        for name in algorithms:
            if canonical_algorithm(name) not in SUPPORTED_ALGORITHMS:
                raise self._fault(
                    "algorithms", f"has {name!r}; choose from {', '.join(sorted(SUPPORTED_ALGORITHMS))} (never none or HMAC)"
                )
        if not (_is_number(self.leeway_s) and 0 <= self.leeway_s <= 600):
            raise self._fault("leeway_s", "has to be 0 to 600 seconds")
        if self.max_lifetime_s is not None and not (_is_number(self.max_lifetime_s) and self.max_lifetime_s > 0):
            raise self._fault("max_lifetime_s", "has to be above 0 seconds, or None for no limit")
        self._source()

    def _fault(self, argument: str, text: str) -> ConfigurationError:
        return ConfigurationError(f"issuer {self.issuer!r}: {argument} {text}")

    def _strings(self, argument: str) -> tuple[str, ...]:
        value = getattr(self, argument)
        # A collection, because an iterator is used up by the first who looks, and every token would be refused.
        if not isinstance(value, Collection) or isinstance(value, str) or not all(isinstance(e, str) and e for e in value):
            raise self._fault(argument, "has to be a list of non-empty strings")
        return tuple(value)

    def _url(self, argument: str, url: str) -> str:
        fault = url_fault(url, allow_insecure_http=self.fetch.allow_insecure_http)
        if fault is not None:
            raise self._fault(argument, fault)
        return url

    def _source(self) -> KeySource:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) > 1:
            raise self._fault(" and ".join(given), "are both given; keep one source of keys")
        if self.key_source is not None:
            return self.key_source
        if self.jwks_file is not None:
            return FileSource(os.fspath(self.jwks_file))
        if self.jwks is not None:
            return InlineSource.of(self.jwks)
        if self.jwks_uri is not None:
            return JwksUriSource(self._url("jwks_uri", self.jwks_uri), self.fetch)
        if self.discovery_uri is not None:
            return DiscoverySource(self._url("discovery_uri", self.discovery_uri), self.issuer, self.fetch)
        if url_fault(self.issuer, allow_insecure_http=self.fetch.allow_insecure_http) is not None:
            raise self._fault(
                "as OpenID discovery address",
                "cannot be used: it has to be https://, or http:// on loopback; "
                "give jwks_uri, jwks_file, jwks or discovery_uri",
            )
        return DiscoverySource(self.issuer.rstrip("/") + _DISCOVERY_PATH, self.issuer, self.fetch)

    def rules(self) -> TokenRules:
        """What this issuer's tokens have to be."""
        return TokenRules(
            issuer=self.issuer,
            audiences=None if self.allow_any_audience else frozenset(self.audiences),
            algorithms=frozenset(map(canonical_algorithm, self.algorithms)),
            leeway_s=self.leeway_s,
            max_lifetime_s=self.max_lifetime_s,
            require_at_jwt=self.require_at_jwt,
            scope_claims=tuple(self.scope_claims),
        )

    def keys(self) -> Keys:
        """This issuer's keys; nothing is fetched yet. Raises `ConfigurationError` for an inline set without a usable key."""
        source = self._source()
        if isinstance(source, InlineSource):
            return StaticKeys(source, self.cache)
        return Refresher(source, self.cache, name=self.issuer, timeout_s=self.fetch.timeout_s)


_SOURCES: Final = ("jwks_uri", "jwks_file", "jwks", "discovery_uri", "key_source")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
