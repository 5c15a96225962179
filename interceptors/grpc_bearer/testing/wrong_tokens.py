"""Tokens that no service may let in, each with the reason that its caller reads: one parametrized test tries them all."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import Reason
from .issuer import LIFETIME_S, LocalIssuer
from .keys import base64url, new_key

MALFORMED: Final = Reason.TOKEN_MALFORMED
INVALID: Final = Reason.TOKEN_INVALID


@dataclass(frozen=True)
class WrongToken:
    """`str()` says what is wrong. `reason`: what a service says to it that trusts the issuer as `LocalIssuer.issuer()` does."""

    what: str
    reason: Reason
    token: Callable[[LocalIssuer], str]

    def __str__(self) -> str:
        return self.what


def _later(issuer: LocalIssuer) -> int:
    return int(issuer.clock() + LIFETIME_S)


def _claims(issuer: LocalIssuer, text: str, **claims: Any) -> str:
    """A token whose claims set ends with this text."""
    members = json.dumps(issuer.claims(**claims))[:-1]
    return issuer.compact({"alg": issuer.key.alg, "kid": issuer.key.kid}, f"{members}, {text}}}".encode())


def _by_hmac(issuer: LocalIssuer) -> str:
    """Signed with what everybody knows: the public key as the secret of an HMAC (RFC 8725 §2.1)."""
    public_key = issuer.key.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input = issuer.token(header={"alg": "HS256"}).rpartition(".")[0]
    return f"{signing_input}.{base64url(hmac.digest(public_key, signing_input.encode(), hashlib.sha256))}"


def _with_its_own_key(issuer: LocalIssuer) -> str:
    """Signed by a key that the token brings along (RFC 8725 §3.10)."""
    own = new_key(issuer.key.kid, issuer.key.alg)
    return issuer.token(key=own, header={"jwk": own.jwk()})


def _altered(issuer: LocalIssuer) -> str:
    """Another claims set under the signature of the first."""
    header, _claims, signature = issuer.token().split(".")
    return f"{header}.{issuer.token(sub='another').split('.')[1]}.{signature}"


WRONG_TOKENS: Final[tuple[WrongToken, ...]] = (
    WrongToken("expired", Reason.TOKEN_EXPIRED, lambda i: i.expired()),
    WrongToken("not valid yet", Reason.TOKEN_NOT_YET_VALID, lambda i: i.token(nbf=_later(i))),
    WrongToken("issued in the future", Reason.TOKEN_NOT_YET_VALID, lambda i: i.token(iat=_later(i))),
    WrongToken("without an end", INVALID, lambda i: i.token(exp=None)),
    WrongToken("its end is text", MALFORMED, lambda i: i.token(exp=str(_later(i)))),
    WrongToken("its end is NaN", MALFORMED, lambda i: i.token(exp=float("nan"))),
    WrongToken("for another audience", INVALID, lambda i: i.token(aud=f"not-{i.audience}")),
    WrongToken("for no audience", INVALID, lambda i: i.token(aud=None)),
    WrongToken("of another issuer", INVALID, lambda i: i.token(iss=f"{i.iss}.example")),
    WrongToken("of an issuer with a slash more", INVALID, lambda i: i.token(iss=f"{i.iss}/")),
    WrongToken("of no issuer", INVALID, lambda i: i.token(iss=None)),
    WrongToken("forged", INVALID, lambda i: i.forged()),
    WrongToken("altered", INVALID, _altered),
    WrongToken("signed by a key that is not published", INVALID, lambda i: i.token(key=new_key("unknown", i.key.alg))),
    WrongToken("signed by a key that it brings along", INVALID, _with_its_own_key),
    WrongToken("signed by HMAC with the public key", INVALID, _by_hmac),
    WrongToken("alg none, unsigned", MALFORMED, lambda i: i.unsigned()),
    WrongToken("alg none, signed", INVALID, lambda i: i.token(header={"alg": "none"})),
    WrongToken("without its signature", MALFORMED, lambda i: i.token().rpartition(".")[0]),
    WrongToken("of another kind", INVALID, lambda i: i.token(header={"typ": "dpop+jwt"})),
    WrongToken("with an extension that is critical", MALFORMED, lambda i: i.token(header={"crit": ["x"], "x": 1})),
    WrongToken("with a claim twice", MALFORMED, lambda i: _claims(i, f'"exp": {_later(i)}')),
    WrongToken("with a claim too deep", MALFORMED, lambda i: _claims(i, f'"deep": {"[" * 100}{"]" * 100}')),
    WrongToken("padded", MALFORMED, lambda i: f"{i.token()}=="),
    WrongToken("encrypted", MALFORMED, lambda i: f"{i.token()}.AA.AA"),
    WrongToken("opaque", MALFORMED, lambda i: "c2VjcmV0"),
)
"""For `@pytest.mark.parametrize("wrong", WRONG_TOKENS, ids=str)`."""
