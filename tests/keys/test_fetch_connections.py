"""Whom a fetch talks to: TLS, proxies, credentials, and connections that hang. Every peer is a real one on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from grpc_bearer.keys.cache import CachePolicy
from grpc_bearer.keys.refresher import Refresher
from grpc_bearer.keys.remote import DiscoverySource, FetchOptions, JwksUriSource
from grpc_bearer.keys.source import Attempt, FetchedKeys, KeySource
from tests.support.fetching import fetch, fetch_error
from tests.support.jwks_server import DISCOVERY_PATH, JwksServer
from tests.support.sockets import ConnectProxy, Drip, Listener
from tests.support.tls import Identity, identity
from tests.support.tokens import jwks, key
from tests.support.waiting import PATIENCE_S

KEY = key("k1", "EdDSA")
DEFAULTS = FetchOptions()
ELSEWHERE = "issuer.invalid"  # RFC 6761 §6.4: never resolves, so only a proxy can lead there
UNTRUSTED = "jwks_uri: no trusted TLS connection (certificate untrusted, expired or for another host)"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with JwksServer(KEY) as running:
        yield running


@contextmanager
def https(parts: Identity) -> Iterator[JwksServer]:
    with JwksServer(KEY, tls=parts.server_context()) as running:
        yield running


def brought(source: KeySource) -> bool:
    """Whether the source brings the right keys."""
    return bool(json.loads(fetch(source).document) == jwks(KEY))


# TLS


def test_a_certificate_of_the_authority_in_ca_file_is_trusted(tmp_path: Path) -> None:
    parts = identity(tmp_path)
    with https(parts) as server:
        options = FetchOptions(ca_file=parts.ca_file)
        assert brought(JwksUriSource(server.jwks_uri, options))
        assert brought(DiscoverySource(server.url + DISCOVERY_PATH, server.url, options))


def test_a_certificate_that_no_trusted_authority_signed_is_refused(tmp_path: Path) -> None:
    parts, other = identity(tmp_path / "one"), identity(tmp_path / "other")
    with https(parts) as server:
        for options in (DEFAULTS, FetchOptions(ca_file=other.ca_file)):
            assert fetch_error(JwksUriSource(server.jwks_uri, options)).detail == UNTRUSTED
        assert server.requests == []


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    parts = identity(tmp_path, expired=True)
    with https(parts) as server:
        assert fetch_error(JwksUriSource(server.jwks_uri, FetchOptions(ca_file=parts.ca_file))).detail == UNTRUSTED
        assert server.requests == []


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", ELSEWHERE])
def test_a_certificate_for_another_host_is_refused(tmp_path: Path, host: str) -> None:
    parts = identity(tmp_path, host)
    with https(parts) as server:
        assert fetch_error(JwksUriSource(server.jwks_uri, FetchOptions(ca_file=parts.ca_file))).detail == UNTRUSTED
        assert server.requests == []


def test_a_server_that_speaks_no_tls_is_refused(server: JwksServer) -> None:
    assert fetch_error(JwksUriSource(server.jwks_uri.replace("http://", "https://"), DEFAULTS)).detail == UNTRUSTED
    assert server.requests == []


def test_a_ca_file_that_is_not_there_or_holds_no_certificate_is_a_failed_fetch(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    with https(identity(tmp_path)) as server:
        missing, empty = (FetchOptions(ca_file=str(tmp_path / name)) for name in ("missing.pem", "empty.pem"))
        assert fetch_error(JwksUriSource(server.jwks_uri, missing)).detail == "ca_file: there is no such file"
        fetch_error(JwksUriSource(server.jwks_uri, empty))
        assert server.requests == []


def test_an_authority_named_by_the_environment_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = identity(tmp_path)
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, parts.ca_file)
    with https(parts) as server:
        assert fetch_error(JwksUriSource(server.jwks_uri, DEFAULTS)).detail == UNTRUSTED


# Credentials


def test_credentials_in_netrc_are_not_sent_to_the_issuer(
    server: JwksServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    assert brought(JwksUriSource(server.jwks_uri, DEFAULTS))
    assert "Authorization" not in server.requests[0][1]


def test_the_token_file_is_sent_as_a_bearer_token_and_read_anew_for_each_fetch(server: JwksServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    source = DiscoverySource(server.url + DISCOVERY_PATH, server.url, FetchOptions(token_file=str(file)))
    for token in ("first.token", "second.token"):
        file.write_text(f"{token}\n")
        fetch(source)
    sent = [headers["Authorization"] for _path, headers in server.requests]
    assert sent == ["Bearer first.token"] * 2 + ["Bearer second.token"] * 2


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (None, "token_file cannot be read"),
        (b"caf\xc3\xa9", "token_file cannot be read"),
        (b"", "token_file does not hold one token"),
        (b"two tokens", "token_file does not hold one token"),
        (b"one\r\nX-Injected: 1", "token_file does not hold one token"),
        (b"nul\0", "token_file does not hold one token"),
    ],
)
def test_a_token_file_without_one_token_is_a_failed_fetch(
    server: JwksServer, tmp_path: Path, content: bytes | None, detail: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    source = JwksUriSource(server.jwks_uri, FetchOptions(token_file=str(tmp_path / "token")))
    assert fetch_error(source).detail == detail
    assert server.requests == []


# Proxies


def test_proxies_of_the_environment_are_not_used(server: JwksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with JwksServer(key("proxy", "EdDSA")) as proxy:
        for name in PROXY_VARIABLES:
            for variable in (name, name.upper()):
                monkeypatch.setenv(variable, proxy.url.replace("http://", "http://user:secret@"))
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        assert brought(JwksUriSource(server.jwks_uri, DEFAULTS))
        assert proxy.requests == []
    assert "Proxy-Authorization" not in server.requests[0][1]


def test_plain_http_goes_through_the_proxy_that_is_given() -> None:
    uri = f"http://{ELSEWHERE}/jwks.json"
    with JwksServer(KEY) as proxy:
        assert brought(JwksUriSource(uri, FetchOptions(proxy=proxy.url, allow_insecure_http=True)))
        assert [path for path, _headers in proxy.requests] == [uri]


def test_https_goes_through_a_tunnel_of_the_proxy_that_is_given_and_is_verified_end_to_end(tmp_path: Path) -> None:
    parts, token_file = identity(tmp_path, ELSEWHERE), tmp_path / "token"
    token_file.write_text("issuer.token")
    with https(parts) as server, ConnectProxy(server.url.removeprefix("https://")) as proxy:
        proxy_url = proxy.url.replace("http://", "http://user:secret@")
        uri = f"https://{ELSEWHERE}/jwks.json"
        options = FetchOptions(proxy=proxy_url, ca_file=parts.ca_file, token_file=str(token_file))
        assert brought(JwksUriSource(uri, options))
        assert fetch_error(JwksUriSource(uri, FetchOptions(proxy=proxy_url))).detail == UNTRUSTED
        (asked_for, to_proxy), _second = proxy.requests
        (_path, to_server), *others = server.requests
    assert (asked_for, others) == (f"{ELSEWHERE}:443", [])
    assert (to_proxy["Proxy-Authorization"], to_server["Authorization"]) == ("Basic dXNlcjpzZWNyZXQ=", "Bearer issuer.token")
    assert "Authorization" not in to_proxy
    assert "Proxy-Authorization" not in to_server


def test_a_proxy_that_is_not_there_is_a_failed_fetch(server: JwksServer) -> None:
    server.close()
    source = JwksUriSource(f"https://{ELSEWHERE}/jwks.json", FetchOptions(proxy=server.url))
    assert fetch_error(source).detail == "jwks_uri: the proxy cannot be used"


# Connections that hang


HEAD = b"HTTP/1.1 200 OK\r\n"
TLS_RECORD = b"\x16\x03\x03\x40\x00"  # the head of a handshake record of 16 KiB
HANGING = {
    "in the TLS handshake": ("tcp", Drip()),
    "dripping a TLS handshake": ("tcp", Drip(TLS_RECORD, b"\x02")),
    "at a proxy": ("proxy", Drip()),
    "before the answer": ("http", Drip()),
    "dripping headers": ("http", Drip(HEAD, b"X: 1\r\n")),
    "dripping one header": ("http", Drip(HEAD + b"X: ", b"x")),
    "dripping a body": ("http", Drip(HEAD + b"Content-Length: 100000\r\n\r\n", b" ")),
    "dripping a body without an end": ("http", Drip(HEAD + b"\r\n", b" ")),
    "dripping a body over TLS": ("https", Drip(HEAD + b"Content-Length: 100000\r\n\r\n", b" ")),
}


@pytest.fixture(params=HANGING)
def hanging(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[JwksUriSource, Drip]]:
    """A source whose peer hangs in one of many ways, and that peer."""
    kind, like = HANGING[request.param]
    drip = like.anew()
    if kind in ("tcp", "proxy"):
        with Listener(drip) as listener:
            proxy = f"http://{listener.address}" if kind == "proxy" else None
            yield JwksUriSource(f"https://{listener.address}/jwks.json", FetchOptions(proxy=proxy)), drip
        return
    parts = identity(tmp_path) if kind == "https" else None
    with JwksServer(KEY, tls=None if parts is None else parts.server_context()) as server:
        server.raw = drip
        yield JwksUriSource(server.jwks_uri, FetchOptions(ca_file=None if parts is None else parts.ca_file)), drip


def test_a_fetch_that_is_given_up_on_closes_its_connection_and_ends(hanging: tuple[JwksUriSource, Drip]) -> None:
    source, drip = hanging
    attempt = Attempt(timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        running: Future[FetchedKeys] = pool.submit(source, attempt)
        assert drip.reached.wait(PATIENCE_S)
        attempt.abandon()
        ended = threading.Event()
        running.add_done_callback(lambda _future: ended.set())
        assert ended.wait(PATIENCE_S)
    assert drip.gone.wait(PATIENCE_S)


def test_no_peer_holds_a_fetch_up_beyond_its_deadline(hanging: tuple[JwksUriSource, Drip]) -> None:
    source, drip = hanging
    refresher = Refresher(source, CachePolicy(), name="issuer", timeout_s=0.2)
    refresher.step()
    assert refresher.state.failures == 1
    assert not drip.tired.is_set()


def test_discovery_and_keys_share_one_deadline() -> None:
    with JwksServer(KEY) as server:
        server.delay_s = 0.3  # each document by itself would be in time
        source = DiscoverySource(server.url + DISCOVERY_PATH, server.url, DEFAULTS)
        refresher = Refresher(source, CachePolicy(), name="issuer", timeout_s=0.5)
        refresher.step()
        assert refresher.state.failures == 1


def test_a_fetch_that_was_given_up_on_before_it_connects_asks_for_nothing(server: JwksServer) -> None:
    attempt = Attempt(timeout_s=60)
    attempt.abandon()
    with pytest.raises(Exception, match=r"^jwks_uri: cannot be fetched"):
        JwksUriSource(server.jwks_uri, DEFAULTS)(attempt)
    assert server.requests == []
