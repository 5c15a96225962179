"""How the command line fails: one line on stderr; exit 2 for a wrong setting or argument, 1 for everything else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from grpc_bearer import ConfigurationError

from .issuer.client import TokenRefusedError
from .issuer.keys import StateError
from .listener import ListenError
from .loading import SettingsError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with the line that says what is wrong."""
    try:
        yield
    except SettingsError as error:
        _fail(2, *error.lines)
    except ConfigurationError as error:
        _fail(2, str(error))
    except (ListenError, StateError, TokenRefusedError) as error:
        _fail(1, str(error))


def _fail(code: int, *lines: str) -> None:
    for line in lines:
        click.echo(f"grpc-bearer: {line}", err=True)
    sys.exit(code)
