"""Flat is what grows no more than its tolerance between the second and the last fifth of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from campaign.flat import trends
from campaign.servers import Sample

MIB = 1024 * 1024
STEADY = Sample(resident=100 * MIB, threads=10, files=20)


def growing(figure: str, by: int) -> list[Sample]:
    """Fifty samples that rise by so much in each fifth."""
    return [replace(STEADY, **{figure: getattr(STEADY, figure) + number // 10 * by}) for number in range(50)]


def not_flat(samples: list[Sample]) -> set[str]:
    return {trend.figure for trend in trends(samples) if not trend.is_flat}


def test_what_stays_is_flat() -> None:
    assert not_flat([STEADY] * 50) == set()


@pytest.mark.parametrize(("figure", "by"), [("resident", 2 * MIB), ("threads", 2), ("files", 3)])
def test_what_keeps_growing_is_not_flat_and_is_named(figure: str, by: int) -> None:
    assert not_flat(growing(figure, by)) == {figure}


def test_what_shrinks_is_flat() -> None:
    assert not_flat(growing("resident", -2 * MIB)) == set()


def test_the_warm_up_does_not_count() -> None:
    assert not_flat([Sample(1, 1, 1)] * 10 + [STEADY] * 40) == set()


def test_a_spike_does_not_count() -> None:
    assert not_flat([*[STEADY] * 49, Sample(1000 * MIB, 1000, 1000)]) == set()


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="too short a run"):
        trends([STEADY] * 4)
