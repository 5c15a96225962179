"""What a method requires (pure). Everything requires a token, but for the methods named public.

Method names are matched exactly: `details.method` arrives raw, and a prefix would let `/grpc.health.v1.Health.evil/Check`
through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .errors import ConfigurationError

DEFAULT_PUBLIC_METHODS: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        # grpcurl asks for v1 first and falls back only on UNIMPLEMENTED, so v1 is public although Python serves v1alpha.
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)

_METHOD: Final = re.compile(r"/(?:[A-Za-z_][A-Za-z0-9_]*\.)*[A-Za-z_][A-Za-z0-9_]*/[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def public_methods(further: Iterable[str], *, with_defaults: bool) -> frozenset[str]:
    """The exact full names (`/package.Service/Method`) that need no token.

    Raises `ConfigurationError` for a name of another form: it would never match, and the method would stay closed.
    """
    if isinstance(further, str):
        raise ConfigurationError("public_methods: expected a list of method names, got one string; put it into a list")
    names = frozenset(further)
    for name in sorted(names):
        if not _METHOD.fullmatch(name):
            raise ConfigurationError(
                f"public_methods: {name!r} is not a full method name; write it as '/package.Service/Method'"
            )
    return names | DEFAULT_PUBLIC_METHODS if with_defaults else names
