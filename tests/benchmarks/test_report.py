"""What a run found, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import platform
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.chart import svg
from benchmarks.report import Goal, Line, Report, as_json, table
from benchmarks.rows import against_the_tutorial, rows
from benchmarks.stats import Ratio

CONTROL = Line("sync: <calls>", "control", Ratio(1.0, 0.99, 1.01, 7), "of bare", us=100.0, control=True)
HIT = Line("sync: <calls>", "ours, hit", Ratio(0.975, 0.97, 0.98, 7), "of bare", Goal(">=", 0.97), 102.5)
VERIFY = Line("RS256", "ours", Ratio.single(1.61), "x raw", Goal("<=", 1.5), 30.0)
REPORT = Report("A title", {"processor": "a processor", "cores": "2"}, [CONTROL, HIT, VERIFY], notes=["a note"])


def test_the_table_has_a_line_for_each_ratio_under_its_section() -> None:
    lines = [" ".join(line.split()) for line in table(REPORT).splitlines()]
    assert lines == [
        "A title",
        "",
        "processor: a processor",
        "cores: 2",
        "",
        "ratio quartiles us goal",
        "",
        "sync: <calls>",
        "control 1.000 0.990 .. 1.010 of bare 100.0",
        "ours, hit 0.975 0.970 .. 0.980 of bare 102.5 >= 0.97 met",
        "",
        "RS256",
        "ours 1.610 x raw 30.0 <= 1.5 MISSED",
        "",
        "note: a note",
    ]


def test_a_void_run_says_so_in_the_table_and_in_the_picture() -> None:
    void = replace(REPORT, void=["sync: 0.900"])
    assert "VOID: sync: 0.900" in table(void)
    assert "do not use" in table(void).splitlines()[-1]
    assert "VOID" in svg(void)
    assert "VOID" not in table(REPORT) + svg(REPORT)


def test_the_json_has_every_figure_and_says_which_goals_are_met() -> None:
    written = json.loads(as_json(REPORT))
    assert written["machine"] == REPORT.machine
    assert [line["ratio"]["median"] for line in written["lines"]] == [1.0, 0.975, 1.61]
    assert [line["goal"] for line in written["lines"]] == [
        None,
        {"relation": ">=", "figure": 0.97, "met": True},
        {"relation": "<=", "figure": 1.5, "met": False},
    ]


def test_the_picture_has_a_bar_for_each_line_as_long_as_its_ratio() -> None:
    picture = ET.fromstring(svg(REPORT))
    bars = [element for element in picture.iter("{http://www.w3.org/2000/svg}rect") if element.get("class")]
    assert [bar.get("class") for bar in bars] == ["control", "ours", "ours"]
    control, hit = (float(bar.get("width", "nan")) for bar in bars[:2])
    assert hit / control == pytest.approx(0.975, abs=0.001)
    assert "sync: <calls>" in [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]


def test_ours_against_the_tutorial_follows_from_two_lines_of_the_same_section() -> None:
    sections = {row.section: row for row in rows() if row.pair.variant == "tutorial"}
    assert len(sections) >= 2
    measured = [
        Line(row.section, row.name, Ratio.single(0.9 if row.pair.variant == "ours" else 0.3), "of bare")
        for row in rows()
        if row.section in sections and row.pair.tokens == "fresh"
    ]
    derived = against_the_tutorial(measured)
    assert [line.ratio.median for line in derived] == [pytest.approx(3.0)] * len(sections)
    assert [line.goal for line in derived][:2] == [Goal(">=", 2.4), Goal(">=", 1.4)]


def test_no_two_rows_of_the_table_have_the_same_name() -> None:
    names = [(row.section, row.name) for row in rows()]
    assert len(names) == len(set(names))


def test_every_stack_has_a_control() -> None:
    assert {row.pair.stack for row in rows() if row.control} == {row.pair.stack for row in rows()}


def test_the_description_of_the_machine_names_no_host_and_no_path() -> None:
    described = machine.describe()
    assert {"processor", "cores", "Python", "grpcio", "cryptography", "PyJWT"} <= set(described)
    text = "\n".join(described.values())
    assert platform.node() not in text
    assert str(Path.home()) not in text
    assert "/" not in text


@pytest.mark.parametrize(
    ("goal", "median", "met"),
    [
        (Goal(">=", 0.97), 0.97, True),
        (Goal(">=", 0.97), 0.969, False),
        (Goal("<=", 1.5), 1.5, True),
        (Goal("<=", 1.5), 1.51, False),
    ],
)
def test_a_goal_is_met_up_to_its_figure(goal: Goal, median: float, met: bool) -> None:
    assert goal.met(Ratio.single(median)) is met
