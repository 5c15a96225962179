"""Where key material is, when it is somewhere else: a `jwks_uri`, or OpenID Connect Discovery 1.0 in front of it.

What carries a fetch out, `keys.fetch`, is imported by the first one, in its background thread: a service whose keys lie in a
file never loads an HTTP client (60 ms of its start, measured).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigurationError, FetchError
from ..strict_json import StrictJsonError, loads
from .source import Attempt, FetchedKeys


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


@dataclass(frozen=True, slots=True)
class JwksUriSource:
    """A JWK Set at a URL (RFC 7517 §5)."""

    uri: str
    options: FetchOptions

    def __call__(self, attempt: Attempt, /) -> FetchedKeys:
        from .fetch import Fetcher

        with Fetcher(self.options, attempt) as fetcher:
            return fetcher.get(self.uri, "jwks_uri")


@dataclass(frozen=True, slots=True)
class DiscoverySource:
    """A JWK Set by way of the issuer's metadata (OpenID Connect Discovery 1.0 §4), read anew at each fetch."""

    uri: str
    issuer: str
    options: FetchOptions

    def __call__(self, attempt: Attempt, /) -> FetchedKeys:
        from .fetch import Fetcher

        with Fetcher(self.options, attempt) as fetcher:
            metadata = fetcher.get(self.uri, "discovery document")
            return fetcher.get(self._jwks_uri(metadata.document), "jwks_uri")

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
