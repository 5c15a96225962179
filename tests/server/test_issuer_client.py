"""`grpc-bearer token` asks for a token: what it says when it gets none."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grpc_bearer_server.issuer.client import TokenRefusedError, ask_for_token
from grpc_bearer_server.issuer.runner import EmbeddedIssuer
from grpc_bearer_server.settings import Address, DevSettings
from tests.support.sockets import Listener


@pytest.fixture(scope="module")
def issuer(state_dir: Path) -> Iterator[str]:
    with EmbeddedIssuer(DevSettings(listen=Address("127.0.0.1", 0), state_dir=state_dir)) as embedded:
        yield embedded.url


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    """Gives this answer, and reads what is asked to its end: closing before would be a reset connection."""

    def say(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return say


def refusal(issuer: str) -> str:
    with pytest.raises(TokenRefusedError) as caught:
        ask_for_token(issuer, {})
    return str(caught.value)


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_a_token_is_a_compact_jws(issuer: str) -> None:
    assert ask_for_token(issuer, {"sub": "a&b=c"}).count(".") == 2


def test_no_proxy_of_the_environment_is_asked(issuer: str, environment: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        environment.setenv(name, "http://127.0.0.1:1")
    environment.delenv("no_proxy", raising=False)
    assert ask_for_token(issuer, {})


def test_the_issuer_s_own_reason_is_told(issuer: str) -> None:
    with pytest.raises(TokenRefusedError) as caught:
        ask_for_token(issuer, {"alg": "none"})
    assert str(caught.value) == (
        f"the issuer at {issuer} gives no token (HTTP status 400): alg has to be one of RS256, ES256, EdDSA"
    )


@pytest.mark.parametrize("body", ["", "<html>", "[]", "{}"])
def test_a_refusal_without_a_reason_says_so(body: str) -> None:
    with Listener(saying(http("503 Unavailable", body))) as peer:
        said = f"the issuer at http://{peer.address} gives no token (HTTP status 503): it did not say why"
        assert refusal(f"http://{peer.address}") == said


def test_where_nothing_answers_it_says_how_to_start_the_service() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert refusal(address) == (
            f"nothing answers at {address}; start the service first: grpc-bearer serve --dev (here: make run)"
        )


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http("200 OK", "<html>"), id="HTML"),
        pytest.param(http("200 OK", "[]"), id="a list"),
        pytest.param(http("200 OK", "{}"), id="no token"),
        pytest.param(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", id="HTTP/2, as the service itself"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", id="cut short"),
    ],
)
def test_another_program_s_answer_is_told_apart(answer: bytes) -> None:
    with Listener(saying(answer)) as peer:
        assert refusal(f"http://{peer.address}") == (
            f"what answers at http://{peer.address} is not the embedded issuer; give the right address with --issuer"
        )


@pytest.mark.parametrize("issuer", ["http://a..b", "http://127.0.0.1:port"])
def test_an_address_that_leads_nowhere_is_one_line(issuer: str) -> None:
    assert "give the right address with --issuer" in refusal(issuer)
