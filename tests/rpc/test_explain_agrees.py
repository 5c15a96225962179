"""An explanation gives the interceptor's verdict, over real sockets: for the matrix, for policies, for every bad token."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from grpc_bearer.explain import explain
from tests.rpc.test_matrix import REFUSED, Refused, trusting
from tests.rpc.test_policies import CASES, Case, ruled
from tests.support.bad_tokens import BAD, METHOD, Bad, authenticator
from tests.support.calls import Client
from tests.support.jwks_server import JwksServer
from tests.support.matrix import METHODS, SERVICE, SERVICES, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import forged, mint

each_stack = pytest.mark.parametrize("stack", STACKS)
WITH_A_TOKEN = {name: refused for name, refused in REFUSED.items() if refused.token() is not None}
CAN_BE_SENT = {name: bad for name, bad in BAD.items() if bad.token.isascii() and bad.token.isprintable()}
"""grpc's own client sends no others."""


@pytest.mark.parametrize("refused", WITH_A_TOKEN.values(), ids=WITH_A_TOKEN)
@each_stack
async def test_every_case_of_the_matrix_is_explained_as_it_was_refused(
    stack: Stack, refused: Refused, issuer: JwksServer
) -> None:
    token = refused.token()
    assert token is not None
    with trusting(issuer) as auth:
        async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
            for method in METHODS:
                outcome = await client.call(method, token)
                explanation = await asyncio.to_thread(explain, auth, token, f"/{SERVICE}/{method}")
                assert (outcome.reason, explanation.reason) == (refused.reason, refused.reason), method


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@each_stack
async def test_every_policy_is_explained_as_it_was_enforced(stack: Stack, case: Case) -> None:
    tokens = [each() for each in (*case.meeting, *case.lacking)] + [forged(), mint(exp=1), "x"]
    with ruled(case.policy) as auth:
        async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
            for token in tokens:
                outcome = await client.call("UnaryUnary", token)
                explanation = explain(auth, token, METHOD)
                assert outcome.reason == explanation.reason
                assert (outcome.code is grpc.StatusCode.OK) == explanation.accepted


@pytest.mark.parametrize("bad", CAN_BE_SENT.values(), ids=CAN_BE_SENT)
@each_stack
async def test_every_bad_token_is_explained_as_it_was_refused(stack: Stack, bad: Bad) -> None:
    auth = authenticator(bad.policy, **bad.options)
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        outcome = await client.call("UnaryUnary", bad.token)
    assert outcome.reason == bad.reason == explain(auth, bad.token, METHOD).reason
