"""examples/orders as a stranger has it: the wheel from pip, a protoc run of its own, its README carried out to the letter."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import grpc
import pytest

from tests.support.processes import Process
from tests.support.readme import agrees, blocks, tables
from tests.support.serving import STACKS, Stack
from tests.support.waiting import eventually
from tests.support.wheels import ROOT, build_wheel

pytestmark = [pytest.mark.needs_tool("grpcurl", "make", "bash"), pytest.mark.timeout(600)]  # the first one waits for pip

EXAMPLE = ROOT / "examples" / "orders"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks(README)
CALLS = [block for block in BLOCKS if block.says is not None]
(HEADER, *ROWS), (_words, *MEANINGS) = tables(README, "Every rule, every caller")
OUTCOMES = {word: (code, reason) for word, code, reason in MEANINGS}
TARGET_IN_README = "127.0.0.1:50061"
SERVICE = "orders.v1.OrdersService"
NOT_SOURCES = {".venv", ".grpc-bearer-dev", "orders"}  # the example's .gitignore


def shell_of(section: str) -> str:
    """All that the README has one type under a heading."""
    shell = "".join(block.text for block in BLOCKS if (block.section, block.language) == (section, "sh"))
    assert shell, f"nothing to type under {section}"
    return shell


def bash(script: str, folder: Path, env: Mapping[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a script in `folder`; its stderr goes where its stdout goes."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=timeout_s,
        check=False,
    )


def copy_of_the_sources(folder: Path) -> Path:
    def generated(path: str, names: list[str]) -> set[str]:
        return {"__pycache__"} | (NOT_SOURCES.intersection(names) if Path(path) == EXAMPLE else set())

    return Path(shutil.copytree(EXAMPLE, folder / "orders", ignore=generated))


def env_of_a_stranger(path: Path, **more: str) -> dict[str, str]:
    """This process's environment with nothing in it that leads to our sources or settings, and `path` first on PATH."""
    ours = re.compile(r"PYTHON.*|GRPC_BEARER_.*|MAKE.*|MFLAGS|VIRTUAL_ENV|COVERAGE_.*")
    kept = {name: value for name, value in os.environ.items() if not ours.fullmatch(name)}
    return kept | {"PATH": os.pathsep.join([str(path), kept["PATH"]])} | more


def constraints() -> str:
    """What pip may choose: the versions of the lock, where it has one. So a release of today breaks no test of yesterday."""
    lock = (ROOT / "requirements" / "dev.lock").read_text()
    pins = re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?(==[^ ]+)( ;[^\\\n]+)?", lock, re.MULTILINE)
    return "\n".join(map("".join, pins))


@dataclass(frozen=True)
class Example:
    """The example's folder after its README's "Set up", and the environment with its virtual environment activated."""

    folder: Path
    env: Mapping[str, str]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = copy_of_the_sources(tmp_path_factory.mktemp("stranger"))
    allowed = folder.parent / "constraints.txt"
    allowed.write_text(constraints())
    wheel = build_wheel(tmp_path_factory.mktemp("dist"))
    set_up = shell_of("Set up").replace("pip install ", f"pip install '{wheel}[server]' ")  # where a registry would have it
    own_python = Path(sys.executable).parent
    env = env_of_a_stranger(own_python, PIP_CONSTRAINT=str(allowed), PIP_DISABLE_PIP_VERSION_CHECK="1")
    done = bash(f"set -e\n{set_up}", folder, env, timeout_s=540)
    assert done.returncode == 0, done.stdout
    return Example(folder, env_of_a_stranger(folder / ".venv" / "bin"))


@dataclass(frozen=True)
class Running:
    """The example in operation: its issuer, a server of each stack, and a token for each name in the README."""

    example: Example
    env: Mapping[str, str]
    servers: Mapping[Stack, Process]
    targets: Mapping[Stack, str]
    tokens: Mapping[str, str]


@pytest.fixture(scope="module")
def running(example: Example) -> Iterator[Running]:
    anywhere = "127.0.0.1:0"
    with ExitStack() as stack:

        def make(target: str, **env: str) -> Process:
            return stack.enter_context(Process("make", target, env={**example.env, **env}, cwd=example.folder))

        issuer = make("issuer", GRPC_BEARER_DEV__LISTEN=anywhere, GRPC_BEARER_SERVER__LISTEN=anywhere)
        url = issuer.line("embedded issuer").split()[2]
        servers = {name: make(f"run-{name}", ORDERS_LISTEN=anywhere, ORDERS_ISSUER=url) for name in STACKS}
        env = {**example.env, "GRPC_BEARER_DEV__LISTEN": url.removeprefix("http://")}
        show = "".join(f'echo "{name}=${name}"\n' for name in HEADER[2:])
        done = bash(f"set -e\n{shell_of('Tokens')}\n{show}", example.folder, env, timeout_s=60)
        assert done.returncode == 0, done.stdout
        tokens = dict(line.split("=", 1) for line in done.stdout.splitlines())
        targets = {name: f"127.0.0.1:{server.line('on port').split()[-1]}" for name, server in servers.items()}
        yield Running(example, env, servers, targets, tokens)


