"""Authenticators in one line, and what they leave running."""

from __future__ import annotations

import threading
from typing import Any

from grpc_bearer import Authenticator, Issuer
from tests.support.jwks_server import JwksServer
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key

OTHER = "https://other.example"


def static(**options: Any) -> Authenticator:
    """One that trusts `ISSUER` by a key given in code: nothing is fetched. `options` are the authenticator's."""
    return Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))], **options)


def fetched_from(server: JwksServer, *further: Issuer, **options: Any) -> Authenticator:
    """One that trusts `ISSUER` by the keys that `server` serves, and `further` ones. `options` are the first issuer's."""
    made_with: dict[str, Any] = {"audiences": [AUDIENCE], "jwks_uri": server.jwks_uri} | options
    return Authenticator([Issuer(ISSUER, **made_with), *further])


def background_threads() -> set[threading.Thread]:
    """The threads that fetch keys at this moment."""
    return {thread for thread in threading.enumerate() if thread.name == "grpc-bearer-keys"}
