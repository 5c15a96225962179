"""Key material over HTTP: which answers are taken, which are refused, and what a refusal says. The server is a real one."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from grpc_bearer.errors import ConfigurationError
from grpc_bearer.issuer import Issuer
from grpc_bearer.keys.fetch import max_age_s
from grpc_bearer.keys.remote import DiscoverySource, FetchOptions, JwksUriSource, is_loopback, url_fault
from tests.support.fetching import fetch, fetch_error
from tests.support.jwks_server import DISCOVERY_PATH, JWKS_PATH, JwksServer
from tests.support.tokens import jwks, key

DEFAULTS = FetchOptions()
SMALL = FetchOptions(max_bytes=1000)
MARK = "TOP-SECRET"


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with JwksServer(key("k1", "EdDSA")) as running:
        yield running


def jwks_uri(server: JwksServer, options: FetchOptions = DEFAULTS) -> JwksUriSource:
    return JwksUriSource(server.jwks_uri, options)


def discovery(server: JwksServer, options: FetchOptions = DEFAULTS) -> DiscoverySource:
    return DiscoverySource(server.url + DISCOVERY_PATH, server.url, options)


def test_the_document_comes_as_it_is_with_the_freshness_that_its_issuer_gave(server: JwksServer) -> None:
    server.headers = {"Cache-Control": "public, max-age=900", "Age": "100"}
    fetched = fetch(jwks_uri(server))
    assert json.loads(fetched.document) == jwks(key("k1", "EdDSA"))
    assert fetched.max_age_s == 800.0


def test_the_request_asks_for_plain_json_and_carries_nothing_else(server: JwksServer) -> None:
    fetch(jwks_uri(server))
    (path, headers), *others = server.requests
    assert (path, others) == (JWKS_PATH, [])
    assert headers.items() >= {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "grpc-bearer"}.items()
    assert headers.keys() <= {"Host", "Accept", "Accept-Encoding", "User-Agent", "Connection"}


@pytest.mark.parametrize("status", [201, 206, 400, 401, 403, 404, 429, 500, 503])
def test_any_status_but_200_is_a_failed_fetch_whatever_the_body(server: JwksServer, status: int) -> None:
    server.status = status
    assert fetch_error(jwks_uri(server)).detail == f"jwks_uri: HTTP status {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server: JwksServer, status: int) -> None:
    server.status, server.headers = status, {"Location": f"{server.url}/elsewhere"}
    detail = f"jwks_uri: HTTP status {status}; redirects are not followed, configure the final address"
    assert fetch_error(jwks_uri(server)).detail == detail
    assert [path for path, _headers in server.requests] == [JWKS_PATH]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("999999999", 999_999_999.0),
        ("1000000000", None),
        ("-1", None),
        ("1.5", None),
        ("\u00b2", None),  # a digit to str.isdigit() and to nobody else
        ("Fri, 31 Dec 2027 23:59:59 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_not_at_all(server: JwksServer, value: str, expected: float | None) -> None:
    server.status, server.headers = 503, {"Retry-After": value}
    assert fetch_error(jwks_uri(server)).retry_after_s == expected


@pytest.mark.parametrize(
    ("cache_control", "age", "expected"),
    [
        ("", "", None),
        ("public", "10", None),
        ("max-age=300", "", 300.0),
        ("max-age=300", "60", 240.0),
        ("max-age=300", "301", 0.0),
        ("max-age=300", "-5", 300.0),
        ("max-age=300", "soon", 300.0),
        ("max-age=300", "60, 70", 300.0),
        ("max-age=300", "\u00b2", 300.0),
        ('public,MAX-AGE="300"', "", 300.0),
        ("public, must-revalidate, max-age=300", "", 300.0),
        ("max-age=10000000000000000000000", "", 1e9),
        ("s-maxage=300", "", None),
        ("x-max-age=300", "", None),
        ("max-age=-1", "", None),
        ("max-age=", "", None),
        ("no-store", "", 0.0),
        ("max-age=300, no-cache", "", 0.0),
        ("NO-CACHE, max-age=300", "", 0.0),
        ('no-cache="set-cookie", max-age=300', "", 0.0),
        ("x-no-store, max-age=300", "", 300.0),
        ("no-stored, max-age=300", "", 300.0),
    ],
)
def test_freshness_is_max_age_less_age_and_0_for_what_must_not_be_kept(
    cache_control: str, age: str, expected: float | None
) -> None:
    assert max_age_s(cache_control, age) == expected


# Size and form of the answer


def test_a_document_of_the_size_limit_passes_and_one_byte_more_does_not(server: JwksServer) -> None:
    server.body = b" " * 1000
    assert fetch(jwks_uri(server, SMALL)).document == server.body
    server.body += b" "
    assert fetch_error(jwks_uri(server, SMALL)).detail == "jwks_uri: larger than 1000 bytes"


def test_the_default_size_limit_is_512_kib(server: JwksServer) -> None:
    server.body = b" " * (512 * 1024 + 1)
    assert fetch_error(jwks_uri(server)).detail == "jwks_uri: larger than 524288 bytes"


@pytest.mark.parametrize("framing", [b"", b"Transfer-Encoding: chunked\r\n"], ids=["until the end", "chunked"])
def test_a_document_without_an_end_is_refused_at_the_size_limit(server: JwksServer, framing: bytes) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        piece = b"400\r\n" + b" " * 0x400 + b"\r\n" if framing else b" " * 0x400
        with suppress(OSError):  # until the other side has had enough
            while True:
                connection.sendall(piece)

    server.raw = endless
    assert fetch_error(jwks_uri(server, SMALL)).detail == "jwks_uri: larger than 1000 bytes"


def test_a_compressed_answer_is_refused_unread(server: JwksServer) -> None:
    server.body, server.headers = gzip.compress(b" " * 10_000), {"Content-Encoding": "gzip"}
    assert fetch_error(jwks_uri(server)).detail == "jwks_uri: compressed although it was asked for as it is"


def test_an_answer_that_says_identity_is_not_compressed(server: JwksServer) -> None:
    server.headers = {"Content-Encoding": "Identity"}
    assert json.loads(fetch(jwks_uri(server)).document) == jwks(key("k1", "EdDSA"))


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"%MARK% is no HTTP\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        HEAD + b"X: " + b"%MARK%" * 20_000 + b"\r\n\r\n",
        HEAD + b"X: %MARK%\r\n" * 200 + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n%MARK%\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
    ],
    ids=["nothing", "no HTTP", "status", "long header", "many headers", "bad chunk", "cut short"],
)
def test_an_answer_that_is_no_proper_http_is_a_failed_fetch_that_quotes_nothing_of_it(
    server: JwksServer, answer: bytes
) -> None:
    server.raw = lambda connection: connection.sendall(answer.replace(b"%MARK%", MARK.encode()))
    detail = fetch_error(jwks_uri(server)).detail
    assert detail.startswith("jwks_uri: cannot be fetched (")
    assert MARK not in detail
    assert "127.0.0.1" not in detail


def test_an_issuer_that_is_not_there_is_a_failed_fetch(server: JwksServer) -> None:
    server.close()
    assert fetch_error(jwks_uri(server)).detail == "jwks_uri: cannot be fetched (ConnectionError)"


def test_an_issuer_that_is_silent_is_a_failed_fetch_in_time(server: JwksServer) -> None:
    server.hang()
    assert fetch_error(jwks_uri(server), timeout_s=0.05).detail == "jwks_uri: no answer in time"


# Discovery


def test_discovery_leads_to_the_keys(server: JwksServer) -> None:
    server.headers = {"Cache-Control": "max-age=900"}
    fetched = fetch(discovery(server))
    assert json.loads(fetched.document) == jwks(key("k1", "EdDSA"))
    assert fetched.max_age_s == 900.0
    assert [path for path, _headers in server.requests] == [DISCOVERY_PATH, JWKS_PATH]


def test_discovery_is_read_anew_at_each_fetch(server: JwksServer) -> None:
    source = discovery(server)
    fetch(source)
    with JwksServer(key("k2", "EdDSA")) as moved:
        server.metadata = {"jwks_uri": moved.jwks_uri}
        assert json.loads(fetch(source).document) == jwks(key("k2", "EdDSA"))


NOT_THE_ISSUER = "its issuer is not the configured one, to the letter"


@pytest.mark.parametrize(
    ("metadata", "detail"),
    [
        ({"issuer": "https://other.example"}, NOT_THE_ISSUER),
        ({"issuer": "%URL%/"}, NOT_THE_ISSUER),
        ({"issuer": " %URL%"}, NOT_THE_ISSUER),
        ({"issuer": "HTTP%URL%"}, NOT_THE_ISSUER),
        ({"issuer": ["%URL%"]}, NOT_THE_ISSUER),
        ({"issuer": None}, NOT_THE_ISSUER),
        ({"jwks_uri": None}, "no jwks_uri"),
        ({"jwks_uri": 7}, "no jwks_uri"),
        ({"jwks_uri": ""}, "jwks_uri is not an https:// URL"),
        ({"jwks_uri": "/jwks.json"}, "jwks_uri is not an https:// URL"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri is not an https:// URL"),
        ({"jwks_uri": "http://[::1"}, "jwks_uri is not an https:// URL"),
        (
            {"jwks_uri": "http://issuer.example/jwks.json"},
            "jwks_uri is http:// on a host other than loopback; use https://, or spell out allow_insecure_http",
        ),
        (
            {"jwks_uri": "https://user:TOP-SECRET@issuer.example/jwks.json"},
            "jwks_uri holds credentials; put a token into token_file in their place",
        ),
    ],
)
def test_metadata_that_does_not_fit_are_refused_before_any_key_is_fetched(
    server: JwksServer, metadata: dict[str, Any], detail: str
) -> None:
    def here(value: Any) -> Any:
        if isinstance(value, list):
            return [here(element) for element in value]
        return (
            value.replace("HTTP%URL%", "HTTP" + server.url[4:]).replace("%URL%", server.url)
            if isinstance(value, str)
            else value
        )

    server.metadata = {name: here(value) for name, value in metadata.items()}
    assert fetch_error(discovery(server)).detail == f"discovery document: {detail}"
    assert server.fetches == 0


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (b"<html>Sign in</html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"issuer"', "not a JSON object"),
        (b'{"issuer": "%URL%", "issuer": "%URL%", "jwks_uri": "%URL%/jwks.json"}', "duplicate JSON member"),
    ],
)
def test_metadata_that_are_no_strict_json_object_are_refused(server: JwksServer, document: bytes, detail: str) -> None:
    server.body = document.replace(b"%URL%", server.url.encode())
    source = DiscoverySource(server.jwks_uri, server.url, DEFAULTS)
    assert fetch_error(source).detail == f"discovery document: {detail}"
    assert len(server.requests) == 1


def test_limits_hold_for_the_metadata_too(server: JwksServer) -> None:
    server.metadata = {"padding": "x" * 1000}
    assert fetch_error(discovery(server, SMALL)).detail == "discovery document: larger than 1000 bytes"
    source = DiscoverySource(server.jwks_uri, server.url, DEFAULTS)
    server.status, server.headers = 503, {"Retry-After": "7"}
    error = fetch_error(source)
    assert (error.detail, error.retry_after_s) == ("discovery document: HTTP status 503", 7.0)


# Configuration


HTTP_ELSEWHERE = "is http:// on a host other than loopback; use https://, or spell out allow_insecure_http"
CREDENTIALS = "holds credentials; put a token into token_file in their place"
NO_HTTPS = "is not an https:// URL"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://issuer.example/jwks.json", None),
        ("https://issuer.example:8443", None),
        ("https://127.0.0.1/", None),
        ("http://localhost:8080/jwks.json", None),
        ("http://127.0.0.1/", None),
        ("http://127.8.8.8:1/", None),
        ("http://[::1]:8080/", None),
        ("http://issuer.example/", HTTP_ELSEWHERE),
        ("http://10.0.0.1/", HTTP_ELSEWHERE),
        ("http://0.0.0.0/", HTTP_ELSEWHERE),
        ("http://127.0.0.1.example/", HTTP_ELSEWHERE),
        ("http://localhost.example/", HTTP_ELSEWHERE),
        ("http://127.0.0.1\\.example/", HTTP_ELSEWHERE),
        ("http://127.0.0.1\n.example/", HTTP_ELSEWHERE),
        ("http://127.1/", HTTP_ELSEWHERE),
        ("https://user@issuer.example/", CREDENTIALS),
        ("https://user:password@issuer.example/", CREDENTIALS),
        ("https://:@issuer.example/", CREDENTIALS),
        ("http://127.0.0.1@issuer.example/", CREDENTIALS),
        ("http://127.0.0.1\\@issuer.example/", CREDENTIALS),
        ("https://", NO_HTTPS),
        ("https:///jwks.json", NO_HTTPS),
        ("issuer.example/jwks.json", NO_HTTPS),
        ("file:///jwks.json", NO_HTTPS),
        ("", NO_HTTPS),
        ("https://issuer.example:port/", "is not an https:// URL"),
        ("https://issuer.example:99999/", "is not an https:// URL"),
        ("https://[::1/", "is not an https:// URL"),
    ],
)
def test_keys_come_over_https_and_over_http_from_loopback_only(url: str, expected: str | None) -> None:
    assert url_fault(url, allow_insecure_http=False) == expected
    insecure = None if expected == HTTP_ELSEWHERE else expected
    assert url_fault(url, allow_insecure_http=True) == insecure


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "LOCALHOST.example", "issuer.example"])
def test_everything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"timeout_s": 300.1}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"proxy": "proxy.example:3128"}, "proxy"),
        ({"proxy": "socks5://proxy.example:1080"}, "proxy"),
        ({"proxy": "http://proxy.example:port"}, "proxy"),
    ],
)
def test_options_that_make_no_sense_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^fetch: {named} has to be"):
        FetchOptions(**options)


def test_options_at_their_limits_are_taken() -> None:
    assert FetchOptions(timeout_s=300, max_bytes=1).timeout_s == 300


def test_the_repr_of_options_and_sources_holds_no_password_of_a_proxy() -> None:
    options = FetchOptions(proxy=f"http://user:{MARK}@proxy.example:3128")
    for value in (
        options,
        JwksUriSource("https://issuer.example/jwks.json", options),
        Issuer("https://i.example", audiences=["a"], fetch=options),
    ):
        assert MARK not in repr(value)
