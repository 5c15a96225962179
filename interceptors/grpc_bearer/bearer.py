"""RFC 6750 §2.1: call metadata -> bearer token (pure).

grpcio hands values over as they came: not trimmed, octets above 0x7E and control characters included, a repeated key
repeated. So nothing here splits, strips or builds a dict: one ASCII pattern has to match the whole value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .errors import malformed, missing

AUTHORIZATION: Final = "authorization"

# credentials = "Bearer" 1*SP b64token (RFC 6750 §2.1); the scheme's case is free (RFC 9110 §11.1).
_CREDENTIALS: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] ++([A-Za-z0-9\-._~+/]++=*+)", re.ASCII)
_SCHEME: Final = re.compile(r"bearer(?![A-Za-z0-9!#$%&'*+\-.^_`|~])", re.ASCII | re.IGNORECASE)


def has_authorization(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Whether the call has any `authorization` entry, whatever is in it."""
    return any(key == AUTHORIZATION for key, _value in metadata)


def authorization_value(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The one `authorization` value of a call's metadata, as it came.

    Raises `AuthError` TOKEN_MISSING (none there) or TOKEN_MALFORMED (more than one, or not text).
    """
    found: str | bytes | None = None
    for key, value in metadata:
        if key == AUTHORIZATION:
            if found is not None:
                raise malformed("more than one authorization entry")
            found = value
    if found is None:
        raise missing("no authorization entry")
    if not isinstance(found, str):
        raise malformed("authorization is not text")
    return found


def bearer_token(value: str, max_token_bytes: int) -> str:
    """The token of an `authorization` value.

    Raises `AuthError` TOKEN_MISSING (another scheme) or TOKEN_MALFORMED (Bearer, but not RFC 6750; over `max_token_bytes`).
    """
    if len(value) > max_token_bytes + 64:  # room for the scheme; bounds what the pattern has to read
        raise malformed("token too long")
    match = _CREDENTIALS.fullmatch(value)
    if match is None:
        if _SCHEME.match(value):
            raise malformed("bearer credentials are not well-formed")
        raise missing("authorization is of another scheme")
    token = match.group(1)
    if len(token) > max_token_bytes:
        raise malformed("token too long")
    return token
