"""A TOML file and the environment become settings, or one line for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from grpc_bearer import FetchOptions
from grpc_bearer_server.loading import MAX_FILE_BYTES, SettingsError, load
from grpc_bearer_server.settings import Address, Settings

ISSUERS = """
[[issuers]]
issuer = "https://a.example"
audiences = ["orders"]
leeway_s = 5
[issuers.fetch]
timeout_s = 3

[[issuers]]
issuer = "https://b.example"
audiences = ["orders"]
"""
SECRET = "hunter2"
P = "GRPC_BEARER_"

File = Callable[[str | bytes], Path]


@pytest.fixture
def file(tmp_path: Path) -> File:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "settings.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def faults(path: Path | None) -> tuple[str, ...]:
    """What loading says is wrong, without the file's own name."""
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert str(caught.value) == "\n".join(caught.value.lines)
    assert all("\n" not in line for line in caught.value.lines)
    return tuple(line.removeprefix(f"{path}: ") for line in caught.value.lines)


def test_without_a_file_and_variables_everything_has_its_default() -> None:
    assert load(None) == Settings()
    assert load(None).issuers == ()


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(file: File, environment: pytest.MonkeyPatch) -> None:
    path = file('[server]\nlisten = "127.0.0.1:1"\ndrain_s = 1\n[server.tls]\ncert = "c"\nkey = "k"\n')
    environment.setenv(P + "SERVER__DRAIN_S", "2")
    environment.setenv(P + "SERVER__TLS__KEY", "other")
    server = load(path).server
    assert (server.listen, server.drain_s, server.keepalive_s) == (Address("127.0.0.1", 1), 2, 60)
    assert (server.tls.cert, server.tls.key) == (Path("c"), Path("other"))


