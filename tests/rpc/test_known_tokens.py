"""A token that is sent again: it costs neither a wrapper nor a signature, and is worth no more than the first time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from grpc_bearer import Access, Authenticator, Claims, Issuer, Observation, Policies, Policy, Reason, Rule, VerdictCachePolicy
from grpc_bearer import Streams as AtExpiry
from grpc_bearer.gate import Remembered
from grpc_bearer.policy.model import AUTHENTICATED
from tests.rpc.interceptors import intercepted
from tests.rpc.streams import FORMS as STREAM_FORMS
from tests.rpc.streams import LATER, SOON, Bench, Stream, SyncStreams, each, each_method
from tests.rpc.streams import registering as streaming
from tests.rpc.streams import token as at_now
from tests.support.authenticators import fetched_from
from tests.support.calls import ANSWERS, Client
from tests.support.jwks_server import JwksServer
from tests.support.matrix import (
    FORMS,
    METHODS,
    SERVICE,
    SERVICES,
    Form,
    accessor_or_none,
    attribute,
    handler,
    registering,
)
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint
from tests.support.verdicts import authenticate

OK = grpc.StatusCode.OK
each_stack = pytest.mark.parametrize("stack", STACKS)
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def trusting(policy: Policy | None = None, **options: Any) -> Authenticator:
    """`ISSUER`, with this policy for each method of the matrix."""
    policies = Policies(rules=[Rule([f"{SERVICE}/*"], policy or Policy())])
    return Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))], policies=policies, **options)


def remembered(auth: Authenticator, token: str) -> Claims:
    """The claims of a token that is seen for the second time."""
    authenticate(auth, token)
    return authenticate(auth, token)


def known(auth: Authenticator, token: str) -> bool:
    return auth.gate.recall(auth.gate.fingerprint(f"Bearer {token}"), AUTHENTICATED) is not None


async def unary(request: Any, _context: Any) -> Any:
    return request


async def stream(request: Any, _context: Any) -> Any:
    yield request


def served_by(method: str) -> Any:
    """A handler that grpc.aio need not have wrapped."""
    return handler(method, unary if method.endswith("Unary") else stream)


# -- what it costs -----------------------------------------------------------------------------------------------------


@each_stack
async def test_the_second_call_of_a_unary_method_gets_the_handler_itself(stack: Stack) -> None:
    auth, served, token = trusting(), served_by("UnaryUnary"), mint()
    first = await intercepted(stack, auth, "UnaryUnary", served, token)
    assert (first is served) == (stack == "aio")  # which has verified the token before it answers
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        for _call in range(2):
            assert (await client.call("UnaryUnary", token)).subjects == {"user-1"}
    assert known(auth, token)
    assert await intercepted(stack, auth, "UnaryUnary", served, token) is served


@each_stack
@pytest.mark.parametrize("method", METHODS)
async def test_a_stream_is_wrapped_on_a_hit_unless_it_may_outlive_its_token(stack: Stack, method: str) -> None:
    served, token = served_by(method), mint()
    for at_expiry in AtExpiry:
        auth = trusting(Policy(streams=at_expiry))
        remembered(auth, token)
        bare = await intercepted(stack, auth, method, served, token) is served
        assert bare == (at_expiry is AtExpiry.FINISH or method == "UnaryUnary")


@each_form
async def test_a_known_token_is_neither_parsed_nor_verified(form: Form) -> None:
    """What was put into the memory is no token at all."""
    auth = trusting()
    claims, trusted = authenticate(auth, mint(sub="alice")), auth.gate.trusted[ISSUER]
    generation, soon = trusted.keys.state.generation, time.time() + 60

    def remember(text: str, until: float, generation: int) -> None:
        auth.gate.cache.put(auth.gate.fingerprint(f"Bearer {text}"), Remembered(claims, until, trusted.keys, generation, 1))

    remember("present", soon, generation)
    remember("of-former-keys", soon, generation - 1)
    remember("past", time.time(), generation)
    async with serving(form.stack, auth, registering(form.service())) as target, Client(target) as client:
        for method in METHODS:
            done = await client.call(method, "present")
            assert (done.code, done.texts, done.subjects) == (OK, ANSWERS[method], {"alice"})
            for text in ("of-former-keys", "past", "never-seen"):
                assert (await client.call(method, text)).reason == "TOKEN_MALFORMED"


# -- what handlers and observers see -----------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("method", METHODS)
async def test_claims_are_on_the_context_on_a_hit_too(form: Form, method: str) -> None:
    auth, token = trusting(), mint(sub="alice")
    service = form.service(attribute)
    async with (
        serving(form.stack, auth, registering(service), context_claims=True) as target,
        Client(target) as client,
    ):
        for _ in range(3):
            done = await client.call(method, token)
            assert (done.code, done.texts, done.subjects) == (OK, ANSWERS[method], {"alice"})
        assert known(auth, token)


@each_form
async def test_claims_never_pass_from_one_known_token_to_another_or_to_none(form: Form) -> None:
    auth = trusting(Policy(access=Access.OPTIONAL))
    tokens = {name: mint(sub=name) for name in ("alice", "bob", "carol")}

    async def calls(client: Client, name: str | None, turns: int) -> None:
        for turn in range(turns):
            done = await client.call(METHODS[turn % len(METHODS)], None if name is None else tokens[name])
            assert (done.code, done.subjects) == (OK, {name or ""})

    service = form.service(accessor_or_none)
    async with serving(form.stack, auth, registering(service), workers=4) as target, Client(target) as client:
        await asyncio.gather(*(calls(client, name, 24) for name in (*tokens, None)))
    assert all(known(auth, token) for token in tokens.values())
    assert len(auth.gate.cache) == len(tokens)


@each_form
async def test_an_observer_is_told_of_each_hit(form: Form) -> None:
    observations: list[Observation] = []
    auth, token = trusting(), mint()
    async with (
        serving(form.stack, auth, registering(form.service()), observer=observations.append) as target,
        Client(target) as client,
    ):
        for method in METHODS * 2:
            await client.call(method, token)
    assert observations == [Observation(f"/{SERVICE}/{method}", None, True, ISSUER) for method in METHODS * 2]


# -- what it is worth --------------------------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("mode", ["enforce", "report"])
async def test_a_known_token_that_lacks_a_scope_is_refused_each_time(form: Form, mode: str) -> None:
    observations: list[Observation] = []
    rules = [Rule([f"{SERVICE}/*"], Policy(scopes=("admin",))), Rule([f"{SERVICE}/UnaryUnary"], Policy())]
    auth = Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))], policies=Policies(rules=rules))
    service, token = form.service(accessor_or_none), mint()
    made_with: dict[str, Any] = {"mode": mode, "observer": observations.append}
    async with serving(form.stack, auth, registering(service), **made_with) as target, Client(target) as client:
        for method in METHODS * 2:
            done = await client.call(method, token)
            if method == "UnaryUnary":
                assert (done.code, done.subjects) == (OK, {"user-1"})
            elif mode == "enforce":
                assert done.reason == "INSUFFICIENT_SCOPE"
            else:
                assert (done.code, done.subjects) == (OK, {""})  # and its claims are not handed on
        assert known(auth, token)
    assert [each.reason for each in observations] == [
        None if method == "UnaryUnary" else Reason.INSUFFICIENT_SCOPE for method in METHODS * 2
    ]


@each_method
@each(STREAM_FORMS)
async def test_a_known_tokens_stream_ends_with_its_token(stack: Stack, streams_of: Any, method: str) -> None:
    bench, by_message = Bench(), streams_of is SyncStreams
    token, streams = at_now(LATER if by_message else SOON), streams_of()
    remembered(bench.auth, token)
    async with bench.client(stack, streaming(streams)) as client:
        opened = Stream(client, streams, method, token)
        await opened.begin()
        assert known(bench.auth, token)
        if by_message:
            bench.clock.advance(3600)
            await opened.move()
        ended = await opened.ended()
        assert (ended.code, ended.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert bench.refused == [Reason.TOKEN_EXPIRED]


@each_form
async def test_a_known_token_is_refused_once_it_has_expired(form: Form) -> None:
    bench, token = Bench(), at_now(LATER)
    async with bench.client(form.stack, registering(form.service())) as client:
        for method in METHODS:
            assert (await client.call(method, token)).code is OK
        bench.clock.advance(3600)
        for method in METHODS:
            assert (await client.call(method, token)).reason == "TOKEN_EXPIRED"
    assert len(bench.auth.gate.cache) == 0


@each_stack
async def test_a_key_that_is_removed_is_removed_for_known_tokens_with_the_next_call(stack: Stack) -> None:
    gone, stays = key("k1", "EdDSA"), key("k2", "EdDSA")
    with JwksServer(gone, stays) as issuer, fetched_from(issuer) as auth:
        assert await asyncio.to_thread(auth.warm)
        token, other = mint(gone), mint(stays)
        async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
            for each_token in (token, other, token, other):
                assert (await client.call("UnaryUnary", each_token)).code is OK
            issuer.keys = (stays,)
            assert (await client.call("UnaryUnary", mint(key("k9", "EdDSA")))).reason == "TOKEN_INVALID"  # has them fetched
            assert (await client.call("UnaryUnary", token)).reason == "TOKEN_INVALID"
            assert (await client.call("UnaryUnary", other)).code is OK


@each_stack
async def test_a_flood_of_forged_tokens_drives_no_good_one_out(stack: Stack) -> None:
    auth = trusting(verdicts=VerdictCachePolicy(max_entries=4))
    token = mint()
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        for _call in range(2):
            assert (await client.call("UnaryUnary", token)).code is OK
        for number in range(20):
            assert (await client.call("UnaryUnary", forged(jti=f"id-{number}"))).reason == "TOKEN_INVALID"
        assert len(auth.gate.cache) == 1
        assert known(auth, token)


@each_stack
async def test_tokens_that_come_once_leave_nothing_behind(stack: Stack) -> None:
    auth = trusting()
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        for number in range(20):
            assert (await client.call("UnaryUnary", mint(jti=f"id-{number}"))).code is OK
    assert len(auth.gate.cache) <= 2  # none, but for one in some thousand that is taken for another


@each_stack
async def test_a_good_token_in_use_survives_a_flood_of_good_ones(stack: Stack) -> None:
    auth = trusting(verdicts=VerdictCachePolicy(max_entries=8))
    token, others = mint(), [mint(jti=f"id-{number}") for number in range(24)]
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        for number, other in enumerate(others):
            if number % 3 == 0:
                assert number < 6 or known(auth, token)
                assert (await client.call("UnaryUnary", token)).code is OK
            for _call in range(2):
                assert (await client.call("UnaryUnary", other)).code is OK
            assert len(auth.gate.cache) <= 8
    assert known(auth, token)
    assert not known(auth, others[0])
