"""What an observer is told: one verdict for each call that is looked at, and nothing that it does is felt by a caller."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpc_bearer import Access, Authenticator, ConfigurationError, Issuer, Observation, Policies, Policy, Reason, Rule
from tests.support.calls import Client, Metadata, bearer
from tests.support.matrix import FORMS, METHODS, SERVICE, SERVICES, Form, accessor_or_none, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint

OTHER = "https://other.example"
each_stack = pytest.mark.parametrize("stack", STACKS)


def trusting(**policies: Policy) -> Authenticator:
    """Both issuers, with these policies for methods of the matrix."""
    rules = [Rule([f"{SERVICE}/{method}"], policy) for method, policy in policies.items()]
    issuers = [Issuer(iss, audiences=[AUDIENCE], jwks=jwks(key())) for iss in (ISSUER, OTHER)]
    return Authenticator(issuers, policies=Policies(rules=rules))


CALLS: dict[str, tuple[Callable[[], str | None], Reason | None, str | None]] = {
    "good": (mint, None, ISSUER),
    "good, of another issuer": (lambda: mint(iss=OTHER), None, OTHER),
    "without a token": (lambda: None, Reason.TOKEN_MISSING, None),
    "malformed": (lambda: "x", Reason.TOKEN_MALFORMED, None),
    "expired": (lambda: mint(exp=1), Reason.TOKEN_EXPIRED, None),
    "forged": (forged, Reason.TOKEN_INVALID, None),
    "without a scope": (lambda: mint(scope="b"), Reason.INSUFFICIENT_SCOPE, None),
    "denied": (lambda: mint(scope="orders.read", auth_time=1), Reason.POLICY_DENIED, None),
}


@pytest.mark.parametrize(("bearing", "reason", "issuer"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_each_call_is_observed_once_with_its_verdict(
    form: Form, bearing: Callable[[], str | None], reason: Reason | None, issuer: str | None
) -> None:
    observations: list[Observation] = []
    auth = trusting(**dict.fromkeys(METHODS, Policy(scopes=("orders.read",), max_age_s=3600)))
    async with (
        serving(form.stack, auth, registering(form.service()), observer=observations.append) as target,
        Client(target) as client,
    ):
        for method in METHODS:
            await client.call(method, bearing())
    assert observations == [Observation(f"/{SERVICE}/{method}", reason, True, issuer) for method in METHODS]


@each_stack
async def test_what_nobody_looks_at_is_not_observed(stack: Stack) -> None:
    observations: list[Observation] = []
    auth = trusting(UnaryUnary=Policy(access=Access.PUBLIC))
    async with (
        serving(stack, auth, registering(SERVICES[stack](accessor_or_none)), observer=observations.append) as target,
        Client(target) as client,
    ):
        for bearing in (None, mint(), forged()):
            assert (await client.call("UnaryUnary", bearing)).code is grpc.StatusCode.OK
            assert await client.open("NoSuchMethod", bearing).code() is grpc.StatusCode.UNIMPLEMENTED
    assert observations == []


@each_stack
async def test_on_an_optional_method_a_call_without_a_token_has_no_issuer(stack: Stack) -> None:
    observations: list[Observation] = []
    auth = trusting(UnaryUnary=Policy(access=Access.OPTIONAL))
    sent: list[Metadata] = [(), bearer(mint()), bearer(forged()), (("authorization", "Basic YTpi"),)]
    async with (
        serving(stack, auth, registering(SERVICES[stack](accessor_or_none)), observer=observations.append) as target,
        Client(target) as client,
    ):
        for metadata in sent:
            await client.call("UnaryUnary", metadata=metadata)
    assert [(each.reason, each.issuer) for each in observations] == [
        (None, None),
        (None, ISSUER),
        (Reason.TOKEN_INVALID, None),
        (Reason.TOKEN_MISSING, None),
    ]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_an_observer_that_fails_is_felt_by_no_caller(form: Form, caplog: pytest.LogCaptureFixture) -> None:
    def failing(_observation: Observation) -> None:
        raise ValueError("s3cret")

    service = form.service()
    async with (
        serving(form.stack, trusting(), registering(service), observer=failing) as target,
        Client(target) as client,
    ):
        for method in METHODS:
            assert (await client.call(method, mint())).code is grpc.StatusCode.OK
            assert (await client.call(method, forged())).reason == "TOKEN_INVALID"
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert lines == ["an observer of verdicts failed: ValueError"] * 8
    assert "s3cret" not in caplog.text


@each_stack
async def test_an_unknown_mode_is_an_error_before_the_server_starts(stack: Stack) -> None:
    made_with: dict[str, Any] = {"mode": "off"}
    with pytest.raises(ConfigurationError, match=r"^mode: 'off' is unknown; choose from enforce, report$"):
        async with serving(stack, trusting(), registering(SERVICES[stack]()), **made_with):
            raise AssertionError("it started")
