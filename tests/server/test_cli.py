"""The command line: what is printed where, and with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import jwt
import pytest

from grpc_bearer_server.cli import _announce
from grpc_bearer_server.issuer.keys import FILE_NAME
from grpc_bearer_server.issuer.runner import EmbeddedIssuer
from grpc_bearer_server.loading import listing
from grpc_bearer_server.settings import Address, DevSettings, ServerSettings, TlsSettings
from tests.support.command import Command, Ran
from tests.support.jwks_server import JwksServer
from tests.support.processes import PATIENCE_S
from tests.support.service import COMMAND, FREE_PORTS, environment_with, trusting
from tests.support.tls import identity
from tests.support.tokens import key

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def issuer(state_dir: Path, environment: pytest.MonkeyPatch) -> Iterator[EmbeddedIssuer]:
    """The embedded issuer where the settings say it is."""
    with EmbeddedIssuer(DevSettings(listen=Address("127.0.0.1", 0), state_dir=state_dir)) as embedded:
        environment.setenv("GRPC_BEARER_DEV__LISTEN", embedded.url.removeprefix("http://"))
        yield embedded


def claims_of(token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_token_prints_a_token_and_nothing_else(run: Command, issuer: EmbeddedIssuer) -> None:
    ran = run("token")
    assert (ran.status, ran.err) == (0, "")
    token, newline, rest = ran.out.partition("\n")
    assert (newline, rest) == ("\n", "")
    assert claims_of(token)["iss"] == issuer.url


def test_token_has_the_claims_of_its_options(run: Command, issuer: EmbeddedIssuer) -> None:
    options = ["--sub", "alice", "--aud", "orders", "--scope", "a b", "--ttl", "-60", "--client-id", "app", "--alg", "ES256"]
    claims = ["--claim", "admin=true", "--claim", 'groups=["x"]', "--claim", "name=Älice=1", "--claim", "jti=one"]
    token = claims_of(run("token", *options, *claims).out.strip())
    assert isinstance(token["exp"], int)
    assert token == {
        "iss": issuer.url,
        "sub": "alice",
        "aud": "orders",
        "scope": "a b",
        "client_id": "app",
        "iat": token["exp"],
        "exp": token["exp"],
        "jti": "one",
        "admin": True,
        "groups": ["x"],
        "name": "Älice=1",
    }


def test_token_asks_the_issuer_that_is_given(run: Command, issuer: EmbeddedIssuer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GRPC_BEARER_DEV__LISTEN", "127.0.0.1:1")
    assert claims_of(run("token", "--issuer", issuer.url).out.strip())["iss"] == issuer.url


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--claim", "a"], 2, "--claim: 'a' is not of the form name=value"),
        (["--issuer", "127.0.0.1:50052"], 2, "--issuer: is no address of an issuer; write it as http://"),
        (["--issuer", "http://[::1"], 2, "--issuer: is no address of an issuer; write it as http://"),
        (["--config", "nope.toml"], 2, "nope.toml: cannot be read: No such file or directory"),
        (["--ttl", "86401"], 1, "the issuer at http://127.0.0.1:"),
        (["--claim", "a=NaN"], 1, "the issuer at http://127.0.0.1:"),
        (["--issuer", "http://127.0.0.1:1"], 1, "nothing answers at http://127.0.0.1:1; start the service first"),
    ],
)
def test_no_token_is_one_line_on_stderr(
    arguments: list[str], status: int, said: str, run: Command, issuer: EmbeddedIssuer
) -> None:
    ran = run("token", *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith(f"grpc-bearer: {said}")
    assert ran.err.count("\n") == 1


def test_settings_lists_every_setting_with_its_variable_and_default(run: Command) -> None:
    ran = run("settings")
    assert (ran.status, ran.err) == (0, "")
    expected = [
        line
        for setting in listing()
        for line in (f"{setting.key} = {setting.default}", f"    {setting.variable}", f"    {setting.description}")
    ]
    assert ran.out.splitlines() == expected


def test_settings_lists_the_same_as_json(run: Command) -> None:
    assert json.loads(run("settings", "--json").out) == [asdict(setting) for setting in listing()]


def test_proto_path_is_where_protoc_finds_the_protos(run: Command) -> None:
    ran = run("proto-path")
    assert (ran.status, ran.err) == (0, "")
    assert (Path(ran.out.removesuffix("\n")) / "grpc_bearer" / "v1" / "identity.proto").is_file()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["serve", "-h"], ["--version"]])
def test_help_and_version_are_told_on_stdout(arguments: list[str], run: Command) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.err) == (0, "")
    assert "grpc-bearer" in ran.out


@pytest.mark.parametrize("arguments", [["serv"], ["serve", "--port", "1"], ["token", "--alg", "none"], ["token", "--ttl", "x"]])
def test_a_wrong_argument_is_exit_status_2(arguments: list[str], run: Command) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err


ADD_ISSUERS = "add [[issuers]] to a file for --config, or use the embedded issuer with --dev"


SERVICE = "grpc_bearer.v1.IdentityService"


# `serve` sets up logging and signals: it gets a process of its own.


def serve(folder: Path, *arguments: str, config: str = "", **variables: str) -> Ran:
    """`grpc-bearer serve`, which has to end by itself."""
    path = folder / "settings.toml"
    path.write_text(config)
    settings = FREE_PORTS | {f"GRPC_BEARER_{name}": value for name, value in variables.items()}
    command = [*COMMAND, "serve", "--config", str(path), *arguments]
    environment = environment_with(settings)
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr.replace(str(folder), "FOLDER"))


@pytest.mark.parametrize(
    ("arguments", "config", "lines"),
    [
        (
            [],
            "",
            [f"issuers: none is configured, so every call would be refused; {ADD_ISSUERS}"],
        ),
        (
            ["--dev"],
            '[server]\npublic_methods = ["WhoAmI"]\n',
            ["public_methods: 'WhoAmI' is not a full method name; write it as '/package.Service/Method'"],
        ),
        (
            ["--dev"],
            '[[issuers]]\nissuer = "https://a.example"\naudiences = ["a"]\n' * 2,
            ["issuers: 'https://a.example' is listed twice; merge the two"],
        ),
        (
            ["--dev"],
            f'[[rules]]\nmethods = ["{SERVICE}/WhoAm"]\n',
            [f"rules[0]: methods: '{SERVICE}/WhoAm': {SERVICE} has no such method; did you mean WhoAmI?"],
        ),
        (
            [],
            '[server]\nlog_level = "all"\n[server.tls]\ncert = "c"\n',
            [
                "FOLDER/settings.toml: server.log_level: input should be 'debug', 'info', 'warning' or 'error'",
                "FOLDER/settings.toml: server.tls: cert and key belong together; give both or none",
            ],
        ),
    ],
)
def test_a_wrong_setting_ends_serve_with_a_line_for_it_and_status_2(
    arguments: list[str], config: str, lines: list[str], tmp_path: Path, state_dir: Path
) -> None:
    ran = serve(tmp_path, *arguments, config=config, DEV__STATE_DIR=str(state_dir))
    assert ran == Ran(2, "", "".join(f"grpc-bearer: {line}\n" for line in lines))


def test_plaintext_off_loopback_ends_serve_with_a_line_and_status_2(tmp_path: Path) -> None:
    ran = serve(tmp_path, "--dev", SERVER__LISTEN="0.0.0.0:0")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == (
        "grpc-bearer: FOLDER/settings.toml: server: listen: 0.0.0.0:0 is not on loopback, and tokens would cross the network "
        "unencrypted; set tls.cert and tls.key, or spell out allow_plaintext = true\n"
    )


def test_a_taken_port_ends_serve_with_a_line_and_status_1(tmp_path: Path) -> None:
    with JwksServer(key()) as taken:
        address = taken.url.removeprefix("http://")
        ran = serve(tmp_path, config=trusting(taken), SERVER__LISTEN=address)
    assert ran == Ran(
        1,
        "",
        f"grpc-bearer: server.listen: {address} is taken by another program; stop that one, "
        "or set GRPC_BEARER_SERVER__LISTEN to another port\n",
    )


def test_a_taken_port_for_metrics_ends_serve_with_a_line_and_status_1(tmp_path: Path) -> None:
    with JwksServer(key()) as taken:
        address = taken.url.removeprefix("http://")
        ran = serve(tmp_path, config=trusting(taken), METRICS__LISTEN=address)
    assert ran == Ran(
        1,
        "",
        f"grpc-bearer: metrics.listen: {address} is taken by another program; stop that one, "
        "or set GRPC_BEARER_METRICS__LISTEN to another port\n",
    )


def test_tls_files_that_do_not_fit_end_serve_with_a_line_and_status_1(tmp_path: Path) -> None:
    one, other = identity(tmp_path / "one"), identity(tmp_path / "other")
    with JwksServer(key()) as issuer:
        ran = serve(tmp_path, config=trusting(issuer), SERVER__TLS__CERT=one.cert_file, SERVER__TLS__KEY=other.key_file)
    assert ran == Ran(
        1,
        "",
        "grpc-bearer: server.tls: FOLDER/one/cert.pem and FOLDER/other/key.pem are no certificate and its unencrypted "
        "private key, both PEM\n",
    )


def test_an_embedded_issuer_whose_keys_others_can_read_ends_serve_with_a_line_and_status_1(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.touch(0o644)
    path.chmod(0o644)
    ran = serve(tmp_path, "--dev", DEV__STATE_DIR=str(tmp_path))
    assert ran == Ran(
        1,
        "",
        f"grpc-bearer: FOLDER/{FILE_NAME}: can be read by others; run chmod 600 on it, or delete it for new keys\n",
    )


@pytest.mark.parametrize(
    ("host", "files", "transport"),
    [
        ("127.0.0.1", {}, "plaintext, loopback only"),
        ("10.0.0.1", {}, "PLAINTEXT: tokens can be read on the network"),
        ("10.0.0.1", {"cert": "c", "key": "k"}, "TLS"),
        ("127.0.0.1", {"cert": "c", "key": "k", "client_ca": "a"}, "mutual TLS"),
    ],
)
def test_the_first_line_says_who_can_read_along(
    host: str, files: dict[str, str], transport: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = Address(host, 50051)
    _announce(ServerSettings(listen=address, allow_plaintext=True, tls=TlsSettings.model_validate(files)), address, None)
    assert capsys.readouterr().out == f"serving on {host}:50051 ({transport})\n"


def test_what_else_an_operator_has_to_know_follows_the_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    _announce(ServerSettings(mode="report"), Address("127.0.0.1", 50051), Address("::1", 9464))
    assert capsys.readouterr().out.splitlines() == [
        "serving on 127.0.0.1:50051 (plaintext, loopback only)",
        "AUTHENTICATION IS NOT ENFORCED: mode is report, every call goes on",
        "metrics on http://[::1]:9464/metrics",
    ]


# `python -m grpc_bearer_server` and what is not installed.


def main_with(folder: Path, prelude: str, *arguments: str) -> Ran:
    """The command with a line of Python run before it."""
    program = f"import sys; {prelude}; sys.argv[1:] = {list(arguments)}; from grpc_bearer_server.__main__ import main; main()"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def without(folder: Path, module: str, missing: str) -> str:
    """A prelude after which importing `module` fails for want of `missing`."""
    (folder / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {missing}', name={missing!r})\n")
    return f"sys.path.insert(0, {str(folder)!r})"


@pytest.mark.parametrize("missing", ["click", "pydantic_settings", "prometheus_client", "rich"])
def test_without_the_extra_a_command_names_what_is_missing_and_how_to_install_it(missing: str, tmp_path: Path) -> None:
    ran = main_with(tmp_path, without(tmp_path, "click", f"{missing}.part"), "serve")
    said = f"this command needs the package {missing}.part; install it with: pip install 'grpc-bearer[server]'"
    assert ran == Ran(2, "", f"grpc-bearer: {said}\n")


def test_a_module_that_is_not_of_the_extra_is_no_business_of_it(tmp_path: Path) -> None:
    ran = main_with(tmp_path, without(tmp_path, "click", "colorama"), "serve")
    assert ran.status == 1
    assert ran.err.endswith("ModuleNotFoundError: No module named colorama\n")


def test_proto_path_works_without_the_extra_and_without_importing_grpc(tmp_path: Path) -> None:
    ran = main_with(tmp_path, f"{without(tmp_path, 'click', 'click')}; sys.modules['grpc'] = None", "proto-path")
    assert ran == Ran(0, f"{ROOT / 'interceptors'}\n", "")


def test_proto_path_without_the_library_says_so(tmp_path: Path) -> None:
    ran = main_with(tmp_path, "sys.path[:] = [p for p in sys.path if not p.endswith('interceptors')]", "proto-path")
    assert ran.status == 1
    assert ran.err.endswith("ModuleNotFoundError: grpc_bearer is not installed\n")
