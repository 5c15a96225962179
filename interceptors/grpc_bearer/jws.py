"""JWS compact serialisation, read strictly: text -> JOSE header, claims set, signing input, signature (pure).

RFC 7515 §7.1 and §5.2, with the choices of RFC 8725: unpadded and canonical base64url, strict JSON, `crit` refused (we
understand no extension), `b64` refused (RFC 7797), and no key material taken from the token: `jku`, `jwk`, `x5u` and `x5c`
are never looked at.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from .errors import AuthError, malformed
from .strict_json import StrictJsonError, loads

try:
    from pybase64 import b64decode
except ImportError:  # it comes with grpc-bearer[fast]
    _decoded: Callable[[bytes], bytes] = partial(a2b_base64, strict_mode=True)
else:
    _decoded = partial(b64decode, validate=True)

MAX_KEY_ID_LENGTH: Final = 512

# base64url to base64 (RFC 4648 §5), on bytes, whose translate costs a tenth of str's. What only base64 has becomes what
# neither has, for the decoder to refuse: `+`, `/`, and the padding, which RFC 7515 §2 leaves out.
_TO_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_FOREIGN: Final = re.compile(rb"[^A-Za-z0-9_-]")
_PADDING: Final = (b"", b"", b"==", b"=")
_ANY: Final = frozenset({b"", *(bytes([octet]) for octet in range(256))})
# RFC 4648 §3.5: the bits that the last character has too many must be zero, else two texts mean the same octets.
# Four characters are three octets: with one more than that there is no last one that would do.
_CANONICAL_LAST: Final = (
    _ANY,
    frozenset[bytes](),
    frozenset(map(str.encode, "AQgw")),
    frozenset(map(str.encode, "AEIMQUYcgkosw048")),
)
_NONE_KNOWN: Final[Mapping[bytes, Header]] = MappingProxyType({})


class Header(NamedTuple):
    """The JOSE header's members that we act on."""

    alg: str
    kid: str | None
    typ: str | None


class CompactJws(NamedTuple):
    """A well-formed, not yet verified JWS. Nothing in it may be trusted. `header_part`: what `header` was read from."""

    header: Header
    claims_set: dict[str, Any]
    signing_input: bytes
    signature: bytes
    header_part: bytes


def _not_compact() -> AuthError:
    return malformed("not a compact JWS: three non-empty base64url parts")


def base64url(text: bytes) -> bytes:
    """Decode unpadded, canonical base64url (RFC 7515 §2), whatever the octets.

    Raises `AuthError` TOKEN_MALFORMED.
    """
    remainder = len(text) & 3
    if text[-1:] not in _CANONICAL_LAST[remainder]:
        raise _not_compact() if _FOREIGN.search(text) else malformed("base64url is not canonical")
    try:
        return _decoded(text.translate(_TO_STANDARD) + _PADDING[remainder])
    except ValueError:
        raise _not_compact() from None


def _json_object(part: bytes, what: str) -> dict[str, Any]:
    try:
        value = loads(base64url(part))
    except StrictJsonError as error:
        raise malformed(f"{what}: {error}") from None
    if type(value) is not dict:
        raise malformed(f"{what}: not a JSON object")
    return value


def parse_header(part: bytes) -> Header:
    """The JOSE header from its base64url part. Raises `AuthError` TOKEN_MALFORMED."""
    members = _json_object(part, "JOSE header")
    alg = members.get("alg")
    if not isinstance(alg, str):
        raise malformed("JOSE header: alg is not a string")
    if "crit" in members:
        raise malformed("JOSE header: crit names an extension that is not understood")
    if "b64" in members:
        raise malformed("JOSE header: b64 is not allowed in a JWT")
    kid = members.get("kid")
    if "kid" in members and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID_LENGTH):
        raise malformed("JOSE header: kid is not a string of 1 to 512 characters")
    typ = members.get("typ")
    if "typ" in members and not isinstance(typ, str):
        raise malformed("JOSE header: typ is not a string")
    return Header(alg=alg, kid=kid, typ=typ)


def parse(token: str, known_headers: Mapping[bytes, Header] = _NONE_KNOWN) -> CompactJws:
    """Read a compact JWS whose payload is a claims set. Raises `AuthError` TOKEN_MALFORMED, never anything else.

    `known_headers`: by their part, JOSE headers that `parse_header` has read before; there are as many as an issuer has keys.
    """
    if not token.isascii():
        raise _not_compact()
    octets = token.encode("ascii")
    parts = octets.split(b".", 3)
    if len(parts) != 3 or not (parts[0] and parts[1] and parts[2]):
        raise _not_compact()
    header_part, claims_part, signature_part = parts
    return CompactJws(
        known_headers.get(header_part) or parse_header(header_part),
        _json_object(claims_part, "claims set"),
        octets[: -1 - len(signature_part)],
        base64url(signature_part),
        header_part,
    )