@pytest.fixture(scope="module")
def transcripts(running: Running) -> Mapping[tuple[Stack, int], str]:
    """What came back from each of `CALLS`, on each stack, by index. None depends on another; some take seconds."""

    def transcript(call: tuple[Stack, int]) -> str:
        stack, index = call
        script = CALLS[index].text.replace(TARGET_IN_README, running.targets[stack])
        return bash(script, running.example.folder, {**running.env, **running.tokens}, timeout_s=60).stdout

    calls = list(product(STACKS, range(len(CALLS))))
    with ThreadPoolExecutor(6) as at_once:
        return dict(zip(calls, at_once.map(transcript, calls), strict=True))


def test_the_example_imports_the_installed_wheel_and_nothing_of_this_repository(example: Example) -> None:
    script = "import grpc_bearer, grpc_bearer_server; print(grpc_bearer.__file__, grpc_bearer_server.__file__)"
    done = bash(f"python -c '{script}'", example.folder, example.env, timeout_s=30)
    library, service = map(Path, done.stdout.split())
    assert library.is_relative_to(example.folder / ".venv")
    assert service.is_relative_to(example.folder / ".venv")


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("index", range(len(CALLS)), ids=[f"{i}-{block.section}" for i, block in enumerate(CALLS)])
def test_what_the_readme_says_comes_back_comes_back(
    stack: Stack, index: int, transcripts: Mapping[tuple[Stack, int], str]
) -> None:
    said, came = CALLS[index].says, transcripts[stack, index]
    assert said is not None
    assert agrees(said, came), f"{CALLS[index].text}\nthe README says:\n{said}\nthis came:\n{came}"


@pytest.mark.parametrize("stack", STACKS)
def test_the_log_has_the_cause_that_the_caller_is_not_told(
    stack: Stack, running: Running, transcripts: Mapping[tuple[Stack, int], str]
) -> None:
    (expected,) = (block.text.strip() for block in BLOCKS if block.language == "log")
    assert eventually(lambda: expected in running.servers[stack].stderr), running.servers[stack].stderr


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("row", ROWS, ids=[cells[0].partition(" ")[0] for cells in ROWS])
def test_each_rule_allows_and_refuses_each_caller_as_the_table_says(stack: Stack, row: list[str], running: Running) -> None:
    method, _space, request = row[0].partition(" ")
    came = {name: outcome(running, stack, method, request, running.tokens.get(name)) for name in HEADER[1:]}
    assert came == {name: OUTCOMES[cell] for name, cell in zip(HEADER[1:], row[1:], strict=True)}


def outcome(running: Running, stack: Stack, method: str, request: str, token: str | None) -> tuple[str, str]:
    """The status code and, of a refusal, its reason."""
    header = [] if token is None else ["-H", f"authorization: Bearer {token}"]
    call = ["-d", request, running.targets[stack], f"{SERVICE}/{method}"]
    command = ["grpcurl", "-plaintext", "-format-error", "-max-time", "20", *header, *call]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30, check=False)
    if done.returncode == 0:
        return "OK", ""
    error = json.loads(done.stderr)
    (code,) = (code.name for code in grpc.StatusCode if code.value[0] == error["code"])
    (reason,) = (detail["reason"] for detail in error["details"])
    return code, reason


def test_the_table_has_every_method_of_the_service() -> None:
    proto = (EXAMPLE / "protos" / "orders" / "v1" / "orders.proto").read_text()
    assert {cells[0].partition(" ")[0] for cells in ROWS} == set(re.findall(r"rpc (\w+)\(", proto))


@pytest.mark.parametrize("stack", STACKS)
def test_a_method_without_a_rule_keeps_the_server_from_starting(stack: Stack, example: Example, tmp_path: Path) -> None:
    folder = copy_of_the_sources(tmp_path)
    proto = folder / "protos" / "orders" / "v1" / "orders.proto"
    lines = proto.read_text().splitlines(keepends=True)
    proto.write_text("".join(line for line in lines if "default_policy" not in line))
    done = bash(f"make run-{stack}", folder, {**example.env, "ORDERS_LISTEN": "127.0.0.1:0"}, timeout_s=60)
    (said,) = (block.text.strip() for block in BLOCKS if block.section == "A method without a rule")
    assert done.returncode != 0
    assert said in done.stdout.splitlines()


def test_the_example_is_typed_against_the_installed_wheel(example: Example, tmp_path: Path) -> None:
    """What `make type` cannot do for want of generated code. The options that are off are for what protoc writes."""
    stubs = f"{sys.executable} -m pip --python .venv/bin/python install types-grpcio types-grpcio-reflection types-protobuf"
    env = {**example.env, "PIP_CONSTRAINT": str(example.folder.parent / "constraints.txt")}
    done = bash(stubs, example.folder, env, timeout_s=300)
    assert done.returncode == 0, done.stdout
    mypy = f"{sys.executable} -m mypy --config-file= --cache-dir={tmp_path} --python-executable=.venv/bin/python"
    options = "--strict --allow-any-generics --allow-untyped-calls --follow-imports=silent"
    done = bash(f"{mypy} {options} *.py", example.folder, example.env, timeout_s=120)
    assert done.returncode == 0, done.stdout
