"""Waiting for what another thread will do: no longer than it takes, and no shorter than a loaded machine needs."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 20.0


def eventually(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
    """Whether `condition` came true in time."""
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
