"""Any file and any environment: settings that keep their promises, or lines that say what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer import Access, Authenticator, Policies
from grpc_bearer_server.loading import SettingsError, listing, parse
from grpc_bearer_server.settings import ENV_PREFIX, Address, Settings
from tests.support.fuzzing import cases

SECRET: Final = "s3cr3t-of-somebody"
NUMBERS: Final = ["0", "1", "-1", "0.5", "1e3", "1e400", "nan", "inf", "-0.0", "9" * 30, "true", "31536001"]
TEXTS: Final = [
    "",
    "x",
    SECRET,
    "https://a.example",
    "http://a.example",
    "http://127.0.0.1:1/keys",
    "127.0.0.1:0",
    "0.0.0.0:1",
    "[::1]:1",
    "enforce",
    "report",
    "public",
    "deny",
    "finish",
    "RS256",
    "none",
    "orders, billing",
    "/a.B/C",
    "a.B/*",
    "\x00",
    "\u00e9",
]
scalars = (
    st.sampled_from(NUMBERS) | st.sampled_from([f'"{text}"' for text in TEXTS if text.isprintable()]) | st.integers().map(str)
)
toml_values = (
    scalars
    | st.lists(scalars, max_size=2).map(lambda elements: f"[{', '.join(elements)}]")
    | st.sampled_from(["{}", "{ a = 1 }", "[[]]", "1979-05-27"])
)

TYPICAL: Final = {
    "listen": ['"127.0.0.1:0"', '"0.0.0.0:1"', '"[::]:1"', '"issuer.example:1"'],
    "allow_plaintext": ["true", "false"],
    "cert": ['"c.pem"'],
    "key": ['"k.pem"'],
    "issuer": ['"https://a.example"', '"https://b.example"'],
    "audiences": ['["orders"]', "[]"],
    "allow_any_audience": ["true"],
    "algorithms": ['["RS256"]', '["none"]', '["HS256", "RS256"]', '["EdDSA"]'],
    "methods": ['["a.B/C"]', '["a.B/*"]'],
    "access": ['"public"', '"deny"', '"authenticated"'],
    "scopes": ['["a"]', '["a b"]'],
    "drain_s": ["0", "nan", "inf", "-1"],
    "keepalive_s": ["1", "inf", "0"],
}
"""Values that a setting of this name is likely to be given, right ones and wrong ones."""


def values_of(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(TYPICAL[name] * 8 + ["1", '"x"']) if name in TYPICAL else toml_values


NAMES: Final = [setting.key for setting in listing()]
TABLES: Final = sorted({name.rpartition(".")[0] for name in NAMES} | {""})


@st.composite
def files(draw: st.DrawFn) -> str:
    """TOML that is a settings file by its names and often by its values."""
    lines = []
    for table in draw(st.lists(st.sampled_from([*TABLES, "server"]), max_size=2, unique=True)):
        known = [name.rpartition(".")[2] for name in NAMES if name.rpartition(".")[0] == table]
        is_list = "[" in table or table in ("issuers", "rules")
        plain = table.replace("[0]", "").replace("[]", "")
        lines += [f"[[{plain}]]" if is_list else f"[{plain}]"] if plain else []
        likely = [name for name in known if name in TYPICAL]
        names = st.sampled_from(likely) if likely else st.nothing()
        for name in draw(
            st.lists(names | names | names | st.sampled_from([*known, "unknown", '"two\\nlines"']), max_size=3, unique=True)
        ):
            lines.append(f"{name} = {draw(values_of(name))}")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"] * 8 + ["\n[", '\nx = "', "\nserver = 1"]))


def lines_of(table: str, *names: str) -> st.SearchStrategy[str]:
    """A table with some of these settings, each with a value that is likely."""
    members = st.fixed_dictionaries({}, optional={name: st.sampled_from(TYPICAL[name]) for name in names})
    return members.map(lambda values: "\n".join([table, *(f"{name} = {value}" for name, value in values.items())]))


likely_files = st.tuples(
    lines_of("[server]", "listen", "allow_plaintext"),
    lines_of("[server.tls]", "cert", "key") | st.just(""),
    lines_of("[[issuers]]", "issuer", "audiences", "allow_any_audience", "algorithms") | st.just(""),
    lines_of("[[rules]]", "methods", "access", "scopes") | st.just(""),
    lines_of("[dev]", "listen") | st.just(""),
).map("\n".join)


def read(content: bytes, variables: dict[str, str] | None = None) -> Settings | None:
    """The settings, None where they are refused with lines that are fit for a terminal. Whatever else is raised comes out."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
            environment.delenv(name)
        for name, value in (variables or {}).items():
            environment.setenv(name, value)
        try:
            return parse(content, None)
        except SettingsError as error:
            lines = error.lines
    assert lines
    assert all(line.strip() and "\n" not in line for line in lines)
    assert not any(SECRET in line for line in lines if "no such setting" not in line and "not TOML" not in line)
    return None


