"""Fresh keys, the issuers who publish them, and tokens of any kind: all that an attack is made of."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from grpc_bearer import Authenticator, CachePolicy, Issuer
from grpc_bearer.keys.jwks import SUPPORTED_ALGORITHMS
from tests.adversary.crypto import TextbookRsa, small_order_points, textbook
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, base64url, claims_set, new_key

NOW: Final = 1_800_000_000
"""The server's clock stands still here."""
STRICT: Final = "https://strict.example"
SLASHED: Final = "https://slashed.example/"
CROWDED: Final = "https://crowded.example"
OTHER: Final = "https://other.example"
COOLDOWN_S: Final = 3600.0
FETCHES_AT_MOST: Final = 3
"""The cold cache's, and the two that unknown kids can cause in a cooldown."""

Signer = SigningKey | TextbookRsa


def text(value: Any) -> bytes:
    """JSON, or octets as they are."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@dataclass(frozen=True)
class World:
    """`trap`: URL of a server that nobody may ever ask. `canary`: in every subject, and in no log line."""

    trap: str
    canary: str = field(default_factory=lambda: f"canary-{secrets.token_hex(8)}")
    rsa: SigningKey = field(default_factory=lambda: new_key("rsa"))
    forger: SigningKey = field(default_factory=lambda: new_key("forger"))
    es: dict[str, SigningKey] = field(
        default_factory=lambda: {alg: new_key(alg.lower(), alg) for alg in ("ES256", "ES384", "ES512")}
    )
    ed: SigningKey = field(default_factory=lambda: new_key("ed", "EdDSA"))
    spare: SigningKey = field(default_factory=lambda: new_key("spare", "ES256"))
    cubic: TextbookRsa = field(default_factory=lambda: textbook("cubic", 1024, 2, 3))
    weak: dict[str, TextbookRsa] = field(default_factory=lambda: dict(_weak_rsa()))
    short: dict[int, SigningKey] = field(
        default_factory=lambda: {bits: new_key(f"rsa-{bits}", rsa_bits=bits) for bits in (1024, 1536, 2047)}
    )
    edge: dict[str, bytes] = field(default_factory=small_order_points)
    _count: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @property
    def pss(self) -> SigningKey:
        """The RSA key once more, published without an `alg`: for every RSA algorithm."""
        return replace(self.rsa, kid="rsa-any", alg="PS256")

    def as_if(self, signer: SigningKey, kid: str | None = None) -> SigningKey:
        """A forger's key of the same kind under the name of a published one."""
        private = self.forger.private_key if signer.alg == "RS256" else new_key(alg=signer.alg).private_key
        return SigningKey(kid or signer.kid, signer.alg, private)

    def claims(self, **overrides: Any) -> dict[str, Any]:
        """A right claims set with a subject of its own. None takes a claim away."""
        return claims_set(NOW, **({"sub": f"{self.canary}-{next(self._count)}"} | overrides))

    def sealed(self, header: Any, claims: Any, signer: Signer | None = None, alg: str | None = None) -> str:
        """A compact JWS, signed rightly, over a header and claims as given: octets are taken as they are."""
        signing_input = f"{base64url(text(header))}.{base64url(text(claims))}"
        return f"{signing_input}.{base64url((signer or self.rsa).sign(signing_input.encode(), alg))}"

    def token(self, signer: Signer | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is right, but for what is overridden. In `header`, None is null; `del_` takes members away."""
        signer = signer or self.rsa
        members: dict[str, Any] = {"typ": "at+jwt"} | self.header(signer) | (header or {})
        absent = members.pop("del_", ())
        return self.sealed({name: members[name] for name in members if name not in absent}, self.claims(**claims), signer)

    def headed(self, header: Any, signer: Signer | None = None) -> str:
        """A token with just this JOSE header, and right claims."""
        return self.sealed(header, self.claims(), signer)

    def claiming(self, claims: Any, signer: Signer | None = None) -> str:
        """A token with just this claims set, and a right header."""
        return self.sealed(self.header(signer or self.rsa), claims, signer)

    def header(self, signer: Signer) -> dict[str, Any]:
        """The JOSE header that names the key."""
        return {"alg": signer.alg, "kid": signer.kid}

    def unsigned(self, header: Any, claims: Any = None, signature: bytes = b"") -> str:
        """A compact JWS with whatever signature."""
        payload = self.claims() if claims is None else claims
        return f"{base64url(text(header))}.{base64url(text(payload))}.{base64url(signature)}"

    def parts(self, remainder: int | None = None) -> list[str]:
        """The parts of a right token; `remainder`: what the lengths of header and claims leave divided by four."""
        header, claims = self.header(self.rsa) | {"x": ""}, self.claims(x="")
        while True:
            parts = self.sealed(header, claims).split(".")
            if remainder is None or (len(parts[0]) % 4, len(parts[1]) % 4) == (remainder, remainder):
                return parts
            header["x"] += "x" * (len(parts[0]) % 4 != remainder)
            claims["x"] += "x" * (len(parts[1]) % 4 != remainder)


def _weak_rsa() -> Iterator[tuple[str, TextbookRsa]]:
    yield "an exponent of 1: the message is its own signature", textbook("e-1", 1024, 2, 1)
    yield "an exponent of 2", textbook("e-2", 1024, 2, 2)
    yield "an exponent of 65536", textbook("e-65536", 1024, 2, 65536)
    yield "512 bits, which are factored in hours", textbook("rsa-512", 512, 1, 65537)
    yield "8704 bits, which cost 18 times as much to verify", textbook("rsa-8704", 512, 17, 65537)


def authenticator(world: World, jwks_uri: str) -> Authenticator:
    """The server under attack: the main issuer's keys are fetched, all others' given."""

    def issuer(name: str, *keys: dict[str, Any], **options: Any) -> Issuer:
        return Issuer(name, **({"audiences": [AUDIENCE], "jwks": {"keys": list(keys)}} | options))

    spare, second = world.spare, world.es["ES256"]
    fetched: dict[str, Any] = {"jwks": None, "jwks_uri": jwks_uri, "cache": CachePolicy(cooldown_s=COOLDOWN_S)}
    return Authenticator(
        [
            issuer(ISSUER, algorithms=sorted(SUPPORTED_ALGORITHMS), **fetched),
            issuer(STRICT, spare.jwk(), world.ed.jwk(), algorithms=["ES256"], require_at_jwt=True, max_lifetime_s=3600),
            issuer(SLASHED, spare.jwk()),
            issuer(CROWDED, spare.jwk(), spare.jwk(kid="twice"), second.jwk(kid="twice")),
            issuer(OTHER, spare.jwk(kid="rsa"), spare.jwk(kid="es256"), world.ed.jwk(alg=None, kid=None)),
        ],
        clock=lambda: float(NOW),
    )
