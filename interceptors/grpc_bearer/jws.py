"""JWS compact serialisation, read strictly: text -> JOSE header, claims set, signing input, signature (pure).

RFC 7515 §7.1 and §5.2, with the choices of RFC 8725: unpadded and canonical base64url, strict JSON, `crit` refused (we
understand no extension), `b64` refused (RFC 7797), and no key material taken from the token: `jku`, `jwk`, `x5u` and `x5c`
are never looked at.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from dataclasses import dataclass
from typing import Any, Final

from .errors import malformed
from .strict_json import StrictJsonError, loads

MAX_KEY_ID_LENGTH: Final = 512

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)", re.ASCII)
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")  # bytes, whose translate costs a tenth of str's
_PADDING: Final = (b"", None, b"==", b"=")
# RFC 4648 §3.5: the bits that the last character has too many must be zero, else two texts mean the same octets.
_CANONICAL_LAST: Final = (None, None, frozenset("AQgw"), frozenset("AEIMQUYcgkosw048"))


@dataclass(frozen=True, slots=True)
class Header:
    """The JOSE header's members that we act on."""

    alg: str
    kid: str | None
    typ: str | None


@dataclass(frozen=True, slots=True)
class CompactJws:
    """A well-formed, not yet verified JWS. Nothing in it may be trusted."""

    header: Header
    claims_set: dict[str, Any]
    signing_input: bytes
    signature: bytes


def base64url(text: str) -> bytes:
    """Decode unpadded, canonical base64url (RFC 7515 §2). `text` has no character outside the alphabet.

    Raises `AuthError` TOKEN_MALFORMED.
    """
    remainder = len(text) % 4
    padding = _PADDING[remainder]
    canonical_last = _CANONICAL_LAST[remainder]
    if padding is None or (canonical_last is not None and text[-1] not in canonical_last):
        raise malformed("base64url is not canonical")
    return a2b_base64(text.encode("ascii").translate(_TO_STANDARD) + padding, strict_mode=True)


def _json_object(part: str, what: str) -> dict[str, Any]:
    try:
        value = loads(base64url(part))
    except StrictJsonError as error:
        raise malformed(f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise malformed(f"{what}: not a JSON object")
    return value


def parse_header(part: str) -> Header:
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


def parse(token: str) -> CompactJws:
    """Read a compact JWS whose payload is a claims set. Raises `AuthError` TOKEN_MALFORMED, never anything else."""
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise malformed("not a compact JWS: three non-empty base64url parts")
    header_part, claims_part, signature_part = match.groups()
    return CompactJws(
        header=parse_header(header_part),
        claims_set=_json_object(claims_part, "claims set"),
        signing_input=token[: match.end(2)].encode("ascii"),
        signature=base64url(signature_part),
    )
