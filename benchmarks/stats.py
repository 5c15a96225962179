"""From counts and CPU times to ratios, and the rule that voids a run (pure)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

CONTROL_LOW = 0.97
CONTROL_HIGH = 1.03


@dataclass(frozen=True, slots=True)
class Cost:
    """What one server did in one round: calls answered, and nanoseconds of CPU that they took."""

    calls: int
    cpu_ns: int

    @property
    def us_per_call(self) -> float:
        """Microseconds of CPU a call. Raises `ValueError` when there was no call."""
        if self.calls <= 0:
            raise ValueError("a round without a call: make it longer")
        return self.cpu_ns / self.calls / 1000


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, with the first and the third quartile for how far they lie apart."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def single(cls, value: float) -> Self:
        """A figure that was taken once."""
        return cls(value, value, value, 1)

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Self:
        """Raises `ValueError` when there is none."""
        if not ratios:
            raise ValueError("no rounds")
        if len(ratios) == 1:
            return cls.single(ratios[0])
        low, _median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(statistics.median(ratios), low, high, len(ratios))


def share_of_base(base: Sequence[Cost], variant: Sequence[Cost]) -> Ratio:
    """How many calls the variant answers with the CPU time that the base needs for one; round by round, then the median.

    On one saturated core this is the share of the base's requests a second.
    """
    return Ratio.of([one.us_per_call / other.us_per_call for one, other in zip(base, variant, strict=True)])


def multiple_of_base(base: Sequence[Cost], variant: Sequence[Cost]) -> Ratio:
    """How many times the base's CPU time a call of the variant takes; round by round, then the median."""
    return share_of_base(variant, base)


def added_us(base: Sequence[Cost], variant: Sequence[Cost]) -> Ratio:
    """Microseconds of CPU that the variant adds to a call of the base; round by round, then the median."""
    return Ratio.of([other.us_per_call - one.us_per_call for one, other in zip(base, variant, strict=True)])


def quotient(above: Ratio, below: Ratio) -> Ratio:
    """A ratio of two medians, with the widest bounds that their quartiles allow."""
    return Ratio(above.median / below.median, above.low / below.high, above.high / below.low, min(above.rounds, below.rounds))


def lost_in_noise(what: str, difference: Ratio) -> list[str]:
    """Why a difference must not be divided by: in a quarter of the rounds or more it was not even positive."""
    return [f"{what} could not be told from noise"] if difference.low <= 0 else []


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all values do not exceed. Raises `ValueError` when there is none."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def void_because(controls: Sequence[tuple[str, Ratio]]) -> tuple[str, ...]:
    """Why a run must not be used: every control whose two equal servers did not come out equal. A run without one is void."""
    if not controls:
        return ("no control was run",)
    return tuple(
        f"{name}: base against base came out as {ratio.median:.3f}, outside {CONTROL_LOW} to {CONTROL_HIGH}"
        for name, ratio in controls
        if not CONTROL_LOW <= ratio.median <= CONTROL_HIGH
    )
