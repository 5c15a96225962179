"""What counts as growth, and that every figure that is judged is recorded."""

from __future__ import annotations

import json

from benchmarks.instructions import _SIGNATURE, _YARDSTICK, RECORDED, SECTIONS, growth

BEFORE = {"hit, sync": 1_000, _YARDSTICK: 10_000, _SIGNATURE: 5_000}


def test_five_per_cent_more_is_growth_and_less_is_not() -> None:
    assert growth(BEFORE | {"hit, sync": 1_050}, BEFORE) == []
    (line,) = growth(BEFORE | {"hit, sync": 1_051}, BEFORE)
    assert line.startswith("hit, sync: 1,051 instructions a call, recorded 1,000")
    assert growth(BEFORE | {"hit, sync": 10}, BEFORE) == []


def test_an_interpreter_that_needs_more_for_everything_is_no_growth() -> None:
    assert growth({"hit, sync": 1_190, _YARDSTICK: 12_000, _SIGNATURE: 5_000}, BEFORE) == []
    assert len(growth({"hit, sync": 1_190, _YARDSTICK: 11_000, _SIGNATURE: 5_000}, BEFORE)) == 1


def test_another_signature_is_no_growth_of_ours() -> None:
    assert growth(BEFORE | {_SIGNATURE: 50_000}, BEFORE) == []


def test_what_was_never_recorded_counts_as_growth() -> None:
    (line,) = growth(BEFORE | {"miss, sync": 1}, BEFORE)
    assert line.startswith("miss, sync: 1 instructions")


def test_every_section_is_recorded() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert set(recorded["calls"]) == {section.name for section in SECTIONS} | {_YARDSTICK, _SIGNATURE}
    assert recorded["environment"]["Python"]
