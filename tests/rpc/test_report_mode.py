"""Mode "report": every call goes on, whatever its verdict, and what would be refused is logged and observed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpc_bearer import (
    Access,
    Authenticator,
    ConfigurationError,
    FetchedKeys,
    FetchError,
    Issuer,
    Observation,
    Policies,
    Policy,
    Reason,
    Rule,
)
from tests.rpc.streams import FORMS as STREAM_FORMS
from tests.rpc.streams import LATER, SOON, STREAMING, Bench, Stream, token
from tests.rpc.streams import registering as streaming
from tests.support.calls import ANSWERS, Client, until
from tests.support.matrix import FORMS, METHODS, SERVICE, SERVICES, Form, accessor_or_none, attribute, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint

OK = grpc.StatusCode.OK
DOWN = "https://down.example"
EVERY_METHOD = f"{SERVICE}/*"
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def down(_attempt: object) -> FetchedKeys:
    raise FetchError("down for the test")


def trusting(policy: Policy | None = None) -> Authenticator:
    return Authenticator(
        [
            Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key())),
            Issuer(DOWN, audiences=[AUDIENCE], key_source=down),
        ],
        policies=Policies(rules=[Rule([EVERY_METHOD], policy or Policy())]),
    )


WOULD_REFUSE: dict[str, tuple[Policy, Callable[[], str | None], Reason]] = {
    "no token": (Policy(), lambda: None, Reason.TOKEN_MISSING),
    "malformed": (Policy(), lambda: "not.a-token", Reason.TOKEN_MALFORMED),
    "expired": (Policy(), lambda: mint(exp=1), Reason.TOKEN_EXPIRED),
    "wrong audience": (Policy(), lambda: mint(aud="billing"), Reason.TOKEN_INVALID),
    "forged": (Policy(), forged, Reason.TOKEN_INVALID),
    "keys unavailable": (Policy(), lambda: mint(iss=DOWN), Reason.KEYS_UNAVAILABLE),
    "a scope is lacking": (Policy(scopes=("a",)), mint, Reason.INSUFFICIENT_SCOPE),
    "an audience is lacking": (Policy(audiences=("billing",)), mint, Reason.POLICY_DENIED),
    "closed": (Policy(access=Access.DENY), mint, Reason.POLICY_DENIED),
    "bad where it is optional": (Policy(access=Access.OPTIONAL), forged, Reason.TOKEN_INVALID),
}


@pytest.mark.parametrize("context_claims", [False, True], ids=["current_claims()", "context.claims"])
@pytest.mark.parametrize(("policy", "bearing", "reason"), WOULD_REFUSE.values(), ids=WOULD_REFUSE)
@each_form
async def test_a_call_that_would_be_refused_goes_on_without_claims_and_is_reported(
    form: Form,
    policy: Policy,
    bearing: Callable[[], str | None],
    reason: Reason,
    context_claims: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "grpc_bearer")
    observations: list[Observation] = []
    register = registering(form.service(attribute if context_claims else accessor_or_none))
    with trusting(policy) as auth:
        async with (
            serving(
                form.stack,
                auth,
                register,
                mode="report",
                observer=observations.append,
                context_claims=context_claims,
                max_waiters=4,
            ) as target,
            Client(target) as client,
        ):
            outcomes = await asyncio.gather(*(client.call(method, bearing()) for method in METHODS))
    for method, outcome in zip(METHODS, outcomes, strict=True):
        assert (outcome.code, outcome.texts, outcome.subjects) == (OK, ANSWERS[method], {""}), (method, outcome.message)
        assert outcome.trailers == ()
    assert {(each.reason, each.enforced, each.issuer) for each in observations} == {(reason, False, None)}
    assert {each.method for each in observations} == {f"/{SERVICE}/{method}" for method in METHODS}
    assert len(observations) == len(METHODS)
    for method in METHODS:
        assert f"would refuse (mode is report) /{SERVICE}/{method}: {reason}: " in caplog.text


@pytest.mark.parametrize("claims_of", [accessor_or_none, attribute], ids=["current_claims()", "context.claims"])
@each_form
async def test_a_call_that_would_be_served_finds_its_claims(form: Form, claims_of: Any) -> None:
    observations: list[Observation] = []
    register = registering(form.service(claims_of))
    async with (
        serving(
            form.stack, trusting(), register, mode="report", observer=observations.append, context_claims=claims_of is attribute
        ) as target,
        Client(target) as client,
    ):
        for bearing, subjects in ((mint(sub="alice"), {"alice"}), (forged(), {""}), (mint(sub="bob"), {"bob"})):
            for method in METHODS:
                assert (await client.call(method, bearing)).subjects == subjects, method
    assert [each.reason for each in observations] == [*[None] * 4, *[Reason.TOKEN_INVALID] * 4, *[None] * 4]


@pytest.mark.parametrize("stack", STACKS)
async def test_a_bug_of_ours_holds_up_nobody(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    def find(_service: str) -> None:
        raise ConfigurationError("of the option")

    auth = Authenticator(
        [Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))], policies=Policies(find=find, public_defaults=False)
    )
    register = registering(SERVICES[stack](accessor_or_none))
    async with serving(stack, auth, register, mode="report") as target, Client(target) as client:
        for method in METHODS:
            assert (await client.call(method, mint())).texts == ANSWERS[method]
    assert f"/{SERVICE}/UnaryUnary: unexpected ConfigurationError in authentication" in caplog.text


@pytest.mark.parametrize("stack", STACKS)
async def test_a_method_that_the_server_does_not_have_is_still_unimplemented(stack: Stack) -> None:
    observations: list[Observation] = []
    register = registering(SERVICES[stack]())
    async with (
        serving(stack, trusting(), register, mode="report", observer=observations.append) as target,
        Client(target) as client,
    ):
        for bearing in (None, mint()):
            assert await client.open("NoSuchMethod", bearing).code() is grpc.StatusCode.UNIMPLEMENTED
    assert observations == []


async def test_streams_outlive_their_tokens() -> None:
    async def outlives(form: str, method: str) -> None:
        stack, streams_of = STREAM_FORMS[form]
        streams, bench = streams_of(), Bench()
        async with bench.client(stack, streaming(streams), mode="report") as client:
            stream = Stream(client, streams, method, token(SOON))
            await stream.begin()
            bench.clock.now = LATER
            await asyncio.sleep(1.5)  # past the moment at which it would be ended
            await stream.move()
            await until(lambda: streams.received == 2)
            ended = await stream.finish()
        assert (form, method, ended.code) == (form, method, OK)
        assert bench.refused == []

    await asyncio.gather(*(outlives(form, method) for form in STREAM_FORMS for method in STREAMING))


@pytest.mark.parametrize("stack", STACKS)
async def test_the_server_says_loudly_at_start_that_nothing_is_enforced(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(stack, trusting(), registering(SERVICES[stack]()), mode="report"):
        (record,) = [record for record in caplog.records if record.name == "grpc_bearer"]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("AUTHENTICATION IS NOT ENFORCED")
