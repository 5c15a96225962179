"""The list of all settings: complete, true in its defaults, and each of its variables and keys sets what it says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from grpc_bearer_server.loading import Setting, SettingsError, listing, load
from grpc_bearer_server.settings import Address, ClaimRuleSettings, Settings

SECRET = "hunter2"
LISTED = {setting.key: setting for setting in listing()}
AN_ISSUER = {"issuers[0].issuer": "https://a.example", "issuers[0].audiences": "orders"}
A_RULE = {"rules[0].methods": "a.B/C"}
A_CLAIM_RULE = {"rules[0].claims[0].name": "department", "rules[0].claims[0].present": "true"}
SPECIAL = {
    "server.listen": "127.0.0.1:1",
    "server.log_level": "debug",
    "server.mode": "report",
    "server.public_methods": "/a.B/C,/d.E/F",
    "issuers[0].issuer": "https://other.example",
    "issuers[0].audiences": "billing,shipping",
    "issuers[0].algorithms": "ES256,PS256",
    "issuers[0].jwks_uri": "https://a.example/keys",
    "issuers[0].discovery": "https://a.example/metadata",
    "issuers[0].fetch.proxy": "http://proxy.example:3128",
    "issuers[0].cache.refresh_at": "0.5",
    "rules[0].methods": "a.B/D,a.B/*",
    "rules[0].access": "optional",
    "rules[0].streams": "finish",
    "rules[0].claims[0].name": "realm_access.roles",
    "metrics.listen": "127.0.0.1:1",
    "dev.listen": "127.0.0.1:1",
}
NAMES_THAT_ARE_TOLD = {"issuers[0].issuer", "issuers[0].algorithms", "rules[0].scopes", "rules[0].any_scopes"}
"""A line about them may quote them: they are public, they stand in tokens and metadata."""
REQUIRED = {"issuers[0].issuer", "rules[0].methods", "rules[0].claims[0].name"}
LATER = {"issuers[0].audiences", "server.public_methods", "rules[0].methods", "rules[0].claims[0].name"}
"""Any text is taken at first: what it names is looked for when the parts meet."""


def leaves(settings: BaseModel) -> dict[str, Any]:
    """Every value by its key, as the models have them and without the listing."""
    return dict(_leaves("", settings.model_dump()))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and set(value) == {"host", "port"}:
        yield key, str(Address(**value))
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _leaves(f"{key}.{name}" if key else name, member)
    elif isinstance(value, tuple) and value and isinstance(value[0], dict):
        for index, element in enumerate(value):
            yield from _leaves(f"{key}[{index}]", element)
    elif isinstance(value, tuple):
        yield key, list(value)
    else:
        yield key, str(value) if isinstance(value, Path) else value


def defaults() -> dict[str, Any]:
    """The leaves of settings with one issuer, one rule with a rule for a claim, and nothing else."""
    claim = ClaimRuleSettings(name="department")
    rule = {"methods": ["a.B/C"], "claims": [{"name": claim.name, "present": True}]}
    issuer = {"issuer": "https://a.example", "audiences": ["orders"]}
    of_claim = {f"rules[0].claims[0].{name}": value for name, value in leaves(claim).items()}  # alone it would be refused
    return leaves(Settings.model_validate({"issuers": [issuer], "rules": [rule]})) | of_claim


def another(setting: Setting) -> str:
    """A value that is right for the setting and not its default, as a variable has it."""
    if setting.key in SPECIAL:
        return SPECIAL[setting.key]
    if setting.default == "(none)":
        return "30" if setting.key.endswith("_s") else "some/file"
    default = tomllib.loads(f"x = {setting.default}")["x"]
    if isinstance(default, bool):
        return str(not default).lower()
    return str(default + 1) if isinstance(default, int | float) else f"{default}-other"


def with_what_it_needs(key: str, value: str) -> dict[str, str]:
    """The setting, and beside it those without which it would be refused."""
    values = AN_ISSUER | {key: value}
    if key.startswith("rules"):
        values = A_RULE | values
    if key.startswith("rules[0].claims"):
        values = A_CLAIM_RULE | values
    if key.startswith("server.tls."):
        values = {"server.tls.cert": "c", "server.tls.key": "k"} | values
    if key == "issuers[0].allow_any_audience":
        del values["issuers[0].audiences"]
    return values


def as_toml(values: dict[str, str]) -> str:
    """A settings file with the values where their keys say."""
    tables: dict[str, list[str]] = {}
    for key, value in sorted(values.items()):
        table, _dot, name = key.rpartition(".")
        tables.setdefault(table, []).append(f"{name} = {_written(LISTED[key], value)}")
    return "\n".join("\n".join([_header(table), *tables[table]]) for table in sorted(tables))


def _header(table: str) -> str:
    name = table.replace("[0]", "")
    return f"[[{name}]]" if table.endswith("[0]") else f"[{name}]"


def _written(setting: Setting, value: str) -> str:
    if setting.default.startswith("[") or setting.key == "rules[0].methods":
        return "[" + ", ".join(f'"{element}"' for element in value.split(",")) + "]"
    is_text = setting.default.startswith(('"', "(")) and not setting.key.endswith("_s")
    return f'"{value}"' if is_text else value


def lines_about(environment: pytest.MonkeyPatch, values: dict[str, str]) -> tuple[str, ...]:
    """What loading says is wrong with the values as variables."""
    for key, value in values.items():
        environment.setenv(LISTED[key].variable, value)
    try:
        load(None)
    except SettingsError as error:
        return error.lines
    return ()


def test_the_listing_has_every_leaf_of_the_models_once_and_in_order() -> None:
    assert [setting.key for setting in listing()] == list(defaults())
    assert len({setting.variable for setting in listing()}) == len(listing())
    assert all(setting.description for setting in listing())


@pytest.mark.parametrize("key", sorted(set(LISTED) - set(AN_ISSUER) - REQUIRED))
def test_a_default_of_the_listing_is_the_one_that_holds(key: str) -> None:
    written = LISTED[key].default
    assert defaults()[key] == (None if written == "(none)" else tomllib.loads(f"x = {written}")["x"])


def test_what_has_no_default_is_listed_as_required() -> None:
    assert {setting.key for setting in listing() if setting.default == "(required)"} == REQUIRED


@pytest.mark.parametrize("key", LISTED)
def test_a_setting_is_set_by_its_variable_and_at_its_place_in_the_file(
    key: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = defaults()
    values = with_what_it_needs(key, another(LISTED[key]))
    path = tmp_path / "settings.toml"
    path.write_text(as_toml(values))
    from_file = leaves(load(path))
    assert lines_about(environment, values) == ()
    assert leaves(load(None)) == from_file
    # Of a list of tables that has no element there is nothing in `before`.
    changed = {name for name, value in from_file.items() if value != before.get(name, value)}
    assert key in changed
    assert changed <= set(values) | {"issuers[0].audiences"}


@pytest.mark.parametrize("key", sorted(set(LISTED) - NAMES_THAT_ARE_TOLD))
def test_a_line_never_holds_the_value_that_is_wrong(key: str, environment: pytest.MonkeyPatch) -> None:
    lines = lines_about(environment, with_what_it_needs(key, f"{SECRET}\n{SECRET}"))
    takes_any_text = LISTED[key].default.startswith(('"', "[", "(")) and key not in SPECIAL and not key.endswith("_s")
    assert len(lines) == (0 if takes_any_text else 1) or key in LATER
    assert all(SECRET not in line and "\n" not in line for line in lines)
