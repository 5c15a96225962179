"""Attacks by the signature: ECDSA, EdDSA and RSA as no signer would make them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from tests.adversary.case import ACCEPTED, INVALID, Group
from tests.adversary.crypto import (
    DIGEST_INFO_SHA1,
    DIGEST_INFO_SHA256,
    ED_ORDER,
    HALF,
    IDENTITY,
    ORDER,
    cube_root_forgery,
    emsa_pkcs1,
    halves,
    joined,
)
from tests.adversary.world import Signer, World
from tests.support.tokens import SigningKey, base64url

Change = Callable[[bytes, bytes], bytes]
"""Of the signing input and its right signature, a wrong one."""


def resigned(world: World, signer: Signer, change: Change) -> str:
    """A token whose signature is made of the right one: `change(signing input, right signature)`."""
    token = world.unsigned(world.header(signer))
    signing_input = token.rpartition(".")[0]
    return f"{signing_input}.{base64url(change(signing_input.encode(), signer.sign(signing_input.encode())))}"


def ecdsa(world: World) -> Iterator[Group]:
    """Other spellings of r and s, other curves, and numbers that verify anything where nobody looks at their range."""
    group = Group("ECDSA signatures", "RFC 7518 §3.4")
    for signer in world.es.values():
        _of_curve(world, group, signer)
    signer = world.es["ES256"]
    koblitz = ec.generate_private_key(ec.SECP256K1())
    foreign = resigned(
        world, signer, lambda i, _s: joined(*decode_dss_signature(koblitz.sign(i, ec.ECDSA(hashes.SHA256()))), half=32)
    )
    group.token("ES256: by a key on secp256k1", foreign, INVALID, world.token(signer), "CVE-2016-9121")
    yield group


def _of_curve(world: World, group: Group, signer: SigningKey) -> None:
    alg, half, order, other = signer.alg, HALF[signer.alg], ORDER[signer.alg], world.as_if(signer)
    psychic, length, number, covered = "CVE-2022-21449", "CVE-2020-28042", "CVE-2020-13822", "RFC 7515 §5.2"
    changed: dict[str, tuple[Change, str]] = {
        "DER": (lambda _i, s: encode_dss_signature(*halves(s)), "CVE-2020-14966"),
        "DER and a trailing octet": (lambda _i, s: encode_dss_signature(*halves(s)) + b"\0", "CVE-2019-14859"),
        "DER of zeros": (lambda _i, _s: encode_dss_signature(0, 0), psychic),
        "zeros": (lambda _i, s: bytes(len(s)), psychic),
        "r = 0": (lambda _i, s: joined(0, halves(s)[1], half), psychic),
        "s = 0": (lambda _i, s: joined(halves(s)[0], 0, half), psychic),
        "r = s = 1": (lambda _i, _s: joined(1, 1, half), psychic),
        "r = n": (lambda _i, s: joined(order, halves(s)[1], half), psychic),
        "s = n": (lambda _i, s: joined(halves(s)[0], order, half), psychic),
        "r = s = n": (lambda _i, _s: joined(order, order, half), psychic),
        "r = n, s = 1": (lambda _i, _s: joined(order, 1, half), psychic),
        "all bits set": (lambda _i, s: b"\xff" * len(s), number),
        "r and s swapped": (lambda _i, s: s[half:] + s[:half], ""),
        "an octet too few": (lambda _i, s: s[:-1], length),
        "an octet too many": (lambda _i, s: s + b"\0", ""),
        "a zero before r and s each": (lambda _i, s: b"\0" + s[:half] + b"\0" + s[half:], number),
        "r alone": (lambda _i, s: s[:half], length),
        "twice": (lambda _i, s: s + s, ""),
        "of another input": (lambda i, _s: signer.sign(i + b"x"), covered),
        "of the input's hash": (lambda i, _s: signer.sign(hashlib.sha256(i).digest()), covered),
        "of another key": (lambda i, _s: other.sign(i), covered),
    }
    if alg == "ES512":  # the one curve where r + n fits its octets
        changed["r + n"] = (lambda _i, s: joined(halves(s)[0] + order, halves(s)[1], half), number)
    for name, (change, source) in changed.items():
        group.token(f"{alg}: {name}", resigned(world, signer, change), INVALID, world.token(signer), source)
    negative = resigned(world, signer, lambda _i, s: joined(halves(s)[0], order - halves(s)[1], half))
    name = f"{alg}: n - s, the other right signature of each message"
    group.token(name, negative, ACCEPTED, world.token(signer), covered)
    for named in sorted({*HALF, "ES256K", "EdDSA", "RS256"} - {alg}):
        crossed = world.sealed({"alg": named, "kid": signer.kid}, world.claims(), signer)
        group.token(f"{alg}: said to be {named}", crossed, INVALID, world.token(signer), "CVE-2022-23539")
    hashed = "ES384" if alg == "ES256" else "ES256"
    wrong_hash = world.sealed(world.header(signer), world.claims(), signer, hashed)
    group.token(f"{alg}: over the hash of {hashed}", wrong_hash, INVALID, world.token(signer))


def eddsa(world: World) -> Iterator[Group]:
    """RFC 8032 §5.1.7: S below the order, and a right length; no point that makes the equation hold for whoever."""
    group = Group("Ed25519 signatures", "RFC 8032 §5.1.7")
    signer = world.ed

    def plus(signature: bytes, times: int) -> bytes:
        number = int.from_bytes(signature[32:], "little") + times * ED_ORDER
        return signature[:32] + number.to_bytes(32, "little")

    changed: dict[str, tuple[Change, str]] = {
        "S + L, the same modulo the order": (lambda _i, s: plus(s, 1), "CVE-2020-36843"),
        "S + 7 L": (lambda _i, s: plus(s, 7), ""),
        "S = 0": (lambda _i, s: s[:32] + bytes(32), ""),
        "S = L": (lambda _i, s: s[:32] + ED_ORDER.to_bytes(32, "little"), ""),
        "the top bits of S set": (lambda _i, s: s[:63] + bytes([s[63] | 0xE0]), "CVE-2020-36843"),
        "zeros": (lambda _i, _s: bytes(64), ""),
        "all bits set": (lambda _i, _s: b"\xff" * 64, ""),
        "the sign of R turned": (lambda _i, s: s[:31] + bytes([s[31] ^ 0x80]) + s[32:], ""),
        "R and S swapped": (lambda _i, s: s[32:] + s[:32], ""),
        "an octet too few": (lambda _i, s: s[:-1], "CVE-2020-28042"),
        "an octet too many": (lambda _i, s: s + b"\0", ""),
        "R alone": (lambda _i, s: s[:32], "CVE-2020-28042"),
        "of another input": (lambda i, _s: signer.sign(i + b"x"), "RFC 7515 §5.2"),
        "of the input's hash, as Ed25519ph without its prefix": (
            lambda i, _s: signer.sign(hashlib.sha512(i).digest()),
            "RFC 8032 §5.1",
        ),
        "of another key": (lambda i, _s: world.as_if(signer).sign(i), "RFC 7515 §5.2"),
        "of Ed448": (lambda i, _s: ed448.Ed448PrivateKey.generate().sign(i), "RFC 8037 §3.1"),
    }
    for name, (change, source) in changed.items():
        group.token(name, resigned(world, signer, change), INVALID, world.token(signer), source)
    for name, point in world.edge.items():
        token = world.unsigned(world.header(signer), signature=point + bytes(32))
        group.token(f"R is {name}, S = 0", token, INVALID, world.token(signer), "RFC 8032 §5.1.3")
    for named in ("Ed448", "ES256", "RS256", "ed25519", "EDDSA"):
        group.token(
            f"said to be {named}",
            world.sealed({"alg": named, "kid": "ed"}, world.claims(), signer),
            INVALID,
            world.token(signer),
            "CVE-2022-23539",
        )
    group.token(
        "Ed25519, its newer name", world.token(signer, {"alg": "Ed25519"}), ACCEPTED, world.token(signer), "RFC 9864 §2.2"
    )
    yield group
    yield _small_order_keys(world)


def _small_order_keys(world: World) -> Group:
    """Published keys of small order: a signature by nobody verifies, so the token is right in all but its key."""
    group = Group("Ed25519 keys of small order", "RFC 8032 §5.1.7")
    for index, (name, _point) in enumerate(world.edge.items()):
        kid = edge_kid(index)
        group.token(name, universal(world, kid, world.edge[name]), INVALID, world.token(world.ed))
    return group


def edge_kid(index: int) -> str:
    """Under which the edge points are published."""
    return f"edge-{index}"


def universal(world: World, kid: str, point: bytes) -> str:
    """A token that this public key verifies, though nobody has signed it: claims are varied until it does."""
    public = Ed25519PublicKey.from_public_bytes(point)
    for _ in range(1_000):
        token = world.unsigned({"alg": "EdDSA", "kid": kid}, signature=IDENTITY + bytes(32))
        try:
            public.verify(IDENTITY + bytes(32), token.rpartition(".")[0].encode())
        except InvalidSignature:
            continue
        return token
    raise AssertionError("no universal signature under this key")


def rsa(world: World) -> Iterator[Group]:
    """PKCS #1 v1.5 and PSS, with every part of the encoding wrong once."""
    group = Group("RSA signatures", "RFC 8017 §8.2.2")
    signer = world.rsa
    numbers = signer.private_key.private_numbers()
    n, d = numbers.public_numbers.n, numbers.d

    def power(encoded: bytes) -> bytes:
        return int(pow(int.from_bytes(encoded, "big"), d, n)).to_bytes(256, "big")

    def info(signing_input: bytes) -> bytes:
        return DIGEST_INFO_SHA256 + hashlib.sha256(signing_input).digest()

    def pss(salt: int, mgf: hashes.HashAlgorithm | None = None) -> Change:
        scheme = padding.PSS(padding.MGF1(mgf or hashes.SHA256()), salt)
        return lambda i, _s: bytes(signer.private_key.sign(i, scheme, hashes.SHA256()))

    changed: dict[str, tuple[Change, str]] = {
        "zeros": (lambda _i, s: bytes(len(s)), ""),
        "1": (lambda _i, s: bytes(len(s) - 1) + b"\1", ""),
        "n - 1": (lambda _i, _s: (n - 1).to_bytes(256, "big"), ""),
        "n": (lambda _i, _s: n.to_bytes(256, "big"), ""),
        "the right one plus n": (lambda _i, s: (int.from_bytes(s, "big") + n).to_bytes(257, "big"), ""),
        "n minus the right one": (lambda _i, s: (n - int.from_bytes(s, "big")).to_bytes(256, "big"), ""),
        "a zero in front": (lambda _i, s: b"\0" + s, ""),
        "an octet too few": (lambda _i, s: s[:-1], "CVE-2020-28042"),
        "an octet too many": (lambda _i, s: s + b"\0", ""),
        "the encoded message itself": (lambda i, _s: emsa_pkcs1(info(i), 256), ""),
        "the hash without its DigestInfo": (lambda i, _s: power(emsa_pkcs1(hashlib.sha256(i).digest(), 256)), "RFC 8017 §9.2"),
        "a DigestInfo without NULL": (
            lambda i, _s: power(
                emsa_pkcs1(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + hashlib.sha256(i).digest(), 256)
            ),
            "RFC 8017 §9.2",
        ),
        "SHA-1": (lambda i, _s: power(emsa_pkcs1(DIGEST_INFO_SHA1 + hashlib.sha1(i).digest(), 256)), "RFC 8725 §3.2"),
        "padding of type 2": (lambda i, _s: power(emsa_pkcs1(info(i), 256).replace(b"\0\1", b"\0\2", 1)), ""),
        "padding of zeros": (lambda i, _s: power(emsa_pkcs1(info(i), 256).replace(b"\xff", b"\0")), ""),
        "short padding, garbage after the hash": (
            lambda i, _s: power((b"\0\1" + b"\xff" * 8 + b"\0" + info(i)).ljust(256, b"\xaa")),
            "CVE-2006-4339",
        ),
        "garbage in the DigestInfo's parameters": (
            lambda i, _s: power(
                emsa_pkcs1(
                    b"\x30\x41\x30\x1d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x04\x10"
                    + bytes(16)
                    + b"\x04\x20"
                    + hashlib.sha256(i).digest(),
                    256,
                )
            ),
            "CVE-2018-16152",
        ),
        "PSS": (pss(32), "RFC 7518 §3.5"),
        "of SHA-384": (lambda i, _s: signer.sign(i, "RS384"), ""),
        "of another input": (lambda i, _s: signer.sign(i + b"x"), "RFC 7515 §5.2"),
        "of another key": (lambda i, _s: world.forger.sign(i), "RFC 7515 §5.2"),
    }
    for name, (change, source) in changed.items():
        group.token(f"RS256: {name}", resigned(world, signer, change), INVALID, world.token(), source)
    pss_changed: dict[str, tuple[Change, str]] = {
        "a salt of 0 octets": (pss(0), "RFC 7518 §3.5"),
        "a salt of 20 octets": (pss(20), "RFC 7518 §3.5"),
        "the longest salt": (pss(222), "RFC 7518 §3.5"),
        "MGF1 with SHA-1": (pss(32, hashes.SHA1()), "RFC 7518 §3.5"),
        "MGF1 with SHA-512": (pss(32, hashes.SHA512()), "RFC 7518 §3.5"),
        "PKCS #1 v1.5": (lambda i, _s: signer.sign(i, "RS256"), "RFC 8725 §3.1"),
        "zeros": (lambda _i, s: bytes(len(s)), ""),
        "PSS of SHA-512": (lambda i, _s: signer.sign(i, "PS512"), "RFC 7518 §3.5"),
    }
    for name, (change, source) in pss_changed.items():
        group.token(f"PS256: {name}", resigned(world, world.pss, change), INVALID, world.token(world.pss), source)
    for named in ("RS384", "RS512", "PS256", "ES256", "EdDSA"):
        crossed = world.sealed(
            {"alg": named, "kid": "rsa"}, world.claims(), signer, named if named[1] == "S" and named[0] in "RP" else None
        )
        group.token(f"RS256: the key is for RS256, and {named} is said", crossed, INVALID, world.token(), "RFC 7517 §4.4")
    for named in ("RS384", "RS512", "PS384", "PS512"):
        any_rsa = world.sealed({"alg": named, "kid": "rsa-any"}, world.claims(), world.pss, named)
        group.token(f"{named} by a key that names no alg", any_rsa, ACCEPTED, world.token(world.pss), "RFC 7517 §4.4")
    right = world.token(world.cubic)
    cubed = resigned(world, world.cubic, lambda i, _s: cube_root_forgery(i, 256))
    group.token("e = 3: a cube root, garbage after the hash", cubed, INVALID, right, "CVE-2006-4339")
    header, claims, signature = world.token().split(".")
    evil = base64url(json.dumps(world.claims(sub="root")).encode())
    group.token(
        "RS256: claims changed under the signature",
        f"{header}.{evil}.{signature}",
        INVALID,
        f"{header}.{claims}.{signature}",
        "RFC 7515 §5.2",
    )
    changed_header = base64url(b'{"alg":"RS256","kid":"rsa","x":1}')
    group.token(
        "RS256: header changed under the signature",
        f"{changed_header}.{claims}.{signature}",
        INVALID,
        f"{header}.{claims}.{signature}",
        "RFC 7515 §5.2",
    )
    yield group


def flipped(world: World) -> Iterator[Group]:
    """One bit of the signature, at its beginning, middle and end, of each algorithm."""
    group = Group("one bit flipped", "RFC 7515 §5.2")
    signers: list[Any] = [world.rsa, world.pss, *world.es.values(), world.ed]
    for signer in signers:
        for place in (0, 0.25, 0.5, 0.75, 1):

            def flip(_input: bytes, signature: bytes, place: float = place) -> bytes:
                index = int(place * (len(signature) - 1))
                return signature[:index] + bytes([signature[index] ^ 1]) + signature[index + 1 :]

            group.token(
                f"{signer.alg}: at {place:.0%} of the signature", resigned(world, signer, flip), INVALID, world.token(signer)
            )
    yield group
