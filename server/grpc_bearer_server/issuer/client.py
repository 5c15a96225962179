"""Asks the embedded issuer for a token: what `grpc-bearer token` does. The standard library's HTTP client, no proxies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from .endpoints import TOKEN_PATH

TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 1 << 20


class TokenRefusedError(Exception):
    """No token was given. The text says why and how to mend it."""


def ask_for_token(issuer: str, form: Mapping[str, str]) -> str:
    """A token by the client credentials grant (RFC 6749 §4.4). Raises `TokenRefusedError`."""
    body = urlencode({"grant_type": "client_credentials"} | dict(form)).encode()
    request = Request(issuer + TOKEN_PATH, body, {"Content-Type": "application/x-www-form-urlencoded"})  # noqa: S310
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as response:
            return str(_object(response.read(MAX_ANSWER_BYTES))["access_token"])
    except HTTPError as error:
        with error:
            said = _object(error.read(MAX_ANSWER_BYTES)).get("error_description", "it did not say why")
        raise TokenRefusedError(f"the issuer at {issuer} gives no token (HTTP status {error.code}): {said}") from None
    except (URLError, OSError):
        raise TokenRefusedError(
            f"nothing answers at {issuer}; start the service first: grpc-bearer serve --dev (here: make run)"
        ) from None
    except (KeyError, ValueError, HTTPException):
        raise TokenRefusedError(
            f"what answers at {issuer} is not the embedded issuer; give the right address with --issuer"
        ) from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
