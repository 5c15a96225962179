"""Issuers and policies swapped under calls: every call is judged by one version, whole, and by none that is gone."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest

from grpc_bearer import Access, Authenticator, ConfigurationError, Issuer, Policies, Policy, Rule
from tests.rpc.streams import FORMS as STREAM_FORMS
from tests.rpc.streams import STREAMING, Stream
from tests.rpc.streams import registering as streaming
from tests.support.calls import Client, bearer, outcome, until
from tests.support.jwks_server import JwksServer
from tests.support.matrix import METHODS, SERVICE, SERVICES, accessor_or_none, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint

OK = grpc.StatusCode.OK
OTHER = "https://other.example"
SIGNER, SECOND = key("k1", "EdDSA"), key("k2", "EdDSA")
EVERY_METHOD = [f"{SERVICE}/*"]
each_stack = pytest.mark.parametrize("stack", STACKS)


def issuer(name: str = ISSUER, *keys: Any, **options: Any) -> Issuer:
    return Issuer(name, **({"audiences": [AUDIENCE], "jwks": jwks(*(keys or (SIGNER,)))} | options))


def ruled(policy: Policy) -> Policies:
    return Policies(rules=[Rule(EVERY_METHOD, policy)])


# -- under load --------------------------------------------------------------------------------------------------------

VERSIONS, CALLS, CALLERS = 50, 10_000, 32


def version(number: int) -> dict[str, Any]:
    """One of two kinds. Neither lets `ISSUER` call, but its issuers with the other's policies would. Scopes tell them apart.

    Odd ones know `OTHER` only, and ask for nothing. Even ones know `ISSUER` only, and ask for a scope that it does not give.
    """
    if number % 2:
        return {"issuers": [issuer(OTHER)], "policies": ruled(Policy())}
    return {"issuers": [issuer(ISSUER)], "policies": ruled(Policy(scopes=(f"scope-{number}",)))}


BROKEN: dict[str, Any] = {"issuers": [issuer(OTHER), issuer(ISSUER), issuer(OTHER)], "policies": ruled(Policy())}


@each_stack
async def test_10000_calls_under_50_versions_get_no_verdict_that_none_of_these_gives(stack: Stack) -> None:
    auth = Authenticator(**version(0))
    tokens = {"ours": mint(SIGNER, exp=4_000_000_000), "theirs": mint(SIGNER, iss=OTHER, exp=4_000_000_000)}
    verdicts: Counter[tuple[str, str]] = Counter()
    begun, swapped = itertools.count(), asyncio.Event()

    async def call_on(client: Client) -> None:
        start: Any = client.channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        body = MatrixRequest(text="a").SerializeToString()
        while (number := next(begun)) < CALLS or not swapped.is_set():
            whose = "ours" if number % 2 else "theirs"
            call = start(body, metadata=bearer(tokens[whose]), timeout=60)
            code = await call.code()
            ended = await outcome(call) if code is not OK else None
            scopes = "" if ended is None or ended.info is None else ended.info.metadata.get("scopes", "")
            verdicts[whose, f"{'OK' if ended is None else ended.reason} {scopes}".strip()] += 1

    async def enough_calls() -> None:
        enough = sum(verdicts.values()) + CALLS // VERSIONS // 2
        await until(lambda: sum(verdicts.values()) >= enough)

    async def swap() -> None:
        for number in range(1, VERSIONS + 1):
            await enough_calls()
            if number == VERSIONS // 2:
                with pytest.raises(ConfigurationError):
                    await asyncio.to_thread(auth.reload, **BROKEN)
            await asyncio.to_thread(auth.reload, **version(number))
        await enough_calls()
        swapped.set()

    async with serving(stack, auth, registering(SERVICES[stack](accessor_or_none))) as target, Client(target) as client:
        await asyncio.gather(swap(), *(call_on(client) for _ in range(CALLERS)))
    given = {
        ("ours", "TOKEN_INVALID"),
        ("theirs", "TOKEN_INVALID"),
        ("theirs", "OK"),
        *(("ours", f"INSUFFICIENT_SCOPE scope-{number}") for number in range(0, VERSIONS + 1, 2)),
    }
    assert sum(verdicts.values()) >= CALLS
    assert set(verdicts) == given  # no other; and each of them, so every version was in use


# -- from the next call on ---------------------------------------------------------------------------------------------


async def each_kind(client: Client, token: str | None) -> set[Any]:
    return {each.reason or each.code for each in [await client.call(method, token) for method in METHODS]}


@each_stack
async def test_an_issuer_a_key_or_a_right_that_is_gone_is_gone_with_the_next_call(stack: Stack) -> None:
    auth = Authenticator([issuer(ISSUER, SIGNER, SECOND), issuer(OTHER)])
    first, second, theirs = mint(SIGNER), mint(SECOND), mint(SIGNER, iss=OTHER)
    steps: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
        ({}, (OK, OK, OK)),
        ({"issuers": [issuer(ISSUER, SECOND), issuer(OTHER)]}, ("TOKEN_INVALID", OK, OK)),
        ({"issuers": [issuer(ISSUER, SECOND)]}, ("TOKEN_INVALID", OK, "TOKEN_INVALID")),
        ({"policies": ruled(Policy(scopes=("a",)))}, ("TOKEN_INVALID", "INSUFFICIENT_SCOPE", "TOKEN_INVALID")),
        ({"policies": ruled(Policy(access=Access.DENY))}, ("POLICY_DENIED",) * 3),
        ({"policies": ruled(Policy(access=Access.PUBLIC))}, (OK, OK, OK)),
        ({"policies": Policies()}, ("TOKEN_INVALID", OK, "TOKEN_INVALID")),
        ({"issuers": [issuer(OTHER)]}, ("TOKEN_INVALID", "TOKEN_INVALID", OK)),
    ]
    async with serving(stack, auth, registering(SERVICES[stack](accessor_or_none))) as target, Client(target) as client:
        for arguments, expected in steps:
            auth.reload(**arguments)
            for token, verdict in zip((first, second, theirs), expected, strict=True):
                assert await each_kind(client, token) == {verdict}, (arguments, token)


@each_stack
async def test_a_bad_reload_changes_no_verdict(stack: Stack) -> None:
    auth = Authenticator([issuer()], policies=ruled(Policy(scopes=("a",))))
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        for issuers in ([], [issuer(OTHER), issuer(OTHER)], [issuer(OTHER), issuer(jwks={"keys": []})]):
            with pytest.raises(ConfigurationError):
                auth.reload(issuers=issuers, policies=ruled(Policy(access=Access.PUBLIC)))
            assert await each_kind(client, mint(SIGNER, scope="a")) == {OK}
            assert await each_kind(client, mint(SIGNER)) == {"INSUFFICIENT_SCOPE"}
            assert await each_kind(client, None) == {"TOKEN_MISSING"}


@each_stack
async def test_an_issuer_of_equal_settings_keeps_its_keys_while_calls_go_on(stack: Stack) -> None:
    with JwksServer(SIGNER) as server:

        def version() -> list[Issuer]:
            return [issuer(jwks=None, jwks_uri=server.jwks_uri)]

        with Authenticator(version()) as auth:
            async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
                for _ in range(20):
                    assert await each_kind(client, mint(SIGNER)) == {OK}
                    auth.reload(issuers=version(), policies=Policies())
        assert server.fetches == 1


# -- calls that are under way ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", STREAMING)
@pytest.mark.parametrize(("stack", "streams_of"), STREAM_FORMS.values(), ids=STREAM_FORMS)
async def test_a_stream_goes_on_under_the_version_that_let_it_in(stack: Stack, streams_of: Any, method: str) -> None:
    auth, streams = Authenticator([issuer()]), streams_of()
    async with serving(stack, auth, streaming(streams)) as target, Client(target) as client:
        stream = Stream(client, streams, method, mint(SIGNER))
        await stream.begin()
        auth.reload(issuers=[issuer(OTHER)], policies=ruled(Policy(access=Access.DENY)))
        await stream.move()
        await until(lambda: streams.received == 2)
        assert (await stream.finish()).code is OK
        assert (await client.call(method, mint(SIGNER))).reason == "POLICY_DENIED"


@each_stack
async def test_a_call_that_waits_for_the_keys_of_an_issuer_that_goes_is_sent_away(stack: Stack) -> None:
    with JwksServer(SIGNER) as server:
        server.hang()
        with Authenticator([issuer(jwks=None, jwks_uri=server.jwks_uri)]) as auth:
            async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
                waiting = asyncio.create_task(client.call("UnaryUnary", mint(SIGNER)))
                await until(lambda: server.fetches == 1)
                await asyncio.to_thread(auth.reload, issuers=[issuer(OTHER)])
                assert (await waiting).reason == "KEYS_UNAVAILABLE"
                assert (await client.call("UnaryUnary", mint(SIGNER))).reason == "TOKEN_INVALID"


@each_stack
async def test_a_call_that_waits_is_judged_by_the_policy_of_its_beginning(stack: Stack) -> None:
    """And not by a mixture: its issuer and its policy are of one version."""
    with JwksServer(SIGNER) as server:
        server.hang()
        with Authenticator([issuer(jwks=None, jwks_uri=server.jwks_uri)], policies=ruled(Policy(scopes=("a",)))) as auth:
            async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
                waiting = asyncio.create_task(client.call("UnaryUnary", mint(SIGNER)))
                await until(lambda: server.fetches == 1)
                auth.reload(policies=Policies())
                server.resume()
                assert (await waiting).reason == "INSUFFICIENT_SCOPE"
                assert (await client.call("UnaryUnary", mint(SIGNER))).code is OK
