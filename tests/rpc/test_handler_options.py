"""grpc's own options for handlers still work through our wrappers, and a wrapper is made once for a handler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixResponse

from grpc_bearer import Authenticator, current_claims, sync
from grpc_bearer.handlers import BoundedByHandler, behaviour_of, with_behaviour
from tests.rpc.interceptors import Details
from tests.support.calls import Client, bearer, until
from tests.support.matrix import METHODS, SERVICE, handler, handlers
from tests.support.serving import serving
from tests.support.tokens import mint

OK = grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS)
async def test_a_handler_with_a_thread_pool_of_its_own_runs_in_it(method: str, auth: Authenticator) -> None:
    """grpc reads `experimental_thread_pool` off the function that serves the method, and not off its handler."""

    def unary(_request: Any, _context: Any) -> MatrixResponse:
        return MatrixResponse(text=threading.current_thread().name, subject=current_claims().sub or "")

    def stream(request: Any, context: Any) -> Iterator[MatrixResponse]:
        yield unary(request, context)

    behaviour: Any = stream if method.endswith("Stream") else unary
    with ThreadPoolExecutor(1, thread_name_prefix="own-pool") as pool:
        behaviour.experimental_thread_pool = pool
        async with serving("sync", auth, handlers({method: behaviour})) as target, Client(target) as client:
            outcome = await client.call(method, mint(sub="alice"))
    assert (outcome.texts, outcome.subjects) == (("own-pool_0",), {"alice"})


@pytest.mark.parametrize("context_claims", [False, True])
@pytest.mark.parametrize("method", ["UnaryStream", "StreamStream"])
async def test_a_non_blocking_handler_sends_its_responses_later_and_holds_no_worker(
    method: str, context_claims: bool, auth: Authenticator
) -> None:
    senders: list[Callable[[], None]] = []

    def later(_request: Any, context: Any, send_response: Callable[[MatrixResponse | None], None]) -> None:
        subject = current_claims().sub or ""
        assert hasattr(context, "claims") is context_claims

        def send() -> None:
            send_response(MatrixResponse(text="later", subject=subject))
            send_response(None)

        senders.append(send)

    later.experimental_non_blocking = True  # type: ignore[attr-defined]
    register = handlers({method: later, "UnaryUnary": lambda request, _context: MatrixResponse(text=request.text)})
    async with (
        serving("sync", auth, register, workers=1, context_claims=context_claims) as target,
        Client(target) as client,
    ):
        waiting = [asyncio.create_task(client.call(method, mint(sub="alice"))) for _ in range(3)]
        await until(lambda: len(senders) == 3)
        assert (await client.call("UnaryUnary", mint())).code is OK
        assert not any(task.done() for task in waiting)
        for send in senders:
            await asyncio.to_thread(send)
        outcomes = await asyncio.gather(*waiting)
    assert [(outcome.code, outcome.texts, outcome.subjects) for outcome in outcomes] == [(OK, ("later",), {"alice"})] * 3


def test_a_wrapper_is_made_once_for_a_handler_and_anew_for_another() -> None:
    first, second = (handler("UnaryUnary", lambda _request, _context: MatrixResponse()) for _ in range(2))
    made: BoundedByHandler[object] = BoundedByHandler(lambda _handler: object())
    wrapper = made.get("/a/A", first)
    assert made.get("/a/A", first) is wrapper
    assert made.get("/b/B", first) is not wrapper
    assert made.get("/a/A", second) is not wrapper
    assert made.get("/a/A", first) is not wrapper  # one is remembered for a method, the latest


def test_the_sync_driver_wraps_a_handler_once(auth: Authenticator) -> None:
    guard = sync.AuthInterceptor(auth)
    served = handler("UnaryUnary", lambda _request, _context: MatrixResponse())
    details = Details(f"/{SERVICE}/UnaryUnary", bearer(mint()))
    wrapper = guard.intercept_service(lambda _details: served, details)
    assert wrapper is not served
    assert guard.intercept_service(lambda _details: served, details) is wrapper


def test_made_up_method_names_do_not_fill_the_memory() -> None:
    served = handler("UnaryUnary", lambda _request, _context: MatrixResponse())
    made: list[object] = []
    bounded: BoundedByHandler[None] = BoundedByHandler(made.append, most=3)
    for name in ("/a", "/b", "/c", "/a", "/b", "/c"):
        bounded.get(name, served)
    assert len(made) == 3
    bounded.get("/d", served)
    bounded.get("/d", served)
    bounded.get("/a", served)
    assert len(made) == 5


@pytest.mark.parametrize("method", METHODS)
def test_a_rebuilt_handler_keeps_its_kind_and_its_serializers(method: str) -> None:
    served = handler(method, lambda _request, _context: MatrixResponse())

    def other(_request: Any, _context: Any) -> None: ...

    rebuilt = with_behaviour(served, other)
    streaming = with_behaviour(served, other, request_streaming=True)
    assert behaviour_of(rebuilt) is behaviour_of(streaming) is other
    assert (rebuilt.request_streaming, rebuilt.response_streaming) == (served.request_streaming, served.response_streaming)
    assert (streaming.request_streaming, streaming.response_streaming) == (True, served.response_streaming)
    for made in (rebuilt, streaming):
        assert made.request_deserializer is served.request_deserializer
        assert made.response_serializer is served.response_serializer
