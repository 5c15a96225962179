"""Who waits for an issuer's keys, how many, and all that goes on meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from tests.rpc.interceptors import Counting, interceptor
from tests.rpc.waiting import END_OF_A_DEADLINE, NEVER_S, OTHER_ISSUER, calling, codes, trusting
from tests.support.calls import Client, until
from tests.support.jwks_server import JwksServer
from tests.support.matrix import METHODS, SERVICES, handlers, registering
from tests.support.processes import PATIENCE_S
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import key, mint

OK = grpc.StatusCode.OK
each_stack = pytest.mark.parametrize("stack", STACKS)


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
            (first,) = calling(client, [token], timeout=0.5 if end == "its deadline passes" else PATIENCE_S)
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
                auth.start()
                await until(auth.ready)
            finally:
                go_on.set()
            await asyncio.wait([working, queueing])
    assert codes([working, queueing]) == [OK] * 2
