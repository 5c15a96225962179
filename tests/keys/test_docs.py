"""The operator's page says what the code does: every figure with its default, every status field, examples that run."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from grpc_bearer import CachePolicy, FetchOptions, Issuer, IssuerStatus

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "key-cache.md").read_text(encoding="utf-8")


def documented(heading: str) -> dict[str, Any]:
    """The figures of the table under a heading, with their defaults."""
    section = PAGE.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| .*\w", section, re.MULTILINE)
    return {name: ast.literal_eval(default) for name, default in rows}


@pytest.mark.parametrize("figures", [CachePolicy, FetchOptions])
def test_every_figure_stands_in_the_documentation_with_its_default(figures: type[CachePolicy | FetchOptions]) -> None:
    defaults = {spec.name: spec.default for spec in fields(figures)}
    assert MISSING not in defaults.values()
    assert documented(figures.__name__) == defaults


@pytest.mark.parametrize("name", [spec.name for spec in [*fields(CachePolicy), *fields(FetchOptions)]])
def test_every_figure_that_a_situation_turns_on_is_named_with_it(name: str) -> None:
    situations = PAGE.partition("## What happens when")[2].partition("\n## ")[0]
    connection = {"proxy", "ca_file", "token_file", "allow_insecure_http"}  # whom to talk to: no situation
    assert (f"`{name}`" in situations) == (name not in connection)


@pytest.mark.parametrize("name", [spec.name for spec in fields(IssuerStatus)])
def test_every_field_of_the_status_is_explained(name: str) -> None:
    assert re.search(rf"^\| `{name}` \| \w", PAGE, re.MULTILINE)


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_run() -> None:
    in_python, in_toml = examples("python"), examples("toml")
    assert (len(in_python), len(in_toml)) == (2, 1)
    for example in in_python:
        exec(compile(example, "docs/key-cache.md", "exec"), {})
    (issuer,) = tomllib.loads(in_toml[0])["issuers"]
    assert Issuer(**issuer | {"cache": CachePolicy(**issuer["cache"]), "fetch": FetchOptions(**issuer["fetch"])}).audiences
