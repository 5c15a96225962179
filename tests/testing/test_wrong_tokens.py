"""Every wrong token of the kit is refused by a server of either stack, for its reason; the right one beside it is not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from grpc_bearer import Reason
from grpc_bearer.errors import OUTCOMES, StatusCode
from grpc_bearer.testing import (
    WRONG_TOKENS,
    AioServers,
    Clock,
    LocalIssuer,
    SyncServers,
    WrongToken,
    assert_unauthenticated,
    bearer,
    shared_key,
)
from grpc_bearer.v1.identity_pb2 import WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.verdicts import authenticate, refusal
from tests.testing.services import AioIdentity, SyncIdentity, adding


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
@pytest.mark.parametrize("wrong", WRONG_TOKENS, ids=str)
def test_a_wrong_token_is_wrong_whatever_the_issuers_keys_are(wrong: WrongToken, alg: str, grpc_bearer_clock: Clock) -> None:
    issuer = LocalIssuer(alg=alg, clock=grpc_bearer_clock, make_key=shared_key)
    with issuer.authenticator() as auth:
        authenticate(auth, issuer.token())
        error = refusal(lambda: authenticate(auth, wrong.token(issuer)))
        assert error is not None
        assert error.reason is wrong.reason


async def test_servers_of_both_stacks_refuse_them_all(
    grpc_bearer_server: SyncServers, grpc_bearer_aio_server: AioServers, grpc_bearer_issuer: LocalIssuer
) -> None:
    stub: Any = IdentityServiceStub(grpc_bearer_server(adding(SyncIdentity())))
    async with grpc_bearer_aio_server(adding(AioIdentity())) as channel:
        aio_stub: Any = IdentityServiceStub(channel)
        for wrong in WRONG_TOKENS:
            with assert_unauthenticated(wrong.reason):
                stub.WhoAmI(WhoAmIRequest(), metadata=bearer(wrong.token(grpc_bearer_issuer)))
            with assert_unauthenticated(wrong.reason):
                await aio_stub.WhoAmI(WhoAmIRequest(), metadata=bearer(wrong.token(grpc_bearer_issuer)))
        await aio_stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.token()))


def test_each_has_a_name_of_its_own_and_every_reason_of_a_wrong_token_occurs() -> None:
    assert len({str(wrong) for wrong in WRONG_TOKENS}) == len(WRONG_TOKENS)
    of_tokens = {reason for reason, outcome in OUTCOMES.items() if outcome.code is StatusCode.UNAUTHENTICATED}
    assert {wrong.reason for wrong in WRONG_TOKENS} == of_tokens - {Reason.TOKEN_MISSING}


def test_a_service_that_takes_any_audience_lets_those_of_others_in_and_only_those(grpc_bearer_issuer: LocalIssuer) -> None:
    """What a user's parametrized test finds where the settings are lax."""
    with grpc_bearer_issuer.authenticator(audiences=[], allow_any_audience=True) as auth:
        let_in = [
            str(wrong)
            for wrong in WRONG_TOKENS
            if refusal(partial(authenticate, auth, wrong.token(grpc_bearer_issuer))) is None
        ]
    assert let_in == ["for another audience", "for no audience"]
