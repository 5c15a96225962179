"""What a token of the embedded issuer holds (RFC 9068, pure but for the signature)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from .keys import SigningKey


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a token is asked for. `ttl_s` may be negative: an expired token. `claims` win over everything else."""

    sub: str = "dev-user"
    audience: str = ""
    scope: str = ""
    client_id: str = "grpc-bearer-cli"
    ttl_s: int = 900
    alg: str = "RS256"
    claims: Mapping[str, Any] = field(default_factory=dict)


def mint(request: TokenRequest, *, issuer: str, key: SigningKey, now: int, jti: str) -> str:
    """A signed access token (RFC 9068 §2). `now`: seconds since the epoch."""
    claims = {
        "iss": issuer,
        "sub": request.sub,
        "aud": request.audience,
        "client_id": request.client_id,
        "iat": min(now, now + request.ttl_s),
        "exp": now + request.ttl_s,
        "jti": jti,
    }
    if request.scope:
        claims["scope"] = request.scope
    headers = {"typ": "at+jwt", "kid": key.kid}
    return jwt.encode(claims | dict(request.claims), key.private_key, algorithm=key.alg, headers=headers)
