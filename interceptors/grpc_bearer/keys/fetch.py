"""Key material over HTTP. The only importer of requests; imported when something is fetched, see `keys.remote`.

requests by itself sends `~/.netrc` and environment proxies' credentials to the issuer and follows redirects, and none of its
timeouts bounds a dripping answer (measured). So: `trust_env` off with explicit proxy, CA file and token file in its
place, no redirects, a byte limit on what is read, and sockets that are shut down from outside when the attempt is abandoned.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from ..errors import FetchError
from .remote import FetchOptions
from .source import Attempt, FetchedKeys

_MAX_AGE: Final = re.compile(r'(?:^|[,\s])max-age="?(\d{1,10})', re.IGNORECASE)
_NOT_STORED: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s=])", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


def _track(attempt: Attempt, sock: socket.socket) -> socket.socket:
    # A duplicate, because TLS takes the descriptor away from the first object; shutting either down ends the connection.
    handle = sock.dup()

    def shut() -> None:
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)
        handle.close()

    attempt.on_abandon(shut)
    return sock


class _TrackedAdapter(HTTPAdapter):
    """Connections whose sockets are shut down when the attempt is abandoned: also in the middle of headers or a handshake."""

    def __init__(self, attempt: Attempt) -> None:
        class PlainConnection(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _track(attempt, super()._new_conn())

        class TlsConnection(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return _track(attempt, super()._new_conn())

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = PlainConnection

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = TlsConnection

        self._pools = {"http": PlainPool, "https": TlsPool}
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _session(options: FetchOptions, attempt: Attempt) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    adapter = _TrackedAdapter(attempt)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "grpc-bearer"})
    if options.proxy is not None:
        session.proxies = {"http": options.proxy, "https": options.proxy}
    if options.ca_file is not None:
        if not Path(options.ca_file).is_file():
            raise FetchError("ca_file: there is no such file")
        session.verify = options.ca_file
    if options.token_file is not None:
        session.headers["Authorization"] = f"Bearer {_file_token(options.token_file)}"
    return session


def _file_token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(64 * 1024).strip()
    except (OSError, UnicodeDecodeError):
        raise FetchError("token_file cannot be read") from None
    if not _TOKEN.fullmatch(token):
        raise FetchError("token_file does not hold one token")
    return token


def _retry_after_s(headers: requests.structures.CaseInsensitiveDict[str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None


def max_age_s(cache_control: str, age: str) -> float | None:
    """The freshness that `Cache-Control` gives, less the `Age` it has already (RFC 9111 §4.2); None when it gives none."""
    if _NOT_STORED.search(cache_control):
        return 0.0
    match = _MAX_AGE.search(cache_control)
    if match is None:
        return None
    spent = int(age) if age.isascii() and age.isdigit() and len(age) <= 10 else 0
    return float(max(0, int(match.group(1)) - spent))


class Fetcher:
    """GETs documents of one fetch over one session. A context manager."""

    def __init__(self, options: FetchOptions, attempt: Attempt) -> None:
        self._options = options
        self._attempt = attempt
        self._session = _session(options, attempt)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._session.close()

    def get(self, url: str, what: str) -> FetchedKeys:
        """One document. Raises `FetchError` whose text says which document and what went wrong, and nothing of the answer."""
        try:
            return self._got(url, what)
        except requests.exceptions.SSLError:
            raise FetchError(
                f"{what}: no trusted TLS connection (certificate untrusted, expired or for another host)"
            ) from None
        except (requests.exceptions.Timeout, TimeoutError):
            raise FetchError(f"{what}: no answer in time") from None
        except requests.exceptions.ProxyError:
            raise FetchError(f"{what}: the proxy cannot be used") from None
        except (requests.exceptions.RequestException, HTTPError, OSError, ValueError) as error:
            raise FetchError(f"{what}: cannot be fetched ({type(error).__name__})") from None

    def _got(self, url: str, what: str) -> FetchedKeys:
        max_bytes = self._options.max_bytes
        with self._session.get(url, stream=True, timeout=self._attempt.timeout_s, allow_redirects=False) as response:
            status, headers = response.status_code, response.headers
            if 300 <= status < 400:
                raise FetchError(f"{what}: HTTP status {status}; redirects are not followed, configure the final address")
            if status != 200:
                raise FetchError(f"{what}: HTTP status {status}", _retry_after_s(headers))
            if headers.get("Content-Encoding", "identity").lower() != "identity":
                raise FetchError(f"{what}: compressed although it was asked for as it is")
            body = response.raw.read(max_bytes + 1, decode_content=False)
            if len(body) > max_bytes:
                raise FetchError(f"{what}: larger than {max_bytes} bytes")
            return FetchedKeys(body, max_age_s(headers.get("Cache-Control", ""), headers.get("Age", "")))
