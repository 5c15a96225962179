"""Whose claims a handler sees: those of its own call, in every form, and none where nothing was verified."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import grpc
import pytest
from matrix.v1.matrix_pb2 import MatrixRequest, MatrixResponse

from grpc_bearer import Authenticator, NoClaimsError, Policies, aio, current_claims, current_claims_or_none
from grpc_bearer.claims import bind_claims
from tests.rpc.interceptors import interceptor
from tests.support.calls import Client, until
from tests.support.matrix import FORMS, METHODS, SERVICE, Form, handler, handlers, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import mint
from tests.support.verdicts import authenticate

OK = grpc.StatusCode.OK
each_stack = pytest.mark.parametrize("stack", STACKS)
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def subject() -> str:
    """Whose claims are bound here."""
    claims = current_claims_or_none()
    return "nobody" if claims is None else claims.sub or ""


def saw(request: MatrixRequest, _context: Any) -> MatrixResponse:
    return MatrixResponse(text=request.text, subject=subject())


async def saw_aio(request: MatrixRequest, context: Any) -> MatrixResponse:
    return saw(request, context)


def saw_stream(request: MatrixRequest, context: Any) -> Iterator[MatrixResponse]:
    yield saw(request, context)


async def saw_stream_aio(request: MatrixRequest, context: Any) -> AsyncIterator[MatrixResponse]:
    yield saw(request, context)


SAW = {"sync": saw, "aio": saw_aio, "sync handlers on an aio server": saw}
each_saw = pytest.mark.parametrize(("stack", "behaviour"), [("sync", saw), ("aio", saw_aio), ("aio", saw)], ids=SAW)


@each_saw
async def test_a_handler_that_closes_over_one_calls_metadata_serves_no_other_call(
    stack: Stack, behaviour: Any, auth: Authenticator
) -> None:
    def of_this_call(details: Any, _handler: Any) -> Any:
        user = dict(details.invocation_metadata)["x-user"]

        def personal(_request: MatrixRequest, _context: Any) -> MatrixResponse:
            return MatrixResponse(text=user, subject=subject())

        async def personal_aio(request: MatrixRequest, context: Any) -> MatrixResponse:
            return personal(request, context)

        return handler("UnaryUnary", personal if behaviour is saw else personal_aio)

    inner = interceptor(stack, after=of_this_call)
    async with (
        serving(stack, auth, handlers({"UnaryUnary": behaviour}), inner=[inner]) as target,
        Client(target) as client,
    ):
        for user in ("alice", "bob", "alice"):
            outcome = await client.call("UnaryUnary", mint(sub=user), metadata=(("x-user", user),))
            assert (outcome.texts, outcome.subjects) == ((user,), {user})


async def test_a_method_whose_handler_changes_its_form_keeps_its_claims(auth: Authenticator) -> None:
    """As when an inner interceptor answers some calls by itself."""

    def changing(details: Any, _handler: Any) -> Any:
        form = dict(details.invocation_metadata)["x-form"]
        return handler("UnaryUnary", saw if form == "sync" else saw_aio)

    register, inner = handlers({"UnaryUnary": saw_aio}), interceptor("aio", after=changing)
    async with serving("aio", auth, register, inner=[inner]) as target, Client(target) as client:
        for form in ("aio", "sync", "aio", "sync"):
            outcome = await client.call("UnaryUnary", mint(sub=form), metadata=(("x-form", form),))
            assert (outcome.code, outcome.subjects) == (OK, {form})


@each_saw
async def test_no_claims_are_left_over_for_the_next_call_or_for_a_public_method(
    stack: Stack, behaviour: Any, auth: Authenticator
) -> None:
    bind_claims(authenticate(auth, mint(sub="whoever started the server")))
    public = saw_stream if behaviour is saw else saw_stream_aio
    register = handlers({"UnaryUnary": behaviour, "UnaryStream": public})
    auth.reload(policies=Policies(public_methods=[f"/{SERVICE}/UnaryStream"]))
    async with (
        serving(stack, auth, register, workers=1) as target,
        Client(target) as client,
    ):
        calls = [("UnaryStream", None), ("UnaryUnary", "alice"), ("UnaryStream", None), ("UnaryUnary", "bob")]
        # A token for a public method is not looked at: it binds nothing.
        calls += [("UnaryStream", "carol"), ("UnaryStream", None)]
        seen = [(await client.call(method, sub and mint(sub=sub))).subjects for method, sub in calls]
    assert seen == [{"nobody"}, {"alice"}, {"nobody"}, {"bob"}, {"nobody"}, {"nobody"}]


@each_form
async def test_calls_at_the_same_time_see_their_own_claims(form: Form, auth: Authenticator) -> None:
    names = [f"user-{number}" for number in range(10)]
    async with serving(form.stack, auth, registering(form.service())) as target, Client(target) as client:
        calls = [(name, client.call(method, mint(sub=name))) for name in names for method in METHODS]
        outcomes = await asyncio.gather(*(call for _, call in calls))
    assert [outcome.subjects for outcome in outcomes] == [{name} for name, _ in calls]


@each_form
async def test_streams_that_take_turns_see_their_own_claims(form: Form, auth: Authenticator) -> None:
    message = MatrixRequest(text="a").SerializeToString()
    async with serving(form.stack, auth, registering(form.service())) as target, Client(target) as client:
        streams = {name: client.open("StreamStream", mint(sub=name)) for name in ("alice", "bob")}
        for name in ("alice", "bob", "bob", "alice", "bob"):
            await streams[name].write(message)
            assert (await streams[name].read()).subject == name
        for stream in streams.values():
            await stream.done_writing()
            assert await stream.code() is OK


async def test_inner_interceptors_of_an_aio_server_find_the_claims(auth: Authenticator) -> None:
    seen: list[str] = []
    inner = interceptor("aio", before=lambda _details: seen.append(subject()))
    async with serving("aio", auth, handlers({"UnaryUnary": saw_aio}), inner=[inner]) as target, Client(target) as client:
        await client.call("UnaryUnary", mint(sub="alice"))
        await client.call("UnaryUnary")
    assert seen == ["alice", "nobody"]


variable: ContextVar[str] = ContextVar("variable", default="unset")


def saw_variable(_request: MatrixRequest, _context: Any) -> MatrixResponse:
    return MatrixResponse(text=variable.get())


def saw_variable_stream(request: MatrixRequest, context: Any) -> Iterator[MatrixResponse]:
    yield saw_variable(request, context)
    yield saw_variable(request, context)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "bare"])
async def test_context_variables_reach_sync_handlers_on_an_aio_server_through_our_wrapper_only(
    guarded: bool, auth: Authenticator
) -> None:
    """Bare: grpc#37881, the fact that the wrapper is for."""
    register = handlers({"UnaryUnary": saw_variable, "UnaryStream": saw_variable_stream})
    inner = interceptor("aio", before=lambda _details: variable.set("set"))
    async with (
        serving("aio", auth if guarded else None, register, inner=[inner]) as target,
        Client(target) as client,
    ):
        texts = (await client.call("UnaryUnary", mint())).texts + (await client.call("UnaryStream", mint())).texts
    assert texts == ("set",) * 3 if guarded else ("unset",) * 3


