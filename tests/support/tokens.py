"""Keys and tokens for tests: right ones in one line, and any wrong one by naming what is wrong with it."""

from __future__ import annotations

import time
from typing import Any

from grpc_bearer.testing import keys
from grpc_bearer.testing.keys import SigningKey, base64url, compact, forgery_of, jwks, signed, without_none

__all__ = [
    "AUDIENCE",
    "ISSUER",
    "SigningKey",
    "base64url",
    "claims_set",
    "compact",
    "forged",
    "jwks",
    "key",
    "mint",
    "new_key",
]

ISSUER = "https://issuer.example"
AUDIENCE = "orders"


def new_key(kid: str | None = "k1", alg: str = "RS256", *, rsa_bits: int = 2048) -> SigningKey:
    """A fresh key. EC curves follow from `alg`."""
    return keys.new_key(kid, alg, rsa_bits=rsa_bits)


def key(kid: str | None = "k1", alg: str = "RS256") -> SigningKey:
    """A key made once per test run: for tests that need one and do not care which."""
    return keys.shared_key(kid, alg)


def claims_set(now: float | None = None, **overrides: Any) -> dict[str, Any]:
    """A claims set that `ISSUER` and `AUDIENCE` accept, good for a minute. An override of None takes the claim away."""
    at = int(time.time() if now is None else now)
    members = {
        "iss": ISSUER,
        "sub": "user-1",
        "aud": AUDIENCE,
        "iat": at,
        "exp": at + 60,
        "jti": "id-1",
        "client_id": "client-1",
        "scope": "orders.read orders.write",
    }
    return without_none(members | overrides)


def mint(
    signing_key: SigningKey | None = None, *, header: dict[str, Any] | None = None, now: float | None = None, **claims: Any
) -> str:
    """A signed token. `claims` override those of `claims_set`, `header` those of the JOSE header; None takes one away."""
    return signed(signing_key or key(), claims_set(now, **claims), header)


def forged(signing_key: SigningKey | None = None, **claims: Any) -> str:
    """A token that is right in everything but its signature, which is another key's."""
    return mint(forgery_of(signing_key or key()), **claims)
