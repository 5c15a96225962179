"""No setting comes from the environment that the tests were started in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grpc_bearer_server.issuer.keys import load_or_make
from grpc_bearer_server.settings import ENV_PREFIX


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without variables of ours; set them with `setenv`."""
    for variable in list(os.environ):
        if variable.upper().startswith(ENV_PREFIX):
            monkeypatch.delenv(variable)
    return monkeypatch


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of the embedded issuer with keys in it: to make these takes seconds on a busy machine."""
    folder = tmp_path_factory.mktemp("issuer") / "some" / "where"
    load_or_make(folder)
    return folder
