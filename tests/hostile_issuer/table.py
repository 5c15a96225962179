"""The rows as Markdown: what has to be seen comes from the scenario, the figures from what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from tests.hostile_issuer.running import Measured
from tests.hostile_issuer.scenarios import FINE, Outcomes, Scenario

HEADINGS = (
    "the issuer",
    "a known key",
    "its slowest call",
    "a new key",
    "a service that starts now",
    "the status says",
    "fetches",
    "recovered after",
    "extra memory",
)
FIGURES = frozenset({"its slowest call", "fetches", "recovered after", "extra memory"})
"""Headings of the columns that differ from run to run."""


def _outcomes(outcomes: Outcomes) -> str:
    cells = []
    for outcome in outcomes:
        code, _, reason = outcome.partition(" ")
        cells.append("OK" if outcome == FINE else f"`{code}` (`{reason}`)")
    return " or ".join(cells)


def stated(row: Scenario) -> dict[str, str]:
    """The cells that are the same in each run, by heading."""
    says = " or ".join(f"`{text}`" if "`" not in text else text for text in row.says)
    return {
        "the issuer": row.name,
        "a known key": _outcomes(row.known),
        "a new key": _outcomes(row.new),
        "a service that starts now": _outcomes(row.starting),
        "the status says": says or "–",
    }


def _figures(measured: Measured) -> dict[str, str]:
    return {
        "its slowest call": f"{measured.slowest_s * 1000:.0f} ms",
        "fetches": f"{measured.fetches} in {measured.lasted_s:.1f} s",
        "recovered after": f"{measured.recovered_s:.2f} s",
        "extra memory": "–" if measured.extra_mib is None else f"{measured.extra_mib:.1f} MiB",
    }


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def head() -> str:
    """The table's first two lines."""
    return _line(HEADINGS) + _line("---" for _ in HEADINGS)


def line(row: Scenario, measured: Measured) -> str:
    """The table's line for a row."""
    cells = stated(row) | _figures(measured)
    return _line(cells[heading] for heading in HEADINGS)


def read(page: str) -> list[dict[str, str]]:
    """The lines of the table in a page, by heading."""
    start = page.index(head())
    lines = page[start + len(head()) :].partition("\n\n")[0].splitlines()
    return [dict(zip(HEADINGS, (cell.strip() for cell in each.strip("|").split(" | ")), strict=True)) for each in lines]
