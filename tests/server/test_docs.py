"""The operator's page says what the code does: every setting with its variable and default, and a file that can be used."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grpc_bearer_server.assembly import policies_of
from grpc_bearer_server.loading import listing, load
from grpc_bearer_server.settings import Settings, variable_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.partition("\n```toml\n")[2].partition("```")[0]


def test_the_table_has_every_setting_with_its_variable_and_default() -> None:
    table = PAGE.partition("\n## Every setting\n")[2]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (?:`([^`]+)`|(\([a-z]+\))) \| \S.* \|$", table, re.MULTILINE)
    documented = [(key, variable, default or none) for key, variable, default, none in rows]
    assert documented == [(setting.key, setting.variable, setting.default) for setting in listing()]


def test_the_example_file_is_one_that_loads_and_that_the_service_can_use(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(EXAMPLE)
    settings = load(path)
    assert settings.server.tls.client_ca == Path("/etc/grpc-bearer/clients.crt")
    assert [issuer.issuer for issuer in settings.issuers] == ["https://issuer.example"]
    assert policies_of(settings).for_method("/grpc_bearer.v1.IdentityService/WhoAmI").source == "rules[0]"
    own = {"issuers": [{"issuer": "https://issuer.example", "audiences": ["orders"]}], "rules": [{"methods": ["a.B/C"]}]}
    defaults = Settings.model_validate(own)
    methods = settings.rules[0].methods  # what an operator has to say, as
    server = defaults.server.model_copy(update={"listen": settings.server.listen, "tls": settings.server.tls})  # and this
    rule = defaults.rules[0].model_copy(update={"methods": methods})
    assert settings == defaults.model_copy(update={"server": server, "rules": (rule,)})


def test_the_example_file_has_every_setting_those_that_exclude_each_other_as_comments() -> None:
    whole = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", EXAMPLE, flags=re.MULTILINE))
    assert sorted(keys_of(whole)) == sorted(setting.key for setting in listing())


def keys_of(value: Any, key: str = "") -> Iterator[str]:
    """The places of all values in a settings file."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from keys_of(member, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        (element,) = value
        yield from keys_of(element, f"{key}[0]")
    else:
        yield key


def test_the_variables_of_the_page_are_those_of_settings() -> None:
    known = {re.sub(r"__0__", "__N__", setting.variable) for setting in listing()}
    named = set(re.findall(r"\bGRPC_BEARER_\w+(?==)", PAGE))
    assert named
    assert {re.sub(r"__\d+__", "__N__", name) for name in named} <= known
    assert variable_of(["server", "listen"]) in named


def test_a_link_of_the_page_leads_to_a_page() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (Path(__file__).resolve().parents[2] / "docs" / link).exists()] == []
