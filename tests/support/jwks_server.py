"""A real HTTP server on loopback that serves a JWK Set: right, slow, failing or hostile, on command."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.tokens import SigningKey, jwks

JWKS_PATH = "/jwks.json"
DISCOVERY_PATH = "/.well-known/openid-configuration"

Raw = Callable[[socket.socket], None]
"""Answers on the bare socket, for what no HTTP library would send. The request has been read."""


class JwksServer:
    """Serves `keys` at `jwks_uri` and a discovery document at its root. Set its attributes while it runs.

    `requests` lists every request as (path, headers). `delay_s` waits before the answer. `status`, `headers` and `body`
    (bytes; None for the JWK Set) change the answer of `jwks_uri`. `raw` takes the socket over. `hang` holds every answer
    back until it is cleared again. `tls`: serve HTTPS with this context.
    """

    def __init__(self, *keys: SigningKey, tls: ssl.SSLContext | None = None) -> None:
        self.keys: tuple[SigningKey, ...] = keys
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.delay_s = 0.0
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.body: bytes | None = None
        self.raw: Raw | None = None
        self.metadata: dict[str, Any] = {}
        self._go_on = threading.Event()
        self._go_on.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_args: Any) -> None:
                """Nothing: pytest would show it as noise."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The server's root, which is its issuer identifier too."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    @property
    def jwks_uri(self) -> str:
        """Where the JWK Set is."""
        return self.url + JWKS_PATH

    @property
    def fetches(self) -> int:
        """How often the JWK Set was asked for."""
        return sum(path == JWKS_PATH for path, _headers in self.requests)

    def hang(self) -> None:
        """Hold answers back until `resume()`."""
        self._go_on.clear()

    def resume(self) -> None:
        """Give the answers that were held back."""
        self._go_on.set()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, dict(handler.headers.items())))
        self._go_on.wait(30)
        time.sleep(self.delay_s)
        if self.raw is not None:
            self.raw(handler.connection)
            handler.close_connection = True
            return
        discovery = handler.path.endswith(DISCOVERY_PATH)
        document = {"issuer": self.url, "jwks_uri": self.jwks_uri} | self.metadata if discovery else jwks(*self.keys)
        body = json.dumps(document).encode() if discovery or self.body is None else self.body
        try:
            handler.send_response(200 if discovery else self.status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            pass  # the client has given up

    def close(self) -> None:
        """Stop serving."""
        self._go_on.set()
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
