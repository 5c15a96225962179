"""IdentityService: what it says of a caller, and how a watched identity goes from ACTIVE to EXPIRING to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from grpc_bearer import Authenticator, AuthError, Claims, Issuer, Policies, Policy, Reason, Rule, Streams
from grpc_bearer.aio import AuthInterceptor
from grpc_bearer.handlers import behaviour_of
from grpc_bearer.strict_json import MAX_DEPTH
from grpc_bearer.v1.identity_pb2 import (
    Identity,
    WatchIdentityRequest,
    WatchIdentityResponse,
    WhoAmIRequest,
    WhoAmIResponse,
)
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub, add_IdentityServiceServicer_to_server
from grpc_bearer.verifier import MAX_NUMERIC_DATE
from grpc_bearer_server.services.identity import IdentityService, identity_of
from tests.support.calls import Outcome, bearer, outcome
from tests.support.processes import PATIENCE_S
from tests.support.serving import serving
from tests.support.tokens import AUDIENCE, ISSUER, claims_set, jwks, key, mint
from tests.support.verdicts import authenticate
from tests.support.virtual_time import run_in_virtual_time

NOW = 1_800_000_000.0
LEEWAY_S = 30.0
WATCH_IDENTITY = "/grpc_bearer.v1.IdentityService/WatchIdentity"
ACTIVE = WatchIdentityResponse.STATE_ACTIVE
EXPIRING = WatchIdentityResponse.STATE_EXPIRING
UNSET: dict[str, Any] = dict.fromkeys(("sub", "iat", "jti", "client_id", "scope"))


def issuer_of(**changed: Any) -> Issuer:
    return Issuer(ISSUER, **({"audiences": [AUDIENCE], "jwks": jwks(key())} | changed))


def claims_of(**claims: Any) -> Claims:
    """Verified claims of a token from `NOW`."""
    with Authenticator([issuer_of()], clock=lambda: NOW) as auth:
        return authenticate(auth, mint(now=NOW, **claims))


@asynccontextmanager
async def stub_of(service: IdentityService, **of_interceptor: Any) -> AsyncIterator[Any]:
    """A client of the service behind the interceptor, where it is `NOW`."""

    def register(server: Any) -> None:
        add_IdentityServiceServicer_to_server(service, server)

    with Authenticator([issuer_of()], clock=lambda: NOW) as auth:
        async with (
            serving("aio", auth, register, **of_interceptor) as target,
            grpc.aio.insecure_channel(target) as channel,
        ):
            yield IdentityServiceStub(channel)


async def who_am_i(token: str) -> Identity:
    async with stub_of(IdentityService()) as stub:
        answer: WhoAmIResponse = await stub.WhoAmI(WhoAmIRequest(), metadata=bearer(token), timeout=PATIENCE_S)
        return answer.identity


async def test_who_am_i_tells_every_claim_in_well_known_types() -> None:
    claims = claims_set(
        NOW, aud=["billing", AUDIENCE], exp=NOW + 60.25, scope="b a b", scp=["c"], nested={"list": [1, "x", True, None, {}]}
    )
    members = Struct()
    members.update(claims)
    assert await who_am_i(mint(now=NOW, **claims)) == Identity(
        issuer=ISSUER,
        subject="user-1",
        audiences=["billing", AUDIENCE],
        scopes=["a", "b", "c"],
        key_id="k1",
        expire_time=Timestamp(seconds=int(NOW) + 60, nanos=250_000_000),
        issue_time=Timestamp(seconds=int(NOW)),
        client_id="client-1",
        claims=members,
        algorithm="RS256",
    )


async def test_what_the_token_has_no_claim_for_stays_unset() -> None:
    identity = await who_am_i(mint(now=NOW, **UNSET))
    assert not identity.HasField("issue_time")
    assert (identity.subject, identity.client_id, list(identity.scopes)) == ("", "", [])
    assert set(identity.claims.fields) == {"iss", "aud", "exp"}


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
async def test_claims_as_deep_as_a_token_may_have_them_reach_the_client(opening: str, closing: str) -> None:
    depth = MAX_DEPTH - 1  # the claims set itself is the first
    value: Any = 1
    for _level in range(depth):
        value = {"a": value} if closing == "}" else [value]
    identity = await who_am_i(mint(now=NOW, deep=value))
    members = Struct()
    members.update({"deep": value})
    assert identity.claims.fields["deep"] == members.fields["deep"]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (2**53, Value(number_value=2.0**53)),
        (2**53 + 1, Value(number_value=2.0**53)),
        (10**308, Value(number_value=1e308)),
        (10**309, Value(string_value=str(10**309))),
        (-(10**400), Value(string_value=str(-(10**400)))),
        (-0.5, Value(number_value=-0.5)),
        (True, Value(bool_value=True)),
        (0, Value(number_value=0)),
        ([], Value(list_value=ListValue())),
        ({}, Value(struct_value=Struct())),
    ],
)
def test_a_number_is_the_nearest_double_or_text_where_there_is_none(number: Any, told: Value) -> None:
    assert identity_of(claims_of(n=number)).claims.fields["n"] == told


def test_null_is_told_as_null() -> None:
    told = identity_of(claims_of(n=[None])).claims.fields["n"].list_value.values[0]
    assert told == Value(null_value=NullValue.NULL_VALUE)
    assert told.WhichOneof("kind") == "null_value"


def test_the_farthest_expiry_that_a_token_can_have_is_told() -> None:
    identity = identity_of(claims_of(exp=MAX_NUMERIC_DATE, iat=0))
    assert identity.expire_time.ToJsonString() == "9999-12-31T23:59:59Z"
    assert identity.issue_time.ToJsonString() == "1970-01-01T00:00:00Z"
    assert identity.HasField("issue_time")


def test_a_key_without_an_id_is_told_as_none() -> None:
    nameless = key(None)
    with Authenticator([issuer_of(jwks=jwks(nameless))], clock=lambda: NOW) as auth:
        claims = authenticate(auth, mint(nameless, now=NOW))
    assert identity_of(claims).key_id == ""


async def test_a_call_that_goes_on_without_a_token_is_told_no_identity() -> None:
    service = IdentityService()
    async with stub_of(service, mode="report") as stub:
        answer = await stub.WhoAmI(WhoAmIRequest(), timeout=PATIENCE_S)
        assert answer == WhoAmIResponse()
        call = stub.WatchIdentity(WatchIdentityRequest(), timeout=PATIENCE_S)
        assert await anext(aiter(call)) == WatchIdentityResponse()
        service.drain()
        assert (await outcome(call)).code is grpc.StatusCode.UNAVAILABLE


# WatchIdentity over a real connection.

ABOUT_TO_END = NOW - LEEWAY_S + 0.3
"""An `exp` whose stream has so long to live where it is `NOW`."""


async def watched(stub: Any, token: str) -> Outcome:
    """How a whole WatchIdentity ends."""
    return await outcome(stub.WatchIdentity(WatchIdentityRequest(), metadata=bearer(token), timeout=PATIENCE_S))


async def test_a_watched_identity_comes_at_once_and_ends_when_the_leeway_is_over() -> None:
    async with stub_of(IdentityService(clock=lambda: NOW)) as stub:
        end = await watched(stub, mint(now=NOW, iat=None, exp=ABOUT_TO_END))
    (answer,) = end.responses
    assert answer.identity == identity_of(claims_of(iat=None, exp=ABOUT_TO_END))
    assert (answer.state, answer.expires_in.ToTimedelta().total_seconds()) == (EXPIRING, pytest.approx(0.3 - LEEWAY_S))
    assert (end.code, end.message) == (grpc.StatusCode.UNAUTHENTICATED, "the bearer token has expired")
    assert end.info is not None
    assert (end.reason, end.info.domain) == ("TOKEN_EXPIRED", "grpc-bearer")
    assert dict(end.info.metadata) == {"expired_at": "2027-01-15T07:59:30Z"}
    assert str(dict(end.trailers)["www-authenticate"]).startswith('Bearer error="invalid_token"')


async def test_the_end_of_a_watched_identity_is_a_bare_code_where_reasons_are_hidden() -> None:
    async with stub_of(IdentityService(clock=lambda: NOW), reveal_reasons=False) as stub:
        end = await watched(stub, mint(now=NOW, exp=ABOUT_TO_END))
    assert (end.code, end.message, len(end.responses)) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", 1)
    assert not {"grpc-status-details-bin", "www-authenticate"} & set(dict(end.trailers))


async def test_the_end_of_a_watched_identity_is_logged_once_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "grpc_bearer")
    async with stub_of(IdentityService(clock=lambda: NOW)) as stub:
        await watched(stub, mint(now=NOW, exp=ABOUT_TO_END))
    (record,) = [record for record in caplog.records if record.name == "grpc_bearer"]
    assert record.getMessage() == f"refused {WATCH_IDENTITY}: TOKEN_EXPIRED: exp has passed"


async def test_a_drain_ends_watched_identities_as_unavailable_those_that_come_later_too() -> None:
    service = IdentityService(clock=lambda: NOW)
    async with stub_of(service) as stub:
        call = stub.WatchIdentity(WatchIdentityRequest(), metadata=bearer(mint(now=NOW)), timeout=PATIENCE_S)
        await anext(aiter(call))
        service.drain()
        for end in (await outcome(call), await watched(stub, mint(now=NOW))):
            assert (end.code, end.message) == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down, call again")


# The whole life of a token in virtual time: the interceptor and the service, without a connection.


class Context:
    """What the two use of grpc's context. Its `abort` returns, as it does on no version of grpc's asyncio server."""

    def __init__(self) -> None:
        self.said: list[tuple[float, int, float]] = []

    def set_trailing_metadata(self, trailers: object) -> None:
        """Not of interest here."""

    async def write(self, answer: WatchIdentityResponse) -> None:
        self.said.append((asyncio.get_running_loop().time(), answer.state, answer.expires_in.ToTimedelta().total_seconds()))

    async def abort(self, code: grpc.StatusCode, _text: str) -> None:
        self.said.append((asyncio.get_running_loop().time(), code.value[0], 0))
        if code is grpc.StatusCode.UNAVAILABLE:
            raise asyncio.CancelledError


def lifetime(lives_s: float, leeway_s: float, streams: Streams = Streams.TERMINATE) -> list[tuple[float, int, float]]:
    """When WatchIdentity of a token with so long to live says what, in seconds from its start; last the code of its end.

    The service drains in five minutes.
    """

    async def watch() -> list[tuple[float, int, float]]:
        loop = asyncio.get_running_loop()
        context: Any = Context()
        service = IdentityService(clock=lambda: NOW + loop.time())
        loop.call_later(300, service.drain)
        policies = Policies(rules=[Rule([WATCH_IDENTITY], Policy(streams=streams))])
        details: Any = SimpleNamespace(
            method=WATCH_IDENTITY, invocation_metadata=bearer(mint(now=NOW, iat=None, exp=NOW + lives_s))
        )

        async def continuation(_details: Any) -> Any:
            return grpc.unary_stream_rpc_method_handler(service.WatchIdentity)

        clock = service._clock
        with Authenticator([issuer_of(leeway_s=leeway_s)], policies=policies, clock=clock) as auth:
            handler = await AuthInterceptor(auth).intercept_service(continuation, details)
            assert handler is not None
            answering = behaviour_of(handler)(WatchIdentityRequest(), context)
            if hasattr(answering, "__aiter__"):  # not ended by the interceptor
                with suppress(asyncio.CancelledError):
                    async for answer in answering:
                        await context.write(answer)
            else:
                with pytest.raises(AuthError) as refusal:
                    await answering
                assert refusal.value.reason is Reason.TOKEN_EXPIRED
        return context.said  # type: ignore[no-any-return]

    return run_in_virtual_time(watch())


ENDED = grpc.StatusCode.UNAUTHENTICATED.value[0]
DRAINED = grpc.StatusCode.UNAVAILABLE.value[0]


@pytest.mark.parametrize(
    ("lives_s", "leeway_s", "said"),
    [
        (150, LEEWAY_S, [(0, ACTIVE, 150), (60, ACTIVE, 90), (90, EXPIRING, 60), (150, EXPIRING, 0), (180, ENDED, 0)]),
        (120.5, 0, [(0, ACTIVE, 120.5), (60, ACTIVE, 60.5), (60.5, EXPIRING, 60), (120.5, ENDED, 0)]),
        (60, 90, [(0, EXPIRING, 60), (60, EXPIRING, 0), (120, EXPIRING, -60), (150, ENDED, 0)]),
        (10, 0, [(0, EXPIRING, 10), (10, ENDED, 0)]),
        (-89, 90, [(0, EXPIRING, -89), (1, ENDED, 0)]),
        (0, 0, [(0, ENDED, 0)]),
    ],
)
def test_a_watched_identity_is_told_every_minute_and_at_each_change_of_its_state(
    lives_s: float, leeway_s: float, said: list[tuple[float, int, float]]
) -> None:
    for moment, expected in zip(lifetime(lives_s, leeway_s), said, strict=True):
        assert moment == pytest.approx(expected)


def test_a_watched_identity_goes_on_after_its_token_where_a_rule_lets_streams_finish() -> None:
    said = [(0, EXPIRING, 60), (60, EXPIRING, 0), (120, EXPIRING, -60), (180, EXPIRING, -120), (240, EXPIRING, -180)]
    for moment, expected in zip(lifetime(60, 0, Streams.FINISH)[:5], said, strict=True):
        assert moment == pytest.approx(expected)
    assert lifetime(60, 0, Streams.FINISH)[-1] == pytest.approx((300, DRAINED, 0))
