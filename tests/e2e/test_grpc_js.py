"""A grpc-js client from npm against our interceptors: what a program that is not in Python gets to see."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from grpc_bearer import Authenticator, Issuer
from tests.e2e.parts import NEEDS_NODE, NODE_PROGRAMS
from tests.support.matrix import METHODS, PROTO, SERVICES, registering
from tests.support.serving import STACKS, Stack, serving
from tests.support.tokens import AUDIENCE, ISSUER, forged, jwks, key, mint

pytestmark = NEEDS_NODE


async def calls_by_grpc_js(stack: Stack, calls: Iterable[Mapping[str, str | None]]) -> list[dict[str, Any]]:
    """The outcome of each call, as node/grpc_client.mjs describes it."""
    with Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))]) as auth:
        async with serving(stack, auth, registering(SERVICES[stack]())) as target:
            command = ["node", str(NODE_PROGRAMS / "grpc_client.mjs"), target, str(PROTO)]
            run = asyncio.to_thread(
                subprocess.run, command, input=json.dumps(list(calls)), capture_output=True, text=True, timeout=30
            )
            done = await run
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    return outcomes


def error_info(outcome: Mapping[str, Any]) -> ErrorInfo:
    """The reason, decoded from the trailer. It has to agree with what gRPC itself says of the call."""
    assert outcome["details"] is not None, f"no grpc-status-details-bin: {outcome}"
    status = Status.FromString(base64.b64decode(outcome["details"]))
    assert (status.code, status.message) == (outcome["code"], outcome["message"])
    (detail,) = status.details
    info = ErrorInfo()
    assert detail.Unpack(info)
    return info


@pytest.mark.parametrize("stack", STACKS)
async def test_grpc_js_gets_the_responses_of_a_valid_call_of_each_kind(stack: Stack) -> None:
    token = mint(sub="alice", scope="orders.write orders.read")
    outcomes = await calls_by_grpc_js(stack, [{"method": method, "token": token} for method in METHODS])
    texts = [[response["text"] for response in outcome["responses"]] for outcome in outcomes]
    assert dict(zip(METHODS, texts, strict=True)) == {
        "UnaryUnary": ["a"],
        "UnaryStream": ["a", "a"],
        "StreamUnary": ["ab"],
        "StreamStream": ["a", "b"],
    }
    for outcome in outcomes:
        assert outcome["code"] == grpc.StatusCode.OK.value[0]
        for response in outcome["responses"]:
            assert (response["subject"], response["scopes"]) == ("alice", ["orders.read", "orders.write"])


@pytest.mark.parametrize("stack", STACKS)
async def test_grpc_js_reads_the_reason_of_a_refused_call_of_each_kind(stack: Stack) -> None:
    expired_at = int(time.time()) - 60
    refused = {
        "TOKEN_MISSING": None,
        "TOKEN_MALFORMED": "not.a-token",
        "TOKEN_EXPIRED": mint(exp=expired_at),
        "TOKEN_NOT_YET_VALID": mint(nbf=expired_at + 3600),
        "TOKEN_INVALID": forged(),
    }
    calls = [{"method": method, "token": token} for method in METHODS for token in refused.values()]
    outcomes = await calls_by_grpc_js(stack, calls)
    assert [error_info(outcome).reason for outcome in outcomes] == [*refused] * len(METHODS)
    for outcome in outcomes:
        info = error_info(outcome)
        assert outcome["code"] == grpc.StatusCode.UNAUTHENTICATED.value[0]
        assert outcome["responses"] == []
        assert outcome["challenge"].startswith("Bearer")
        assert info.domain == "grpc-bearer"
        assert dict(info.metadata) == ({"expired_at": rfc3339(expired_at)} if info.reason == "TOKEN_EXPIRED" else {})


def rfc3339(epoch_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_s))
