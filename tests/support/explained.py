"""What an explanation has to be, and the verdict that it has to agree with."""

from __future__ import annotations

from collections.abc import Sequence

from grpc_bearer import Authenticator, AuthError, Policy
from grpc_bearer.explain import Explanation, Step
from tests.support.verdicts import authenticate, refusal


def names(steps: Sequence[Step]) -> tuple[str, ...]:
    """The checks by their names."""
    return tuple(step.name for step in steps)


def failed(explanation: Explanation) -> Step:
    """The one step that failed, those before it having passed, and those after it not being reached."""
    at = [step.outcome for step in explanation.steps].index("failed")
    assert {step.outcome for step in explanation.steps[:at]} <= {"passed"}
    assert {step.outcome for step in explanation.steps[at + 1 :]} <= {"not reached"}
    return explanation.steps[at]


def verdict(auth: Authenticator, token: str, method: str | None) -> AuthError | None:
    """What the drivers' own steps refuse the token with, None when they do not."""
    return refusal(lambda: authenticate(auth, token, Policy() if method is None else auth.gate.policy(method)))
