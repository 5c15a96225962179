"""No setting comes from the environment that the tests were started in."""

from __future__ import annotations

import os

import pytest

from grpc_bearer_server.settings import ENV_PREFIX


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without variables of ours; set them with `setenv`."""
    for variable in list(os.environ):
        if variable.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(variable)
    return monkeypatch
