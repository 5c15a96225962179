"""The harness, for real and short: that it measures what it says, and takes no wrong answer for a fast one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.stage import Pair, Stage, Timing, measure, set_up
from benchmarks.stats import share_of_base

SHORT = Timing(rounds=2, seconds=0.2, warmup_s=0.2)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with set_up(SHORT) as stage:
        yield stage


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_a_pair_of_servers_is_loaded_and_paid_for(stage: Stage, stack: str) -> None:
    base, variant, busy = measure(stage, Pair(stack, "ours", tokens="fresh"))  # type: ignore[arg-type]
    assert len(base) == len(variant) == SHORT.rounds
    assert all(cost.calls > 0 and cost.cpu_ns > 0 for cost in (*base, *variant))
    assert 0 < share_of_base(base, variant).median < 3
    assert 0 < busy < 3


def test_a_server_that_refuses_is_not_taken_for_a_fast_one(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="UNAUTHENTICATED"):
        measure(stage, Pair("aio", "ours", tokens="none"))


def test_a_server_that_lets_a_forged_token_in_fails_the_run(stage: Stage) -> None:
    with pytest.raises(AssertionError, match="a call ended with OK"):
        measure(stage, Pair("aio", "noop", tokens="cycle", pool="forged", refused=True))
