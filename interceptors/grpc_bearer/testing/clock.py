"""A clock that stands still until a test moves it."""

from __future__ import annotations


class Clock:
    """Pass it where a clock is taken; `advance` moves it on. Starts at `now`, in seconds."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
