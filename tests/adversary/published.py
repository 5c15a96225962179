"""Attacks by what an issuer has published by mistake: weak keys, keys for other ends, keys that are none.

Each token is signed by the very key, and right in all else. The key must have been left out of the set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from tests.adversary.case import INVALID, Group
from tests.adversary.signatures import edge_kid
from tests.adversary.world import Signer, World
from tests.support.tokens import base64url

WEAK: Final = "weak and odd RSA keys"
CURVE: Final = "EC and OKP keys that are none"
PURPOSE: Final = "use, key_ops, alg of a key"


@dataclass(frozen=True)
class Odd:
    """A published member that must not verify. `signer` really signs with it, or with what it pretends to be."""

    group: str
    name: str
    member: bytes
    signer: Signer
    source: str
    right: Signer

    @property
    def kid(self) -> str:
        """Under which it is published."""
        return str(self.signer.kid)


def odd(world: World) -> Iterator[Odd]:
    """All of them. The same world has the same ones."""
    for name, weak in world.weak.items():
        yield Odd(WEAK, name, _text(weak.jwk()), weak, "RFC 8017 §3.1" if "exponent" in name else "RFC 7518 §3.3", world.cubic)
    for bits, short in world.short.items():
        yield Odd(WEAK, f"{bits} bits", _text(short.jwk()), short, "RFC 7518 §3.3", world.rsa)
    yield from _odd_numbers(world)
    yield from _purposes(world)
    yield from _no_points(world)


def _text(jwk: Any) -> bytes:
    return json.dumps(jwk).encode()


def _odd_numbers(world: World) -> Iterator[Odd]:
    n = world.rsa.jwk()["n"]
    numbers: list[tuple[str, dict[str, Any], str]] = [
        ("its exponent in decimal", {"e": "65537"}, "RFC 7518 §6.3.1.2"),
        ("no exponent", {"e": None}, "RFC 7518 §6.3.1.2"),
        ("an exponent of 0", {"e": "AA"}, "RFC 8017 §3.1"),
        ("an exponent that is a number", {"e": 65537}, "RFC 7518 §6.3.1.2"),
        ("an exponent above the modulus", {"e": base64url(b"\xff" * 257)}, "RFC 8017 §3.1"),
        ("no modulus", {"n": None}, "RFC 7518 §6.3.1.1"),
        ("an empty modulus", {"n": ""}, "RFC 7518 §6.3.1.1"),
        ("a modulus that is an array", {"n": [n]}, "RFC 7518 §6.3.1.1"),
        ("private members beside the public ones", {"d": n}, "RFC 7517 §9.2"),
        ("a prime beside the public ones", {"p": n[:171]}, "RFC 7517 §9.2"),
        ("kty EC", {"kty": "EC"}, "RFC 7517 §4.1"),
        ("kty in small letters", {"kty": "rsa"}, "RFC 7517 §4.1"),
        ("no kty", {"kty": None}, "RFC 7517 §4.1"),
        ("kty oct with the modulus as secret", {"kty": "oct", "k": n}, "RFC 7517 §9.2"),
    ]
    for index, (name, members, source) in enumerate(numbers):
        signer = replace(world.rsa, kid=f"odd-{index}")
        yield Odd(WEAK, name, _text(signer.jwk(**members)), signer, source, world.rsa)
    signer = replace(world.rsa, kid="odd-twice")
    member = _text(signer.jwk())
    yield Odd(WEAK, "its modulus twice", member[:-1] + b', "n": "AQAB"}', signer, "RFC 7517 §4", world.rsa)


def _purposes(world: World) -> Iterator[Odd]:
    members: list[dict[str, Any]] = [
        *({"use": use} for use in ("enc", "SIG", "", "sig ", ["sig"], True)),
        *(
            {"key_ops": ops}
            for ops in (
                [],
                ["sign"],
                ["encrypt"],
                ["wrapKey", "deriveKey"],
                ["VERIFY"],
                "verify",
                [["verify"]],
                {"verify": True},
            )
        ),
        {"use": "sig", "key_ops": ["encrypt"]},
        *({"alg": alg} for alg in ("HS256", "none", "ES256", "EdDSA", "RSA-OAEP", "RSA1_5", "rs256", "", 256, ["RS256"])),
    ]
    for index, each in enumerate(members):
        signer = replace(world.rsa, kid=f"purpose-{index}")
        source = {"use": "RFC 7517 §4.2", "key_ops": "RFC 7517 §4.3", "alg": "RFC 7517 §4.4"}[next(reversed(each))]
        name = ", ".join(f"{name} {json.dumps(value)}" for name, value in each.items())
        yield Odd(PURPOSE, f"RSA: {name}", _text(signer.jwk(**each)), signer, source, world.rsa)
    for index, (key, each) in enumerate(
        (
            (world.es["ES256"], {"alg": "ES384"}),
            (world.es["ES256"], {"alg": "ES256K"}),
            (world.es["ES256"], {"alg": "ECDH-ES"}),
            (world.es["ES256"], {"use": "enc"}),
            (world.es["ES384"], {"alg": "ES256"}),
            (world.ed, {"alg": "ES256"}),
            (world.ed, {"alg": "Ed448"}),
            (world.ed, {"use": "enc"}),
        )
    ):
        signer = replace(key, kid=f"purpose-ec-{index}")
        yield Odd(
            PURPOSE,
            f"{key.alg}: {json.dumps(each)[1:-1]}",
            _text(signer.jwk(**each)),
            signer,
            "RFC 7517 §4.4" if "alg" in each else "RFC 7517 §4.2",
            key,
        )


def _no_points(world: World) -> Iterator[Odd]:
    es, wide = world.es["ES256"], world.es["ES384"].jwk()
    x, y = es.jwk()["x"], es.jwk()["y"]
    koblitz = ec.generate_private_key(ec.SECP256K1()).public_key().public_numbers()
    zero, off = base64url(bytes(32)), base64url(b"\1" * 32)
    points: list[tuple[str, dict[str, Any], str]] = [
        ("a point that is not on the curve", {"x": off, "y": off}, "CVE-2016-9121"),
        ("the origin", {"x": zero, "y": zero}, "CVE-2016-9121"),
        ("x and y swapped", {"x": y, "y": x}, "CVE-2016-9121"),
        ("x alone", {"y": None}, "RFC 7518 §6.2.1.3"),
        ("y empty", {"y": ""}, "RFC 7518 §6.2.1.3"),
        ("coordinates of P-384", {"x": wide["x"], "y": wide["y"]}, "RFC 7518 §6.2.1.2"),
        (
            "a point of secp256k1",
            {"x": base64url(koblitz.x.to_bytes(32, "big")), "y": base64url(koblitz.y.to_bytes(32, "big"))},
            "CVE-2016-9121",
        ),
        ("coordinates beyond the field", {"x": base64url(b"\xff" * 32), "y": y}, "RFC 7518 §6.2.1.2"),
        ("crv P-384", {"crv": "P-384"}, "RFC 7518 §6.2.1.1"),
        ("crv secp256k1", {"crv": "secp256k1"}, "RFC 8812 §3.1"),
        ("crv p-256", {"crv": "p-256"}, "RFC 7518 §6.2.1.1"),
        ("no crv", {"crv": None}, "RFC 7518 §6.2.1.1"),
        ("kty OKP", {"kty": "OKP"}, "RFC 8037 §2"),
        ("its private part", {"d": x}, "RFC 7517 §9.2"),
    ]
    for index, (name, members, source) in enumerate(points):
        signer = replace(es, kid=f"point-{index}")
        yield Odd(CURVE, f"EC: {name}", _text(signer.jwk(**members)), signer, source, es)
    ed: list[tuple[str, dict[str, Any], str]] = [
        ("31 octets", {"x": base64url(bytes(31))}, "RFC 8032 §5.1.5"),
        ("33 octets", {"x": base64url(b"\1" * 33)}, "RFC 8032 §5.1.5"),
        ("crv X25519", {"crv": "X25519"}, "RFC 8037 §3.2"),
        ("crv Ed448", {"crv": "Ed448"}, "RFC 8037 §3.1"),
        ("kty EC", {"kty": "EC"}, "RFC 8037 §2"),
        ("its private part", {"d": world.ed.jwk()["x"]}, "RFC 7517 §9.2"),
    ]
    for index, (name, members, source) in enumerate(ed):
        signer = replace(world.ed, kid=f"okp-{index}")
        yield Odd(CURVE, f"Ed25519: {name}", _text(signer.jwk(**members)), signer, source, world.ed)


def document(world: World) -> bytes:
    """The main issuer's JWK Set: the right keys, and all the odd ones among them."""
    good = [
        world.rsa.jwk(),
        world.pss.jwk(alg=None),
        *(key.jwk() for key in world.es.values()),
        world.ed.jwk(),
        world.cubic.jwk(),
    ]
    edges = [
        {"kty": "OKP", "crv": "Ed25519", "kid": edge_kid(index), "x": base64url(point)}
        for index, point in enumerate(world.edge.values())
    ]
    members = [*map(_text, good[:3]), *(each.member for each in odd(world)), *map(_text, edges), *map(_text, good[3:])]
    return b'{"keys":[' + b",".join(members) + b"]}"


def published(world: World) -> Iterator[Group]:
    """A token of each odd key."""
    for name in (WEAK, PURPOSE, CURVE):
        group = Group(name, "RFC 7517 §4")
        for each in odd(world):
            if each.group == name:
                group.token(each.name, token_of(world, each), INVALID, world.token(each.right), each.source)
        yield group


def token_of(world: World, each: Odd) -> str:
    """Really signed; where an exponent is even, claims are varied until there is a signature."""
    while True:
        try:
            return world.token(each.signer)
        except ValueError:
            continue
