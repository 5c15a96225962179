"""A real HTTP server on loopback that serves a JWK Set: right, slow, failing or hostile, on command."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Final, Self

JWKS_PATH: Final = "/jwks.json"
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_LONGEST_HANG_S: Final = 30.0

Raw = Callable[[socket.socket], None]
"""Answers on the bare socket, for what no HTTP library would send. The request has been read."""


class JwksServer:
    """Serves what `jwks` returns at `jwks_uri`, asked anew for each request, and a discovery document under `url`.

    Its attributes can be set while it runs. `requests` lists every request as (path, headers). `delay_s` is waited before
    each answer. `status`, `headers` and `body` (bytes; None for the JWK Set) are the answer of `jwks_uri`. `metadata`
    overrides members of the discovery document. `raw` takes the socket over. `tls`: serve HTTPS with this context.
    """

    def __init__(self, jwks: Callable[[], Mapping[str, Any]], *, tls: ssl.SSLContext | None = None) -> None:
        self.jwks = jwks
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.metadata: dict[str, Any] = {}
        self.delay_s: float
        self.status: int
        self.headers: Mapping[str, str]
        self.body: bytes | None
        self.raw: Raw | None
        self._go_on = threading.Event()
        self._closed = threading.Event()
        self.recover()
        self._scheme = "http" if tls is None else "https"
        self._http = _Http(self._answer, tls)
        self._thread = threading.Thread(target=self._http.serve, name="jwks-server", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The server's root, which is its issuer identifier in the discovery document."""
        return f"{self._scheme}://127.0.0.1:{self._http.server_address[1]}"

    @property
    def jwks_uri(self) -> str:
        """Where the JWK Set is."""
        return self.url + JWKS_PATH

    @property
    def fetches(self) -> int:
        """How often the JWK Set was asked for."""
        return sum(path == JWKS_PATH for path, _headers in self.requests)

    def fail(self, status: int = 503, *, retry_after_s: int | None = None) -> None:
        """Answer with this status from now on, until `recover()`."""
        self.status = status
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}

    def recover(self) -> None:
        """Answer at once and rightly: undoes `fail`, `hang`, and what was set of the answer."""
        self.delay_s = 0.0
        self.status = 200
        self.headers = {}
        self.body = None
        self.raw = None
        self._go_on.set()

    def hang(self) -> None:
        """Hold answers back, until `resume()` or `recover()`; each for 30 s at most."""
        self._go_on.clear()

    def resume(self) -> None:
        """Give the answers that were held back."""
        self._go_on.set()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.path, dict(handler.headers.items())))
        self._go_on.wait(_LONGEST_HANG_S)
        self._closed.wait(self.delay_s)
        if self.raw is not None:
            self.raw(handler.connection)
            handler.close_connection = True
            return
        discovery = handler.path.endswith(DISCOVERY_PATH)
        body = self._discovery() if discovery else self.body if self.body is not None else json.dumps(self.jwks()).encode()
        try:
            handler.send_response(200 if discovery else self.status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            handler.close_connection = True  # the client has given up

    def _discovery(self) -> bytes:
        return json.dumps({"issuer": self.url, "jwks_uri": self.jwks_uri} | self.metadata).encode()

    def close(self) -> None:
        """Stop serving, and let nothing hang any more. Idempotent."""
        self._closed.set()
        self._go_on.set()
        self._http.stop()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class _Http(ThreadingTCPServer):
    """Starts and stops at once, where `serve_forever` looks only every now and then whether to stop.

    No `HTTPServer`: that asks the resolver for the name of its address, which may go over the network.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None], tls: ssl.SSLContext | None) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes: the second would await the client's ACK

            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_args: Any) -> None:
                """Nothing: pytest would show it as noise."""

        self._stopping = False
        self._connected: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._tls = tls
        super().__init__(("127.0.0.1", 0), Handler)

    def serve(self) -> None:
        """Until `stop()`."""
        while not self._stopping:
            self.handle_request()
        self.server_close()

    def stop(self) -> None:
        """Take no further connection, and end those that are open."""
        if self._stopping:
            return
        self._stopping = True
        with suppress(OSError):
            socket.create_connection(self.server_address[:2], 1).close()  # type: ignore[arg-type]  # wakes `serve`
        with self._lock:
            for connection in self._connected:
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # an SSLSocket's own would race its reader

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, which a slow TLS handshake holds up alone."""
        connection = request if self._tls is None else self._tls.wrap_socket(request, server_side=True)
        with connection:
            with self._lock:
                if self._stopping:
                    return
                self._connected.add(connection)
            try:
                super().finish_request(connection, client_address)
            finally:
                with self._lock:
                    self._connected.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing for clients that leave or do not trust the certificate: those are what tests are about."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
