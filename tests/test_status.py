"""What a refusal looks like to the caller."""

from __future__ import annotations

import re

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from grpc_bearer import AuthError, Policy, Reason, StatusCode
from grpc_bearer.errors import OUTCOMES
from grpc_bearer.policy.authorize import insufficient_scope
from grpc_bearer.status import grpc_code, message, trailers
from grpc_bearer.verifier import expired

METHOD = "/shop.v1.OrderService/GetOrder"
SECRET = "s3cret-value"
CHALLENGED = [reason for reason, outcome in OUTCOMES.items() if outcome.challenge is not None]


def error_info(error: AuthError) -> ErrorInfo:
    """The ErrorInfo in the trailers of a refusal, whose status has to say the same as gRPC itself does."""
    details = dict(trailers(error))["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = Status.FromString(details)
    assert (status.code, status.message) == (error.code, message(error))
    (detail,) = status.details
    info = ErrorInfo()
    assert detail.Unpack(info)
    return info


# -- what the caller sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_has_its_code_its_message_and_its_error_info(reason: Reason) -> None:
    error = AuthError(reason, "a detail that is for the log")
    assert grpc_code(error).value[0] == OUTCOMES[reason].code
    assert message(error) == OUTCOMES[reason].message
    info = error_info(error)
    assert (info.reason, info.domain, dict(info.metadata)) == (str(reason), "grpc-bearer", {})


def test_the_codes_are_those_of_grpc() -> None:
    codes = {reason: grpc_code(AuthError(reason, "")) for reason in Reason}
    assert codes.pop(Reason.KEYS_UNAVAILABLE) is grpc.StatusCode.UNAVAILABLE
    assert codes.pop(Reason.INTERNAL) is grpc.StatusCode.INTERNAL
    assert codes.pop(Reason.INSUFFICIENT_SCOPE) is codes.pop(Reason.POLICY_DENIED) is grpc.StatusCode.PERMISSION_DENIED
    assert set(codes.values()) == {grpc.StatusCode.UNAUTHENTICATED}
    assert all(grpc.StatusCode[code.name].value[0] == code for code in StatusCode)


def test_an_expired_token_says_when_it_expired() -> None:
    error = expired(1_800_000_000.75)
    assert dict(error_info(error).metadata) == {"expired_at": "2027-01-15T08:00:00Z"}
    assert [key for key, _value in trailers(error)] == ["grpc-status-details-bin", "www-authenticate"]
    # The next one is of another time, or of none: what is made once for all must not hold on to it.
    assert dict(error_info(expired(1_800_000_060)).metadata) == {"expired_at": "2027-01-15T08:01:00Z"}
    assert dict(error_info(AuthError(Reason.TOKEN_EXPIRED, "")).metadata) == {}


def challenge_of(error: AuthError) -> str | None:
    value = dict(trailers(error)).get("www-authenticate")
    assert value is None or isinstance(value, str)
    return value


@pytest.mark.parametrize(
    ("reason", "challenge"),
    [
        (Reason.TOKEN_MISSING, "Bearer"),  # RFC 6750 §3.1: no error code where no credentials were sent
        (
            Reason.TOKEN_MALFORMED,
            'Bearer error="invalid_request", error_description="the bearer token is malformed"',
        ),
        (Reason.TOKEN_EXPIRED, 'Bearer error="invalid_token", error_description="the bearer token has expired"'),
        (
            Reason.TOKEN_NOT_YET_VALID,
            'Bearer error="invalid_token", error_description="the bearer token is not yet valid"',
        ),
        (Reason.TOKEN_INVALID, 'Bearer error="invalid_token", error_description="the bearer token is not valid here"'),
        (
            Reason.INSUFFICIENT_SCOPE,
            'Bearer error="insufficient_scope", error_description="the bearer token lacks a scope that this method requires"',
        ),
        (Reason.POLICY_DENIED, None),  # RFC 6750 has no error code for it
        (Reason.KEYS_UNAVAILABLE, None),  # other credentials would not help
        (Reason.INTERNAL, None),
    ],
)
def test_the_challenge_is_that_of_rfc_6750(reason: Reason, challenge: str | None) -> None:
    assert challenge_of(AuthError(reason, "for the log")) == challenge


@pytest.mark.parametrize("reason", CHALLENGED)
def test_every_challenge_can_be_read_by_the_grammar(reason: Reason) -> None:
    # RFC 6750 §3: error and error_description are of %x20-21 / %x23-5B / %x5D-7E.
    text = r'"[\x20-\x21\x23-\x5b\x5d-\x7e]*"'
    challenge = challenge_of(AuthError(reason, ""))
    assert challenge is not None
    assert re.fullmatch(rf"Bearer(?: error={text}, error_description={text})?", challenge)


@pytest.mark.parametrize(
    ("policy", "metadata", "scope"),
    [
        (Policy(scopes=("a", "b")), {"scopes": "a b"}, "a b"),
        (Policy(any_scopes=("c", "d")), {"any_scopes": "c d"}, "c d"),
        (Policy(scopes=("a", "b"), any_scopes=("c", "d")), {"scopes": "a b", "any_scopes": "c d"}, "a b c d"),
        (Policy(scopes=("!#[]~",)), {"scopes": "!#[]~"}, "!#[]~"),
    ],
)
def test_a_caller_that_lacks_a_scope_learns_which_the_method_requires(
    policy: Policy, metadata: dict[str, str], scope: str
) -> None:
    error = insufficient_scope(policy)
    assert dict(error_info(error).metadata) == metadata
    challenge = challenge_of(error)
    assert challenge == (
        'Bearer error="insufficient_scope", error_description="the bearer token lacks a scope that this method requires"'
        f', scope="{scope}"'
    )


@pytest.mark.parametrize("reason", Reason)
def test_where_reasons_are_hidden_the_caller_gets_the_bare_code(reason: Reason) -> None:
    error = AuthError(reason, "for the log", {"expired_at": "2027-01-15T08:00:00Z"})
    assert trailers(error, reveal_reason=False) == ()
    assert message(error, reveal_reason=False) == grpc_code(error).name


@pytest.mark.parametrize("error", [AuthError(Reason.TOKEN_INVALID, SECRET), expired(0.0)])
def test_the_detail_is_for_the_log_and_the_caller_never_gets_it(error: AuthError) -> None:
    sent = repr(trailers(error)) + message(error) + repr(trailers(error, reveal_reason=False))
    assert error.detail not in sent
