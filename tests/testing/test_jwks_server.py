"""The kit's JWKS server: what it serves, and that it fails, hangs, slows and ends on command."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from grpc_bearer.testing import JwksServer, LocalIssuer
from tests.support import tls
from tests.support.processes import PATIENCE_S
from tests.support.waiting import eventually


def connect(server: JwksServer) -> http.client.HTTPConnection:
    """A connection that is kept."""
    return http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE_S)


def ask(connection: http.client.HTTPConnection, path: str = "/jwks.json") -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def get(server: JwksServer, path: str = "/jwks.json") -> tuple[int, bytes]:
    connection = connect(server)
    try:
        return ask(connection, path)
    finally:
        connection.close()


def kids(server: JwksServer) -> list[str]:
    return [member["kid"] for member in json.loads(get(server)[1])["keys"]]


def test_it_serves_the_keys_that_the_issuer_publishes_at_that_moment(
    grpc_bearer_issuer: LocalIssuer, grpc_bearer_jwks_server: JwksServer
) -> None:
    assert kids(grpc_bearer_jwks_server) == ["key-1"]
    grpc_bearer_issuer.rotate()
    assert kids(grpc_bearer_jwks_server) == ["key-1", "key-2"]
    grpc_bearer_issuer.rotate(overlap=False)
    assert kids(grpc_bearer_jwks_server) == ["key-3"]


def test_it_counts_fetches_of_the_keys_and_lists_every_request(grpc_bearer_jwks_server: JwksServer) -> None:
    get(grpc_bearer_jwks_server, "/.well-known/openid-configuration")
    get(grpc_bearer_jwks_server)
    assert grpc_bearer_jwks_server.fetches == 1
    paths = [path for path, _headers in grpc_bearer_jwks_server.requests]
    assert paths == ["/.well-known/openid-configuration", "/jwks.json"]
    assert grpc_bearer_jwks_server.requests[1][1]["Host"] == urlsplit(grpc_bearer_jwks_server.url).netloc


def test_it_can_be_found_by_discovery(grpc_bearer_issuer: LocalIssuer, grpc_bearer_jwks_server: JwksServer) -> None:
    grpc_bearer_issuer.iss = grpc_bearer_jwks_server.url
    discovery = f"{grpc_bearer_jwks_server.url}/.well-known/openid-configuration"
    with grpc_bearer_issuer.authenticator(discovery_uri=discovery) as auth:
        assert auth.warm(PATIENCE_S)
        assert auth.status()[0].key_ids == ("key-1",)
    grpc_bearer_jwks_server.metadata = {"issuer": "https://another.example"}
    with grpc_bearer_issuer.authenticator(discovery_uri=discovery) as auth:
        auth.start()
        assert eventually(lambda: auth.status()[0].failures > 0)
        assert not auth.ready()


def test_it_fails_until_it_recovers(grpc_bearer_jwks_server: JwksServer) -> None:
    grpc_bearer_jwks_server.fail(429, retry_after_s=7)
    connection = connect(grpc_bearer_jwks_server)
    connection.request("GET", "/jwks.json")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    connection.close()
    grpc_bearer_jwks_server.fail()
    assert get(grpc_bearer_jwks_server)[0] == 503
    grpc_bearer_jwks_server.recover()
    assert kids(grpc_bearer_jwks_server) == ["key-1"]


def test_it_sends_what_it_is_told_to_send(grpc_bearer_jwks_server: JwksServer) -> None:
    grpc_bearer_jwks_server.body = b"<html>"
    assert get(grpc_bearer_jwks_server) == (200, b"<html>")
    grpc_bearer_jwks_server.raw = lambda connection: connection.sendall(b"HTTP/1.1 418 x\r\nContent-Length: 1\r\n\r\n!")
    assert get(grpc_bearer_jwks_server) == (418, b"!")
    grpc_bearer_jwks_server.recover()
    assert kids(grpc_bearer_jwks_server) == ["key-1"]


@pytest.mark.parametrize("go_on", [JwksServer.resume, JwksServer.recover])
def test_it_holds_answers_back_until_it_is_told_to_go_on(go_on: object, grpc_bearer_jwks_server: JwksServer) -> None:
    assert callable(go_on)
    grpc_bearer_jwks_server.hang()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(get, grpc_bearer_jwks_server) for _ in range(2)]
        assert eventually(lambda: grpc_bearer_jwks_server.fetches == 2)
        assert not any(answer.done() for answer in answers)
        go_on(grpc_bearer_jwks_server)
        assert [answer.result(PATIENCE_S)[0] for answer in answers] == [200, 200]


def test_it_answers_late_when_it_is_told_to(grpc_bearer_jwks_server: JwksServer) -> None:
    before = set(threading.enumerate())
    grpc_bearer_jwks_server.delay_s = 3600
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(get, grpc_bearer_jwks_server)
        assert eventually(lambda: grpc_bearer_jwks_server.fetches == 1)
        assert not answer.done()
        grpc_bearer_jwks_server.close()  # ends the delay too
        assert answer.exception(PATIENCE_S) is not None or answer.result()[0] == 200
    assert eventually(lambda: set(threading.enumerate()) <= before)


def test_after_its_end_nobody_is_served_not_even_on_a_connection_that_was_kept(grpc_bearer_issuer: LocalIssuer) -> None:
    with JwksServer(grpc_bearer_issuer.jwks) as server:
        connection = connect(server)
        assert ask(connection)[0] == 200
        address = urlsplit(server.url)
    server.close()  # once more does no harm
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(connection)
    connection.close()
    assert address.hostname is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port or 0), PATIENCE_S)


def test_it_leaves_no_thread_behind(grpc_bearer_issuer: LocalIssuer) -> None:
    before = set(threading.enumerate())
    with JwksServer(grpc_bearer_issuer.jwks) as server:
        server.hang()
        connection = connect(server)
        connection.request("GET", "/jwks.json")
        assert eventually(lambda: server.fetches == 1)
    assert eventually(lambda: set(threading.enumerate()) <= before)
    connection.close()


def test_over_https_it_is_trusted_by_who_has_its_authority(grpc_bearer_issuer: LocalIssuer, tmp_path: Path) -> None:
    identity = tls.identity(tmp_path)
    with JwksServer(grpc_bearer_issuer.jwks, tls=identity.server_context()) as server:
        netloc = urlsplit(server.url).netloc
        stranger = http.client.HTTPSConnection(netloc, context=ssl.create_default_context(), timeout=PATIENCE_S)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(stranger)
        silent = socket.create_connection(netloc.split(":"), PATIENCE_S)  # type: ignore[arg-type]
        context = ssl.create_default_context(cafile=identity.ca_file)
        friend = http.client.HTTPSConnection(netloc, context=context, timeout=PATIENCE_S)
        assert ask(friend)[0] == 200  # a handshake that is never made holds nobody else up
        friend.close()
        silent.close()


def test_a_fault_of_the_tests_own_is_not_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    def jwks() -> dict[str, object]:
        raise LookupError("no such key")

    with JwksServer(jwks) as server, pytest.raises((http.client.HTTPException, OSError)):
        get(server)
    assert eventually(lambda: "LookupError: no such key" in capsys.readouterr().err)
