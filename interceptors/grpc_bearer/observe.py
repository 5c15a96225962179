"""What becomes of each verdict besides its effect on the call: the log, the observer, and the mode that only reports."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from .claims import Claims
from .errors import AuthError, ConfigurationError, Reason, internal

Mode = Literal["enforce", "report"]

_log = logging.getLogger("grpc_bearer")


@dataclass(frozen=True, slots=True)
class Observation:
    """One verdict. `reason`: why the call is refused, None for one that may go on. `enforced`: off, it went on all the same.

    `issuer`: whose token it was, None where none was verified. `method` is the caller's raw text where the server has a
    generic handler that answers to any name: bound it before making it a metric's label.
    """

    method: str
    reason: Reason | None
    enforced: bool
    issuer: str | None


Observer = Callable[[Observation], None]


class Verdicts:
    """Where a driver reports its verdicts. Raises `ConfigurationError` for an unknown mode."""

    def __init__(self, mode: Mode, observer: Observer | None) -> None:
        if mode not in get_args(Mode):
            raise ConfigurationError(f"mode: {mode!r} is unknown; choose from {', '.join(get_args(Mode))}")
        self.enforced: Final = mode == "enforce"
        self.observed: Final = observer is not None
        self._observer = observer
        if not self.enforced:
            _log.warning("AUTHENTICATION IS NOT ENFORCED: mode is 'report', every call goes on, whatever its verdict")

    def refused(self, method: str, error: AuthError) -> None:
        """One line with the exact cause, and nothing of the token: INFO, WARNING for trouble of ours."""
        level = logging.WARNING if error.reason in (Reason.KEYS_UNAVAILABLE, Reason.INTERNAL) else logging.INFO
        text = "refused %s: %s: %s" if self.enforced else "would refuse (mode is report) %s: %s: %s"
        _log.log(level, text, method, error.reason, error.detail)
        self._observe(Observation(method, error.reason, self.enforced, None))

    def accepted(self, method: str, claims: Claims | None) -> None:
        """A call that may go on; None for one without a token, where that is allowed."""
        if self._observer is not None:
            self._observe(Observation(method, None, self.enforced, None if claims is None else claims.iss))

    def _observe(self, observation: Observation) -> None:
        if self._observer is None:
            return
        try:
            self._observer(observation)
        except Exception as error:
            _log.error("an observer of verdicts failed: %s", type(error).__name__)


def unexpected(method: str, error: Exception) -> AuthError:
    """A bug of ours as a refusal. The log gets the type and the place, not the text: that may hold a claim's value."""
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s: unexpected %s in authentication\n%s", method, type(error).__name__, place)
    return internal(f"unexpected {type(error).__name__}")
