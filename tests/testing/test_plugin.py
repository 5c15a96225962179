"""The kit as a stranger has it: the wheel, the plugin that pytest finds by itself, a small project with its own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from grpc_bearer import testing
from grpc_bearer.testing import WRONG_TOKENS, JwksServer, LocalIssuer
from tests.support.readme import blocks, tables
from tests.support.wheels import ROOT, build_wheel

pytestmark = pytest.mark.timeout(180)  # the first one builds the wheel

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
IN_PYTHON = [block.text for block in blocks(PAGE) if block.language == "python"]
FILES = {match[1]: text for text in IN_PYTHON if (match := re.match(r"# (\w+\.py)\n", text))}
TESTS = {"test_sync.py", "test_aio.py", "test_wrong_tokens.py", "test_the_issuer.py"}
FIXTURES = {
    "grpc_bearer_clock",
    "grpc_bearer_issuer",
    "grpc_bearer_jwks_server",
    "grpc_bearer_server",
    "grpc_bearer_aio_server",
}
SETTINGS = "[pytest]\nfilterwarnings = error\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: what pip would put on the path, with its entry points."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("dist"))) as wheel:
        wheel.extractall(folder)
    return folder


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python in `folder` with the wheel and nothing of this work tree."""
    ours = re.compile(r"PYTHON.*|PYTEST.*|GRPC_BEARER_.*|COVERAGE_.*")
    env = {name: value for name, value in os.environ.items() if not ours.fullmatch(name)} | {"PYTHONPATH": str(installed)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


@dataclass(frozen=True)
class Ran:
    """What pytest said: its exit status, how many tests came to which end, all of its output."""

    status: int
    ends: Mapping[str, int]
    out: str


def run_pytest(installed: Path, folder: Path, files: Mapping[str, str], *arguments: str) -> Ran:
    """Pytest on a project of these files."""
    for name, text in ({"pytest.ini": SETTINGS} | dict(files)).items():
        (folder / name).write_text(text, encoding="utf-8")
    done = python(installed, folder, "-m", "pytest", "-p", "no:cacheprovider", *arguments)
    out = done.stdout + done.stderr
    ends = {end: int(count) for count, end in re.findall(r"(\d+) (passed|failed|errors?|skipped|warnings?)\b", out)}
    return Ran(done.returncode, ends, out)


@pytest.mark.parametrize("with_an_issuer_of_its_own", [False, True])
def test_the_examples_of_the_page_pass_in_a_project_that_has_nothing_else(
    with_an_issuer_of_its_own: bool, installed: Path, tmp_path: Path
) -> None:
    assert set(FILES) == {"service.py", "conftest.py", *TESTS}
    files = FILES if with_an_issuer_of_its_own else {name: FILES[name] for name in FILES if name != "conftest.py"}
    ran = run_pytest(installed, tmp_path, files)
    assert (ran.status, ran.ends) == (0, {"passed": 10 + len(WRONG_TOKENS)}), ran.out
    assert re.search(r"^plugins: .*\bgrpc-bearer-\d", ran.out, re.MULTILINE)


OPEN_TO_ALL = """
from grpc_bearer import Access, Policies, Policy, Rule
from grpc_bearer.v1.identity_pb2 import Identity, WhoAmIResponse
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceServicer

RULES = Policies(rules=[Rule(["grpc_bearer.v1.IdentityService/WhoAmI"], Policy(access=Access.PUBLIC))])


class WhoAmI(IdentityServiceServicer):
    def WhoAmI(self, request, context):
        return WhoAmIResponse(identity=Identity(subject="anybody"))
"""


def test_each_of_the_three_tests_fails_for_a_service_that_is_open_to_all(installed: Path, tmp_path: Path) -> None:
    ran = run_pytest(installed, tmp_path, FILES | {"service.py": OPEN_TO_ALL}, "test_sync.py", "test_aio.py")
    assert (ran.status, ran.ends) == (1, {"failed": 6}), ran.out
    answered = r"^E +AssertionError: expected UNAUTHENTICATED, TOKEN_MISSING, but nothing was refused \(inside the block"
    assert len(re.findall(answered, ran.out, re.MULTILINE)) == 2


FAILING = """
from functools import partial

import pytest
from grpc_bearer.testing import assert_unauthenticated, bearer
from grpc_bearer.v1.identity_pb2 import WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub, add_IdentityServiceServicer_to_server
from service import RULES, WhoAmI


@pytest.fixture
def who_am_i(grpc_bearer_server):
    stub = IdentityServiceStub(grpc_bearer_server(partial(add_IdentityServiceServicer_to_server, WhoAmI()), policies=RULES))
    return lambda token: stub.WhoAmI(WhoAmIRequest(), metadata=bearer(token))


def test_another_reason(who_am_i, grpc_bearer_issuer):
    with assert_unauthenticated("TOKEN_EXPIRED"):
        who_am_i(grpc_bearer_issuer.forged())


def test_another_code(who_am_i, grpc_bearer_issuer):
    with assert_unauthenticated():
        who_am_i(grpc_bearer_issuer.token())
"""
ANOTHER_REASON = (
    "AssertionError: expected UNAUTHENTICATED, TOKEN_EXPIRED, but the call ended with UNAUTHENTICATED, TOKEN_INVALID "
    "('the bearer token is not valid here'); logger grpc_bearer has the cause, at INFO"
)
ANOTHER_CODE = (
    "AssertionError: expected UNAUTHENTICATED, but the call ended with PERMISSION_DENIED, INSUFFICIENT_SCOPE "
    "('the bearer token lacks a scope that this method requires')"
)


def test_a_failure_points_at_the_test_and_shows_the_logged_cause(installed: Path, tmp_path: Path) -> None:
    files = {"service.py": FILES["service.py"], "test_failing.py": FAILING}
    ran = run_pytest(installed, tmp_path, files, "--log-level=INFO")
    assert (ran.status, ran.ends) == (1, {"failed": 2}), ran.out
    for message in (ANOTHER_REASON, ANOTHER_CODE):
        assert re.search(rf"^E +{re.escape(message)}$", ran.out, re.MULTILINE), ran.out
    assert "TOKEN_INVALID: the signature does not verify" in ran.out
    # Where the failure is reported: in the test, not in the kit.
    assert len(re.findall(r"^test_failing\.py:\d+: AssertionError$", ran.out, re.MULTILINE)) == 2
    assert not re.search(r"refusals\.py:\d+: AssertionError", ran.out)


ON_ANYIO = """
from functools import partial

import pytest
from grpc_bearer.testing import assert_unauthenticated, bearer
from grpc_bearer.v1.identity_pb2 import WhoAmIRequest
from grpc_bearer.v1.identity_pb2_grpc import IdentityServiceStub, add_IdentityServiceServicer_to_server
from service import WhoAmI


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def stub(anyio_backend, grpc_bearer_aio_server):
    async with grpc_bearer_aio_server(partial(add_IdentityServiceServicer_to_server, WhoAmI())) as channel:
        yield IdentityServiceStub(channel)


@pytest.mark.anyio
async def test_who_am_i(stub, grpc_bearer_issuer):
    await stub.WhoAmI(WhoAmIRequest(), metadata=bearer(grpc_bearer_issuer.token()))
    with assert_unauthenticated("TOKEN_MISSING"):
        await stub.WhoAmI(WhoAmIRequest())
"""


def test_the_aio_server_does_not_mind_what_runs_the_tests(installed: Path, tmp_path: Path) -> None:
    bare = "[pytest]\nfilterwarnings = error\n"
    files = {"pytest.ini": bare, "service.py": FILES["service.py"], "test_on_anyio.py": ON_ANYIO}
    ran = run_pytest(installed, tmp_path, files, "-p", "no:asyncio")
    assert (ran.status, ran.ends) == (0, {"passed": 1}), ran.out


UNTOUCHED = """
import sys


def test_nothing_of_the_library_is_loaded():
    assert "grpc_bearer_pytest" in sys.modules
    assert [name for name in sys.modules if name.partition(".")[0] in ("grpc", "grpc_bearer", "jwt", "cryptography")] == []
"""


def test_a_project_that_uses_no_fixture_pays_for_no_import(installed: Path, tmp_path: Path) -> None:
    ran = run_pytest(installed, tmp_path, {"test_untouched.py": UNTOUCHED})
    assert (ran.status, ran.ends) == (0, {"passed": 1}), ran.out


def test_the_plugin_can_be_switched_off_by_its_name(installed: Path, tmp_path: Path) -> None:
    ran = run_pytest(installed, tmp_path, {"test_untouched.py": UNTOUCHED}, "-p", "no:grpc_bearer")
    assert ran.ends == {"failed": 1}, ran.out
    assert 'assert "grpc_bearer_pytest" in sys.modules' in ran.out


def test_the_fixtures_are_listed_with_what_they_are_for(installed: Path, tmp_path: Path) -> None:
    ran = run_pytest(installed, tmp_path, {"test_untouched.py": UNTOUCHED}, "--fixtures", "-q")
    listed = dict(re.findall(r"^(grpc_bearer_\w+) -- .*\n    (\S.*)$", ran.out, re.MULTILINE))
    assert set(listed) == FIXTURES


def test_the_kit_works_without_pytest(installed: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from grpc_bearer.testing import LocalIssuer, JwksServer, assert_unauthenticated, sync\n"
        "issuer = LocalIssuer()\n"
        "with JwksServer(issuer.jwks) as server, issuer.authenticator(jwks_uri=server.jwks_uri) as auth:\n"
        "    with sync.serving(authenticator=auth):\n"
        "        print(auth.warm(), issuer.token().count('.'))\n"
    )
    done = python(installed, tmp_path, "-W", "error", "-c", program)
    assert (done.stdout, done.stderr) == ("True 2\n", "")


# -- the page ----------------------------------------------------------------------------------------------------------


def in_code(cell: str) -> list[str]:
    """The names that a cell of a table begins its code with: `a(1)`, `b` -> a, b."""
    return re.findall(r"(?:^|`, `)(\w+)", cell)


def test_the_page_has_a_row_for_every_fixture() -> None:
    ((_header, *rows), *_further) = tables(PAGE, "The fixtures")
    assert {name for name, _meaning in rows} == FIXTURES


@pytest.mark.parametrize(("heading", "made"), [("issuer.", LocalIssuer), ("server.", lambda: JwksServer(dict))])
def test_the_page_names_what_an_issuer_and_a_jwks_server_can_do(
    heading: str, made: Callable[[], LocalIssuer | JwksServer]
) -> None:
    (rows,) = (rows for (header, *rows) in tables(PAGE, "The fixtures") if header[0] == heading)
    named = {name for row in rows for name in in_code(row[0])}
    one = made()
    assert {name for name in named if not hasattr(one, name)} == set()
    assert {name for name in vars(type(one)) if not name.startswith("_")} - {"claims", "close"} <= named
    if isinstance(one, JwksServer):
        one.close()


def test_every_example_of_the_page_is_one_that_is_run_and_every_link_leads_to_a_page() -> None:
    assert len(IN_PYTHON) == len(FILES)
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []


def test_the_page_quotes_messages_as_they_come() -> None:
    assert ANOTHER_REASON in PAGE


def test_every_public_name_of_the_kit_is_there_and_the_page_says_what_the_rest_are_for() -> None:
    explained_by_fixtures = {"AioServers", "Clock", "SyncServers", "Refusal", "SigningKey", "WrongToken"}
    assert {name for name in testing.__all__ if not hasattr(testing, name)} == set()
    assert {name for name in testing.__all__ if name not in PAGE} <= explained_by_fixtures
