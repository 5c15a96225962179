"""An issuer in the test's own process: it signs any token in one line, right or wrong, and rotates its keys."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..authenticator import Authenticator
from ..issuer import DEFAULT_ALGORITHMS, Issuer
from ..policy.table import Policies
from .keys import SigningKey, compact, forgery_of, jwks, new_key, signed, without_none

LIFETIME_S: Final = 3600.0
_SOURCES: Final = frozenset({"jwks", "jwks_uri", "jwks_file", "discovery_uri", "key_source"})


class LocalIssuer:
    """Signs tokens, and knows how a service has to trust it. Everything can be set while it is in use.

    `iss`, `audience`, `sub`: what tokens say when nothing else is asked for. `clock`: seconds since the epoch, for `iat`
    and `exp`, and for the authenticators made here. `key` signs; `published` is what `jwks()` holds. `make_key`: where
    keys come from, by `kid` and `alg`; by default every issuer has fresh keys, with `shared_key` they are made once.
    """

    def __init__(
        self,
        iss: str = "https://issuer.example",
        *,
        audience: str = "tests",
        sub: str = "user-1",
        alg: str = "ES256",
        clock: Callable[[], float] = time.time,
        make_key: Callable[[str, str], SigningKey] = new_key,
    ) -> None:
        self.iss = iss
        self.audience = audience
        self.sub = sub
        self.clock = clock
        self._make_key = make_key
        self._key_numbers = itertools.count(1)
        self._token_numbers = itertools.count(1)
        self.key = self._next_key(alg)
        self.published: tuple[SigningKey, ...] = (self.key,)

    def _next_key(self, alg: str) -> SigningKey:
        return self._make_key(f"key-{next(self._key_numbers)}", alg)

    def rotate(self, alg: str | None = None, *, overlap: bool = True) -> SigningKey:
        """Sign with a new key from now on. `overlap`: the keys before it stay published; off, they are withdrawn.

        `alg`: the algorithm from now on; None for that of the key before.
        """
        self.key = self._next_key(alg or self.key.alg)
        self.published = (*self.published, self.key) if overlap else (self.key,)
        return self.key

    def jwks(self) -> dict[str, Any]:
        """The JWK Set of the published keys."""
        return jwks(*self.published)

    def claims(self, *, expires_in_s: float = LIFETIME_S, **overrides: Any) -> dict[str, Any]:
        """The claims set of a token. It has no scopes. An override of None takes the claim away."""
        now = int(self.clock())
        exp = int(now + expires_in_s)
        members = {
            "iss": self.iss,
            "sub": self.sub,
            "aud": self.audience,
            "iat": now if exp > now else exp - int(LIFETIME_S),
            "exp": exp,
            "jti": f"token-{next(self._token_numbers)}",
            "client_id": "client-1",
        }
        return without_none(members | overrides)

    def token(
        self,
        *,
        header: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        expires_in_s: float = LIFETIME_S,
        **claims: Any,
    ) -> str:
        """A signed access token, with any claim as a keyword: `token(scope="orders.read", sub=None)`.

        `header` overrides the JOSE header. None takes a claim or a header member away. `expires_in_s` may be negative;
        `exp=` goes first. `key`: signs in place of the issuer's.
        """
        return signed(key or self.key, self.claims(expires_in_s=expires_in_s, **claims), header)

    def expired(self, **claims: Any) -> str:
        """A token that was good until a lifetime ago: longer than any leeway."""
        return self.token(expires_in_s=-LIFETIME_S, **claims)

    def forged(self, **claims: Any) -> str:
        """A token that is right in everything but its signature, which is another key's."""
        return self.token(key=forgery_of(self.key), **claims)

    def unsigned(self, **claims: Any) -> str:
        """A token with `alg` "none" and an empty signature (RFC 8725 §2.1)."""
        return compact({"alg": "none", "typ": "at+jwt"}, self.claims(**claims), None)

    def compact(self, header: Mapping[str, Any] | bytes, payload: Any) -> str:
        """Signs a header and payload as given: objects become JSON, bytes are taken as they are."""
        return compact(header, payload, self.key)

    def issuer(self, **options: Any) -> Issuer:
        """How a service trusts this issuer: by the keys published at this moment, unless `options` name another source.

        `options` are those of `grpc_bearer.Issuer`: with `jwks_uri=server.jwks_uri` keys are fetched, and rotation is seen.
        """
        made_with: dict[str, Any] = {
            "audiences": [self.audience],
            "algorithms": sorted({*DEFAULT_ALGORITHMS, *(each.alg for each in self.published)}),
        }
        if _SOURCES.isdisjoint(options):
            made_with["jwks"] = self.jwks()
        return Issuer(self.iss, **made_with | options)

    def authenticator(self, *, policies: Policies | None = None, **of_issuer: Any) -> Authenticator:
        """An authenticator that trusts this issuer and goes by its clock. `of_issuer`: see `issuer`."""
        return Authenticator([self.issuer(**of_issuer)], policies=policies, clock=self.clock)
