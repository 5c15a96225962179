"""The page has a row for every attack on every server, and no good call that failed."""

from __future__ import annotations

import re
from pathlib import Path

from campaign.attacks import ATTACKS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "hostile-client.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """The cells of the table of attacks."""
    lines = [line for line in PAGE.splitlines() if re.match(r"\| (service|library) \|", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_every_attack_on_every_server_in_the_order_of_the_campaign() -> None:
    measured = [(server, attack.name) for server in ("service", "library") for attack in ATTACKS if server in attack.servers]
    assert [(row[0], row[1]) for row in rows()] == measured


def test_every_good_call_of_the_table_has_succeeded() -> None:
    assert {row[4] for row in rows()} == {"100 %"}


def test_the_fetches_of_the_table_are_within_two_in_a_cooldown_and_one_of_the_background() -> None:
    assert max(int(row[9]) for row in rows()) <= 3


def test_the_page_shows_the_picture_of_the_long_run_which_is_small_enough_to_keep() -> None:
    (name,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    picture = (DOCS / name).read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) < 100_000


def test_the_links_of_the_page_lead_to_pages() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []
