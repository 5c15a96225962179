"""What a refusal looks like to the caller, and what the log gets: never a token, never the value of a claim."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from grpc_bearer import Authenticator, AuthError, Issuer, Reason, StatusCode
from grpc_bearer.errors import OUTCOMES
from grpc_bearer.status import grpc_code, log_refusal, message, trailers, unexpected
from grpc_bearer.verifier import expired
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, compact, forged, jwks, key, mint
from tests.support.verdicts import authenticate, refusal

METHOD = "/shop.v1.OrderService/GetOrder"
SECRET = "s3cret-value"
UNAUTHENTICATED = [reason for reason, outcome in OUTCOMES.items() if outcome.code == 16]


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
        (Reason.KEYS_UNAVAILABLE, None),  # other credentials would not help
        (Reason.INTERNAL, None),
    ],
)
def test_the_challenge_is_that_of_rfc_6750(reason: Reason, challenge: str | None) -> None:
    assert challenge_of(AuthError(reason, "for the log")) == challenge


@pytest.mark.parametrize("reason", UNAUTHENTICATED)
def test_every_challenge_can_be_read_by_the_grammar(reason: Reason) -> None:
    # RFC 6750 §3: error and error_description are of %x20-21 / %x23-5B / %x5D-7E.
    text = r'"[\x20-\x21\x23-\x5b\x5d-\x7e]*"'
    challenge = challenge_of(AuthError(reason, ""))
    assert challenge is not None
    assert re.fullmatch(rf"Bearer(?: error={text}, error_description={text})?", challenge)


@pytest.mark.parametrize("reason", Reason)
def test_where_reasons_are_hidden_the_caller_gets_the_bare_code(reason: Reason) -> None:
    error = AuthError(reason, "for the log", {"expired_at": "2027-01-15T08:00:00Z"})
    assert trailers(error, reveal_reason=False) == ()
    assert message(error, reveal_reason=False) == grpc_code(error).name


@pytest.mark.parametrize("error", [AuthError(Reason.TOKEN_INVALID, SECRET), expired(0.0)])
def test_the_detail_is_for_the_log_and_the_caller_never_gets_it(error: AuthError) -> None:
    sent = repr(trailers(error)) + message(error) + repr(trailers(error, reveal_reason=False))
    assert error.detail not in sent


# -- what the log says -------------------------------------------------------------------------------------------------


@contextmanager
def logged() -> Iterator[list[tuple[int, str]]]:
    """The level and text of every line that the library logs meanwhile, formatted as a handler would."""
    lines: list[tuple[int, str]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.levelno, self.format(record)))

    logger, handler = logging.getLogger("grpc_bearer"), Kept()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_one_line_with_the_method_the_reason_and_the_exact_cause(reason: Reason) -> None:
    with logged() as lines:
        log_refusal(METHOD, AuthError(reason, "the exact cause"))
    ours = reason in (Reason.KEYS_UNAVAILABLE, Reason.INTERNAL)
    assert lines == [(logging.WARNING if ours else logging.INFO, f"refused {METHOD}: {reason}: the exact cause")]


def everywhere(signer: SigningKey | None = None, **claims: Any) -> str:
    """A token whose every free claim and header member holds the secret."""
    holding = {name: f"{SECRET}-{name}" for name in ("sub", "jti", "client_id", "scope", "email", SECRET)}
    return mint(signer, header={"x": SECRET, "cty": SECRET}, **(holding | claims))


REFUSED: dict[str, Callable[[], str]] = {
    "no token": lambda: "",
    "no JWT": lambda: SECRET,
    "another alphabet": lambda: f"{SECRET}=",
    "no JSON": lambda: compact(SECRET.encode(), {}, key()),
    "duplicate member": lambda: compact({"alg": "RS256"}, f'{{"{SECRET}":1,"{SECRET}":2}}'.encode(), key()),
    "no number": lambda: compact({"alg": "RS256"}, f'{{"{SECRET}":{"9" * 5000}}}'.encode(), key()),
    "no UTF-8": lambda: compact({"alg": "RS256"}, f'{{"iss":"{SECRET}\xff"}}'.encode("latin-1"), key()),
    "alg": lambda: mint(header={"alg": SECRET}),
    "typ": lambda: mint(header={"typ": SECRET}),
    "crit": lambda: mint(header={"crit": [SECRET]}),
    "kid of no string": lambda: mint(header={"kid": [SECRET]}),
    "unknown kid": lambda: mint(header={"kid": SECRET}),
    "iss": lambda: everywhere(iss=f"https://{SECRET}"),
    "iss of no string": lambda: everywhere(iss=[SECRET]),
    "aud": lambda: everywhere(aud=SECRET),
    "aud of no strings": lambda: everywhere(aud={SECRET: 1}),
    "sub of no string": lambda: everywhere(sub=[SECRET]),
    "scope of no strings": lambda: everywhere(scope={SECRET: 1}),
    "exp of no number": lambda: everywhere(exp=SECRET),
    "expired": lambda: everywhere(exp=1_000_000),
    "not yet valid": lambda: everywhere(nbf=99_999_999_999),
    "forged": lambda: forged(),
    "signed by another": lambda: everywhere(SigningKey("k1", "RS256", key("forger").private_key)),
    "too long": lambda: everywhere(padding=SECRET * 2000),
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_neither_the_log_nor_the_caller_nor_the_error_holds_anything_of_the_token(token: Callable[[], str]) -> None:
    auth = Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))])
    text = token()
    error = refusal(lambda: authenticate(auth, text))
    assert error is not None
    with logged() as lines:
        log_refusal(METHOD, error)
    ((_level, line),) = lines
    told = line + repr(error) + str(error) + repr(trailers(error)) + message(error)
    held = {SECRET, *(part for part in text.split(".") if len(part) > 8)}
    assert {part for part in held if part in told} == set()
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__  # a traceback would spell it out


def test_the_tokens_that_are_accepted_leave_no_line() -> None:
    auth = Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))])
    with logged() as lines:
        authenticate(auth, everywhere())
    assert lines == []


def test_a_bug_of_ours_is_internal_to_the_caller_and_a_place_without_the_text_to_the_log() -> None:
    def fails_with_a_claim_in_its_text() -> None:
        raise KeyError(SECRET)

    with pytest.raises(KeyError) as caught:
        fails_with_a_claim_in_its_text()
    with logged() as lines:
        refused_with = unexpected(METHOD, caught.value)
    assert (refused_with.reason, refused_with.detail) == (Reason.INTERNAL, "unexpected KeyError")
    ((level, line),) = lines
    assert level == logging.ERROR
    assert line.startswith(f"refused {METHOD}: unexpected KeyError in authentication\n")
    assert "in fails_with_a_claim_in_its_text" in line
    assert "test_status.py" in line
    assert SECRET not in line
