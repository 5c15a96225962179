"""Settings for generated cases: the same ones in every run, on a machine of whatever speed."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def cases(count: int) -> settings:
    """`count` generated cases. To search further than the suite does, raise `count` and take `derandomize` out."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
