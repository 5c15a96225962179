"""That a call is refused, with the right code for the right reason; on either stack, and without pytest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any, Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from ..errors import ERROR_DOMAIN, OUTCOMES, Reason, StatusCode
from ..status import CHALLENGE_KEY, DETAILS_KEY

_HINT: Final = "inside the block a call of a stream has to be read, and one of grpc.aio awaited"
_NO_REASON: Final = "gave no reason: its interceptor has reveal_reasons=False, or it was not grpc-bearer that refused"


@dataclass(slots=True)
class Refusal:
    """What the caller saw, to be looked at after the block. `metadata`: of the ErrorInfo, such as `scopes` that are missing."""

    code: grpc.StatusCode | None = None
    message: str = ""
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    challenge: str | None = None

    def __str__(self) -> str:
        code = "no code" if self.code is None else self.code.name
        return f"{code}, {self.reason or 'no reason'} ({self.message!r})"


class RefusalExpected:
    """A context manager around the one call that has to be refused. It works around `await` too: no `async with` is needed."""

    def __init__(self, code: StatusCode, reason: Reason | str | None) -> None:
        fitting = [each for each, outcome in OUTCOMES.items() if outcome.code is code]
        if reason is not None and reason not in fitting:
            raise ValueError(f"reason: {str(reason)!r} never comes with {code.name}; choose from {', '.join(fitting)}")
        self._code = code
        self._reason = None if reason is None else str(reason)
        self._refusal = Refusal()

    def __enter__(self) -> Refusal:
        return self._refusal

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        __tracebackhide__ = True
        expected = self._code.name if self._reason is None else f"{self._code.name}, {self._reason}"
        if error is None:
            raise AssertionError(f"expected {expected}, but nothing was refused ({_HINT})")
        if not isinstance(error, grpc.RpcError):
            return False
        read_into(self._refusal, error)
        if self._refusal.code is None or self._refusal.code.name != self._code.name:
            raise AssertionError(f"expected {expected}, but the call ended with {self._refusal}") from error
        if self._reason is not None and self._refusal.reason is None:
            raise AssertionError(f"expected {expected}, but the server {_NO_REASON}: {self._refusal}") from error
        if self._reason is not None and self._refusal.reason != self._reason:
            why = "logger grpc_bearer has the cause, at INFO"
            raise AssertionError(f"expected {expected}, but the call ended with {self._refusal}; {why}") from error
        return True


def read_into(refusal: Refusal, error: Any) -> None:
    """What an RpcError says, of either stack. One of neither, without a code, says nothing."""
    if not callable(getattr(error, "code", None)):
        return
    refusal.code = error.code()
    refusal.message = error.details() or ""
    # By pairs: `keys()` of grpc.aio's Metadata yielded pairs too, in grpcio 1.72.
    trailers = {name: value for name, value in error.trailing_metadata() or ()}  # noqa: C416
    refusal.challenge = trailers.get(CHALLENGE_KEY)
    for detail in Status.FromString(trailers.get(DETAILS_KEY, b"")).details:
        info = ErrorInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            refusal.reason = info.reason
            refusal.metadata = MappingProxyType(dict(info.metadata))


def assert_unauthenticated(reason: Reason | str | None = None) -> RefusalExpected:
    """The call has to be refused with UNAUTHENTICATED; for any reason, or for this one: `TOKEN_MISSING`, `TOKEN_EXPIRED`, ...

    `with assert_unauthenticated("TOKEN_EXPIRED"): stub.Get(...)`, or `await stub.Get(...)`. Raises `AssertionError`, which
    says what came instead, and `ValueError` for a reason that never comes with this code.
    """
    return RefusalExpected(StatusCode.UNAUTHENTICATED, reason)


def assert_permission_denied(reason: Reason | str | None = None) -> RefusalExpected:
    """The same with PERMISSION_DENIED: `INSUFFICIENT_SCOPE` or `POLICY_DENIED`."""
    return RefusalExpected(StatusCode.PERMISSION_DENIED, reason)


def assert_unavailable(reason: Reason | str | None = Reason.KEYS_UNAVAILABLE) -> RefusalExpected:
    """The same with UNAVAILABLE. The reason is asked for by default: a server that is not there is UNAVAILABLE too."""
    return RefusalExpected(StatusCode.UNAVAILABLE, reason)
