"""A clock that stands still until a test moves it: the test kit's."""

from __future__ import annotations

from grpc_bearer.testing.clock import Clock

__all__ = ["Clock"]
