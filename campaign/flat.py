"""What "flat" means: the median of the last fifth of a run against that of its second fifth, when it has warmed up (pure)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from campaign.servers import Sample

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may be between the two: so much, or such a share of the earlier one, whichever is more."""

    absolute: float
    share: float


TOLERANCES: Final = {
    "resident": Tolerance(4 * _MIB, 0.05),
    "threads": Tolerance(4, 0.0),  # fetches have a thread of their own for as long as they last
    "files": Tolerance(8, 0.0),  # connections come and go
}


@dataclass(frozen=True, slots=True)
class Trend:
    """One figure's medians."""

    figure: str
    early: float
    late: float

    @property
    def is_flat(self) -> bool:
        """Whether it has grown no more than it may. Shrinking is no fault."""
        tolerance = TOLERANCES[self.figure]
        return self.late - self.early <= max(tolerance.absolute, tolerance.share * self.early)


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """One for each figure. Raises `ValueError` for fewer samples than make fifths."""
    if len(samples) < 5:
        raise ValueError("too short a run: take a sample each second for 5 s at least")
    fifth = len(samples) // 5
    early, late = samples[fifth : 2 * fifth], samples[-fifth:]
    return [
        Trend(name, *(statistics.median(getattr(one, name) for one in part) for part in (early, late))) for name in TOLERANCES
    ]
