"""One table of refusals: complete, constant, and told in docs/errors.md word for word."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grpc_bearer import AuthError, ConfigurationError, FetchError, Reason, StatusCode
from grpc_bearer.errors import (
    ERROR_DOMAIN,
    OUTCOMES,
    KeysUnreadableError,
    NoClaimsError,
    denied,
    internal,
    invalid,
    keys_unavailable,
    malformed,
    missing,
)

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "interceptors" / "grpc_bearer"
DOCUMENT = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_reason_has_an_outcome() -> None:
    assert list(OUTCOMES) == list(Reason)


def test_a_reason_is_its_name_and_none_was_renamed_or_taken_away() -> None:
    # Callers match on these: a line may be added here and never changed.
    assert [f"{reason}" for reason in Reason] == [
        "TOKEN_MISSING",
        "TOKEN_MALFORMED",
        "TOKEN_EXPIRED",
        "TOKEN_NOT_YET_VALID",
        "TOKEN_INVALID",
        "INSUFFICIENT_SCOPE",
        "POLICY_DENIED",
        "KEYS_UNAVAILABLE",
        "INTERNAL",
    ]
    assert all(reason == reason.name for reason in Reason)
    assert ERROR_DOMAIN == "grpc-bearer"


def test_trouble_of_ours_is_never_called_the_fault_of_the_caller() -> None:
    for reason, outcome in OUTCOMES.items():
        ours = reason in (Reason.KEYS_UNAVAILABLE, Reason.INTERNAL)
        assert (outcome.code in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)) != ours
        assert (outcome.challenge is None) == (ours or reason is Reason.POLICY_DENIED)


def test_rights_that_do_not_reach_are_told_apart_from_credentials_that_do_not_hold() -> None:
    of_rights = {reason for reason, outcome in OUTCOMES.items() if outcome.code is StatusCode.PERMISSION_DENIED}
    assert of_rights == {Reason.INSUFFICIENT_SCOPE, Reason.POLICY_DENIED}


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        OUTCOMES[Reason.INTERNAL] = OUTCOMES[Reason.TOKEN_MISSING]  # type: ignore[index]
    with pytest.raises(AttributeError):
        OUTCOMES[Reason.INTERNAL].message = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, Reason.TOKEN_MISSING),
        (malformed, Reason.TOKEN_MALFORMED),
        (invalid, Reason.TOKEN_INVALID),
        (denied, Reason.POLICY_DENIED),
        (keys_unavailable, Reason.KEYS_UNAVAILABLE),
        (internal, Reason.INTERNAL),
    ],
)
def test_an_error_carries_what_the_caller_sees_apart_from_what_the_log_gets(
    make: Callable[[str], AuthError], reason: Reason
) -> None:
    error = make("the cause")
    outcome = OUTCOMES[reason]
    assert (error.reason, error.detail, dict(error.caller_metadata)) == (reason, "the cause", {})
    assert (error.code, error.message, error.challenge) == (outcome.code, outcome.message, outcome.challenge)
    assert str(error) == f"{reason}: the cause"


def test_a_failed_fetch_says_how_long_to_wait_when_the_issuer_did() -> None:
    assert FetchError("status 503").retry_after_s is None
    error = FetchError("status 503", 7.0)
    assert (str(error), error.detail, error.retry_after_s) == ("status 503", "status 503", 7.0)


def test_errors_are_of_the_kinds_that_their_catchers_expect() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(KeysUnreadableError, ValueError)
    assert issubclass(NoClaimsError, LookupError)
    assert not issubclass(AuthError, ValueError)  # an `except ValueError` of a caller's must not swallow a refusal


# -- docs/errors.md ----------------------------------------------------------------------------------------------------


def rows_of_reasons() -> list[list[str]]:
    """The cells of the table of reasons, row by row."""
    reasons = tuple(f"| `{reason}` |" for reason in Reason)
    lines = [line for line in DOCUMENT.splitlines() if line.startswith(reasons)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def challenge_cell(challenge: str | None) -> str:
    if challenge is None:
        return "none"
    return f'`Bearer error="{challenge}"`' if challenge else "`Bearer`"


def test_the_table_in_the_documentation_is_the_table_in_the_code() -> None:
    assert rows_of_reasons() == [
        [f"`{reason}`", f"`{outcome.code.name}`", outcome.message, outcome.when, challenge_cell(outcome.challenge)]
        for reason, outcome in OUTCOMES.items()
    ]


RAISERS = {"AuthError", "StrictJsonError", "denied", "internal", "invalid", "keys_unavailable", "malformed", "missing"}
TOKEN_PATH = ("bearer", "gate", "jws", "policy/authorize", "strict_json", "verifier", "keys/cache", "keys/jwks")


def details(source: str) -> Iterator[str]:
    """The constant texts, or parts of texts, with which a module refuses tokens."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISERS:
            texts = [part for argument in node.args for part in ast.walk(argument) if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.ClassDef) and node.name == "NoKey":
            texts = [part.value for part in node.body if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant)]
        else:
            continue
        yield from (text.value for text in texts if isinstance(text.value, str) and len(text.value) > 8)


@pytest.mark.parametrize("module", TOKEN_PATH)
def test_whatever_cause_the_log_gives_is_in_the_documentation(module: str) -> None:
    causes = set(details((LIBRARY / f"{module}.py").read_text(encoding="utf-8")))
    assert causes
    assert {cause for cause in causes if cause not in DOCUMENT} == set()
