"""Keys that sign, and compact tokens of whatever is put into them: right ones, and any wrong one."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

_CURVES: Final[Mapping[str, type[ec.EllipticCurve]]] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def base64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that have a value: None takes one away."""
    return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True)
class SigningKey:
    """A private key with the `kid` and `alg` that its public JWK carries."""

    kid: str | None
    alg: str
    private_key: Any = field(repr=False)

    def jwk(self, **overrides: Any) -> dict[str, Any]:
        """The public JWK. An override of None takes the member away."""
        algorithm = get_default_algorithms()[self.alg]
        members: dict[str, Any] = dict(json.loads(algorithm.to_jwk(self.private_key.public_key())))  # type: ignore[no-untyped-call,unused-ignore]
        members.pop("key_ops", None)
        return without_none(members | {"alg": self.alg, "use": "sig", "kid": self.kid} | overrides)

    def sign(self, signing_input: bytes, alg: str | None = None) -> bytes:
        """A raw signature over the input, by PyJWT's algorithm."""
        return bytes(get_default_algorithms()[alg or self.alg].sign(signing_input, self.private_key))


def new_key(kid: str | None = "k1", alg: str = "ES256", *, rsa_bits: int = 2048) -> SigningKey:
    """A fresh key for RS, PS or ES 256 to 512, or EdDSA. An RSA key takes 30 to 100 ms to make, the others under 1 ms."""
    if alg == "EdDSA":
        return SigningKey(kid, alg, ed25519.Ed25519PrivateKey.generate())
    if alg in _CURVES:
        return SigningKey(kid, alg, ec.generate_private_key(_CURVES[alg]()))
    if alg not in get_default_algorithms() or alg[:2] not in ("RS", "PS"):
        raise ValueError(f"alg: {alg!r} has no key; choose RS256, PS256, ES256 (or 384, 512) or EdDSA")
    return SigningKey(kid, alg, rsa.generate_private_key(65537, rsa_bits))


@cache
def shared_key(kid: str | None = "k1", alg: str = "ES256") -> SigningKey:
    """A key made once per process. Whoever asks for the same `kid` and `alg` gets the same one."""
    return new_key(kid, alg)


def jwks(*keys: SigningKey) -> dict[str, Any]:
    """The JWK Set of the keys."""
    return {"keys": [signing_key.jwk() for signing_key in keys]}


def compact(header: Mapping[str, Any] | bytes, payload: Any, signing_key: SigningKey | None, alg: str | None = None) -> str:
    """A compact JWS over a header and payload as given: objects become JSON, bytes are taken as they are.

    Signed by `signing_key`, as `alg` where that is given and whatever the header says; for None the signature is empty.
    """
    parts = [base64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)]
    signing_input = ".".join(parts)
    signature = b"" if signing_key is None else signing_key.sign(signing_input.encode(), alg)
    return f"{signing_input}.{base64url(signature)}"


def signed(signing_key: SigningKey, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
    """An access token (RFC 9068): `header` overrides `alg`, `typ` and `kid`, and None takes a member away."""
    members = {"alg": signing_key.alg, "typ": "at+jwt", "kid": signing_key.kid} | dict(header or {})
    return compact(without_none(members), claims, signing_key)


def forgery_of(signing_key: SigningKey) -> SigningKey:
    """A key that says it is `signing_key` and is another."""
    return SigningKey(signing_key.kid, signing_key.alg, shared_key("forger", signing_key.alg).private_key)
