"""What the tools print: on a terminal in colour and within its width, elsewhere a line each."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from grpc_bearer import Access, ClaimRule, IssuerStatus, Policy, Streams
from grpc_bearer.explain import explain
from grpc_bearer.policy.table import Entry
from grpc_bearer_server.rendering import print_explanation, print_issuers, print_json, print_policies, requirements
from tests.support.bad_tokens import BAD, EVERYTHING, MEETING, METHOD, a, authenticator
from tests.support.command import fields, settings
from tests.support.processes import PATIENCE_S
from tests.support.service import COMMAND, environment_with
from tests.support.tokens import AUDIENCE, ISSUER, key, mint

WIDTH = 100
STYLES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def terminal(environment: pytest.MonkeyPatch) -> None:
    """A terminal of `WIDTH` columns, as far as rich is concerned."""
    environment.setenv("FORCE_COLOR", "1")
    environment.setenv("COLUMNS", str(WIDTH))


@pytest.fixture(autouse=True)
def no_terminal(environment: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(), []),
        (Policy(access=Access.DENY), []),
        (Policy(scopes=("a", "b")), ["scopes a b"]),
        (Policy(any_scopes=("a",)), ["scope a"]),
        (Policy(any_scopes=("b", "a")), ["scope one of a, b"]),
        (Policy(claims=(ClaimRule("x", present=True),)), ["claim x: present"]),
        (Policy(claims=(ClaimRule("x", all_of=("1", "2")), ClaimRule("y", any_of=("3",)))), ["claim x: 1, 2", "claim y: 3"]),
        (Policy(issuers=("i",), audiences=("x", "y")), ["issuer i", "audience one of x, y"]),
        (Policy(max_age_s=90), ["authenticated at most 90 s ago"]),
        (Policy(streams=Streams.FINISH), ["streams may outlive the token"]),
        (Policy(stream_grace_s=1.5), ["streams may outlive the token by 1.5 s"]),
    ],
)
def test_a_policy_in_words(policy: Policy, words: list[str]) -> None:
    assert requirements(policy) == words


ENTRIES = [
    Entry("/a.v1.A/Get", Policy(scopes=("read",)), "rules[0]"),
    Entry("/a.v1.A/Ping", Policy(access=Access.PUBLIC), "proto: method option"),
    Entry("/b.v1.B/Everything", EVERYTHING, "proto: service option"),
    Entry("/b.v1.B/No", Policy(access=Access.DENY), "default"),
]


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_policies_are_listed_by_service_in_colour(capsys: pytest.CaptureFixture[str]) -> None:
    print_policies(ENTRIES)
    out = capsys.readouterr().out
    assert "\x1b[33mpublic" in out
    assert "\x1b[31mdeny" in out
    lines = [line.rstrip() for line in STYLES.sub("", out).splitlines()]
    assert max(map(len, lines)) <= WIDTH
    head, *rest = lines
    assert fields(head) == ("METHOD", "ACCESS", "FROM", "REQUIRES")
    assert [line for line in rest if not line.startswith(" ")] == ["a.v1.A", "b.v1.B"]
    (everything,) = (line for line in rest if "Everything" in line)
    assert fields(everything) == ("Everything", "authenticated", "proto: service option", "scopes a b")
    for column, text in (("ACCESS", "authenticated"), ("FROM", "proto: "), ("REQUIRES", "scopes a b")):
        assert head.index(column) == everything.index(text)
    assert f"{' ' * head.index('REQUIRES')}scope one of c, d" in rest


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("terminal")
def test_an_explanation_keeps_within_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad = BAD[name]
    print_explanation(explain(authenticator(bad.policy, **bad.options), bad.token, bad.method))
    out = capsys.readouterr().out
    assert "\x1b[1;31m✗" in out
    text = STYLES.sub("", out)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert f"refused: {bad.reason}: {bad.detail}" in text
    assert "\nwhat to do: " in text


@pytest.mark.usefixtures("terminal")
def test_an_explanation_of_a_good_token_ends_with_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    print_explanation(explain(authenticator(EVERYTHING), a(**MEETING), METHOD))
    assert capsys.readouterr().out.endswith("\n\x1b[1;32maccepted\x1b[0m\n")


def test_where_no_terminal_is_a_check_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    explanation = explain(authenticator(EVERYTHING), a(**MEETING, more="x" * 500), METHOD)
    print_explanation(explanation)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(explanation.steps) + 3
    assert all(line == line.rstrip() and "\x1b" not in line for line in lines)


def test_issuers_are_listed_with_their_keys_and_what_is_wrong_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    ready = IssuerStatus("a", True, ("k1", None, "\x1b[2J"), 1.0, False, 0, None, ("keys[3]: use is not sig",))
    print_issuers([ready, IssuerStatus("b", False, (), None, False, 2, "HTTP status 500", ()), _silent("c")])
    assert capsys.readouterr().out.splitlines() == [
        r"✓ issuer a: 3 keys: k1, (no kid), '\x1b[2J'",
        "! issuer a: left out: keys[3]: use is not sig",
        "✗ issuer b: no keys: HTTP status 500",
        "✗ issuer c: no keys: no answer in time",
    ]


def _silent(issuer: str) -> IssuerStatus:
    return IssuerStatus(issuer, False, (), None, False, 0, None, ())


def test_json_is_of_dataclasses_and_mappings_to_the_depth(capsys: pytest.CaptureFixture[str]) -> None:
    claims = explain(authenticator(), a(x={"y": [{"z": None}]})).claims
    print_json([claims, _silent("c"), Access.DENY])
    first, second, third = json.loads(capsys.readouterr().out)
    assert (first["x"], second["issuer"], third) == ({"y": [{"z": None}]}, "c", "deny")


@dataclass
class Holder:
    value: object


@pytest.mark.parametrize("value", [object(), Holder, Holder({1})])
def test_what_has_no_json_is_an_error_and_not_its_repr(value: object) -> None:
    with pytest.raises(TypeError, match="no JSON for"):
        print_json(value)


# -- real terminals and pipes ------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key().jwk()]}))
    source = f'jwks_file = "{tmp_path / "keys.json"}"'
    return Path(settings(tmp_path, f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["{AUDIENCE}"]\n{source}\n'))


def test_a_real_terminal_gets_colour(config: Path) -> None:
    reading, writing = pty.openpty()
    command = [*COMMAND, "check-config", "--config", str(config)]
    environment = environment_with({"TERM": "xterm-256color"})
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, timeout=PATIENCE_S, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    os.close(writing)
    out = os.read(reading, 65_536).decode()
    os.close(reading)
    assert out.startswith("\x1b[32m✓ \x1b[0missuer https://issuer.example")


def test_a_pipe_that_is_no_unicode_gets_the_rest(config: Path) -> None:
    command = [*COMMAND, "explain", "--config", str(config)]
    environment = environment_with({"PYTHONIOENCODING": "ascii"})
    token = mint(sub="Älice").encode()
    ran = subprocess.run(command, input=token, capture_output=True, env=environment, timeout=PATIENCE_S, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.endswith(b"\naccepted\n")
    assert b"\\u2713" in ran.stdout