def test_a_variable_overrides_one_member_of_one_issuer_of_the_file(file: File, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(P + "ISSUERS__0__LEEWAY_S", "7")
    environment.setenv(P + "ISSUERS__0__FETCH__MAX_BYTES", "1000")
    environment.setenv(P + "ISSUERS__1__AUDIENCES", "billing, shipping")
    first, second = load(file(ISSUERS)).issuers
    assert (first.issuer, first.audiences, first.leeway_s) == ("https://a.example", ("orders",), 7)
    assert first.fetch == FetchOptions(timeout_s=3, max_bytes=1000)
    assert (second.issuer, second.audiences, second.leeway_s) == ("https://b.example", ("billing", "shipping"), 30)


def test_a_variable_adds_an_issuer_to_those_of_the_file(file: File, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(P + "ISSUERS__2__ISSUER", "https://c.example")
    environment.setenv(P + "ISSUERS__2__ALLOW_ANY_AUDIENCE", "true")
    names = [issuer.issuer for issuer in load(file(ISSUERS)).issuers]
    assert names == ["https://a.example", "https://b.example", "https://c.example"]


def test_issuers_from_the_environment_stand_in_the_order_of_their_numbers(environment: pytest.MonkeyPatch) -> None:
    for number in (10, 9, 2):
        environment.setenv(f"{P}ISSUERS__{number}__ISSUER", f"https://{number}.example")
        environment.setenv(f"{P}ISSUERS__{number}__AUDIENCES", "orders")
    assert [issuer.issuer for issuer in load(None).issuers] == [f"https://{number}.example" for number in (2, 9, 10)]


def test_the_case_of_a_variable_does_not_matter(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("grpc_bearer_server__drain_s", "3")
    assert load(None).server.drain_s == 3


WRONG_IN_FILE = {
    # what is not there
    "[sever]": "sever: no such setting; did you mean server?",
    "[x]": "x: no such setting; there are server, issuers, rules, verdicts, metrics, dev",
    '[server]\nlistn = "x"': "server.listn: no such setting; did you mean listen?",
    '[server]\nstack = "sync"': "server.stack: no such setting; there are listen, ",
    '[server.tls]\ncrt = "x"': "server.tls.crt: no such setting; did you mean cert?",
    '[dev]\nport = "x"': "dev.port: no such setting; there are listen, state_dir, audience, ttl_s",
    f"{ISSUERS}audience = 1": "issuers[1].audience: no such setting; did you mean audiences?",
    f"{ISSUERS}[issuers.fetch]\ntimeout = 1": "issuers[1].fetch: has no setting 'timeout'; there are timeout_s, ",
    f"{ISSUERS}[issuers.cache]\nttl = 1": "issuers[1].cache: has no setting 'ttl'; there are fresh_s, ",
    "[verdicts]\nmax_age = 1": "verdicts: has no setting 'max_age'; there are max_entries, max_bytes, max_age_s",
    # what is of another kind
    f'server = "{SECRET}"': "server: input should be ",
    f'issuers = "{SECRET}"': "issuers: input should be ",
    f'issuers = ["{SECRET}"]': "issuers[0]: input should be ",
    f'[issuers]\nissuer = "{SECRET}"': "issuers: is a list: write [[issuers]] in the file, and number ",
    f'[server]\nlisten = "{SECRET}"': 'server.listen: is no address; write it as "127.0.0.1:50051" or "[::1]:50051"',
    f'[server]\nreflection = "{SECRET}"': "server.reflection: input should be a valid boolean",
    f'[server]\ndrain_s = "{SECRET}"': "server.drain_s: input should be a valid number",
    f'[server]\nlog_level = "{SECRET}"': "server.log_level: input should be 'debug', 'info', 'warning' or 'error'",
    "[server.tls]\ncert = 5": "server.tls.cert: input is not a valid path",
    f'{ISSUERS}[issuers.fetch]\ntimeout_s = "{SECRET}"': "issuers[1].fetch.timeout_s: input should be a valid number",
    f"{ISSUERS}fetch = 1": "issuers[1].fetch: input should be ",
    # what is out of bounds
    "[server]\ndrain_s = -1": "server.drain_s: input should be greater than or equal to 0",
    "[server]\ndrain_s = nan": "server.drain_s: input should be a finite number",
    "[dev]\nttl_s = 0": "dev.ttl_s: input should be greater than or equal to 1",
    f"{ISSUERS}[issuers.cache]\nmax_keys = 0": "issuers[1].cache: cache: max_keys has to be 1 or more",
    "[verdicts]\nmax_entries = -1": "verdicts: verdicts: max_entries and max_bytes have to be 0 or more",
    "[verdicts]\nmax_age_s = 0": "verdicts: verdicts: max_age_s has to be above 0 and at most 86400 seconds",
    f"{ISSUERS}leeway_s = 601": "issuers[1]: issuer 'https://b.example': leeway_s has to be 0 to 600 seconds",
    # what is missing, and what contradicts itself
    f'[[issuers]]\naudiences = ["{SECRET}"]': f"issuers[0].issuer: is missing; set it there or as {P}ISSUERS__0__ISSUER",
    '[[issuers]]\nissuer = "https://a.example"': "issuers[0]: issuer 'https://a.example': audiences is empty; list what",
    f'[server.tls]\ncert = "{SECRET}"': "server.tls: cert and key belong together; give both or none",
    '[server]\nlisten = "0.0.0.0:1"': "server: listen: 0.0.0.0:1 is not on loopback, and tokens would cross the network",
    '[dev]\nlisten = "0.0.0.0:1"': "dev.listen: is not on loopback; the embedded issuer gives a token to whoever asks",
    f'{ISSUERS}jwks_uri = "https://user:{SECRET}@b.example"': "issuers[1]: issuer 'https://b.example': jwks_uri holds cred",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG_IN_FILE)
def test_a_wrong_setting_in_the_file_is_one_line_that_names_it_and_how_to_mend_it(text: str, file: File) -> None:
    path = file(text)
    with pytest.raises(SettingsError) as caught:
        load(path)
    (line,) = caught.value.lines
    assert line.startswith(f"{path}: {WRONG_IN_FILE[text]}")
    assert SECRET not in line


WRONG_VARIABLES = {
    "SERVR__LISTEN": "no such setting; did you mean server?",
    "X__Y": "no such setting; there are server, issuers, rules, verdicts, metrics, dev",
    "SERVER__LISTN": "no such setting; did you mean listen?",
    "SERVER__TLS__CRT": "no such setting; did you mean cert?",
    "SERVER__": "no such setting; there are listen, ",
    "SERVER_LISTEN": "no such setting; put two underscores between the parts of its name: GRPC_BEARER_SERVER__...",
    "ISSUERS_0_ISSUER": "no such setting; put two underscores between the parts of its name: GRPC_BEARER_ISSUERS__...",
    "SERVER": "input should be ",
    "ISSUERS": "input should be ",
    "ISSUERS__0": "input should be ",
    "SERVER__LISTEN": "is no address; write it as ",
    "SERVER__REFLECTION": "input should be a valid boolean",
    "SERVER__DRAIN_S": "input should be a valid number",
    "DEV__TTL_S": "input should be a valid integer",
}


@pytest.mark.parametrize("name", WRONG_VARIABLES)
@pytest.mark.parametrize("spelled", [str.upper, str.lower])
def test_a_wrong_variable_is_one_line_that_names_it_and_how_to_mend_it(
    name: str, spelled: Callable[[str], str], environment: pytest.MonkeyPatch, file: File
) -> None:
    variable = spelled(P + name)
    environment.setenv(variable, SECRET)
    (line,) = faults(file("[server]\ndrain_s = 1"))
    assert line.startswith(f"{variable}: {WRONG_VARIABLES[name]}")
    assert SECRET not in line


@pytest.mark.parametrize("name", ["ISSUERS__X__ISSUER", "ISSUERS__ISSUER", "ISSUERS__-1__ISSUER", "ISSUERS__٣__ISSUER"])
def test_issuers_in_variables_have_to_be_numbered(name: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(P + name, SECRET)
    (line,) = faults(None)
    assert line.startswith("issuers: is a list: ")
    assert line.endswith(f"{P}ISSUERS__0__ISSUER")


def test_each_thing_that_is_wrong_has_its_line(environment: pytest.MonkeyPatch, file: File) -> None:
    assert len(faults(file('[server]\nlisten = 1\ndrain_s = -1\nx = 1\n[dev]\nttl_s = "x"'))) == 4
    environment.setenv(P + "SERVR__LISTEN", "x")
    environment.setenv(P + "DEV_TTL_S", "x")
    assert len(faults(None)) == 2


@pytest.mark.parametrize("name", ["GRPC_BEARER_REQUIRE_TOOLS", "GRPC_BEARER_", "GRPC_BEARERX__Y", "GRPC_BEARER"])
def test_variables_that_are_not_settings_are_left_alone(name: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(name, "1")
    assert load(None) == Settings()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[server]\nlisten = \n", "is not TOML: Invalid value (at line 2, column 10)"),
        ("[server\n", "is not TOML: Expected ']' at the end of a table declaration (at line 1, column 8)"),
        (b"a = '\xff\xfe'", "is not UTF-8 text; TOML has to be"),
        ("a = 1\n".encode("utf-16"), "is not UTF-8 text; TOML has to be"),
        (b"#" * (MAX_FILE_BYTES + 1), f"is larger than {MAX_FILE_BYTES} bytes; is it a settings file?"),
    ],
)
def test_a_file_that_is_not_toml_is_one_line_that_says_where(content: str | bytes, text: str, file: File) -> None:
    assert faults(file(content)) == (text,)


def test_a_file_of_the_largest_size_is_read(file: File) -> None:
    assert load(file(b"#" * MAX_FILE_BYTES)) == Settings()


def test_a_file_that_is_missing_or_a_folder_cannot_be_read(tmp_path: Path) -> None:
    assert faults(tmp_path / "nope.toml") == ("cannot be read: No such file or directory",)
    assert faults(tmp_path) == ("cannot be read: Is a directory",)


def test_a_name_with_a_line_end_in_it_is_spelled_on_one_line(file: File) -> None:
    """Else a file could write lines of its own into the log of the service that refuses it."""
    assert faults(file('[server]\n"a\\nserver: all is well" = 1\n'))[0].startswith(
        r'server."a\nserver: all is well": no such setting'
    )
