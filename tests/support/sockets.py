"""Peers on loopback that no HTTP library would be: they drip, fall silent, or carry a tunnel."""

from __future__ import annotations

import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.jwks_server import Raw

_LONGEST_S = 30.0


class Drip:
    """Sends `opening`, then `piece` every 10 ms (nothing when it is empty), until the peer has closed the connection.

    `reached` is set when a connection is there, `gone` when the peer has closed it, `tired` when it has not for 30 s.
    """

    def __init__(self, opening: bytes = b"", piece: bytes = b"") -> None:
        self._opening = opening
        self._piece = piece
        self.reached = threading.Event()
        self.gone = threading.Event()
        self.tired = threading.Event()

    def anew(self) -> Drip:
        """Another one that does the same."""
        return Drip(self._opening, self._piece)

    def __call__(self, connection: socket.socket) -> None:
        until = time.monotonic() + _LONGEST_S
        connection.settimeout(0.01)
        try:
            connection.sendall(self._opening)
            self.reached.set()
            while time.monotonic() < until:
                connection.sendall(self._piece)
                if _closed(connection):
                    break
            else:
                self.tired.set()
                return
        except OSError:
            pass  # reset: closed too
        self.gone.set()


def _closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(65536) == b""
    except TimeoutError:
        return False


class Listener:
    """Takes TCP connections and hands each to `raw` before a byte of it was read."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _peer = self._listening.accept()
            except OSError:
                return
            with connection:
                self._raw(connection)

    def close(self) -> None:
        """Take no further connection."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class ConnectProxy:
    """An HTTP proxy that tunnels every CONNECT to `target` (`host:port`), whatever host was asked for.

    `requests` lists what was asked of it, as (host and port, headers).
    """

    def __init__(self, target: str) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self
        host, port = target.rsplit(":", 1)

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                outer.requests.append((self.path, dict(self.headers.items())))
                with socket.create_connection((host, int(port))) as upstream:
                    self.send_response(200)
                    self.end_headers()
                    _tunnel(self.connection, upstream)

            def log_message(self, *_args: Any) -> None:
                """Nothing: pytest would show it as noise."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The proxy's own URL."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _tunnel(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    while ready := select.select((one, other), (), (), _LONGEST_S)[0]:
        for source in ready:
            try:
                data = source.recv(65536)
                (other if source is one else one).sendall(data)
            except OSError:
                return
            if not data:
                return
