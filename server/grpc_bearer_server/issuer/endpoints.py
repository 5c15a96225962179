"""The embedded issuer over HTTP: OpenID metadata, JWK Set, token endpoint.

It gives a token to whoever asks. So it binds to loopback, and takes requests for loopback names only: a web page that has
its own name resolve to 127.0.0.1 (DNS rebinding) is refused by the Host header.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from grpc_bearer.keys.remote import is_loopback
from grpc_bearer.strict_json import StrictJsonError, loads

from .keys import SigningKey
from .tokens import TokenRequest, mint

METADATA_PATH: Final = "/.well-known/openid-configuration"
JWKS_PATH: Final = "/.well-known/jwks.json"
TOKEN_PATH: Final = "/token"
KEYS_MAX_AGE_S: Final = 300
MAX_BODY_BYTES: Final = 64 * 1024
_PARAMETERS: Final = frozenset({"grant_type", "client_id", "scope", "sub", "audience", "ttl_s", "alg", "claims"})
_MAX_TTL_S: Final = 86_400
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(?::[0-9]{1,5})?", re.ASCII)


class _TokenError(Exception):
    """RFC 6749 §5.2. `error` is one of its codes; the text is the error_description."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error: Final = error
        self.description: Final = description


def metadata(issuer: str, keys: Mapping[str, SigningKey]) -> dict[str, Any]:
    """The issuer's metadata (OpenID Connect Discovery 1.0 §3, as far as it applies to an issuer of access tokens)."""
    return {
        "issuer": issuer,
        "jwks_uri": issuer + JWKS_PATH,
        "token_endpoint": issuer + TOKEN_PATH,
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "token_endpoint_auth_methods_supported": ["none"],
        "id_token_signing_alg_values_supported": list(keys),
    }


def application(
    issuer: str, keys: Mapping[str, SigningKey], defaults: TokenRequest, clock: Callable[[], float] = time.time
) -> Starlette:
    """The ASGI application. `defaults`: what a token holds where its asker does not say."""

    async def give_metadata(_request: Request) -> Response:
        return JSONResponse(metadata(issuer, keys), headers={"Cache-Control": f"public, max-age={KEYS_MAX_AGE_S}"})

    async def give_keys(_request: Request) -> Response:
        key_set = {"keys": [key.public_jwk() for key in keys.values()]}
        return JSONResponse(key_set, headers={"Cache-Control": f"public, max-age={KEYS_MAX_AGE_S}"})

    async def give_token(request: Request) -> Response:
        no_store = {"Cache-Control": "no-store"}
        try:
            asked = _token_request(await _body(request), defaults)
            token = _minted(asked, issuer, keys, int(clock()))
        except _TokenError as error:
            return JSONResponse({"error": error.error, "error_description": error.description}, 400, no_store)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": asked.ttl_s, "scope": asked.scope}
        return JSONResponse(answer, headers=no_store)

    return Starlette(
        routes=[
            Route(METADATA_PATH, give_metadata),
            Route(JWKS_PATH, give_keys),
            Route(TOKEN_PATH, give_token, methods=["POST"]),
        ],
        middleware=[Middleware(_LoopbackNamesOnly)],
    )


class _LoopbackNamesOnly:
    """Refuses requests that name another host. Starlette's own such middleware takes a list; all of 127.0.0.0/8 is loopback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app if _is_loopback_name(Headers(scope=scope).get("host", "")) else _REFUSAL
        await answer(scope, receive, send)


_REFUSAL: Final = PlainTextResponse("the embedded issuer answers to loopback names only\n", 400)


def _is_loopback_name(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and is_loopback((match["v6"] or match["name"]).lower())


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TokenError("invalid_request", f"the body is larger than {MAX_BODY_BYTES} bytes")
    return body


def _token_request(body: bytes, defaults: TokenRequest) -> TokenRequest:
    """Read the form (RFC 6749 §4.4.2). Beside its parameters: `sub`, `audience`, `ttl_s`, `alg`, `claims` (a JSON object)."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=32)
    except ValueError:
        raise _TokenError("invalid_request", "expected a body of application/x-www-form-urlencoded") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _TokenError("invalid_request", "a parameter is given twice")
    unknown = sorted(set(form) - _PARAMETERS)
    if unknown:
        raise _TokenError("invalid_request", f"unknown parameter; there are {', '.join(sorted(_PARAMETERS))}")
    if "grant_type" not in form:
        raise _TokenError("invalid_request", "grant_type is missing; it has to be client_credentials")
    if form["grant_type"] != "client_credentials":
        raise _TokenError("unsupported_grant_type", "grant_type has to be client_credentials")
    return TokenRequest(
        sub=form.get("sub", defaults.sub),
        audience=form.get("audience", defaults.audience),
        scope=form.get("scope", defaults.scope),
        client_id=form.get("client_id", defaults.client_id),
        ttl_s=_ttl_s(form["ttl_s"]) if "ttl_s" in form else defaults.ttl_s,
        alg=form.get("alg", defaults.alg),
        claims=_claims(form["claims"]) if "claims" in form else defaults.claims,
    )


def _ttl_s(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9) or abs(int(digits)) > _MAX_TTL_S:
        raise _TokenError("invalid_request", f"ttl_s has to be a whole number of seconds, at most {_MAX_TTL_S}")
    return int(text)


def _claims(text: str) -> dict[str, Any]:
    try:
        claims = loads(text.encode("utf-8", "surrogateescape"))
    except StrictJsonError as error:
        raise _TokenError("invalid_request", f"claims: {error}") from None
    if not isinstance(claims, dict):
        raise _TokenError("invalid_request", "claims has to be a JSON object")
    return claims


def _minted(asked: TokenRequest, issuer: str, keys: Mapping[str, SigningKey], now: int) -> str:
    key = keys.get(asked.alg)
    if key is None:
        raise _TokenError("invalid_request", f"alg has to be one of {', '.join(keys)}")
    try:
        return mint(asked, issuer=issuer, key=key, now=now, jti=str(uuid.uuid4()))
    except TypeError as error:  # PyJWT's own look at the types of registered claims; its text names the claim
        raise _TokenError("invalid_request", f"claims: {error}") from None


def parse_claims(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs as claims: a value that reads as JSON is that, any other is text. Raises `ValueError`."""
    claims: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{pair!r} is not of the form name=value")
        try:
            claims[name] = json.loads(value)
        except ValueError:
            claims[name] = value
    return claims
