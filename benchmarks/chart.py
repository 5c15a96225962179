"""The report as a picture: horizontal bars in plain SVG, a panel for each section (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from benchmarks.report import Line, Report

WIDTH = 980
_LABEL = 380
_BAR = 420
_ROW = 22
_HEAD = 40
_TOP = 64
_FOOT = 20

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 18px; font-weight: 600 }
  .section { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .ours { fill: #1a7f37 }
  .other { fill: #8c959f }
  .control { fill: #d0d7de }
  .spread { stroke: #1f2328; stroke-width: 1.5 }
  .goal { stroke: #bc4c00; stroke-width: 2; stroke-dasharray: 4 2 }
  .one { stroke: #d0d7de; stroke-width: 1 }
  .void { fill: #cf222e; font-weight: 600 }
"""


def _kind(line: Line) -> str:
    if line.control:
        return "control"
    return "ours" if line.name.startswith("ours") or "ours" in line.section.partition(":")[0] else "other"


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _bar(line: Line, y: int, scale: float) -> Iterator[str]:
    middle = y + _ROW / 2

    def x(value: float) -> float:
        return _LABEL + min(value / scale, 1.0) * _BAR

    yield f'<text x="{_LABEL - 10}" y="{middle + 4:g}" text-anchor="end">{escape(line.name)}</text>'
    yield (
        f'<rect class="{_kind(line)}" x="{_LABEL}" y="{y + 3}" width="{_number(x(line.ratio.median) - _LABEL)}"'
        f' height="{_ROW - 6}" rx="2"/>'
    )
    if line.ratio.rounds > 1:
        low, high = _number(x(line.ratio.low)), _number(x(line.ratio.high))
        yield f'<line class="spread" x1="{low}" x2="{high}" y1="{middle:g}" y2="{middle:g}"/>'
    if line.goal is not None:
        at = _number(x(line.goal.figure))
        yield f'<line class="goal" x1="{at}" x2="{at}" y1="{y + 1}" y2="{y + _ROW - 1}"/>'
    goal = "" if line.goal is None else f" · goal {line.goal}"
    yield f'<text x="{_LABEL + _BAR + 12}" y="{middle + 4:g}">{line.ratio.median:.3f}{escape(goal)}</text>'


def _panel(section: str, lines: Sequence[Line], y: int) -> Iterator[str]:
    scale = max(1.0, *(max(line.ratio.high, line.goal.figure if line.goal else 0) for line in lines)) * 1.02
    yield f'<text class="section" x="16" y="{y + 24}">{escape(section)}</text>'
    one = _number(_LABEL + _BAR / scale)
    top, bottom = y + _HEAD - 6, y + _HEAD + _ROW * len(lines)
    yield f'<line class="one" x1="{one}" x2="{one}" y1="{top}" y2="{bottom}"/>'
    for number, line in enumerate(lines):
        yield from _bar(line, y + _HEAD + number * _ROW, scale)


def svg(report: Report) -> str:
    """The picture. Green: ours. Dashes: the goal. The thin line in a bar: first to third quartile of the rounds."""
    panels = [(section, list(lines)) for section, lines in groupby(report.lines, key=lambda line: line.section)]
    body: list[str] = []
    y = _TOP
    for section, lines in panels:
        body += _panel(section, lines, y)
        y += _HEAD + _ROW * len(lines)
    height = y + _FOOT
    machine = "; ".join(f"{name} {value}" for name, value in list(report.machine.items())[:5])
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f"<title>{escape(report.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text class="title" x="16" y="30">{escape(report.title)}</text>',
        f'<text class="small" x="16" y="50">{escape(machine)}</text>',
    ]
    if report.void:
        head.append(f'<text class="void" x="{WIDTH - 16}" y="30" text-anchor="end">VOID: do not use</text>')
    return "\n".join([*head, *body, "</svg>"]) + "\n"
