"""Figures out of counts, and the rule that voids a run."""

from __future__ import annotations

import pytest

from benchmarks.stats import (
    Cost,
    Ratio,
    added_us,
    lost_in_noise,
    multiple_of_base,
    percentile,
    quotient,
    share_of_base,
    void_because,
)
from benchmarks.tail import unsteady


def costs(*us_per_call: float, calls: int = 1000) -> list[Cost]:
    return [Cost(calls, round(us * calls * 1000)) for us in us_per_call]


def test_a_share_is_the_median_of_the_ratios_of_each_round() -> None:
    # The second round was disturbed, for both servers alike: its ratio is as good as the others'.
    share = share_of_base(costs(100, 150, 100), costs(125, 187.5, 200))
    assert (share.low, share.median, share.high, share.rounds) == (0.65, 0.8, 0.8, 3)


def test_a_share_does_not_depend_on_how_many_calls_each_server_got() -> None:
    assert share_of_base(costs(100, calls=4000), costs(125, calls=1000)).median == 0.8


def test_a_multiple_is_a_share_turned_over() -> None:
    assert multiple_of_base(costs(20, 20), costs(30, 30)).median == 1.5


def test_what_is_added_is_a_difference_in_microseconds() -> None:
    assert added_us(costs(100, 110), costs(103, 113)).median == 3


def test_a_quotient_is_as_uncertain_as_the_quartiles_of_both_allow() -> None:
    assert quotient(Ratio(0.8, 0.7, 0.9, 7), Ratio(0.4, 0.35, 0.5, 5)) == Ratio(2.0, 1.4, 0.9 / 0.35, 5)


def test_a_round_without_a_call_is_an_error() -> None:
    with pytest.raises(ValueError, match="without a call"):
        share_of_base([Cost(0, 5)], costs(100))


def test_rounds_that_do_not_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        share_of_base(costs(100, 100), costs(100))


def test_a_difference_that_is_not_positive_in_a_quarter_of_the_rounds_is_noise() -> None:
    assert lost_in_noise("it", Ratio(2.0, 0.5, 4.0, 9)) == []
    assert lost_in_noise("it", Ratio(2.0, -0.1, 4.0, 9)) == ["it could not be told from noise"]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@pytest.mark.parametrize(
    ("medians", "void"),
    [
        ((0.97, 1.03), ()),
        ((1.0, 0.969), ("b",)),
        ((1.031, 1.0), ("a",)),
        ((0.9, 1.1), ("a", "b")),
    ],
)
def test_a_run_is_void_when_two_equal_servers_do_not_come_out_equal(
    medians: tuple[float, float], void: tuple[str, ...]
) -> None:
    reasons = void_because([(name, Ratio(median, 0.5, 1.5, 7)) for name, median in zip("ab", medians, strict=True)])
    assert tuple(reason[0] for reason in reasons) == void


def test_a_run_without_a_control_is_void() -> None:
    assert void_because([]) == ("no control was run",)


def test_a_tail_run_is_void_when_the_halves_of_the_healthy_time_differ() -> None:
    quiet = [1.0] * 98 + [4.0, 4.0]
    assert unsteady("sync", quiet + quiet) == []
    (reason,) = unsteady("sync", quiet + [1.0] * 98 + [7.0, 7.0])
    assert "4.00 ms" in reason
    assert "7.00 ms" in reason
