"""From discovery to RPC with an OpenID provider that is not ours (`oidc-provider` from npm), while it rotates its keys."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import requests

from grpc_bearer import Authenticator, Issuer, current_claims
from grpc_bearer.v1.identity_pb2 import Identity, WhoAmIRequest, WhoAmIResponse
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub
from tests.e2e.parts import NEEDS_NODE, NODE_PROGRAMS
from tests.support.processes import PATIENCE_S, Process
from tests.support.serving import MAX_WAITERS, STACKS, Stack, serving

pytestmark = NEEDS_NODE

AUDIENCE = "orders"
ALGORITHMS = ("RS256", "ES256", "EdDSA", "Ed25519")
# On a sync server no more calls can wait for a key than its max_waiters; more are refused, by design, as UNAVAILABLE.
CALLERS_PER_ALGORITHM: dict[Stack, int] = {"sync": MAX_WAITERS // len(ALGORITHMS), "aio": 3}
CALLS_TO_SEE = 10
"""How many answered calls of each algorithm make a phase of the rotation."""


@dataclass(frozen=True)
class Report:
    """What node/oidc_provider.mjs says of itself: the kids in its JWK Set, and how often each path was asked for."""

    published: list[str]
    requests: dict[str, int]

    @property
    def key_fetches(self) -> tuple[int, int]:
        """How often discovery document and JWK Set were asked for."""
        return self.requests.get("/.well-known/openid-configuration", 0), self.requests.get("/jwks", 0)


class Provider:
    """The provider's process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.issuer: str = json.loads(process.line("issuer"))["issuer"]

    def command(self, name: str) -> Report:
        """Have it `rotate`, `drop` or `report`. Returns when that is done."""
        self._process.send(name)
        return Report(**json.loads(self._process.line("published")))

    def token(self, algorithm: str, session: requests.Session, scope: str = "orders.read") -> str:
        """A fresh access token, by the client credentials grant (RFC 6749 §4.4)."""
        answer = session.post(
            f"{self.issuer}/token",
            auth=("client-1", "secret-1"),
            data={"grant_type": "client_credentials", "scope": scope, "resource": f"https://orders.example/{algorithm}"},
            timeout=PATIENCE_S,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


@contextmanager
def oidc_provider() -> Iterator[Provider]:
    with Process("node", str(NODE_PROGRAMS / "oidc_provider.mjs")) as process:
        yield Provider(process)


def who_am_i(request: WhoAmIRequest, context: Any) -> WhoAmIResponse:
    claims = current_claims()
    return WhoAmIResponse(
        identity=Identity(
            issuer=claims.iss,
            subject=claims.sub or "",
            audiences=claims.aud,
            scopes=sorted(claims.scopes),
            key_id=claims.key_id or "",
            client_id=claims.client_id or "",
            algorithm=claims.algorithm,
        )
    )


async def who_am_i_aio(request: WhoAmIRequest, context: Any) -> WhoAmIResponse:
    return who_am_i(request, context)


def identity_service(stack: Stack) -> grpc.GenericRpcHandler:
    who_am_i_method = grpc.unary_unary_rpc_method_handler(
        who_am_i if stack == "sync" else who_am_i_aio,
        request_deserializer=WhoAmIRequest.FromString,
        response_serializer=WhoAmIResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("grpc_bearer.v1.IdentityService", {"WhoAmI": who_am_i_method})


@asynccontextmanager
async def service_for(provider: Provider, stack: Stack) -> AsyncIterator[str]:
    """The address of a service that knows nothing of its issuer but the name; every policy is the default."""
    with Authenticator([Issuer(provider.issuer, audiences=[AUDIENCE])]) as auth:
        async with serving(stack, auth, lambda server: server.add_generic_rpc_handlers([identity_service(stack)])) as target:
            yield target


def call(channel: grpc.Channel, token: str) -> Identity:
    metadata = (("authorization", f"Bearer {token}"),)
    return IdentityServiceStub(channel).WhoAmI(WhoAmIRequest(), metadata=metadata, timeout=PATIENCE_S).identity


class Callers:
    """Threads that call without a pause, each with tokens of one algorithm; each call has a token that was fetched for it."""

    def __init__(self, provider: Provider, target: str) -> None:
        self._provider = provider
        self._target = target
        self._changed = threading.Condition()
        self._stop = False
        self._answered: Counter[str] = Counter()
        self.refused: list[str] = []

    def run(self, algorithm: str) -> None:
        """Call until `stop()`: the work of one thread."""
        with requests.Session() as session, grpc.insecure_channel(self._target) as channel:
            while not self._stop:
                token = self._provider.token(algorithm, session)
                try:
                    key_id = call(channel, token).key_id
                except grpc.RpcError as error:
                    with self._changed:
                        self.refused.append(str(error))
                        self._changed.notify_all()
                else:
                    with self._changed:
                        self._answered[key_id] += 1
                        self._changed.notify_all()

    def see(self, generation: int) -> None:
        """Wait until each algorithm had `CALLS_TO_SEE` more calls with its key of this generation."""
        with self._changed:
            goal = {f"{name}-{generation}": self._answered[f"{name}-{generation}"] + CALLS_TO_SEE for name in ALGORITHMS}
            seen = self._changed.wait_for(
                lambda: self.refused or all(self._answered[kid] >= count for kid, count in goal.items()), PATIENCE_S
            )
            assert seen, f"in {PATIENCE_S} s only {self._answered}"
            assert self.refused == []

    def stop(self) -> None:
        """Have every thread end with the call that it is at."""
        self._stop = True


@pytest.mark.parametrize("stack", STACKS)
async def test_discovery_to_rpc_with_tokens_of_a_real_openid_provider(stack: Stack) -> None:
    with oidc_provider() as provider:
        async with service_for(provider, stack) as target:
            await asyncio.to_thread(check_claims, provider, target)


def check_claims(provider: Provider, target: str) -> None:
    with requests.Session() as session, grpc.insecure_channel(target) as channel:
        for algorithm in ALGORITHMS:
            token = provider.token(algorithm, session, scope="orders.read orders.write")
            assert call(channel, token) == Identity(
                issuer=provider.issuer,
                subject="client-1",
                audiences=[AUDIENCE],
                scopes=["orders.read", "orders.write"],
                key_id=f"{algorithm}-1",
                client_id="client-1",
                algorithm="EdDSA" if algorithm == "Ed25519" else algorithm,
            )
    assert provider.command("report").key_fetches == (1, 1)


@pytest.mark.parametrize("stack", STACKS)
async def test_two_key_rotations_while_calls_run_refuse_no_call_and_cost_one_fetch_each(stack: Stack) -> None:
    with oidc_provider() as provider:
        async with service_for(provider, stack) as target:
            await asyncio.to_thread(rotate_twice, provider, target, CALLERS_PER_ALGORITHM[stack])


def rotate_twice(provider: Provider, target: str, callers_per_algorithm: int) -> None:
    with requests.Session() as session:
        first_token = provider.token("RS256", session)
    callers = Callers(provider, target)
    algorithms = ALGORITHMS * callers_per_algorithm
    with ThreadPoolExecutor(len(algorithms)) as threads:
        running = [threads.submit(callers.run, algorithm) for algorithm in algorithms]
        try:
            callers.see(generation=1)
            provider.command("rotate")
            callers.see(generation=2)
            provider.command("drop")
            callers.see(generation=2)
            provider.command("rotate")
            callers.see(generation=3)
        finally:
            callers.stop()
    for caller in running:
        caller.result()
    assert callers.refused == []
    report = provider.command("report")
    assert {kid.rpartition("-")[2] for kid in report.published} == {"2", "3"}
    assert report.key_fetches == (3, 3)  # cold, and one for each rotation
    with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as refusal:
        call(channel, first_token)  # its key is no longer published
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
