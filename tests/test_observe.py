"""What becomes of a verdict: its line in the log, its observation, and the mode that only reports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from grpc_bearer import Authenticator, AuthError, ClaimRule, ConfigurationError, Issuer, Observation, Policy, Reason
from grpc_bearer.observe import Mode, Verdicts, unexpected
from grpc_bearer.status import message, trailers
from tests.support.authenticators import static
from tests.support.logs import logged
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, compact, forged, jwks, key, mint
from tests.support.verdicts import authenticate, refusal

METHOD = "/shop.v1.OrderService/GetOrder"
SECRET = "s3cret-value"

# -- the log -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_one_line_with_the_method_the_reason_and_the_exact_cause(reason: Reason) -> None:
    with logged() as lines:
        Verdicts("enforce", None).refused(METHOD, AuthError(reason, "the exact cause"))
    ours = reason in (Reason.KEYS_UNAVAILABLE, Reason.INTERNAL)
    assert lines == [(logging.WARNING if ours else logging.INFO, f"refused {METHOD}: {reason}: the exact cause")]


def everywhere(signer: SigningKey | None = None, **claims: Any) -> str:
    """A token whose every free claim and header member holds the secret."""
    holding = {name: f"{SECRET}-{name}" for name in ("sub", "jti", "client_id", "scope", "email", SECRET)}
    return mint(signer, header={"x": SECRET, "cty": SECRET}, **(holding | claims))


def holding() -> str:
    return everywhere(auth_time=1_000_000)


REFUSED: dict[str, Callable[[], str]] = {
    "no token": lambda: "",
    "no JWT": lambda: SECRET,
    "another alphabet": lambda: f"{SECRET}=",
    "no JSON": lambda: compact(SECRET.encode(), {}, key()),
    "duplicate member": lambda: compact({"alg": "RS256"}, f'{{"{SECRET}":1,"{SECRET}":2}}'.encode(), key()),
    "no number": lambda: compact({"alg": "RS256"}, f'{{"{SECRET}":{"9" * 5000}}}'.encode(), key()),
    "no UTF-8": lambda: compact({"alg": "RS256"}, f'{{"iss":"{SECRET}\xff"}}'.encode("latin-1"), key()),
    "alg": lambda: mint(header={"alg": SECRET}),
    "typ": lambda: mint(header={"typ": SECRET}),
    "crit": lambda: mint(header={"crit": [SECRET]}),
    "kid of no string": lambda: mint(header={"kid": [SECRET]}),
    "unknown kid": lambda: mint(header={"kid": SECRET}),
    "iss": lambda: everywhere(iss=f"https://{SECRET}"),
    "iss of no string": lambda: everywhere(iss=[SECRET]),
    "aud": lambda: everywhere(aud=SECRET),
    "aud of no strings": lambda: everywhere(aud={SECRET: 1}),
    "sub of no string": lambda: everywhere(sub=[SECRET]),
    "scope of no strings": lambda: everywhere(scope={SECRET: 1}),
    "exp of no number": lambda: everywhere(exp=SECRET),
    "expired": lambda: everywhere(exp=1_000_000),
    "not yet valid": lambda: everywhere(nbf=99_999_999_999),
    "forged": lambda: forged(),
    "signed by another": lambda: everywhere(SigningKey("k1", "RS256", key("forger").private_key)),
    "too long": lambda: everywhere(padding=SECRET * 2000),
}


DENIED = {
    "a scope": Policy(scopes=("orders.read",)),
    "one of two scopes": Policy(any_scopes=("orders.read", "orders.write")),
    "a claim": Policy(claims=(ClaimRule("email", any_of=("alice@shop.example",)),)),
    "an audience": Policy(audiences=("billing",)),
    "an issuer": Policy(issuers=("https://other.example",)),
    "an age": Policy(max_age_s=1),
}


CASES: dict[str, tuple[Callable[[], str], Policy]] = {
    **{name: (token, Policy()) for name, token in REFUSED.items()},
    **{name: (holding, policy) for name, policy in DENIED.items()},
}


@pytest.mark.parametrize(("token", "policy"), CASES.values(), ids=CASES)
def test_neither_the_log_nor_the_caller_nor_the_error_holds_anything_of_the_token(
    token: Callable[[], str], policy: Policy
) -> None:
    auth = Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))])
    text = token()
    error = refusal(lambda: authenticate(auth, text, policy))
    assert error is not None
    with logged() as lines:
        Verdicts("enforce", None).refused(METHOD, error)
    ((_level, line),) = lines
    told = line + repr(error) + str(error) + repr(trailers(error)) + message(error)
    held = {SECRET, *(part for part in text.split(".") if len(part) > 8)}
    assert {part for part in held if part in told} == set()
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__  # a traceback would spell it out


def test_the_tokens_that_are_accepted_leave_no_line() -> None:
    auth = Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))])
    with logged() as lines:
        Verdicts("enforce", None).accepted(METHOD, authenticate(auth, everywhere()))
    assert lines == []


def test_a_bug_of_ours_is_internal_to_the_caller_and_a_place_without_the_text_to_the_log() -> None:
    def fails_with_a_claim_in_its_text() -> None:
        raise KeyError(SECRET)

    with pytest.raises(KeyError) as caught:
        fails_with_a_claim_in_its_text()
    with logged() as lines:
        refused_with = unexpected(METHOD, caught.value)
    assert (refused_with.reason, refused_with.detail) == (Reason.INTERNAL, "unexpected KeyError")
    ((level, line),) = lines
    assert level == logging.ERROR
    assert line.startswith(f"{METHOD}: unexpected KeyError in authentication\n")
    assert "in fails_with_a_claim_in_its_text" in line
    assert "test_observe.py" in line
    assert SECRET not in line


# -- the observer ------------------------------------------------------------------------------------------------------


def test_an_observer_is_told_of_each_verdict() -> None:
    claims = authenticate(static(), mint())
    seen: list[Observation] = []
    modes: tuple[Mode, ...] = ("enforce", "report")
    for mode in modes:
        verdicts = Verdicts(mode, seen.append)
        verdicts.refused(METHOD, AuthError(Reason.TOKEN_MISSING, "for the log"))
        verdicts.accepted(METHOD, claims)
        verdicts.accepted(METHOD, None)
    assert seen == [
        Observation(METHOD, reason, enforced, issuer)
        for enforced in (True, False)
        for reason, issuer in ((Reason.TOKEN_MISSING, None), (None, ISSUER), (None, None))
    ]


def test_an_observer_that_fails_is_a_line_in_the_log_without_its_text() -> None:
    def failing(_observation: Observation) -> None:
        raise ValueError(SECRET)

    with logged() as lines:
        verdicts = Verdicts("enforce", failing)
        verdicts.accepted(METHOD, None)
        verdicts.refused(METHOD, AuthError(Reason.TOKEN_MISSING, "no authorization entry"))
    failed = (logging.ERROR, "an observer of verdicts failed: ValueError")
    assert lines == [failed, (logging.INFO, f"refused {METHOD}: TOKEN_MISSING: no authorization entry"), failed]


# -- the mode ----------------------------------------------------------------------------------------------------------


def test_a_mode_that_only_reports_says_so_loudly_at_start_and_with_each_line() -> None:
    with logged() as lines:
        verdicts = Verdicts("report", None)
        verdicts.refused(METHOD, AuthError(Reason.TOKEN_MISSING, "no authorization entry"))
    assert not verdicts.enforced
    assert lines == [
        (
            logging.WARNING,
            "AUTHENTICATION IS NOT ENFORCED: mode is 'report', every call goes on, whatever its verdict",
        ),
        (logging.INFO, f"would refuse (mode is report) {METHOD}: TOKEN_MISSING: no authorization entry"),
    ]


def test_a_mode_that_enforces_says_nothing_at_start() -> None:
    with logged() as lines:
        assert Verdicts("enforce", None).enforced
    assert lines == []


@pytest.mark.parametrize("mode", ["", "off", "Report", "ENFORCE", None, True, 0])
def test_an_unknown_mode_is_a_configuration_error(mode: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Verdicts(mode, None)
    assert str(caught.value) == f"mode: {mode!r} is unknown; choose from enforce, report"
