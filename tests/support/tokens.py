"""Keys and tokens for tests: right ones in one line, and any wrong one by naming what is wrong with it."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ISSUER = "https://issuer.example"
AUDIENCE = "orders"

_CURVES: dict[str, type[ec.EllipticCurve]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def base64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class SigningKey:
    """A private key with the `kid` and `alg` that its public JWK carries."""

    kid: str | None
    alg: str
    private_key: Any

    def jwk(self, **overrides: Any) -> dict[str, Any]:
        """The public JWK. An override of None takes the member away."""
        algorithm = get_default_algorithms()[self.alg]
        members: dict[str, Any] = dict(json.loads(algorithm.to_jwk(self.private_key.public_key())))  # type: ignore[no-untyped-call,unused-ignore]
        members.pop("key_ops", None)
        members |= {"alg": self.alg, "use": "sig", "kid": self.kid} | overrides
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, signing_input: bytes, alg: str | None = None) -> bytes:
        """A raw signature over the input, by PyJWT's algorithm."""
        return bytes(get_default_algorithms()[alg or self.alg].sign(signing_input, self.private_key))


def new_key(kid: str | None = "k1", alg: str = "RS256", *, rsa_bits: int = 2048) -> SigningKey:
    """A fresh key. EC curves follow from `alg`."""
    if alg == "EdDSA":
        return SigningKey(kid, alg, ed25519.Ed25519PrivateKey.generate())
    if alg in _CURVES:
        return SigningKey(kid, alg, ec.generate_private_key(_CURVES[alg]()))
    return SigningKey(kid, alg, rsa.generate_private_key(65537, rsa_bits))


@cache
def key(kid: str | None = "k1", alg: str = "RS256") -> SigningKey:
    """A key made once per test run: for tests that need one and do not care which."""
    return new_key(kid, alg)


def jwks(*keys: SigningKey) -> dict[str, Any]:
    """The JWK Set of the keys."""
    return {"keys": [signing_key.jwk() for signing_key in keys]}


def compact(header: dict[str, Any] | bytes, payload: Any, signing_key: SigningKey, alg: str | None = None) -> str:
    """A compact JWS over a header and payload as given: dicts become JSON, bytes are taken as they are."""
    parts = [base64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)]
    signing_input = ".".join(parts)
    return f"{signing_input}.{base64url(signing_key.sign(signing_input.encode(), alg))}"


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
    } | overrides
    return {name: value for name, value in members.items() if value is not None}


def mint(
    signing_key: SigningKey | None = None, *, header: dict[str, Any] | None = None, now: float | None = None, **claims: Any
) -> str:
    """A signed token. `claims` override those of `claims_set`, `header` those of the JOSE header; None takes one away."""
    signer = signing_key or key()
    members = {"alg": signer.alg, "typ": "at+jwt", "kid": signer.kid} | (header or {})
    return compact({n: v for n, v in members.items() if v is not None}, claims_set(now, **claims), signer)


def forged(signing_key: SigningKey | None = None, **claims: Any) -> str:
    """A token that is right in everything but its signature, which is another key's."""
    signer = signing_key or key()
    return mint(SigningKey(signer.kid, signer.alg, key("forger", signer.alg).private_key), **claims)
