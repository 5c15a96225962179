"""What waits for an issuer's keys, how long and how many, and all that goes on meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import Attempt, Authenticator, CachePolicy, FetchedKeys, FetchOptions, Issuer
from tests.rpc.interceptors import Counting, interceptor
from tests.support.calls import Client, Outcome, until
from tests.support.jwks_server import JwksServer
from tests.support.matrix import METHODS, SERVICES, handlers, registering
from tests.support.processes import PATIENCE_S
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint

OK = grpc.StatusCode.OK
OTHER_ISSUER = "https://other.example"
NEVER_S = 60.0
AT_ONCE = CachePolicy(backoff_initial_s=0.001, backoff_max_s=0.001)
# Caller and server take a deadline's time each on its own.
END_OF_A_DEADLINE = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
each_stack = pytest.mark.parametrize("stack", STACKS)


def trusting(issuer: JwksServer, *, timeout_s: float = NEVER_S) -> Authenticator:
    """`ISSUER` by its JWK Set's address, `OTHER_ISSUER` by a set given in code."""
    fetch = FetchOptions(timeout_s=timeout_s)
    return Authenticator(
        [
            Issuer(ISSUER, audiences=[AUDIENCE], jwks_uri=issuer.jwks_uri, fetch=fetch, cache=AT_ONCE),
            Issuer(OTHER_ISSUER, audiences=[AUDIENCE], jwks=jwks(key())),
        ]
    )


def calling(client: Client, tokens: Sequence[str], **options: Any) -> list[asyncio.Task[Outcome]]:
    return [asyncio.create_task(client.call("UnaryUnary", token, **options)) for token in tokens]


def codes(tasks: Sequence[asyncio.Task[Outcome]]) -> list[grpc.StatusCode]:
    return [task.result().code for task in tasks]


@pytest.mark.parametrize(
    ("stack", "max_waiters", "answered"),
    [("aio", 0, 200), ("sync", 16, 200), ("sync", 2, 2)],
    ids=["aio", "sync, every worker may wait", "sync, two workers may wait"],
)
async def test_200_calls_at_once_on_a_cold_cache_cost_one_fetch(
    stack: Stack, max_waiters: int, answered: int, issuer: JwksServer
) -> None:
    counting = Counting(stack)
    issuer.hang()
    with trusting(issuer) as auth:
        async with (
            serving(
                stack,
                auth,
                registering(SERVICES[stack]()),
                workers=16,
                outer=[counting.interceptor],
                max_waiters=max_waiters,
            ) as target,
            Client(target) as client,
        ):
            tasks = calling(client, [mint()] * 200)
            await until(lambda: counting.arrived == 200 and sum(task.done() for task in tasks) == 200 - answered)
            issuer.resume()
            await asyncio.wait(tasks)
    assert codes(tasks).count(OK) == answered
    assert codes(tasks).count(grpc.StatusCode.UNAVAILABLE) == 200 - answered
    assert issuer.fetches == 1


