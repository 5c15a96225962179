"""Each way in which an issuer can be hostile or broken, against servers of both stacks over real sockets.

Callers whose key is known see nothing; trouble with the issuer is UNAVAILABLE to the others, never UNAUTHENTICATED; fetches and
memory are bounded; and all is well soon after the issuer is.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.hostile_issuer.hours import HOURS, fetches_in, table
from tests.hostile_issuer.running import faults, run
from tests.hostile_issuer.scenarios import SCENARIOS, Scenario
from tests.hostile_issuer.table import FIGURES, read, stated

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hostile-issuer.md"


@pytest.mark.parametrize("row", SCENARIOS, ids=lambda row: row.name)
async def test_callers_and_operator_see_what_the_table_says_when_the_issuer_is(row: Scenario) -> None:
    assert faults(row, await run(row)) == []


def test_the_page_has_each_row_as_it_is_and_figures_in_every_other_column() -> None:
    lines = read(PAGE.read_text(encoding="utf-8"))
    assert [{heading: cell for heading, cell in each.items() if heading not in FIGURES} for each in lines] == [
        stated(row) for row in SCENARIOS
    ]
    for each, row in zip(lines, SCENARIOS, strict=True):
        assert re.fullmatch(r"\d+ ms", each["its slowest call"])
        assert re.fullmatch(r"\d+ in \d+\.\d s", each["fetches"])
        assert re.fullmatch(r"\d+\.\d\d s", each["recovered after"])
        assert re.fullmatch(r"\d+\.\d MiB" if row.bomb else "–", each["extra memory"])


# By the default figures, on a clock that is counted up


def test_the_page_has_what_an_hour_costs_by_the_default_figures() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


def test_forged_kids_cost_no_fetch_more_while_fetches_fail_and_the_longest_pause_is_a_minute() -> None:
    quiet, flooded = (fetches_in(hour) for hour in HOURS if hour.name.startswith("each fetch fails at once"))
    first = quiet[0]  # the flood meets the trouble at once, the background when the keys are due
    assert [moment - first for moment in quiet] == flooded[: len(quiet)]
    assert max(after - before for before, after in pairwise(flooded)) == 60.0
