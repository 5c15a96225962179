"""What a refusal looks like on the wire: AuthError -> gRPC status, details and trailers.

`google.rpc.Status` with a `google.rpc.ErrorInfo` (reason, domain `grpc-bearer`) in `grpc-status-details-bin`, and a
`www-authenticate` challenge by RFC 6750 §3.
"""

from __future__ import annotations

import logging
import traceback
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from .errors import ERROR_DOMAIN, OUTCOMES, AuthError, Reason, internal

Trailers = tuple[tuple[str, str | bytes], ...]

DETAILS_KEY: Final = "grpc-status-details-bin"
CHALLENGE_KEY: Final = "www-authenticate"

_log = logging.getLogger("grpc_bearer")
_CODES: Final = MappingProxyType({code.value[0]: code for code in grpc.StatusCode})


def grpc_code(error: AuthError) -> grpc.StatusCode:
    """The refusal's code as grpc's own enum."""
    return _CODES[error.code]


def _challenge(error: AuthError) -> str | None:
    if error.challenge is None:
        return None
    if not error.challenge:
        return "Bearer"
    return f'Bearer error="{error.challenge}", error_description="{error.message}"'


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


def log_refusal(method: str, error: AuthError) -> None:
    """One line with the exact cause, and nothing of the token: INFO, WARNING for trouble of ours."""
    level = logging.WARNING if error.reason in (Reason.KEYS_UNAVAILABLE, Reason.INTERNAL) else logging.INFO
    _log.log(level, "refused %s: %s: %s", method, error.reason, error.detail)


def unexpected(method: str, error: Exception) -> AuthError:
    """A bug of ours as a refusal. The log gets the type and the place, not the text: that may hold a claim's value."""
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("refused %s: unexpected %s in authentication\n%s", method, type(error).__name__, place)
    return internal(f"unexpected {type(error).__name__}")
