"""The four RPC kinds x every form of handlers x every kind of token, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest

from grpc_bearer import Authenticator, FetchedKeys, FetchError, Issuer
from tests.support.calls import ANSWERS, Client, Outcome
from tests.support.jwks_server import JwksServer
from tests.support.matrix import FORMS, METHODS, ClaimsOf, Form, accessor, attribute, registering
from tests.support.serving import serving
from tests.support.tokens import AUDIENCE, ISSUER, forged, key, mint

UNAVAILABLE_ISSUER = "https://down.example"
EXPIRED_AT = int(time.time()) - 3600


def down(_attempt: object) -> FetchedKeys:
    raise FetchError("down for the test")


def trusting(issuer: JwksServer) -> Authenticator:
    return Authenticator(
        [
            Issuer(ISSUER, audiences=[AUDIENCE], jwks_uri=issuer.jwks_uri),
            Issuer(UNAVAILABLE_ISSUER, audiences=[AUDIENCE], key_source=down),
        ]
    )


async def each_kind(client: Client, token: str | None) -> dict[str, Outcome]:
    outcomes = await asyncio.gather(*(client.call(method, token) for method in METHODS))
    return dict(zip(METHODS, outcomes, strict=True))


@dataclass(frozen=True)
class Refused:
    """A token, and all that its bearer reads of it."""

    token: Callable[[], str | None]
    reason: str
    message: str
    challenge: str | None
    code: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED
    facts: tuple[tuple[str, str], ...] = ()


def challenge(error: str, message: str) -> str:
    return f'Bearer error="{error}", error_description="{message}"'


MALFORMED = "the bearer token is malformed"
EXPIRED = "the bearer token has expired"
EARLY = "the bearer token is not yet valid"
INVALID = "the bearer token is not valid here"
NO_KEYS = "the keys to verify the bearer token are not available, try again"
invalid_token = ("TOKEN_INVALID", INVALID, challenge("invalid_token", INVALID))
REFUSED = {
    "no token": Refused(lambda: None, "TOKEN_MISSING", "a bearer token is required", "Bearer"),
    "malformed": Refused(lambda: "not.a-token", "TOKEN_MALFORMED", MALFORMED, challenge("invalid_request", MALFORMED)),
    "expired": Refused(
        lambda: mint(exp=EXPIRED_AT),
        "TOKEN_EXPIRED",
        EXPIRED,
        challenge("invalid_token", EXPIRED),
        facts=(("expired_at", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EXPIRED_AT))),),
    ),
    "not yet valid": Refused(
        lambda: mint(nbf=int(time.time()) + 3600, exp=int(time.time()) + 7200),
        "TOKEN_NOT_YET_VALID",
        EARLY,
        challenge("invalid_token", EARLY),
    ),
    "wrong audience": Refused(lambda: mint(aud="invoices"), *invalid_token),
    "unknown kid": Refused(lambda: mint(key("k2")), *invalid_token),
    "forged signature": Refused(forged, *invalid_token),
    "keys unavailable": Refused(
        lambda: mint(iss=UNAVAILABLE_ISSUER), "KEYS_UNAVAILABLE", NO_KEYS, None, grpc.StatusCode.UNAVAILABLE
    ),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_refused_call_of_each_kind_says_why_and_runs_no_handler(
    form: Form, refused: Refused, issuer: JwksServer
) -> None:
    service = form.service()
    with trusting(issuer) as auth:
        async with serving(form.stack, auth, registering(service)) as target, Client(target) as client:
            outcomes = await each_kind(client, refused.token())
    for method, outcome in outcomes.items():
        assert (outcome.code, outcome.message, outcome.responses) == (refused.code, refused.message, ()), method
        assert outcome.info is not None
        assert (outcome.info.domain, outcome.info.reason) == ("grpc-bearer", refused.reason)
        assert tuple(outcome.info.metadata.items()) == refused.facts
        assert dict(outcome.trailers).get("www-authenticate") == refused.challenge
    assert service.ran == 0


@pytest.mark.parametrize(
    ("claims_of", "context_claims"),
    [(accessor, False), (accessor, True), (attribute, True)],
    ids=["current_claims()", "current_claims() under context_claims", "context.claims"],
)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_valid_call_of_each_kind_finds_its_claims(
    form: Form, claims_of: ClaimsOf, context_claims: bool, issuer: JwksServer
) -> None:
    token = mint(sub="alice", scope="orders.write orders.read")
    register = registering(form.service(claims_of))
    with trusting(issuer) as auth:
        async with (
            serving(form.stack, auth, register, context_claims=context_claims) as target,
            Client(target) as client,
        ):
            outcomes = await each_kind(client, token)
    for method, outcome in outcomes.items():
        assert outcome.code is grpc.StatusCode.OK, (method, outcome.message)
        assert outcome.texts == ANSWERS[method]
        assert {(response.subject, *response.scopes) for response in outcome.responses} == {
            ("alice", "orders.read", "orders.write")
        }
    assert issuer.fetches == 1
