"""The page of the campaign has the generator's figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversary.campaign import Result, groups_of
from tests.adversary.case import Group
from tests.adversary.report import table, verdicts
from tests.adversary.world import FETCHES_AT_MOST, World
from tests.support.serving import STACKS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "adversary.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return groups_of(World("http://127.0.0.1:9"))


def test_the_table_of_the_page_is_the_generators_to_the_letter(groups: list[Group]) -> None:
    assert f"\n\n{table(groups)}\n\n" in PAGE


def test_the_verdicts_of_the_page_are_those_that_test_campaign_holds(groups: list[Group]) -> None:
    calls = 4 * sum(len(group.cases) for group in groups)
    results = [Result(stack, groups, calls=calls, fetches=FETCHES_AT_MOST) for stack in STACKS]
    assert f"```\n{verdicts(results)}\n```" in PAGE
