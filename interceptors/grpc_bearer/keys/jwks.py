"""JWK Sets (RFC 7517): document -> usable public keys, and the choice of the one key that a token names (pure).

PyJWT builds the keys and verifies with them, and matches nothing itself (a P-384 key verified as ES256; measured on
2.15.1). So key type, curve, size, `use`, `key_ops` and `alg` are validated here, once, when a key is loaded.

The rule for choosing is one: the choice has to be unique. A token with a `kid` gets the key with that `kid` which fits the
algorithm; a token without one gets the only key of the set that fits it. Two that fit are a refusal, never a trial of both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from jwt import PyJWK
from jwt.algorithms import Algorithm, get_default_algorithms

from ..errors import KeysUnreadableError
from ..strict_json import StrictJsonError, loads

MIN_RSA_BITS: Final = 2048  # RFC 7518 §3.3
MAX_RSA_BITS: Final = 8192  # what a verify costs grows with the square: a bound on what an issuer can make us pay

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_TYPE: Final[Mapping[tuple[str, str | None], frozenset[str]]] = MappingProxyType(
    {
        ("RSA", None): _RSA,
        ("EC", "P-256"): frozenset({"ES256"}),
        ("EC", "P-384"): frozenset({"ES384"}),
        ("EC", "P-521"): frozenset({"ES512"}),
        ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    }
)
SUPPORTED_ALGORITHMS: Final = frozenset().union(*_BY_TYPE.values())
"""Asymmetric signatures only: `none` and HMAC have no place beside a JWK Set (RFC 8725 §3.1, §3.5)."""

_ED25519_FIELD: Final = 2**255 - 19
# y of the points whose order divides 8 (curve of RFC 8032 §5.1): under such a key a signature by nobody verifies, for every
# eighth message at least (measured on cryptography 50, which takes these keys).
_ED25519_ORDER_8_Y: Final = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_ED25519_SMALL_ORDER: Final = frozenset({0, 1, _ED25519_FIELD - 1, _ED25519_ORDER_8_Y, _ED25519_FIELD - _ED25519_ORDER_8_Y})

_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ALIASES: Final = MappingProxyType({"Ed25519": "EdDSA"})  # RFC 9864 §2.2; PyJWT knows the older name only
_ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(get_default_algorithms())


def canonical_algorithm(name: str) -> str:
    """The name under which an algorithm is known here: `Ed25519` (RFC 9864) is `EdDSA`, all others are themselves."""
    return _ALIASES.get(name, name)


class UnusableKeyError(ValueError):
    """One member of a JWK Set that cannot be used. The text is a constant, fit for a log."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One public key: its `kid` (None when it has none), the algorithms it may verify, its public numbers' digest."""

    kid: str | None
    algorithms: frozenset[str]
    thumbprint: bytes
    _public_key: Any = field(repr=False)

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's over the input. An algorithm that the key is not for never verifies."""
        if algorithm not in self.algorithms:
            return False
        return bool(_ALGORITHMS[algorithm].verify(signing_input, self._public_key, signature))


class NoKey(Enum):
    """Why a set has no one key for a token."""

    UNKNOWN_KID = "no key of the issuer has this kid"
    UNFIT = "no key of the issuer fits alg"
    AMBIGUOUS = "more than one key of the issuer fits"


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """An immutable key set. `skipped`: what was left out and why, a line each. `digest`: of the document it came from."""

    keys: tuple[Key, ...]
    skipped: tuple[str, ...]
    digest: bytes
    _by_kid: Mapping[tuple[str, str], Key | NoKey] = field(repr=False)
    _by_algorithm: Mapping[str, Key | NoKey] = field(repr=False)
    _kids: frozenset[str] = field(repr=False)

    def select(self, kid: str | None, algorithm: str) -> Key | NoKey:
        """The one key for a token's `kid` (None when it has none) and algorithm, or why there is none."""
        if kid is None:
            return self._by_algorithm.get(algorithm, NoKey.UNFIT)
        found = self._by_kid.get((kid, algorithm))
        if found is not None:
            return found
        return NoKey.UNFIT if kid in self._kids else NoKey.UNKNOWN_KID


def _unique(table: dict[Any, Key | NoKey], slot: Any, key: Key) -> None:
    table[slot] = NoKey.AMBIGUOUS if slot in table else key


def key_set(keys: tuple[Key, ...], skipped: tuple[str, ...] = (), digest: bytes = b"") -> KeySet:
    """A key set with its look-up tables."""
    by_kid: dict[tuple[str, str], Key | NoKey] = {}
    by_algorithm: dict[str, Key | NoKey] = {}
    for key in keys:
        for algorithm in key.algorithms:
            _unique(by_algorithm, algorithm, key)
            if key.kid is not None:
                _unique(by_kid, (key.kid, algorithm), key)
    kids = frozenset(key.kid for key in keys if key.kid is not None)
    return KeySet(keys, skipped, digest, MappingProxyType(by_kid), MappingProxyType(by_algorithm), kids)


