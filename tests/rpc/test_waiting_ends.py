"""How a wait for an issuer's keys ends: with the key, with a deadline, with its caller, with the authenticator."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest

from grpc_bearer import CachePolicy, FetchOptions
from tests.rpc.interceptors import Counting
from tests.rpc.waiting import END_OF_A_DEADLINE, Gated, calling, codes, trusting, trusting_gated
from tests.support.calls import Client, until
from tests.support.jwks_server import JwksServer
from tests.support.matrix import SERVICES, registering
from tests.support.processes import PATIENCE_S
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import key, mint

OK = grpc.StatusCode.OK
each_stack = pytest.mark.parametrize("stack", STACKS)


class Watching(grpc.aio.ServerInterceptor):
    """Counts the calls that were cancelled while interceptors further in were at work."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        try:
            return await continuation(handler_call_details)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.mark.parametrize("end", ["its deadline passes", "its caller cancels"])
async def test_an_aio_waiter_that_leaves_ends_its_own_wait_and_nobody_elses(end: str, issuer: JwksServer) -> None:
    watching = Watching()
    issuer.hang()
    with trusting(issuer) as auth:
        async with (
            serving("aio", auth, registering(SERVICES["aio"]()), outer=[watching]) as target,
            Client(target) as client,
        ):
            staying = calling(client, [mint()] * 2)
            leaving = client.open("UnaryUnary", mint(), timeout=0.5 if end == "its deadline passes" else PATIENCE_S)
            await until(lambda: issuer.fetches == 1)
            if end == "its caller cancels":
                leaving.cancel()
            await until(lambda: watching.cancelled == 1)
            staying += calling(client, [mint()])
            issuer.resume()
            await asyncio.wait(staying)
    assert codes(staying) == [OK] * 3
    assert issuer.fetches == 1


async def test_a_sync_waiter_gives_up_at_its_own_deadline_and_nobody_elses(
    issuer: JwksServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "grpc_bearer")
    issuer.hang()
    with trusting(issuer) as auth:
        async with (
            serving("sync", auth, registering(SERVICES["sync"]()), max_waiters=4) as target,
            Client(target) as client,
        ):
            staying = calling(client, [mint()], timeout=None) + calling(client, [mint()])
            (leaving,) = calling(client, [mint()], timeout=0.5)
            await until(lambda: "the issuer's keys did not come in time" in caplog.text)
            issuer.resume()
            await asyncio.wait([leaving, *staying])
    assert leaving.result().code in END_OF_A_DEADLINE
    assert codes(staying) == [OK] * 2
    assert issuer.fetches == 1


@each_stack
async def test_a_wait_over_two_fetches_is_no_longer_than_one_may_take(stack: Stack) -> None:
    source = Gated(2)
    with trusting_gated(source, fetch=FetchOptions(timeout_s=1.0)) as auth:
        async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
            (waiting,) = calling(client, [mint(key("k2"))])
            await asyncio.sleep(0.4)
            source.gates[0].set()  # what it brings lacks the kid, so the second begins
            outcome = await waiting
            second_fetch_failed = auth.status()[0].failures
        source.gates[1].set()
    assert (outcome.reason, source.begun, second_fetch_failed) == ("KEYS_UNAVAILABLE", 2, 0)


@each_stack
async def test_what_the_last_of_the_fetches_brings_still_counts(stack: Stack) -> None:
    """On a cold cache three fetches are possible in a row: the first, and the two that unknown kids can cause."""
    source = Gated(3)
    kids = ("k2", "k3", "k4")
    counting = Counting(stack)
    with trusting_gated(source) as auth:
        async with (
            serving(stack, auth, registering(SERVICES[stack]()), outer=[counting.interceptor]) as target,
            Client(target) as client,
        ):
            waiting = calling(client, [mint(key(kid)) for kid in kids])
            await until(lambda: counting.arrived == len(kids))
            for begun in (1, 2):
                await until(lambda begun=begun: source.begun == begun)  # type: ignore[misc]
                await asyncio.sleep(0.05)  # so that all of them wait for this one
                source.gates[begun - 1].set()
            await until(lambda: source.begun == 3)
            source.keys += [key(kid) for kid in kids]
            source.gates[2].set()
            await asyncio.wait(waiting)
    # One of them began the second fetch and may have asked again before the third began: its kid is unknown then.
    assert codes(waiting).count(OK) >= 2
    assert set(codes(waiting)) <= {OK, grpc.StatusCode.UNAUTHENTICATED}


@each_stack
async def test_nobody_waits_for_more_than_three_fetches(stack: Stack) -> None:
    source = Gated(20)
    for gate in source.gates:
        gate.set()
    refetching_always = CachePolicy(cooldown_s=1e-9)
    with trusting_gated(source, cache=refetching_always) as auth:
        async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
            outcome = await client.call("UnaryUnary", mint(key("k2")))
    assert outcome.reason == "KEYS_UNAVAILABLE"
    # With those that may end before the call begins to wait, and the one that its last question begins for others.
    assert source.begun <= 6


@each_stack
async def test_a_closed_authenticator_sends_its_waiters_away(stack: Stack, issuer: JwksServer) -> None:
    issuer.hang()
    auth = trusting(issuer)
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        (waiting,) = calling(client, [mint()])
        await until(lambda: issuer.fetches == 1)
        await asyncio.to_thread(auth.close)
        assert (await waiting).reason == "KEYS_UNAVAILABLE"
