"""Calls that wait for keys: who they trust, how many at once, and issuers whose fetches end when a test says so."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import grpc

from grpc_bearer import Attempt, Authenticator, CachePolicy, FetchedKeys, FetchOptions, Issuer
from tests.support.calls import Client, Outcome
from tests.support.jwks_server import JwksServer
from tests.support.processes import PATIENCE_S
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key

OTHER_ISSUER = "https://other.example"
NEVER_S = 60.0
AT_ONCE = CachePolicy(backoff_initial_s=0.001, backoff_max_s=0.001)
# Caller and server take a deadline's time each on its own.
END_OF_A_DEADLINE = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}


def trusting(issuer: JwksServer, *, timeout_s: float = NEVER_S) -> Authenticator:
    """`ISSUER` by its JWK Set's address, `OTHER_ISSUER` by a set given in code."""
    fetch = FetchOptions(timeout_s=timeout_s)
    return Authenticator(
        [
            Issuer(ISSUER, audiences=[AUDIENCE], jwks_uri=issuer.jwks_uri, fetch=fetch, cache=AT_ONCE),
            Issuer(OTHER_ISSUER, audiences=[AUDIENCE], jwks=jwks(key())),
        ]
    )


def calling(client: Client, tokens: Sequence[str], **options: Any) -> list[asyncio.Task[Outcome]]:
    return [asyncio.create_task(client.call("UnaryUnary", token, **options)) for token in tokens]


def codes(tasks: Sequence[asyncio.Task[Outcome]]) -> list[grpc.StatusCode]:
    return [task.result().code for task in tasks]


class Gated:
    """A key source whose fetches end one by one: `gates[n]` lets the n-th end. Each brings what is in `keys` by then."""

    def __init__(self, fetches: int) -> None:
        self.gates = [threading.Event() for _ in range(fetches)]
        self.keys = [key()]
        self.begun = 0

    def __call__(self, _attempt: Attempt, /) -> FetchedKeys:
        gate = self.gates[self.begun]
        self.begun += 1
        gate.wait(PATIENCE_S)
        return FetchedKeys(json.dumps(jwks(*self.keys)).encode())


def trusting_gated(source: Gated, **options: Any) -> Authenticator:
    return Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], key_source=source, **options)])