def assert_promises_are_kept(settings: Settings) -> None:
    """What the service relies on from here on, whatever was written."""
    server = settings.server
    assert server.listen.is_loopback or server.tls.cert is not None or server.allow_plaintext
    assert settings.dev.listen.is_loopback
    assert (server.tls.cert is None) == (server.tls.key is None)
    assert 0 < server.keepalive_s < float("inf")
    assert 0 <= server.drain_s <= 3600
    for issuer in settings.issuers:
        assert issuer.audiences or issuer.allow_any_audience
        assert not any(name.startswith("HS") or name == "none" for name in issuer.algorithms)
        assert issuer.to_issuer().issuer == issuer.issuer
    for rule in settings.rules:
        policy = rule.to_rule().policy
        assert policy.access is Access.AUTHENTICATED or not policy.requirements()


def test_any_file_becomes_settings_that_keep_their_promises_or_lines_that_say_why_not() -> None:
    verdicts: Counter[bool] = Counter()

    @cases(400)
    @given(files() | likely_files)
    def read_one(content: str) -> None:
        settings = read(content.encode())
        verdicts[settings is not None] += 1
        if settings is not None:
            assert_promises_are_kept(settings)

    read_one()
    assert min(verdicts[True], verdicts[False]) >= 50  # else the above would say nothing


@cases(150)
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_octets_become_settings_or_lines_that_say_why_not(content: bytes) -> None:
    settings = read(content)
    if settings is not None:
        assert_promises_are_kept(settings)


VARIABLES: Final = [setting.variable for setting in listing()]
values_of_variables = st.sampled_from([*TEXTS[:-2], *NUMBERS, "a,b,,", "[]", "{}", '["x"]', "None"]) | st.text(
    st.characters(exclude_characters="\0", codec="utf-8"), max_size=8
)
odd_names = st.sampled_from(
    [
        "GRPC_BEARER_",
        "GRPC_BEARER___",
        "GRPC_BEARER_SERVER",
        "GRPC_BEARER_ISSUERS__X__ISSUER",
        "GRPC_BEARER_ISSUERS__00__ISSUER",
        "grpc_bearer_server__listen",
        "GRPC_BEARER_SERVER__LISTEN__HOST",
    ]
)


@cases(300)
@given(st.dictionaries(st.sampled_from(VARIABLES) | odd_names, values_of_variables, max_size=5), st.booleans())
def test_any_environment_becomes_settings_that_keep_their_promises_or_lines_that_say_why_not(
    variables: dict[str, str], over_a_file: bool
) -> None:
    content = b'[[issuers]]\nissuer = "https://a.example"\naudiences = ["orders"]\n' if over_a_file else b""
    settings = read(content, variables)
    if settings is not None:
        assert_promises_are_kept(settings)


@cases(300)
@given(st.text(max_size=12) | st.from_regex(r"(\[[0-9a-f:.]{0,6}\]|[a-z0-9.]{0,5}):[0-9]{0,6}", fullmatch=True))
def test_an_address_that_is_read_is_written_back_to_the_same(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address
    assert 0 <= address.port <= 65_535
    assert str(address) == text or text.rpartition(":")[2].startswith("0") or "[" in text


def test_the_defaults_are_among_what_keeps_the_promises() -> None:
    settings: Any = read(b"")
    assert_promises_are_kept(settings)
    with pytest.raises(ValueError, match="issuers: empty"):
        Authenticator([issuer.to_issuer() for issuer in settings.issuers], policies=Policies())
