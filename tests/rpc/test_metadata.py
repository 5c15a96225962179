"""The `authorization` entry as it comes off the wire: grpcio filters, trims and joins nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from grpc_bearer import Authenticator
from tests.rpc.interceptors import interceptor
from tests.support.calls import Client, Metadata
from tests.support.http2 import answer_to_headers
from tests.support.matrix import METHODS, SERVICE, SERVICES, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import mint

OK = grpc.StatusCode.OK
each_stack = pytest.mark.parametrize("stack", STACKS)

MALFORMED = b"the bearer token is malformed"
REQUIRED = b"a bearer token is required"
# What a `split()` or a `strip()` would take for "Bearer <token>", and more.
ON_THE_WIRE = {
    "TAB for the space": (b"Bearer\t%s", MALFORMED),
    "NBSP for the space": (b"Bearer\xa0%s", MALFORMED),
    "NBSP in UTF-8 for the space": (b"Bearer\xc2\xa0%s", MALFORMED),
    "form feed for the space": (b"Bearer\x0c%s", MALFORMED),
    "TAB after the space": (b"Bearer \t%s", MALFORMED),
    "TAB at the end": (b"Bearer %s\t", MALFORMED),
    "NUL at the end": (b"Bearer %s\0", MALFORMED),
    "newline at the end": (b"Bearer %s\n", MALFORMED),
    "CR LF and another header": (b"Bearer %s\r\nx-more: yes", MALFORMED),
    "an octet above 0x7E at the end": (b"Bearer %s\xff", MALFORMED),
    "space at the end": (b"Bearer %s ", MALFORMED),
    "comma and another": (b"Bearer %s, Bearer x", MALFORMED),
    "space in front": (b" Bearer %s", REQUIRED),
    "NUL in front": (b"\0Bearer %s", REQUIRED),
    "nothing at all": (b"", REQUIRED),
}


@pytest.mark.parametrize(("value", "message"), ON_THE_WIRE.values(), ids=ON_THE_WIRE)
@each_stack
async def test_only_rfc_6750_credentials_pass_whatever_octets_come(
    stack: Stack, value: bytes, message: bytes, auth: Authenticator
) -> None:
    came: list[str] = []

    def note(details: Any) -> None:
        came.extend(each for key, each in details.invocation_metadata if key == "authorization")

    service = SERVICES[stack]()
    sent = value.replace(b"%s", mint().encode())
    async with serving(stack, auth, registering(service), outer=[interceptor(stack, before=note)]) as target:
        headers = [(b"authorization", sent)]
        answer = await asyncio.to_thread(answer_to_headers, target, f"/{SERVICE}/UnaryUnary", headers)
    assert message in answer
    assert service.ran == 0
    assert came == [sent.decode("utf-8", "replace") if b"\xc2" in sent else sent.decode("latin-1")]


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
@each_stack
async def test_the_case_of_the_scheme_and_the_number_of_spaces_are_free(stack: Stack, scheme: str, auth: Authenticator) -> None:
    metadata: Metadata = (("authorization", scheme + mint()),)
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        assert (await client.call("UnaryUnary", metadata=metadata)).code is OK


GOOD = f"Bearer {mint(exp=4_102_444_800)}"
REPEATED = {
    "the same token twice": (GOOD,) * 2,
    "a good one first": (GOOD, "Bearer other"),
    "a good one last": ("Bearer other", GOOD),
    "another scheme first": ("Basic YTpi", GOOD),
    "an empty one last": (GOOD, ""),
}


@pytest.mark.parametrize("values", REPEATED.values(), ids=REPEATED)
@each_stack
async def test_two_authorization_entries_are_refused_whatever_they_are(
    stack: Stack, values: tuple[str, ...], auth: Authenticator
) -> None:
    service = SERVICES[stack]()
    metadata: Metadata = tuple(("authorization", value) for value in values)
    async with serving(stack, auth, registering(service)) as target, Client(target) as client:
        outcomes = [await client.call(method, metadata=metadata) for method in METHODS]
    assert {outcome.reason for outcome in outcomes} == {"TOKEN_MALFORMED"}
    assert service.ran == 0


@pytest.mark.parametrize("key", ["authorization-bin", "x-authorization", "proxy-authorization", "authorizatio"])
@each_stack
async def test_a_token_under_another_key_is_not_seen(stack: Stack, key: str, auth: Authenticator) -> None:
    metadata: Metadata = ((key, f"Bearer {mint()}".encode() if key.endswith("-bin") else f"Bearer {mint()}"),)
    async with serving(stack, auth, registering(SERVICES[stack]())) as target, Client(target) as client:
        assert (await client.call("UnaryUnary", metadata=metadata)).reason == "TOKEN_MISSING"


def longer_than(octets: int) -> str:
    """A valid token a little longer than this."""
    return mint(padding="x" * (octets * 3 // 4 - 300))


@each_stack
async def test_a_token_of_15_kib_passes_where_grpc_takes_metadata_of_that_size_and_one_over_16_is_refused(
    stack: Stack, auth: Authenticator
) -> None:
    options = [("grpc.max_metadata_size", 20 * 1024)]
    large, too_large = longer_than(15 * 1024), longer_than(16 * 1024)
    assert 15 * 1024 < len(large) < 16 * 1024 < len(too_large) < 17 * 1024
    async with (
        serving(stack, auth, registering(SERVICES[stack]()), options=options) as target,
        Client(target) as client,
    ):
        assert [(await client.call(method, large)).code for method in METHODS] == [OK] * 4
        assert (await client.call("UnaryUnary", too_large)).reason == "TOKEN_MALFORMED"


@each_stack
async def test_metadata_beyond_grpcs_own_limit_never_reaches_a_handler(stack: Stack, auth: Authenticator) -> None:
    """The fact for which `grpc.max_metadata_size` has to be set: the limit is 16 KiB where it is not."""
    service = SERVICES[stack]()
    async with serving(stack, auth, registering(service)) as target, Client(target) as client:
        outcome = await client.call("UnaryUnary", longer_than(18 * 1024))
    # The call may also reach the interceptor with the entry already gone.
    assert outcome.code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED}
    assert service.ran == 0
