"""The extras `grpc-bearer[fast]` switched on and off, so that both can be measured in one environment."""

from __future__ import annotations

from binascii import a2b_base64
from functools import partial
from typing import Any, Final

import orjson
import pybase64

from grpc_bearer import jws, strict_json

_STANDARD: Final = partial(a2b_base64, strict_mode=True)
_FAST: Final = partial(pybase64.b64decode, validate=True)


def use(fast: bool) -> None:
    """Read tokens from here on with the extras, or as where they are not installed."""
    reading: Any = strict_json
    reading.orjson = orjson if fast else None
    jws._decoded = _FAST if fast else _STANDARD
