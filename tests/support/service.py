"""The service as its users run it: a real process of `grpc-bearer serve`, on free ports of loopback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grpc_bearer_server.settings import ENV_PREFIX
from tests.support.jwks_server import JwksServer
from tests.support.processes import Process
from tests.support.tokens import AUDIENCE, ISSUER

COMMAND = (sys.executable, "-m", "grpc_bearer_server")
FREE_PORTS = {"GRPC_BEARER_SERVER__LISTEN": "127.0.0.1:0", "GRPC_BEARER_DEV__LISTEN": "127.0.0.1:0"}


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with these settings and no others."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)} | dict(variables)


def trusting(issuer: JwksServer, more: str = "") -> str:
    """A settings file's `[[issuers]]` for tokens of `tests.support.tokens` with the keys of this server."""
    return f'[[issuers]]\nissuer = "{ISSUER}"\naudiences = ["{AUDIENCE}"]\njwks_uri = "{issuer.jwks_uri}"\n{more}\n'


@dataclass(frozen=True)
class Service:
    """A running one. `target` is where it serves, `announced` the line that says so."""

    process: Process
    target: str
    announced: str


@contextmanager
def serving_process(folder: Path, *arguments: str, config: str | None = None, **variables: str) -> Iterator[Service]:
    """`grpc-bearer serve` in `folder`, with `config` as its settings file; `variables` without the prefix."""
    command = [*COMMAND, "serve", *arguments]
    if config is not None:
        path = folder / "settings.toml"
        path.write_text(config)
        command += ["--config", str(path)]
    settings = FREE_PORTS | {ENV_PREFIX + name: value for name, value in variables.items()}
    with Process(*command, env=environment_with(settings), cwd=folder) as process:
        announced = process.line("^serving on ")
        yield Service(process, announced.split()[2], announced)