def attempt() -> str:
    """Whose claims `current_claims` finds, or the error that it raises."""
    try:
        return current_claims().sub or ""
    except NoClaimsError as error:
        return type(error).__name__


@each_stack
async def test_claims_have_to_be_carried_to_other_threads_and_to_callbacks(stack: Stack, auth: Authenticator) -> None:
    seen: dict[str, str] = {}

    def note(where: str) -> None:
        seen[where] = attempt()

    def sync_handler(_request: MatrixRequest, context: Any) -> MatrixResponse:
        note("here")
        context.add_callback(lambda: note("callback"))
        carried = copy_context()
        for thread in (
            threading.Thread(target=note, args=("thread",)),
            threading.Thread(target=carried.run, args=(note, "carried")),
        ):
            thread.start()
            thread.join()
        return MatrixResponse()

    async def aio_handler(_request: MatrixRequest, context: Any) -> MatrixResponse:
        note("here")
        context.add_done_callback(lambda _context: note("callback"))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, note, "thread")
        await loop.run_in_executor(None, copy_context().run, note, "carried")
        return MatrixResponse()

    register = handlers({"UnaryUnary": sync_handler if stack == "sync" else aio_handler})
    async with serving(stack, auth, register) as target, Client(target) as client:
        assert (await client.call("UnaryUnary", mint(sub="alice"))).code is OK
        await until(lambda: len(seen) == 4)
    assert seen == {"here": "alice", "carried": "alice", "thread": "NoClaimsError", "callback": "NoClaimsError"}


@pytest.mark.parametrize("context_claims", [False, True])
@each_form
async def test_the_context_has_claims_only_when_asked_to(form: Form, context_claims: bool, auth: Authenticator) -> None:
    seen: list[tuple[bool, bool]] = []

    def look(context: Any) -> MatrixResponse:
        seen.append((hasattr(context, "claims"), isinstance(context, aio.AuthenticatedContext)))
        return MatrixResponse()

    async def look_aio(_request: MatrixRequest, context: Any) -> MatrixResponse:
        return look(context)

    is_async = form.stack == "aio" and form.service is not FORMS["sync"].service
    register = handlers({"UnaryUnary": look_aio if is_async else lambda _request, context: look(context)})
    async with serving(form.stack, auth, register, context_claims=context_claims) as target, Client(target) as client:
        assert (await client.call("UnaryUnary", mint())).code is OK
    assert seen == [(context_claims, context_claims and form.stack == "aio")]


@each_stack
async def test_grpcs_own_context_takes_attributes_on_the_sync_server_only(stack: Stack) -> None:
    """The fact for which the aio driver puts a context of its own in front, and the sync one does not."""
    took: list[str] = []

    def try_it(context: Any) -> MatrixResponse:
        with suppress(AttributeError):
            context.claims = "an attribute"
            took.append("attribute")
        with suppress(TypeError):
            weakref.ref(context)
            took.append("weakref")
        return MatrixResponse()

    async def try_it_aio(_request: MatrixRequest, context: Any) -> MatrixResponse:
        return try_it(context)

    register = handlers({"UnaryUnary": try_it_aio if stack == "aio" else lambda _request, context: try_it(context)})
    async with serving(stack, None, register) as target, Client(target) as client:
        assert (await client.call("UnaryUnary")).code is OK
    assert took == ([] if stack == "aio" else ["attribute", "weakref"])
