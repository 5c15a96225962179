"""One fetch from a source, carried out as the background thread does it: the attempt is given up on at its end."""

from __future__ import annotations

import pytest

from grpc_bearer.errors import FetchError
from grpc_bearer.keys.source import Attempt, FetchedKeys, KeySource


def fetch(source: KeySource, timeout_s: float = 20.0) -> FetchedKeys:
    """What the source brings. Raises what it raises."""
    attempt = Attempt(timeout_s)
    try:
        return source(attempt)
    finally:
        attempt.abandon()


def fetch_error(source: KeySource, timeout_s: float = 20.0) -> FetchError:
    """How the fetch fails; it has to."""
    with pytest.raises(FetchError) as caught:
        fetch(source, timeout_s)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a library's exception hangs on to it"
    return caught.value