@each_stack
async def test_a_hanging_issuer_holds_up_none_but_those_who_need_its_new_key(stack: Stack, issuer: JwksServer) -> None:
    service = SERVICES[stack]()

    def register(server: Any) -> None:
        registering(service)(server)
        healthy = health.HealthServicer() if stack == "sync" else health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)

    with trusting(issuer) as auth:
        assert await asyncio.to_thread(auth.warm)
        issuer.hang()
        issuer.keys += (key("k2"),)
        async with serving(stack, auth, register, workers=3, max_waiters=2) as target, Client(target) as client:
            waiting = calling(client, [mint(key("k2"))] * 2)
            await until(lambda: issuer.fetches == 2)
            for token in (mint(), mint(iss=OTHER_ISSUER)):
                assert [(await client.call(method, token)).code for method in METHODS] == [OK] * 4
            assert (await client.call("UnaryUnary")).reason == "TOKEN_MISSING"
            health_stub: Any = health_pb2_grpc.HealthStub(client.channel)
            assert (await health_stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
            assert not any(task.done() for task in waiting)
            issuer.resume()
            await asyncio.wait(waiting)
    assert codes(waiting) == [OK] * 2
    assert issuer.fetches == 2


async def test_a_bare_interceptor_that_waits_holds_up_every_other_call() -> None:
    """The fact for which nothing of ours waits in `intercept_service` on the sync server."""
    waits, go_on = threading.Event(), threading.Event()

    def wait(details: grpc.HandlerCallDetails) -> None:
        if details.method.endswith("StreamUnary"):
            waits.set()
            go_on.wait(PATIENCE_S)

    def answer(_request: Any, _context: Any) -> MatrixResponse:
        return MatrixResponse(text="a")

    register = handlers({"UnaryUnary": answer, "StreamUnary": answer})
    async with (
        serving("sync", None, register, outer=[interceptor("sync", before=wait)]) as target,
        Client(target) as client,
    ):
        try:
            assert (await client.call("UnaryUnary")).code is OK
            waiting = asyncio.create_task(client.call("StreamUnary"))
            await until(waits.is_set)
            held_up = await client.call("UnaryUnary", timeout=0.3)
        finally:
            go_on.set()
        assert (await waiting).code is OK
    assert held_up.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("max_waiters", [0, 1, 3])
async def test_one_waiter_too_many_is_unavailable_at_once(max_waiters: int, issuer: JwksServer) -> None:
    issuer.hang()
    with trusting(issuer) as auth:
        async with (
            serving("sync", auth, registering(SERVICES["sync"]()), workers=5, max_waiters=max_waiters) as target,
            Client(target) as client,
        ):
            tasks = calling(client, [mint()] * (max_waiters + 1))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            refused = [task.result() for task in tasks if task.done()]
            assert [(outcome.code, outcome.reason) for outcome in refused] == [
                (grpc.StatusCode.UNAVAILABLE, "KEYS_UNAVAILABLE")
            ]
            issuer.resume()
            await asyncio.wait(tasks)
    assert codes(tasks).count(OK) == max_waiters


@pytest.mark.parametrize("end", ["its key comes", "no key has its kid", "the fetch fails", "its deadline passes"])
async def test_a_waiter_makes_room_for_the_next_when(end: str, issuer: JwksServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "grpc_bearer")
    counting = Counting("sync")
    issuer.hang()
    with trusting(issuer, timeout_s=0.3 if end == "the fetch fails" else NEVER_S) as auth:
        async with (
            serving(
                "sync",
                auth,
                registering(SERVICES["sync"]()),
                outer=[counting.interceptor],
                max_waiters=1,
            ) as target,
            Client(target) as client,
        ):
            token = mint(key("k2")) if end == "no key has its kid" else mint()
            (first,) = calling(client, [token], timeout=0.2 if end == "its deadline passes" else PATIENCE_S)
            await until(lambda: counting.arrived == 1)
            if end in ("its key comes", "no key has its kid"):
                issuer.resume()
            code = (await first).code
            if end == "its deadline passes":
                await until(lambda: "the issuer's keys did not come in time" in caplog.text)
            issuer.hang()
            if end == "the fetch fails":
                await until(lambda: issuer.fetches == 2)
            issuer.keys += (key("k3"),)
            (second,) = calling(client, [mint(key("k3"))])
            await until(lambda: counting.arrived == 2)
            issuer.resume()
            assert (await second).code is OK
    assert (
        code
        in {
            "its key comes": {OK},
            "no key has its kid": {grpc.StatusCode.UNAUTHENTICATED},
            "the fetch fails": {grpc.StatusCode.UNAVAILABLE},
            "its deadline passes": END_OF_A_DEADLINE,
        }[end]
    )


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
            leaving = client.open("UnaryUnary", mint(), timeout=0.2 if end == "its deadline passes" else PATIENCE_S)
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
            (leaving,) = calling(client, [mint()], timeout=0.2)
            await until(lambda: "the issuer's keys did not come in time" in caplog.text)
            issuer.resume()
            await asyncio.wait([leaving, *staying])
    assert leaving.result().code in END_OF_A_DEADLINE
    assert codes(staying) == [OK] * 2
    assert issuer.fetches == 1


class Gated:
    """A key source whose fetches end one by one: `gates[n]` lets the n-th end. Each brings what is in `keys` by then."""

    def __init__(self, fetches: int) -> None:
        self.gates = [threading.Event() for _ in range(fetches)]
        self.keys = [key()]
        self.begun = 0

    def __call__(self, _attempt: Attempt, /) -> FetchedKeys:
        gate = self.gates[self.begun]
        self.begun += 1
        gate.wait(PATIENCE_S)
        return FetchedKeys(json.dumps(jwks(*self.keys)).encode())


def trusting_gated(source: Gated, **options: Any) -> Authenticator:
    return Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], key_source=source, **options)])


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
    source = Gated(5)
    for gate in source.gates:
        gate.set()
    refetching_always = CachePolicy(cooldown_s=1e-9)
    with trusting_gated(source, cache=refetching_always) as auth:
        async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
            outcome = await client.call("UnaryUnary", mint(key("k2")))
    assert outcome.reason == "KEYS_UNAVAILABLE"
    assert source.begun in (3, 4)  # asking for the last time begins another, for those who come later


@each_stack
async def test_a_closed_authenticator_sends_its_waiters_away(stack: Stack, issuer: JwksServer) -> None:
    issuer.hang()
    auth = trusting(issuer)
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        (waiting,) = calling(client, [mint()])
        await until(lambda: issuer.fetches == 1)
        await asyncio.to_thread(auth.close)
        assert (await waiting).reason == "KEYS_UNAVAILABLE"


async def test_a_key_that_comes_while_a_call_queues_for_its_worker_needs_no_wait(issuer: JwksServer) -> None:
    running, go_on = threading.Event(), threading.Event()

    def busy(request: MatrixRequest, _context: Any) -> MatrixResponse:
        running.set()
        go_on.wait(PATIENCE_S)
        return MatrixResponse(text=request.text)

    with trusting(issuer) as auth:
        async with (
            serving("sync", auth, handlers({"UnaryUnary": busy}), workers=1, max_waiters=0) as target,
            Client(target) as client,
        ):
            try:
                (working,) = calling(client, [mint(iss=OTHER_ISSUER)])
                await until(running.is_set)
                (queueing,) = calling(client, [mint()])
                await until(auth.ready)
            finally:
                go_on.set()
            await asyncio.wait([working, queueing])
    assert codes([working, queueing]) == [OK] * 2
