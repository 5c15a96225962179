"""Implementations of generated services."""

from typing import Final

SHUTTING_DOWN: Final = "the server is shutting down, call again"
