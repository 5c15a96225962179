"""What the assertions about refusals let pass, and what they say of the rest; on both stacks."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import pytest

from grpc_bearer import Policies, Policy, Reason, Rule
from grpc_bearer.testing import (
    AioServers,
    LocalIssuer,
    Refusal,
    SyncServers,
    assert_permission_denied,
    assert_unauthenticated,
    assert_unavailable,
    bearer,
)
from grpc_bearer.testing.refusals import RefusalExpected
from grpc_bearer.v1.identity_pb2 import WatchIdentityRequest, WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub
from tests.testing.services import WHO_AM_I, Aborting, AioIdentity, SyncIdentity, adding

Assertion = Callable[[str | None], RefusalExpected]
UNREAD = "expected UNAUTHENTICATED, TOKEN_MISSING, but nothing was refused (inside the block a call of a stream has to be read"
RULES = Policies(rules=[Rule([WHO_AM_I], Policy(scopes=("profile",)))])


@pytest.fixture
def stub(grpc_bearer_server: SyncServers) -> Any:
    return IdentityServiceStub(grpc_bearer_server(adding(SyncIdentity()), policies=RULES))


def failing(message: str) -> AbstractContextManager[Any]:
    """The assertion in the block has to fail with just this message."""
    return pytest.raises(AssertionError, match=f"^{re.escape(message)}$")


def failing_with(opening: str) -> AbstractContextManager[Any]:
    """The assertion in the block has to fail with a message that begins so."""
    return pytest.raises(AssertionError, match=f"^{re.escape(opening)}")


def test_a_refusal_can_be_looked_at_after_the_block(stub: Any, grpc_bearer_issuer: LocalIssuer) -> None:
    with assert_permission_denied("INSUFFICIENT_SCOPE") as refusal:
        stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.token()))
    assert refusal == Refusal(
        grpc.StatusCode.PERMISSION_DENIED,
        "the bearer token lacks a scope that this method requires",
        "INSUFFICIENT_SCOPE",
        {"scopes": "profile"},
        'Bearer error="insufficient_scope", error_description="the bearer token lacks a scope that this method requires", '
        'scope="profile"',
    )


def test_a_reason_is_a_member_or_its_name_or_left_open(stub: Any) -> None:
    for reason in (Reason.TOKEN_MISSING, "TOKEN_MISSING", None):
        with assert_unauthenticated(reason) as refusal:
            stub.WhoAmI(WhoAmIRequest())
        assert (refusal.reason, refusal.challenge) == ("TOKEN_MISSING", "Bearer")


@pytest.mark.parametrize(
    ("assertion", "reason", "fitting"),
    [
        (
            assert_unauthenticated,
            "INSUFFICIENT_SCOPE",
            "UNAUTHENTICATED; choose from TOKEN_MISSING, TOKEN_MALFORMED, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, TOKEN_INVALID",
        ),
        (assert_permission_denied, "TOKEN_INVALID", "PERMISSION_DENIED; choose from INSUFFICIENT_SCOPE, POLICY_DENIED"),
        (assert_unavailable, "INTERNAL", "UNAVAILABLE; choose from KEYS_UNAVAILABLE"),
    ],
)
def test_a_reason_that_never_comes_with_the_code_is_an_error_at_once(assertion: Assertion, reason: str, fitting: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'reason: {reason!r} never comes with {fitting}')}$"):
        assertion(reason)


def test_a_call_that_is_answered_fails_the_assertion(stub: Any, grpc_bearer_issuer: LocalIssuer) -> None:
    token = grpc_bearer_issuer.token(scope="profile")
    hint = "inside the block a call of a stream has to be read, and one of grpc.aio awaited"
    with (
        failing(f"expected UNAUTHENTICATED, TOKEN_EXPIRED, but nothing was refused ({hint})"),
        assert_unauthenticated("TOKEN_EXPIRED"),
    ):
        stub.WhoAmI(WhoAmIRequest(), metadata=bearer(token))
    with failing(f"expected PERMISSION_DENIED, but nothing was refused ({hint})"), assert_permission_denied():
        stub.WhoAmI(WhoAmIRequest(), metadata=bearer(token))


def test_another_code_fails_the_assertion_and_says_which(stub: Any, grpc_bearer_issuer: LocalIssuer) -> None:
    got = "PERMISSION_DENIED, INSUFFICIENT_SCOPE ('the bearer token lacks a scope that this method requires')"
    with failing(f"expected UNAUTHENTICATED, but the call ended with {got}"), assert_unauthenticated():
        stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.token()))


def test_another_reason_fails_the_assertion_and_says_where_to_look(stub: Any, grpc_bearer_issuer: LocalIssuer) -> None:
    got = "UNAUTHENTICATED, TOKEN_INVALID ('the bearer token is not valid here'); logger grpc_bearer has the cause, at INFO"
    expected = "UNAUTHENTICATED, TOKEN_EXPIRED"
    with failing(f"expected {expected}, but the call ended with {got}"), assert_unauthenticated("TOKEN_EXPIRED"):
        stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.forged()))


def test_the_call_that_was_refused_otherwise_is_the_cause_of_the_failure(stub: Any) -> None:
    with pytest.raises(AssertionError) as caught, assert_permission_denied():
        stub.WhoAmI(WhoAmIRequest())
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_a_server_that_hides_its_reasons_is_not_taken_for_one_that_gives_another(
    grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    hiding: Any = IdentityServiceStub(grpc_bearer_server(adding(SyncIdentity()), reveal_reasons=False))
    token = grpc_bearer_issuer.expired()
    with assert_unauthenticated() as refusal:
        hiding.WhoAmI(WhoAmIRequest(), metadata=bearer(token))
    assert (refusal.reason, refusal.challenge, refusal.metadata) == (None, None, {})
    why = "its interceptor has reveal_reasons=False, or it was not grpc-bearer that refused"
    got = "UNAUTHENTICATED, no reason ('UNAUTHENTICATED')"
    with (
        failing(f"expected UNAUTHENTICATED, TOKEN_EXPIRED, but the server gave no reason: {why}: {got}"),
        assert_unauthenticated("TOKEN_EXPIRED"),
    ):
        hiding.WhoAmI(WhoAmIRequest(), metadata=bearer(token))


def test_a_reason_of_another_domain_is_none_of_ours(grpc_bearer_server: SyncServers, grpc_bearer_issuer: LocalIssuer) -> None:
    channel = grpc_bearer_server(adding(Aborting(grpc.StatusCode.UNAVAILABLE)))
    stub: Any = IdentityServiceStub(channel)
    call = bearer(grpc_bearer_issuer.token())
    with failing_with("expected UNAVAILABLE, KEYS_UNAVAILABLE, but the server gave no reason: "), assert_unavailable():
        stub.WhoAmI(WhoAmIRequest(), metadata=call)
    with assert_unavailable(None):
        stub.WhoAmI(WhoAmIRequest(), metadata=call)


def test_a_server_that_is_not_there_is_not_taken_for_one_without_keys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = f"127.0.0.1:{taken.getsockname()[1]}"
    with grpc.insecure_channel(target) as channel:
        stub: Any = IdentityServiceStub(channel)
        with failing_with("expected UNAVAILABLE, KEYS_UNAVAILABLE, but the server gave no reason: "), assert_unavailable():
            stub.WhoAmI(WhoAmIRequest())


def test_what_is_no_end_of_a_call_comes_through(stub: Any) -> None:
    with pytest.raises(ZeroDivisionError), assert_unauthenticated():
        _ = 1 / 0
    with failing("expected UNAUTHENTICATED, but the call ended with no code, no reason ('')"), assert_unauthenticated():
        raise grpc.RpcError


def test_a_stream_is_refused_when_it_is_read(stub: Any) -> None:
    with assert_unauthenticated("TOKEN_MISSING"):
        list(stub.WatchIdentity(WatchIdentityRequest()))
    with failing_with(UNREAD), assert_unauthenticated("TOKEN_MISSING"):
        unread = stub.WatchIdentity(WatchIdentityRequest())
    unread.cancel()


async def test_awaited_calls_and_streams_of_grpc_aio_are_asserted_in_the_same_way(
    grpc_bearer_aio_server: AioServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    async with grpc_bearer_aio_server(adding(AioIdentity()), policies=RULES) as channel:
        stub: Any = IdentityServiceStub(channel)
        with assert_permission_denied("INSUFFICIENT_SCOPE") as refusal:
            await stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.token()))
        assert refusal.metadata == {"scopes": "profile"}
        assert refusal.challenge is not None
        with assert_unauthenticated("TOKEN_MISSING"):
            async for _response in stub.WatchIdentity(WatchIdentityRequest()):
                pass
        expired = "expected UNAUTHENTICATED, TOKEN_EXPIRED, but "
        with failing_with(f"{expired}nothing was refused"), assert_unauthenticated("TOKEN_EXPIRED"):
            await stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.token(scope="profile")))
        got = f"{expired}the call ended with UNAUTHENTICATED, TOKEN_INVALID"
        with failing_with(got), assert_unauthenticated("TOKEN_EXPIRED"):
            await stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.forged()))
