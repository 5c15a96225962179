"""`policy`, `explain` and `check-config`: what they say, of what, and with which exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from grpc_bearer_server.issuer.runner import EmbeddedIssuer
from grpc_bearer_server.settings import Address, DevSettings
from tests.support.command import Command, fields, settings
from tests.support.jwks_server import JwksServer
from tests.support.service import trusting
from tests.support.tls import identity
from tests.support.tokens import ISSUER, forged, key, mint

POLICIES = ("--module", "policies.v1.policies_pb2")
IDENTITY = "grpc_bearer.v1.IdentityService/WhoAmI"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def issuer() -> Iterator[JwksServer]:
    with JwksServer(key()) as server:
        yield server


@pytest.fixture
def config(issuer: JwksServer, tmp_path: Path) -> str:
    return settings(tmp_path, trusting(issuer))


# -- explain -----------------------------------------------------------------------------------------------------------


def test_explain_shows_each_check_of_a_good_token(run: Command, config: str) -> None:
    ran = run("explain", "--config", config, mint())
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert fields(lines[0]) == ("CHECK", "EXPECTED", "FOUND")
    assert ("✓", "iss", ISSUER, f"'{ISSUER}'") in map(fields, lines)
    assert ("✓", "key", "one key: kid k1 for RS256", "kid k1 for RS256") in map(fields, lines)
    assert lines[-1] == "accepted"


def test_explain_says_why_a_token_is_refused_and_what_to_do(run: Command, config: str) -> None:
    ran = run("explain", "--config", config, mint(aud="x", exp=5))
    assert (ran.status, ran.err) == (1, "")
    lines = ran.out.splitlines()
    assert ("✗", "aud", "orders", "'x'") in map(fields, lines)
    assert [line[0] for line in lines if line[:1] in "✗·" and line] == ["✗", *"·····"]
    assert lines[-2:] == [
        "refused: TOKEN_INVALID: aud names none of the accepted audiences",
        "what to do: ask the issuer for a token for orders, or add this token's audience to the issuer's audiences",
    ]


PASTED = [
    "{}",
    "  {}\n",
    "Bearer {}",
    "bearer  {}",
    "authorization: Bearer {}\r\n",
    "Authorization:Bearer {}",
    '"Bearer {}"',
    "'{}'",
]


@pytest.mark.parametrize("pasted", PASTED)
@pytest.mark.parametrize("argument", [True, False])
def test_a_token_is_found_in_what_was_pasted(pasted: str, argument: bool, run: Command, config: str) -> None:
    text = pasted.format(mint())
    command = ("explain", "--config", config)
    assert (run(*command, text) if argument else run(*command, stdin=text.encode())).status == 0


def test_a_dash_is_standard_input(run: Command, config: str) -> None:
    assert run("explain", "--config", config, "-", stdin=forged().encode()).status == 1


@pytest.mark.parametrize("stdin", [b"\xff\xfe", b"a b c", b"x" * 100_000])
def test_what_is_no_token_is_refused_as_one(stdin: bytes, run: Command, config: str) -> None:
    ran = run("explain", "--config", config, stdin=stdin)
    assert (ran.status, ran.err) == (1, "")
    assert "refused: TOKEN_MALFORMED: " in ran.out


@pytest.mark.parametrize("arguments", [(), ("-",), ("",), ("Bearer ",), ("authorization: bearer",)])
def test_no_token_at_all_is_a_wrong_argument(arguments: tuple[str, ...], run: Command, config: str) -> None:
    ran = run("explain", "--config", config, *arguments, stdin=b" \n")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "grpc-bearer: TOKEN: there is none, as an argument or on standard input\n"


def test_explain_as_json(run: Command, config: str) -> None:
    ran = run(
        "explain", "--json", "--config", config, *POLICIES, "--method", "policies.v1.MethodsService/Plain", mint(x={"y": [1]})
    )
    found = json.loads(ran.out)
    assert ran.status == 0
    assert (found["accepted"], found["reason"], found["detail"], found["advice"]) == (True, None, None, None)
    assert (found["policy"]["method"], found["policy"]["source"]) == ("/policies.v1.MethodsService/Plain", "default")
    assert (found["claims"]["iss"], found["claims"]["x"]) == (ISSUER, {"y": [1]})
    assert [step["name"] for step in found["steps"]][:2] == ["method", "credentials"]
    assert {step["outcome"] for step in found["steps"]} == {"passed"}
    ran = run("explain", "--json", "--config", config, forged())
    found = json.loads(ran.out)
    assert ran.status == 1
    assert (found["accepted"], found["reason"], found["policy"], found["claims"]) == (False, "TOKEN_INVALID", None, None)
    assert found["detail"] == "the signature does not verify"
    assert "changed after it was signed" in found["advice"]


@pytest.mark.parametrize(
    ("method", "status"),
    [("Plain", 0), ("Public", 0), ("Everything", 1), ("Deny", 1)],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_policy_of_a_method_is_asked_too(method: str, status: int, slash: str, run: Command, config: str) -> None:
    name = f"{slash}policies.v1.MethodsService/{method}"
    assert run("explain", "--config", config, *POLICIES, "--method", name, mint()).status == status


@pytest.mark.parametrize(
    ("method", "mend"),
    [
        ("grpc_bearer.v1.IdentityService/WhoAmi", f"did you mean {IDENTITY}?"),
        ("grpc_bearer.v1.IdentityService.WhoAmI", f"did you mean {IDENTITY}?"),
        ("x/Y", "name its service with --module or --proto-set"),
        ("", "name its service with --module or --proto-set"),
    ],
)
def test_a_method_that_does_not_exist_is_not_explained(method: str, mend: str, run: Command, config: str) -> None:
    ran = run("explain", "--config", config, "--method", method, mint())
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == f"grpc-bearer: --method: {method!r} is no method of the services at hand; {mend}\n"


def test_tokens_of_the_embedded_issuer_are_explained_with_dev(
    run: Command, state_dir: Path, environment: pytest.MonkeyPatch
) -> None:
    with EmbeddedIssuer(DevSettings(listen=Address("127.0.0.1", 0), state_dir=state_dir)) as embedded:
        environment.setenv("GRPC_BEARER_DEV__LISTEN", embedded.url.removeprefix("http://"))
        token = embedded.mint()
        assert run("explain", "--dev", "--method", IDENTITY, token).status == 0
        ran = run("explain", token)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("grpc-bearer: issuers: none is configured")


# -- check-config ------------------------------------------------------------------------------------------------------


def test_check_config_fetches_each_issuers_keys_once_and_reports(run: Command, tmp_path: Path) -> None:
    with JwksServer(key(), key("k2")) as first, JwksServer(key(None)) as second:
        first.body = json.dumps({"keys": [key().jwk(), key("k2").jwk(), {"kty": "x"}]}).encode()
        text = trusting(first) + trusting(second).replace(ISSUER, "https://second.example")
        ran = run("check-config", "--config", settings(tmp_path, text))
        assert (first.fetches, second.fetches) == (1, 1)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        f"✓ issuer {ISSUER}: 2 keys: k1, k2",
        f"! issuer {ISSUER}: left out: keys[2]: kty or crv is not supported",
        "✓ issuer https://second.example: 1 key: (no kid)",
        "the settings are valid",
    ]


def test_an_issuer_that_fails_is_named_with_its_error_without_a_long_wait(
    run: Command, issuer: JwksServer, config: str
) -> None:
    issuer.status = 404
    ran = run("check-config", "--config", config, "--wait", "300")
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.splitlines() == [
        f"✗ issuer {ISSUER}: no keys: jwks_uri: HTTP status 404",
        "the settings are valid, but keys are missing",
    ]


def test_an_issuer_that_does_not_answer_is_waited_for_so_long(run: Command, issuer: JwksServer, config: str) -> None:
    issuer.hang()
    ran = run("check-config", "--config", config, "--wait", "0.1")
    issuer.resume()
    assert ran.status == 1
    assert f"✗ issuer {ISSUER}: no keys: no answer in time" in ran.out


def test_check_config_as_json(run: Command, config: str, issuer: JwksServer) -> None:
    ran = run("check-config", "--json", "--config", config)
    (status,) = json.loads(ran.out)
    assert ran.status == 0
    assert status.pop("fetched_age_s") >= 0
    assert status == {
        "issuer": ISSUER,
        "ready": True,
        "key_ids": ["k1"],
        "stale": False,
        "failures": 0,
        "last_error": None,
        "skipped": [],
    }


def test_check_config_reads_the_tls_files(run: Command, issuer: JwksServer, tmp_path: Path) -> None:
    files = identity(tmp_path)
    good = f'\n[server.tls]\ncert = "{files.cert_file}"\nkey = "{files.key_file}"\n'
    assert run("check-config", "--config", settings(tmp_path, trusting(issuer) + good)).status == 0
    swapped = f'\n[server.tls]\ncert = "{files.key_file}"\nkey = "{files.cert_file}"\n'
    ran = run("check-config", "--config", settings(tmp_path, trusting(issuer) + swapped))
    assert (ran.status, ran.out) == (2, "")
    assert "are no certificate and its unencrypted private key" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["issuers: none is configured"]),
        ("nope = 1\n[server]\nlisten = 5\n", ["nope: no such setting", "listen: is no address"]),
        ('[[rules]]\nmethods = ["a.B/C"]\n', ["issuers: none is configured"]),
        ('[[issuers]]\nissuer = "x"\n', ["issuers[0]"]),
    ],
)
def test_a_wrong_setting_is_one_line_each(text: str, said: list[str], run: Command, tmp_path: Path) -> None:
    ran = run("check-config", "--config", settings(tmp_path, text))
    assert (ran.status, ran.out, len(ran.err.splitlines())) == (2, "", len(said))
    assert all(part in ran.err for part in said)


def test_a_rule_for_a_method_that_does_not_exist_is_a_wrong_setting(run: Command, issuer: JwksServer, tmp_path: Path) -> None:
    rule = '[[rules]]\nmethods = ["grpc_bearer.v1.IdentityService/WhoAmi"]\nscopes = ["a"]\n'
    ran = run("check-config", "--config", settings(tmp_path, trusting(issuer) + rule))
    assert (ran.status, ran.out) == (2, "")
    assert "has no such method; did you mean WhoAmI?" in ran.err


def test_without_a_file_the_settings_are_those_of_the_environment(
    run: Command, issuer: JwksServer, environment: pytest.MonkeyPatch
) -> None:
    assert run("check-config").err.startswith("grpc-bearer: issuers: none is configured")
    for name, value in {"ISSUER": ISSUER, "AUDIENCES": "orders", "JWKS_URI": issuer.jwks_uri}.items():
        environment.setenv(f"GRPC_BEARER_ISSUERS__0__{name}", value)
    assert run("check-config").out.splitlines() == [f"✓ issuer {ISSUER}: 1 key: k1", "the settings are valid"]