def _text(jwk: Mapping[str, Any], name: str) -> str | None:
    value = jwk.get(name)
    if name in jwk and not isinstance(value, str):
        raise UnusableKeyError(f"{name} is not a string")
    return value


def _algorithms(jwk: Mapping[str, Any]) -> frozenset[str]:
    kty = _text(jwk, "kty")
    if kty is None:
        raise UnusableKeyError("kty is missing")
    if kty == "oct" or not _SECRET_MEMBERS.isdisjoint(jwk):
        raise UnusableKeyError("secret key material: a published set must hold public keys only")
    crv = _text(jwk, "crv")
    fitting = _BY_TYPE.get((kty, None if kty == "RSA" else crv))
    if fitting is None:
        raise UnusableKeyError("kty or crv is not supported")
    use = _text(jwk, "use")
    if use not in (None, "sig"):
        raise UnusableKeyError("use is not sig")
    operations = jwk.get("key_ops")
    if "key_ops" in jwk and not (isinstance(operations, list) and "verify" in operations):
        raise UnusableKeyError("key_ops does not have verify")
    alg = _text(jwk, "alg")
    if alg is None:
        return fitting
    algorithm = canonical_algorithm(alg)
    if algorithm not in fitting:
        raise UnusableKeyError("alg does not fit kty and crv, or is not supported")
    return frozenset({algorithm})


def _is_sound_ed25519(point: bytes) -> bool:
    """Whether an encoded Ed25519 point is canonical (RFC 8032 §5.1.3) and not one of the few of small order."""
    y = int.from_bytes(point, "little") & ((1 << 255) - 1)  # the top bit is the sign of x
    return y < _ED25519_FIELD and y not in _ED25519_SMALL_ORDER


def load_key(jwk: Any) -> Key:
    """One JWK (RFC 7517 §4) as a usable public key. Raises `UnusableKeyError`, whatever the JSON value is."""
    if not isinstance(jwk, dict):
        raise UnusableKeyError("not a JSON object, or one with duplicate members")
    algorithms = _algorithms(jwk)
    kid = _text(jwk, "kid")
    if kid == "":
        raise UnusableKeyError("kid is empty")
    try:
        public_key = PyJWK(jwk, algorithm=min(algorithms)).key
    except Exception:  # PyJWT lets KeyError, TypeError, NotImplementedError and binascii.Error out (measured on 2.15.1)
        raise UnusableKeyError("the key's members cannot be read") from None
    if jwk["kty"] == "RSA" and not MIN_RSA_BITS <= public_key.key_size <= MAX_RSA_BITS:
        raise UnusableKeyError(f"an RSA key has to have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if jwk["kty"] == "OKP" and not _is_sound_ed25519(public_key.public_bytes_raw()):
        raise UnusableKeyError("an Ed25519 key of small order, or not in its canonical form")
    members = "\0".join(f"{name}={jwk.get(name)}" for name in ("kty", "crv", "e", "n", "x", "y"))
    return Key(kid, algorithms, hashlib.sha256(members.encode()).digest(), public_key)


def parse_jwks(document: bytes, max_keys: int) -> KeySet:
    """A JWK Set document (RFC 7517 §5) as a key set.

    A member that cannot be used is left out and named in `skipped`. Raises `KeysUnreadableError` when the document as a
    whole is not a JWK Set, has more than `max_keys` members, or not one that can be used.
    """
    try:
        value = loads(document, mark_duplicates=True)
    except StrictJsonError as error:
        raise KeysUnreadableError(f"the JWK Set cannot be read: {error}") from None
    return _build(value, max_keys, hashlib.sha256(document).digest())


def _build(value: Any, max_keys: int, digest: bytes) -> KeySet:
    members = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(members, list):
        raise KeysUnreadableError("not a JWK Set: expected an object with an array `keys`")
    if len(members) > max_keys:
        raise KeysUnreadableError(f"the JWK Set has {len(members)} keys, more than the {max_keys} that are allowed")
    keys: list[Key] = []
    skipped: list[str] = []
    seen: set[tuple[str | None, frozenset[str], bytes]] = set()
    for index, member in enumerate(members):
        try:
            key = load_key(member)
        except UnusableKeyError as error:
            skipped.append(f"keys[{index}]: {error}")
            continue
        identity = (key.kid, key.algorithms, key.thumbprint)
        if identity not in seen:  # the same key listed twice is one key
            seen.add(identity)
            keys.append(key)
    if not keys:
        raise KeysUnreadableError(f"the JWK Set has no usable key: {'; '.join(skipped) or 'it is empty'}"[:500])
    return key_set(tuple(keys), tuple(skipped), digest)
