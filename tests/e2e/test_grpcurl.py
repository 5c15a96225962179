"""A person with grpcurl against `grpc-bearer serve --dev`: the caller's claims back, or why not, to read at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PATIENCE_S
from tests.support.service import COMMAND, environment_with, serving_process
from tests.support.tokens import base64url, key

pytestmark = pytest.mark.needs_tool("grpcurl")

WHO_AM_I = "grpc_bearer.v1.IdentityService/WhoAmI"
WATCH = "grpc_bearer.v1.IdentityService/WatchIdentity"
REFUSED = 80
"""grpcurl's exit status: 64 and the number of UNAUTHENTICATED."""
DEADLINE_EXCEEDED = 64 + 4


@dataclass(frozen=True)
class Answer:
    """What grpcurl says. `text` is for the eye: all white space is one blank."""

    status: int
    out: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Dev:
    """`serve --dev`, and what a user types beside it."""

    target: str
    issuer: str
    folder: Path

    def grpcurl(self, *arguments: str, token: str | None = None, options: tuple[str, ...] = ()) -> Answer:
        header = () if token is None else ("-H", f"authorization: Bearer {token}")
        done = run("grpcurl", "-plaintext", *header, *options, self.target, *arguments, cwd=self.folder)
        return Answer(done.returncode, done.stdout, " ".join((done.stdout + done.stderr).split()))

    def token(self, *options: str) -> str:
        done = run(*COMMAND, "token", "--issuer", self.issuer, *options, cwd=self.folder)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.removesuffix("\n")


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=environment_with({}), capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    with serving_process(folder, "--dev") as service:
        yield Dev(service.target, service.process.line("^embedded issuer").split()[2], folder)


def test_who_am_i_answers_with_the_verified_claims(dev: Dev) -> None:
    token = dev.token("--sub", "alice", "--scope", "b a", "--claim", 'groups=["x"]')
    answer = dev.grpcurl(WHO_AM_I, token=token)
    assert answer.status == 0
    told = answer.json["identity"]
    assert (told["issuer"], told["subject"], told["audiences"]) == (dev.issuer, "alice", ["grpc-bearer-dev"])
    assert (told["scopes"], told["claims"]["groups"]) == (["a", "b"], ["x"])
    assert token not in answer.text


def test_the_first_message_of_a_watched_identity_comes_at_once(dev: Dev) -> None:
    answer = dev.grpcurl(WATCH, token=dev.token(), options=("-max-time", "1"))
    assert answer.status == DEADLINE_EXCEEDED
    assert (answer.json["state"], answer.json["identity"]["subject"]) == ("STATE_ACTIVE", "dev-user")


def test_services_are_listed_and_described_without_a_token(dev: Dev) -> None:
    listed = dev.grpcurl("list")
    assert (listed.status, listed.out.split()) == (
        0,
        ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "grpc_bearer.v1.IdentityService"],
    )
    described = dev.grpcurl("describe", "grpc_bearer.v1.IdentityService")
    assert described.status == 0
    assert "rpc WhoAmI ( .grpc_bearer.v1.WhoAmIRequest ) returns ( .grpc_bearer.v1.WhoAmIResponse );" in described.text
    assert "returns ( stream .grpc_bearer.v1.WatchIdentityResponse );" in described.text


def test_health_is_asked_without_a_token(dev: Dev) -> None:
    assert dev.grpcurl("grpc.health.v1.Health/Check").json == {"status": "SERVING"}


def forged(dev: Dev) -> str:
    """A good token with another key's signature."""
    signing_input, _dot, _signature = dev.token().rpartition(".")
    impostor = key()
    return f"{signing_input}.{base64url(impostor.sign(signing_input.encode()))}"


@pytest.mark.parametrize("method", [WHO_AM_I, WATCH])
@pytest.mark.parametrize(
    ("token", "message", "reason"),
    [
        pytest.param(lambda _dev: None, "a bearer token is required", "TOKEN_MISSING", id="absent"),
        pytest.param(lambda dev: dev.token("--ttl", "-60"), "the bearer token has expired", "TOKEN_EXPIRED", id="expired"),
        pytest.param(lambda dev: dev.token("--aud", "x"), "the bearer token is not valid here", "TOKEN_INVALID", id="audience"),
        pytest.param(forged, "the bearer token is not valid here", "TOKEN_INVALID", id="forged"),
        pytest.param(lambda _dev: "not.a.token", "the bearer token is malformed", "TOKEN_MALFORMED", id="malformed"),
    ],
)
def test_a_refusal_is_exit_status_80_and_its_reason_can_be_read(
    method: str, token: Any, message: str, reason: str, dev: Dev
) -> None:
    answer = dev.grpcurl(method, token=token(dev))
    assert (answer.status, answer.out) == (REFUSED, "")
    assert f"Code: Unauthenticated Message: {message}" in answer.text
    assert f'"reason": "{reason}"' in answer.text
    assert '"domain": "grpc-bearer"' in answer.text
    assert ('"expired_at": "20' in answer.text) == (reason == "TOKEN_EXPIRED")
