"""IdentityService: what it says of a caller, and how a watched identity goes from ACTIVE to EXPIRING to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from grpc_bearer import Authenticator, AuthError, Claims, Issuer, Reason
from grpc_bearer.claims import bind_claims
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
    async with stub_of(IdentityService({})) as stub:
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


# WatchIdentity over a real connection. Its clock reads one moment after the other; the token is good for a minute from `NOW`.


def before_expiry(*moments_s: float) -> Callable[[], float]:
    moments = iter([NOW + 60 - moment_s for moment_s in moments_s])
    return lambda: next(moments)


async def watched(stub: Any, token: str) -> Outcome:
    """How a whole WatchIdentity ends."""
    return await outcome(stub.WatchIdentity(WatchIdentityRequest(), metadata=bearer(token), timeout=PATIENCE_S))


def states(end: Outcome) -> list[tuple[int, float]]:
    return [(answer.state, answer.expires_in.ToTimedelta().total_seconds()) for answer in end.responses]


async def test_a_watched_identity_comes_at_once_changes_its_state_and_ends_when_the_leeway_is_over() -> None:
    clock = before_expiry(60.01, 0.01 - LEEWAY_S, -LEEWAY_S)
    async with stub_of(IdentityService({ISSUER: LEEWAY_S}, clock=clock)) as stub:
        end = await watched(stub, mint(now=NOW))
    assert states(end) == [(ACTIVE, 60.01), (EXPIRING, -29.99)]
    assert all(answer.identity == identity_of(claims_of()) for answer in end.responses)
    assert (end.code, end.message) == (grpc.StatusCode.UNAUTHENTICATED, "the bearer token has expired")
    assert end.info is not None
    assert (end.reason, end.info.domain) == ("TOKEN_EXPIRED", "grpc-bearer")
    assert dict(end.info.metadata) == {"expired_at": "2027-01-15T08:01:00Z"}
    assert str(dict(end.trailers)["www-authenticate"]).startswith('Bearer error="invalid_token"')


async def test_the_end_of_a_watched_identity_is_a_bare_code_where_reasons_are_hidden() -> None:
    service = IdentityService({}, reveal_reasons=False, clock=before_expiry(0))
    async with stub_of(service, reveal_reasons=False) as stub:
        end = await watched(stub, mint(now=NOW))
    assert (end.code, end.message) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert not {"grpc-status-details-bin", "www-authenticate"} & set(dict(end.trailers))


async def test_the_end_of_a_watched_identity_is_logged_once_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "grpc_bearer")
    async with stub_of(IdentityService({}, clock=before_expiry(0))) as stub:
        await watched(stub, mint(now=NOW))
    (record,) = [record for record in caplog.records if record.name == "grpc_bearer"]
    assert record.getMessage() == ("refused /grpc_bearer.v1.IdentityService/WatchIdentity: TOKEN_EXPIRED: exp has passed")


async def test_a_drain_ends_watched_identities_as_unavailable_those_that_come_later_too() -> None:
    service = IdentityService({}, clock=lambda: NOW)
    async with stub_of(service) as stub:
        call = stub.WatchIdentity(WatchIdentityRequest(), metadata=bearer(mint(now=NOW)), timeout=PATIENCE_S)
        await anext(aiter(call))
        service.drain()
        for end in (await outcome(call), await watched(stub, mint(now=NOW))):
            assert (end.code, end.message) == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down, call again")


# The whole life of a token, in virtual time.


class Context:
    """What WatchIdentity uses of grpc's context. Its `abort` returns, as it does on no version of grpc's asyncio server."""

    def __init__(self) -> None:
        self.aborted: list[grpc.StatusCode] = []

    def set_trailing_metadata(self, trailers: object) -> None:
        """Not of interest here."""

    async def abort(self, code: grpc.StatusCode, _text: str) -> None:
        self.aborted.append(code)


def lifetime(lives_s: float, leeway_s: dict[str, float]) -> list[tuple[float, int, float]]:
    """When WatchIdentity of a token with so long to live says what, in seconds from its start; the end is (when, 0, 0)."""

    async def watch() -> list[tuple[float, int, float]]:
        loop = asyncio.get_running_loop()
        context: Any = Context()
        bind_claims(claims_of(exp=NOW + lives_s))
        service = IdentityService(leeway_s, clock=lambda: NOW + loop.time())
        said: list[tuple[float, int, float]] = []

        async def listen() -> None:
            async for answer in service.WatchIdentity(WatchIdentityRequest(), context):
                said.append((loop.time(), answer.state, answer.expires_in.ToTimedelta().total_seconds()))  # noqa: PERF401

        with pytest.raises(AuthError) as refusal:
            await listen()
        assert refusal.value.reason is Reason.TOKEN_EXPIRED
        assert context.aborted == [grpc.StatusCode.UNAUTHENTICATED]
        return [*said, (loop.time(), 0, 0)]

    return run_in_virtual_time(watch())


@pytest.mark.parametrize(
    ("lives_s", "leeway_s", "said"),
    [
        (
            150,
            {ISSUER: LEEWAY_S},
            [(0, ACTIVE, 150), (60, ACTIVE, 90), (90, EXPIRING, 60), (150, EXPIRING, 0), (180, 0, 0)],
        ),
        (120, {ISSUER: 0.0}, [(0, ACTIVE, 120), (60, EXPIRING, 60), (120, 0, 0)]),
        (60, {ISSUER: 90.0}, [(0, EXPIRING, 60), (60, EXPIRING, 0), (120, EXPIRING, -60), (150, 0, 0)]),
        (10, {"https://another.example": LEEWAY_S}, [(0, EXPIRING, 10), (10, 0, 0)]),
        (0, {}, [(0, 0, 0)]),
    ],
)
def test_a_watched_identity_is_told_every_minute_and_at_each_change_of_its_state(
    lives_s: float, leeway_s: dict[str, float], said: list[tuple[float, int, float]]
) -> None:
    for moment, expected in zip(lifetime(lives_s, leeway_s), said, strict=True):
        assert moment == pytest.approx(expected)
