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

from .errors import ERROR_DOMAIN, OUTCOMES, AuthError

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


# Made once: a flood of refusals should cost no protobuf work.
_PLAIN: Final = MappingProxyType({reason: _trailers(AuthError(reason, "")) for reason in OUTCOMES})


def trailers(error: AuthError, *, reveal_reason: bool = True) -> Trailers:
    """The trailing metadata of a refusal. With `reveal_reason` off: none, the caller gets the bare code."""
    if not reveal_reason:
        return ()
    return _trailers(error) if error.caller_metadata else _PLAIN[error.reason]


def message(error: AuthError, *, reveal_reason: bool = True) -> str:
    """The status message of a refusal; with `reveal_reason` off, the name of the code and nothing else."""
    return error.message if reveal_reason else error.code.name
