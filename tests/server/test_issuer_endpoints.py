"""The embedded issuer over HTTP: metadata, JWK Set, token endpoint, and whom it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from grpc_bearer import Authenticator, Claims, Issuer
from grpc_bearer_server.issuer.endpoints import MAX_BODY_BYTES, parse_claims
from grpc_bearer_server.issuer.keys import ALGORITHMS
from grpc_bearer_server.issuer.runner import EmbeddedIssuer
from grpc_bearer_server.listener import ListenError
from grpc_bearer_server.settings import Address, DevSettings
from tests.support.processes import PATIENCE_S
from tests.support.verdicts import authenticate

AUDIENCE = "grpc-bearer-dev"
GRANT = {"grant_type": "client_credentials"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def issuer(state_dir: Path) -> Iterator[EmbeddedIssuer]:
    with EmbeddedIssuer(DevSettings(listen=Address("127.0.0.1", 0), state_dir=state_dir, ttl_s=120)) as embedded:
        yield embedded


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(self.body)
        return members

    @property
    def refusal(self) -> tuple[int, str, str]:
        """A refusal by RFC 6749 §5.2: the status, `error` and `error_description`."""
        assert self.headers["cache-control"] == "no-store"
        assert set(self.json) == {"error", "error_description"}
        return self.status, self.json["error"], self.json["error_description"]


def ask(
    issuer: EmbeddedIssuer, path: str, body: str | bytes | None = None, *, method: str | None = None, host: str | None = None
) -> Answer:
    """A whole request; a POST when there is a body."""
    authority = issuer.url.removeprefix("http://")
    connection = HTTPConnection(authority, timeout=PATIENCE_S)
    try:
        headers = {"Host": authority if host is None else host} | (FORM if body is not None else {})
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def token(issuer: EmbeddedIssuer, **parameters: str) -> Answer:
    return ask(issuer, "/token", urlencode(GRANT | parameters))


def verified(issuer: EmbeddedIssuer, text: str, **rules: Any) -> Claims:
    """The claims, by the library: keys by discovery."""
    trusted = Issuer(issuer.url, **({"audiences": [AUDIENCE], "algorithms": ALGORITHMS} | rules))
    with Authenticator([trusted]) as auth:
        assert auth.warm(PATIENCE_S)
        return authenticate(auth, text)


def test_the_metadata_name_the_endpoints(issuer: EmbeddedIssuer) -> None:
    answer = ask(issuer, "/.well-known/openid-configuration")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.json["issuer"] == issuer.url
    assert answer.json["jwks_uri"] == f"{issuer.url}/.well-known/jwks.json"
    assert answer.json["token_endpoint"] == f"{issuer.url}/token"
    assert answer.json["id_token_signing_alg_values_supported"] == list(ALGORITHMS)


def test_the_key_set_has_a_public_key_for_each_algorithm_and_may_be_cached(issuer: EmbeddedIssuer) -> None:
    answer = ask(issuer, "/.well-known/jwks.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert [jwk["alg"] for jwk in answer.json["keys"]] == list(ALGORITHMS)
    assert "d" not in {name for jwk in answer.json["keys"] for name in jwk}


def test_a_token_is_given_as_rfc_6749_says(issuer: EmbeddedIssuer) -> None:
    answer = token(issuer, scope="a b")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert {name: value for name, value in answer.json.items() if name != "access_token"} == {
        "token_type": "Bearer",
        "expires_in": 120,
        "scope": "a b",
    }


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_token_is_one_that_the_library_takes_by_discovery(alg: str, issuer: EmbeddedIssuer) -> None:
    claims = verified(issuer, token(issuer, alg=alg).json["access_token"], require_at_jwt=True)
    assert (claims.algorithm, claims.iss, claims.sub, claims.aud) == (alg, issuer.url, "dev-user", (AUDIENCE,))
    assert (claims.client_id, claims.scopes) == ("grpc-bearer-cli", frozenset())
    assert claims.iat is not None
    assert claims.exp - claims.iat == 120
    assert claims.jti


def test_a_token_holds_what_its_asker_says(issuer: EmbeddedIssuer) -> None:
    asked = {
        "sub": "alice",
        "audience": "orders",
        "scope": "a b",
        "client_id": "app",
        "ttl_s": "7",
        "claims": '{"n": [1, "é"]}',
    }
    claims = verified(issuer, token(issuer, **asked).json["access_token"], audiences=["orders"])
    assert (claims.sub, claims.client_id, claims.scopes, claims["n"]) == ("alice", "app", frozenset("ab"), (1, "é"))
    assert claims.iat is not None
    assert claims.exp - claims.iat == 7


def test_claims_win_over_everything_else(issuer: EmbeddedIssuer) -> None:
    claims = json.dumps({"sub": "bob", "aud": [AUDIENCE, "x"], "scope": "c"})
    verdict = verified(issuer, token(issuer, sub="alice", scope="a", claims=claims).json["access_token"])
    assert (verdict.sub, verdict.aud, verdict.scopes) == ("bob", (AUDIENCE, "x"), frozenset("c"))


def test_a_token_that_has_expired_already_is_consistent_in_itself(issuer: EmbeddedIssuer) -> None:
    claims = verified(issuer, token(issuer, ttl_s="-20").json["access_token"])  # within the leeway
    assert claims.iat == claims.exp


def test_no_two_tokens_are_the_same(issuer: EmbeddedIssuer) -> None:
    assert verified(issuer, issuer.mint()).jti != verified(issuer, issuer.mint()).jti


INVALID = "invalid_request"
GRANT_TEXT = "grant_type=client_credentials"
NOT_A_FORM = "expected a body of application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "error", "description"),
    [
        ("grant_type", INVALID, NOT_A_FORM),
        (f"{GRANT_TEXT}&sub=%FF", INVALID, NOT_A_FORM),
        (f"{GRANT_TEXT}&sub=é".encode(), INVALID, NOT_A_FORM),
        ('{"grant_type": "client_credentials"}', INVALID, NOT_A_FORM),
        (GRANT_TEXT + "&sub=a" * 32, INVALID, NOT_A_FORM),
        ("sub=a", INVALID, "grant_type is missing; it has to be client_credentials"),
        ("grant_type=", "unsupported_grant_type", "grant_type has to be client_credentials"),
        ("grant_type=password", "unsupported_grant_type", "grant_type has to be client_credentials"),
        (f"{GRANT_TEXT}&sub=a&sub=b", INVALID, "a parameter is given twice"),
        (f"{GRANT_TEXT}&{GRANT_TEXT}", INVALID, "a parameter is given twice"),
        (
            f"{GRANT_TEXT}&user=a",
            INVALID,
            "unknown parameter; there are alg, audience, claims, client_id, grant_type, scope, sub, ttl_s",
        ),
        (f"{GRANT_TEXT}&alg=HS256", INVALID, "alg has to be one of RS256, ES256, EdDSA"),
        (f"{GRANT_TEXT}&alg=none", INVALID, "alg has to be one of RS256, ES256, EdDSA"),
        *[
            (f"{GRANT_TEXT}&ttl_s={ttl_s}", INVALID, "ttl_s has to be a whole number of seconds, at most 86400")
            for ttl_s in ("", "-", "--1", "1.5", "86401", "-86401", "9999999999", "1_0", "%D9%A3", "%2B1")
        ],
        (f"{GRANT_TEXT}&claims=", INVALID, "claims: not JSON"),
        (f"{GRANT_TEXT}&claims=%7B%22a%22:1,%22a%22:2%7D", INVALID, "claims: duplicate JSON member"),
        (f"{GRANT_TEXT}&claims=%7B%22a%22:NaN%7D", INVALID, "claims: NaN or Infinity in JSON"),
        (f"{GRANT_TEXT}&claims=[]", INVALID, "claims has to be a JSON object"),
    ],
)
def test_a_wrong_request_is_refused_as_rfc_6749_says(
    body: str | bytes, error: str, description: str, issuer: EmbeddedIssuer
) -> None:
    assert ask(issuer, "/token", body).refusal == (400, error, description)


def test_an_empty_request_is_refused(issuer: EmbeddedIssuer) -> None:
    assert ask(issuer, "/token", "").refusal[:2] == (400, INVALID)


def test_a_claim_of_a_wrong_type_is_refused_by_its_name(issuer: EmbeddedIssuer) -> None:
    status, error, description = token(issuer, claims='{"iss": 5}').refusal
    assert (status, error) == (400, INVALID)
    assert description.startswith("claims: ")
    assert "iss" in description.lower()


@pytest.mark.parametrize("ttl_s", ["86400", "-86400", "0"])
def test_the_limits_of_a_lifetime_are_within(ttl_s: str, issuer: EmbeddedIssuer) -> None:
    assert token(issuer, ttl_s=ttl_s).json["expires_in"] == int(ttl_s)


def test_a_body_is_read_up_to_its_limit_and_no_further(issuer: EmbeddedIssuer) -> None:
    start = f"{GRANT_TEXT}&sub="
    fits = start + "a" * (MAX_BODY_BYTES - len(start))
    assert ask(issuer, "/token", fits).status == 200
    assert ask(issuer, "/token", fits + "a").refusal == (400, INVALID, f"the body is larger than {MAX_BODY_BYTES} bytes")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/token", "GET", 405),
        ("/token", "PUT", 405),
        ("/.well-known/jwks.json", "POST", 405),
        ("/", "GET", 404),
        ("/.well-known/jwks.json", "HEAD", 200),
    ],
)
def test_there_is_nothing_else(path: str, method: str, status: int, issuer: EmbeddedIssuer) -> None:
    assert ask(issuer, path, method=method).status == status


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:50052", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0", "10.0.0.1", "[::2]:1",
     "", ":50052", "[", "[::1", "[::1].evil.example", "127.0.0.1@evil.example", "a@127.0.0.1", "127.0.0.1:", "127.0.0.1:x",
     "127.0.0.1 evil"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/token", "/.well-known/jwks.json", "/nowhere"])
def test_a_request_for_another_host_is_refused(host: str, path: str, issuer: EmbeddedIssuer) -> None:
    # DNS rebinding: a web page whose own name resolves to 127.0.0.1 would get tokens.
    body = urlencode(GRANT) if path == "/token" else None
    answer = ask(issuer, path, body, host=host)
    assert answer.status == 400
    assert b"token" not in answer.body


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:50052", "[::1]", "[::1]:50052", "127.8.9.10:1"]
)
def test_a_request_for_any_loopback_name_is_answered(host: str, issuer: EmbeddedIssuer) -> None:
    assert ask(issuer, "/token", urlencode(GRANT), host=host).status == 200


def test_an_issuer_on_another_loopback_address_works_too(state_dir: Path) -> None:
    with EmbeddedIssuer(DevSettings(listen=Address("127.8.9.10", 0), state_dir=state_dir)) as embedded:
        assert embedded.url.startswith("http://127.8.9.10:")
        assert verified(embedded, token(embedded).json["access_token"]).iss == embedded.url


def test_a_taken_port_is_one_line_that_says_so(issuer: EmbeddedIssuer, state_dir: Path) -> None:
    taken = Address.parse(issuer.url.removeprefix("http://"))
    with pytest.raises(ListenError) as caught:
        EmbeddedIssuer(DevSettings(listen=taken, state_dir=state_dir))
    assert str(caught.value) == (
        f"dev.listen: {taken} is taken by another program; stop that one, or set GRPC_BEARER_DEV__LISTEN to another port"
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_issuer_that_does_not_start_says_so(state_dir: Path) -> None:
    embedded = EmbeddedIssuer(DevSettings(listen=Address("127.0.0.1", 0), state_dir=state_dir))
    embedded._socket.close()
    with pytest.raises(ListenError, match="did not start"), embedded:
        pass


@pytest.mark.parametrize(
    ("pair", "claim"),
    [
        ("a=b", "b"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("a=1", 1),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=null", None),
        ('a="1"', "1"),
        ('a=["x", {}]', ["x", {}]),
        ("a={", "{"),
        ("a= b ", " b "),
    ],
)
def test_a_claim_of_the_command_line_is_json_where_it_reads_as_json_and_text_elsewhere(pair: str, claim: object) -> None:
    assert parse_claims((pair,)) == {"a": claim}


@pytest.mark.parametrize("pair", ["a", "", "=b"])
def test_a_claim_of_the_command_line_needs_a_name_and_a_value(pair: str) -> None:
    with pytest.raises(ValueError, match="is not of the form name=value"):
        parse_claims((pair,))
