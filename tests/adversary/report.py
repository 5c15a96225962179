"""The campaign as tables: cases by class for the documentation, verdicts for the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.adversary.campaign import Result
from tests.adversary.case import Case, Group

_HEAD = "| class | cases | what is answered | where they come from |\n|---|---|---|---|"


def answered(cases: Iterable[Case]) -> str:
    """The verdicts that are expected, with how many of each."""
    counts = Counter("accepted, on purpose" if case.reason is None else f"`{case.reason}`" for case in cases)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def sources(cases: Iterable[Case]) -> str:
    """RFCs with their sections, then CVEs."""
    names = sorted({case.source for case in cases}, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    rfcs: dict[str, list[str]] = {}
    for rfc, _, section in (name.partition(" ")[2].partition(" ") for name in names if name.startswith("RFC")):
        rfcs.setdefault(rfc, []).append(section)
    return ", ".join(
        [*(f"RFC {rfc} {' '.join(each)}" for rfc, each in rfcs.items()), *(n for n in names if n.startswith("CVE"))]
    )


def table(groups: Sequence[Group]) -> str:
    """Markdown: a row for each class, and their sum."""
    rows = [f"| {group.name} | {len(group.cases)} | {answered(group)} | {sources(group)} |" for group in groups]
    every = [case for group in groups for case in group]
    return "\n".join([_HEAD, *rows, f"| all | {len(every)} | {answered(every)} | |"])


def verdicts(results: Iterable[Result]) -> str:
    """Plain text: what each stack made of it."""
    lines = []
    for result in results:
        counts = {
            "cases": sum(len(group.cases) for group in result.groups),
            "calls": result.calls,
            "wrong verdicts": len(result.wrong),
            "fetches of the JWK Set": result.fetches,
            "requests to embedded URLs": result.asked,
            "leaks into the log": len(result.leaks),
        }
        lines.append(f"{result.stack}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}")
        lines += [f"  {each}"[:500] for each in (*result.wrong, *result.leaks)]
    return "\n".join(lines)
