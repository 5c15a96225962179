"""Signatures that no library would make: textbook RSA, odd ECDSA numbers, Ed25519's edge points (pure arithmetic)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.tokens import base64url

DIGEST_INFO_SHA256: Final = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 §9.2, note 1
DIGEST_INFO_SHA1: Final = bytes.fromhex("3021300906052b0e03021a05000414")


def octets(number: int) -> bytes:
    """The shortest big-endian octets of a number."""
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")


def emsa_pkcs1(digest_info: bytes, length: int) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 §9.2) around a DigestInfo with its hash."""
    return b"\0\1" + b"\xff" * (length - len(digest_info) - 3) + b"\0" + digest_info


def _prime(bits: int, residue: int) -> int:
    """A fresh prime p with p % 4 == residue, out of keys that cryptography makes (1024 bits are the least it does)."""
    while True:
        numbers = rsa.generate_private_key(65537, bits * 2).private_numbers()
        for prime in (numbers.p, numbers.q):
            if prime % 4 == residue:
                return prime


@dataclass(frozen=True)
class TextbookRsa:
    """An RSA key with whatever numbers. RS256 signatures by plain arithmetic, where its exponent lets there be any."""

    kid: str
    primes: tuple[int, ...]
    exponent: int
    alg: str = "RS256"

    @property
    def modulus(self) -> int:
        product = 1
        for prime in self.primes:
            product *= prime
        return product

    @property
    def length(self) -> int:
        """Octets of a signature."""
        return (self.modulus.bit_length() + 7) // 8

    def jwk(self, **overrides: Any) -> dict[str, Any]:
        """The public JWK."""
        numbers = {"n": base64url(octets(self.modulus)), "e": base64url(octets(self.exponent))}
        return {"kty": "RSA", "alg": self.alg, "use": "sig", "kid": self.kid} | numbers | overrides

    def sign(self, signing_input: bytes, _alg: str | None = None) -> bytes:
        """A real signature: raised to the exponent, it is the encoded message. Raises `ValueError` where there is none."""
        encoded = emsa_pkcs1(DIGEST_INFO_SHA256 + hashlib.sha256(signing_input).digest(), self.length)
        signature = self._root(int.from_bytes(encoded, "big"))
        if pow(signature, self.exponent, self.modulus) != int.from_bytes(encoded, "big"):
            raise ValueError("no signature of this message under this exponent")
        return signature.to_bytes(self.length, "big")

    def _root(self, message: int) -> int:
        """The `exponent`-th root: powers of two by square roots modulo primes that are 3 mod 4, the rest by an inverse."""
        halvings = (self.exponent & -self.exponent).bit_length() - 1
        odd = self.exponent >> halvings
        root, product = 0, self.modulus
        for prime in self.primes:
            residue = message % prime
            for _ in range(halvings):
                residue = pow(residue, (prime + 1) // 4, prime)
            residue = pow(residue, pow(odd, -1, prime - 1), prime)
            rest = product // prime
            root += residue * rest * pow(rest, -1, prime)
        return root % product


def textbook(kid: str, prime_bits: int, count: int, exponent: int) -> TextbookRsa:
    """A fresh one. An even exponent needs primes that are 3 mod 4; the odd part has to be prime to every p - 1."""
    while True:
        primes = tuple(_prime(prime_bits, 3) for _ in range(count))
        key = TextbookRsa(kid, primes, exponent)
        odd = exponent // (exponent & -exponent)
        if len(set(primes)) == count and all((prime - 1) % factor for prime in primes for factor in (odd,) if factor > 1):
            return key


def cube_root_forgery(signing_input: bytes, length: int) -> bytes:
    """A signature of nobody for e = 3: its cube begins as the encoded message does, and ends in garbage (CVE-2006-4339)."""
    head = b"\0\1" + b"\xff" * 8 + b"\0" + DIGEST_INFO_SHA256 + hashlib.sha256(signing_input).digest()
    target = int.from_bytes(head + b"\xff" * (length - len(head)), "big")
    low, high = 0, 1 << (target.bit_length() // 3 + 2)
    while low < high:  # the integer cube root, rounded down
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= target else (low, middle - 1)
    assert (low**3).to_bytes(length, "big").startswith(head)
    return low.to_bytes(length, "big")


ORDER: Final = {  # n of P-256, P-384 and P-521 (FIPS 186-4 D.1.2)
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": int(
        "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
        16,
    ),
}
HALF: Final = {"ES256": 32, "ES384": 48, "ES512": 66}
"""Octets of r and of s (RFC 7518 §3.4)."""


def halves(signature: bytes) -> tuple[int, int]:
    """r and s of a JWS signature."""
    half = len(signature) // 2
    return int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")


def joined(r: int, s: int, half: int) -> bytes:
    """A JWS signature of r and s."""
    return r.to_bytes(half, "big") + s.to_bytes(half, "big")


# Ed25519 (RFC 8032 §5.1): field, order of the base point.
_P: Final = 2**255 - 19
ED_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
IDENTITY: Final = b"\1" + bytes(31)


def _add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = one, other
    product = _D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, _P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, _P)
    return x % _P, y % _P


def _encoded(x: int, y: int) -> bytes:
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _root(square: int) -> int | None:
    candidate = pow(square, (_P + 3) // 8, _P)
    for root in (candidate, candidate * pow(2, (_P - 1) // 4, _P) % _P):
        if root * root % _P == square % _P:
            return root
    return None


def _order_eight() -> tuple[int, int]:
    """A point of order 8: some point of the curve, times the order of the base point."""
    y = 2
    while True:
        x = _root((y * y - 1) * pow(_D * y * y + 1, -1, _P))
        if x is not None:
            point, total, factor = (x, y), (0, 1), ED_ORDER
            while factor:
                if factor & 1:
                    total = _add(total, point)
                point, factor = _add(point, point), factor >> 1
            if _add(_add(total, total), _add(total, total)) != (0, 1):
                return total
        y += 1


def small_order_points() -> dict[str, bytes]:
    """The eight points whose order divides 8, and the encodings of them that are not canonical (RFC 8032 §5.1.3)."""
    generator = _order_eight()
    multiple, points = (0, 1), {}
    for factor in range(8):
        points[f"{factor} times a point of order 8"] = _encoded(*multiple)
        multiple = _add(multiple, generator)
    points["the identity, with its sign bit set"] = (1 | 1 << 255).to_bytes(32, "little")
    points["the identity, y = p + 1"] = (_P + 1).to_bytes(32, "little")
    points["y = p, which is 0"] = _P.to_bytes(32, "little")
    points["y = p - 1, with its sign bit set"] = (_P - 1 | 1 << 255).to_bytes(32, "little")
    return points
