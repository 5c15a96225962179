"""What the README has a user type: `make run` in one terminal, `make -s token` and grpcurl in another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_S, Process
from tests.support.service import FREE_PORTS, environment_with

pytestmark = pytest.mark.needs_tool("make")

ROOT = Path(__file__).resolve().parents[2]
# The environment that these tests run in, as it is: whether it has to be set up anew is not for a test to find out.
MAKE = ("make", "--no-print-directory", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.ready")


def make(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = environment_with(variables or {})
    for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):  # these tests may run under make themselves
        environment.pop(name, None)
    command = [*MAKE, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )


def test_help_lists_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    shown = make("help")
    assert shown.returncode == 0
    listed = re.findall(r"^  ([a-z-]+) +\S.*$", shown.stdout, re.MULTILINE)
    assert listed == targets[1].split()


def test_make_alone_is_help() -> None:
    assert make().stdout == make("help").stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`make run`, on free ports: the service's address and its issuer's."""
    state = {"GRPC_BEARER_DEV__STATE_DIR": str(tmp_path_factory.mktemp("state"))}
    environment = environment_with(FREE_PORTS | state)
    environment.pop("MAKEFLAGS", None)
    with Process(*MAKE, "run", env=environment, cwd=ROOT) as process:
        target = process.line("^serving on ").split()[2]
        issuer = process.line("^embedded issuer ").split()[2]
        yield target, issuer.removeprefix("http://")


def token(issuer: str, *arguments: str) -> str:
    """`$(make -s token)`: all that is printed, without the line's end."""
    done = make("-s", "token", *arguments, variables={"GRPC_BEARER_DEV__LISTEN": issuer})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.removesuffix("\n")


def test_make_token_prints_a_token_and_nothing_else(run: tuple[str, str]) -> None:
    _target, issuer = run
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token(issuer))


def test_make_token_says_how_to_start_the_service_when_it_does_not_run() -> None:
    done = make("-s", "token", variables={"GRPC_BEARER_DEV__LISTEN": "127.0.0.1:1"})
    assert done.returncode != 0
    assert done.stdout == ""
    assert "nothing answers at http://127.0.0.1:1; start the service first" in done.stderr
    assert "make run" in done.stderr


@pytest.mark.needs_tool("grpcurl")
def test_the_call_of_the_readme_is_answered_and_refused_as_it_says(run: tuple[str, str]) -> None:
    target, issuer = run

    def call(bearer: str) -> subprocess.CompletedProcess[str]:
        header = f"authorization: Bearer {bearer}"
        command = ["grpcurl", "-plaintext", "-H", header, target, "grpc_bearer.v1.IdentityService/WhoAmI"]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)

    assert json.loads(call(token(issuer)).stdout)["identity"]["subject"] == "dev-user"
    refused = call(token(issuer, "TOKEN_ARGS=--ttl -60"))
    assert refused.returncode == 80
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make -s token TOKEN_ARGS='--ttl -60'" in readme
    shown = readme.partition("\nERROR:\n")[2].partition("\n```")[0]
    when = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    assert when.sub("WHEN", refused.stderr).split() == when.sub("WHEN", f"ERROR:\n{shown}").split()
