"""docs/security.md promises nothing that no test holds, and neither it nor SECURITY.md points at what is not there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "security.md"
POLICY: Final = ROOT / "SECURITY.md"
PAGES: Final = (PAGE, POLICY)
_REFERENCE: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def promises() -> list[str]:
    """Each promise with all that stands below it."""
    section = text(PAGE).partition("\n## What is promised\n")[2].partition("\n## ")[0]
    without_headings = re.sub(r"^### .*$", "", section, flags=re.MULTILINE)
    return re.split(r"^- ", without_headings, flags=re.MULTILINE)[1:]


def references() -> list[tuple[str, str]]:
    return sorted({match for page in PAGES for match in _REFERENCE.findall(text(page))})


@cache
def defined_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def links(page: Path) -> Iterator[str]:
    """Where it leads to on this site."""
    return (link for link in _LINK.findall(text(page)) if "://" not in link)


def anchors(page: Path) -> set[str]:
    """What its headings are called in links, as the hosting platforms make it of them."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("promise", promises(), ids=lambda promise: promise[:60].replace("\n", " "))
def test_a_promise_names_a_test_that_holds_it(promise: str) -> None:
    said, *held_by = promise.rstrip().split("\n  - ")
    assert said.endswith(".")
    assert "\n" not in said
    assert held_by
    assert [line for line in held_by if not _REFERENCE.fullmatch(line)] == []


def test_every_section_has_its_promises() -> None:
    section = text(PAGE).partition("\n## What is promised\n")[2].partition("\n## ")[0]
    counts = [part.count("\n- ") for part in section.split("\n### ")[1:]]
    assert len(counts) == 5
    assert all(counts)
    assert sum(counts) == len(promises())


@pytest.mark.parametrize(("path", "name"), references(), ids=lambda part: part)
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert (ROOT / path).is_file()
    assert name in defined_in(path)


def test_a_reference_that_is_spelled_otherwise_would_not_be_passed_over() -> None:
    for page in PAGES:
        assert len(re.findall("::test_", text(page))) == len(_REFERENCE.findall(text(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_page_and_to_a_heading_of_it(page: Path) -> None:
    found = list(links(page))
    assert found
    for link in found:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_what_was_tried_is_repeated_by_targets_and_modules_that_are_there() -> None:
    tried = text(PAGE).partition("\n## What was tried\n")[2].partition("\n## ")[0]
    makefile = text(ROOT / "Makefile")
    targets = re.findall(r"`make ([a-z-]+)`", tried)
    modules = re.findall(r"`\.venv/bin/python -m ([\w.]+)`", tried)
    assert {"audit", "sbom"} <= set(targets)
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    assert [name for name in modules if not (ROOT / name.replace(".", "/") / "__main__.py").is_file()] == []


def test_the_figures_are_those_of_the_pages_that_they_come_from() -> None:
    adversary, issuer = text(ROOT / "docs" / "adversary.md"), text(ROOT / "docs" / "hostile-issuer.md")
    totals = re.findall(r"^\w+: ([\d,]+) cases, ([\d,]+) calls, 0 wrong verdicts", adversary, re.MULTILINE)
    (cases,) = {cases for cases, _calls in totals}
    calls = sum(int(calls.replace(",", "")) for _cases, calls in totals)
    rows = issuer.partition("\n## The table\n")[2].partition("\n## ")[0].count("\n| ") - 2  # its heading and the line below it
    assert f"{cases} cases, {calls:,} calls on both stacks, 0 wrong verdicts" in text(PAGE)
    assert f"{rows} ways" in text(PAGE)


def test_nothing_is_reported_to_an_address_that_nobody_reads() -> None:
    assert re.findall(r"[\w.+-]+@[\w-]+\.\w+|mailto:", text(POLICY)) == []
    assert "private vulnerability reporting" in text(POLICY)
