"""Key material over HTTP: a `jwks_uri`, or OpenID Connect Discovery 1.0 in front of it. The only importer of requests.

requests by itself sends `~/.netrc` and environment proxies' credentials to the issuer and follows redirects, and none of its
timeouts bounds a dripping answer (measured). So: `trust_env` off with explicit proxy, CA file and token file in its
place, no redirects, a byte limit on what is read, and sockets that are shut down from outside when the attempt is abandoned.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from ..errors import ConfigurationError, FetchError
from ..strict_json import StrictJsonError, loads
from .source import Attempt, FetchedKeys

_MAX_AGE: Final = re.compile(r'(?:^|[,\s])max-age="?(\d{1,10})', re.IGNORECASE)
_NOT_STORED: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,\s=])", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How key material is fetched.

    `timeout_s`: for a whole fetch, discovery included. `max_bytes`: of one document. `proxy`: URL of an HTTP proxy.
    `ca_file`: PEM bundle in place of the default one. `token_file`: its content is sent as a bearer token to the issuer,
    read anew for each fetch (for example a Kubernetes service account's). `allow_insecure_http`: take `http://` for
    hosts other than loopback too; whoever is on the path can then replace the keys.
    Raises `ConfigurationError`.
    """

    timeout_s: float = 5.0
    max_bytes: int = 512 * 1024
    proxy: str | None = field(default=None, repr=False)  # it may hold a password
    ca_file: str | None = None
    token_file: str | None = None
    allow_insecure_http: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 300:
            raise ConfigurationError("fetch: timeout_s has to be above 0 and at most 300 seconds")
        if self.max_bytes < 1:
            raise ConfigurationError("fetch: max_bytes has to be 1 or more")
        if self.proxy is not None and _url_parts(self.proxy) is None:
            raise ConfigurationError("fetch: proxy has to be an http:// or https:// URL, as http://proxy.example:3128")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own: traffic to it does not leave it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url_parts(url: str) -> SplitResult | None:
    """An HTTP URL's parts; None for what is no such URL."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for one that is no number
    except ValueError:
        return None
    return parts if parts.scheme in ("https", "http") and parts.hostname else None


def url_fault(url: str, *, allow_insecure_http: bool) -> str | None:
    """What is wrong with a URL to fetch keys from, None when nothing is. The text holds nothing of the URL."""
    parts = _url_parts(url)
    if parts is None or parts.hostname is None:
        return "is not an https:// URL"
    if parts.username is not None or parts.password is not None:
        return "holds credentials; put a token into token_file in their place"
    if parts.scheme == "http" and not (allow_insecure_http or is_loopback(parts.hostname)):
        return "is http:// on a host other than loopback; use https://, or spell out allow_insecure_http"
    return None


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


def _get(session: requests.Session, url: str, what: str, options: FetchOptions, attempt: Attempt) -> FetchedKeys:
    """GET one document. Raises `FetchError` whose text says which document and what went wrong, and nothing of the answer."""
    try:
        with session.get(url, stream=True, timeout=attempt.timeout_s, allow_redirects=False) as response:
            status = response.status_code
            if 300 <= status < 400:
                raise FetchError(f"{what}: HTTP status {status}; redirects are not followed, configure the final address")
            if status != 200:
                raise FetchError(f"{what}: HTTP status {status}", _retry_after_s(response.headers))
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise FetchError(f"{what}: compressed although it was asked for as it is")
            body = response.raw.read(options.max_bytes + 1, decode_content=False)
            if len(body) > options.max_bytes:
                raise FetchError(f"{what}: larger than {options.max_bytes} bytes")
            headers = response.headers
            return FetchedKeys(body, max_age_s(headers.get("Cache-Control", ""), headers.get("Age", "")))
    except requests.exceptions.SSLError:
        raise FetchError(f"{what}: no trusted TLS connection (certificate untrusted, expired or for another host)") from None
    except (requests.exceptions.Timeout, TimeoutError):
        raise FetchError(f"{what}: no answer in time") from None
    except requests.exceptions.ProxyError:
        raise FetchError(f"{what}: the proxy cannot be used") from None
    except (requests.exceptions.RequestException, HTTPError, OSError, ValueError) as error:
        raise FetchError(f"{what}: cannot be fetched ({type(error).__name__})") from None


@dataclass(frozen=True, slots=True)
class JwksUriSource:
    """A JWK Set at a URL (RFC 7517 §5)."""

    uri: str
    options: FetchOptions

    def __call__(self, attempt: Attempt, /) -> FetchedKeys:
        with _session(self.options, attempt) as session:
            return _get(session, self.uri, "jwks_uri", self.options, attempt)


@dataclass(frozen=True, slots=True)
class DiscoverySource:
    """A JWK Set by way of the issuer's metadata (OpenID Connect Discovery 1.0 §4), read anew at each fetch."""

    uri: str
    issuer: str
    options: FetchOptions

    def __call__(self, attempt: Attempt, /) -> FetchedKeys:
        with _session(self.options, attempt) as session:
            metadata = _get(session, self.uri, "discovery document", self.options, attempt)
            return _get(session, self._jwks_uri(metadata.document), "jwks_uri", self.options, attempt)

    def _jwks_uri(self, document: bytes) -> str:
        try:
            metadata = loads(document)
        except StrictJsonError as error:
            raise FetchError(f"discovery document: {error}") from None
        if not isinstance(metadata, dict):
            raise FetchError("discovery document: not a JSON object")
        if metadata.get("issuer") != self.issuer:  # §4.3: has to match exactly, else it is another issuer's
            raise FetchError("discovery document: its issuer is not the configured one, to the letter")
        uri = metadata.get("jwks_uri")
        if not isinstance(uri, str):
            raise FetchError("discovery document: no jwks_uri")
        fault = url_fault(uri, allow_insecure_http=self.options.allow_insecure_http)
        if fault is not None:
            raise FetchError(f"discovery document: jwks_uri {fault}")
        return uri
