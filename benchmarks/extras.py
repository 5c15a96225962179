"""The extras `grpc-bearer[fast]` switched on and off, so that both can be measured in one environment."""

from __future__ import annotations

import importlib
from binascii import a2b_base64
from functools import partial
from typing import Any

from grpc_bearer import jws, strict_json


def use(fast: bool) -> None:
    """Read tokens from here on with the extras, or as where they are not installed. Raises `ImportError` where they are not."""
    reading: Any = strict_json
    reading.orjson = importlib.import_module("orjson") if fast else None
    b64decode = importlib.import_module("pybase64").b64decode if fast else None
    jws._decoded = partial(a2b_base64, strict_mode=True) if b64decode is None else partial(b64decode, validate=True)
