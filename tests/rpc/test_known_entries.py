"""Two `authorization` entries are a refusal also where a known token is one of them: the shortcut to it sees each of them."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from grpc_bearer import Authenticator
from tests.support.calls import Client, Metadata
from tests.support.matrix import METHODS, SERVICES, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import forged, mint

OTHERS: dict[str, Callable[[], str]] = {
    "nothing at all": lambda: "",
    "another scheme": lambda: "Basic dXNlcjpwYXNz",
    "no token": lambda: "Bearer x",
    "a forged token": lambda: f"Bearer {forged(sub='somebody-else')}",
    "a good token that is not known": lambda: f"Bearer {mint(sub='somebody-else')}",
}


@pytest.mark.parametrize("place", [0, 1], ids=["before it", "after it"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("stack", STACKS)
async def test_a_known_token_beside_another_entry_is_refused(
    stack: Stack, other: Callable[[], str], place: int, auth: Authenticator
) -> None:
    service, token = SERVICES[stack](), mint()
    entries = [f"Bearer {token}"]
    entries.insert(place, other())
    metadata: Metadata = tuple(("authorization", value) for value in entries)
    async with serving(stack, auth, registering(service)) as target, Client(target) as client:
        for _call in range(3):  # known from the second on
            assert (await client.call("UnaryUnary", token)).code is grpc.StatusCode.OK
        served = service.ran
        outcomes = [await client.call(method, metadata=metadata) for method in METHODS]
    assert {outcome.reason for outcome in outcomes} == {"TOKEN_MALFORMED"}
    assert service.ran == served
