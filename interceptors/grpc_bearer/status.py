"""What a refusal looks like on the wire: AuthError -> gRPC status, details and trailers.

`google.rpc.Status` with a `google.rpc.ErrorInfo` (reason, domain `grpc-bearer`) in `grpc-status-details-bin`, and a
`www-authenticate` challenge by RFC 6750 §3.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from .errors import ERROR_DOMAIN, EXPIRED_AT, OUTCOMES, AuthError, Reason

Trailers = tuple[tuple[str, str | bytes], ...]

DETAILS_KEY: Final = "grpc-status-details-bin"
CHALLENGE_KEY: Final = "www-authenticate"

_CODES: Final = MappingProxyType({code.value[0]: code for code in grpc.StatusCode})


def grpc_code(error: AuthError) -> grpc.StatusCode:
    """The refusal's code as grpc's own enum."""
    return _CODES[error.code]


def _challenge(error: AuthError) -> str | None:
    if error.challenge is None:
        return None
    if not error.challenge:
        return "Bearer"
    challenge = f'Bearer error="{error.challenge}", error_description="{error.message}"'
    scopes = [error.caller_metadata[name] for name in ("scopes", "any_scopes") if name in error.caller_metadata]
    return f'{challenge}, scope="{" ".join(scopes)}"' if scopes else challenge


def _trailers(error: AuthError) -> Trailers:
    info = ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=dict(error.caller_metadata))
    detail = Any()
    detail.Pack(info)
    status = Status(code=error.code, message=error.message, details=[detail])
    challenge = _challenge(error)
    details = (DETAILS_KEY, status.SerializeToString())
    return (details,) if challenge is None else (details, (CHALLENGE_KEY, challenge))


# Made once: a flood of refusals should cost no protobuf work. When a token expired is put where this stands, in as many octets.
_PLAIN: Final = MappingProxyType({reason: _trailers(AuthError(reason, "")) for reason in OUTCOMES})
_SOME_TIME: Final = "0000-00-00T00:00:00Z"
_EXPIRED: Final = tuple(
    (key, value.split(_SOME_TIME.encode()) if isinstance(value, bytes) else value)
    for key, value in _trailers(AuthError(Reason.TOKEN_EXPIRED, "", {EXPIRED_AT: _SOME_TIME}))
)


def trailers(error: AuthError, *, reveal_reason: bool = True) -> Trailers:
    """The trailing metadata of a refusal. With `reveal_reason` off: none, the caller gets the bare code."""
    if not reveal_reason:
        return ()
    if not error.caller_metadata:
        return _PLAIN[error.reason]
    if error.reason is Reason.TOKEN_EXPIRED:
        return _expired(error.caller_metadata[EXPIRED_AT])
    return _trailers(error)


def _expired(at: str) -> Trailers:
    octets = at.encode()
    return tuple((key, octets.join(value) if isinstance(value, list) else value) for key, value in _EXPIRED)


def message(error: AuthError, *, reveal_reason: bool = True) -> str:
    """The status message of a refusal; with `reveal_reason` off, the name of the code and nothing else."""
    return error.message if reveal_reason else error.code.name
