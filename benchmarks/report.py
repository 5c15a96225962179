"""What a run found: lines with a ratio each, as one table and as JSON (pure, but for the writing of the file)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from benchmarks.stats import Ratio


@dataclass(frozen=True, slots=True)
class Goal:
    """What a ratio's median should be."""

    relation: Literal[">=", "<="]
    figure: float

    def met(self, ratio: Ratio) -> bool:
        """Whether it is."""
        return ratio.median >= self.figure if self.relation == ">=" else ratio.median <= self.figure

    def __str__(self) -> str:
        return f"{self.relation} {self.figure:g}"


@dataclass(frozen=True, slots=True)
class Line:
    """One ratio.

    `us`: microseconds behind it on the machine of the run, of CPU or, where the section says so, of latency. `control`: it
    has to come out as 1. `busy`: the share of the time in which the servers' core worked for the servers.
    """

    section: str
    name: str
    ratio: Ratio
    unit: str
    goal: Goal | None = None
    us: float | None = None
    control: bool = False
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One run. `void`: why its figures must not be used, empty when they may. `notes`: what was left out and why."""

    title: str
    machine: Mapping[str, str]
    lines: Sequence[Line]
    void: Sequence[str] = ()
    notes: Sequence[str] = ()


_HEADINGS = ("", "ratio", "quartiles", "", "us", "goal", "")


def _cells(line: Line) -> tuple[str, ...]:
    met = "" if line.goal is None else ("met" if line.goal.met(line.ratio) else "MISSED")
    return (
        f"  {line.name}",
        f"{line.ratio.median:.3f}",
        "" if line.ratio.rounds == 1 else f"{line.ratio.low:.3f} .. {line.ratio.high:.3f}",
        line.unit,
        "" if line.us is None else f"{line.us:.1f}",
        "" if line.goal is None else str(line.goal),
        met,
    )


_RIGHT = frozenset({1, 4})


def table(report: Report) -> str:
    """The report for a terminal: the machine, one table, and whether it counts."""
    rows = [_cells(line) for line in report.lines]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]

    def row(cells: Sequence[str]) -> str:
        aligned = (
            cell.rjust(w) if n in _RIGHT else cell.ljust(w) for n, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    text = [report.title, "", *(f"{name}: {value}" for name, value in report.machine.items()), "", row(_HEADINGS)]
    section = None
    for line, cells in zip(report.lines, rows, strict=True):
        if line.section != section:
            section = line.section
            text += ["", section]
        text.append(row(cells))
    text += ["", *(f"note: {note}" for note in report.notes)]
    text += [f"VOID: {reason}" for reason in report.void]
    if report.void:
        text.append("VOID: the machine was too busy or too uneven; do not use these figures, run it again on a machine at rest")
    return "\n".join(text).rstrip()


def as_json(report: Report) -> str:
    """The report for a program; `met` beside each goal."""
    members = asdict(report)
    for line, written in zip(report.lines, members["lines"], strict=True):
        if line.goal is not None:
            written["goal"]["met"] = line.goal.met(line.ratio)
    return json.dumps(members, indent=1, ensure_ascii=False) + "\n"


def write(report: Report, name: str, folder: Path) -> Path:
    """Write the JSON of a report as `name`.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(as_json(report), encoding="utf-8")
    return path
