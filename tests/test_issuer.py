"""An issuer's settings: what is wrong with them is said at construction, and where its keys come from."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from grpc_bearer import Authenticator, CachePolicy, ConfigurationError, FetchedKeys, FetchOptions, Issuer
from grpc_bearer.keys.refresher import Refresher, StaticKeys
from grpc_bearer.verifier import TokenRules
from tests.support.jwks_server import DISCOVERY_PATH, JWKS_PATH, JwksServer
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint
from tests.support.verdicts import authenticate

CHOICE = "choose from ES256, ES384, ES512, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512"
STRINGS = "has to be a list of non-empty strings"
LIFETIME = "max_lifetime_s has to be above 0 seconds, or None for no limit"
NO_NUMBER = (math.nan, True, "30")
PLAIN_HTTP = "is http:// on a host other than loopback; use https://, or spell out allow_insecure_http"
NO_DISCOVERY = (
    "as OpenID discovery address cannot be used: it has to be https://, or http:// on loopback; "
    "give jwks_uri, jwks_file, jwks or discovery_uri"
)


def issuer(name: str = ISSUER, **arguments: Any) -> Issuer:
    """A right one, but for the arguments that are given."""
    return Issuer(name, **({"audiences": [AUDIENCE]} | arguments))


def test_what_is_not_said_is_strict() -> None:
    assert issuer().rules() == TokenRules(
        issuer=ISSUER,
        audiences=frozenset({AUDIENCE}),
        algorithms=frozenset({"RS256", "ES256", "EdDSA"}),
        leeway_s=30.0,
        max_lifetime_s=None,
        require_at_jwt=False,
    )


def test_what_is_said_becomes_the_rules() -> None:
    said = Issuer(
        "x",
        allow_any_audience=True,
        algorithms=("Ed25519", "PS512"),
        scope_claims=["roles", "realm_access.roles"],
        jwks=jwks(key()),
        leeway_s=0,
        max_lifetime_s=3600,
        require_at_jwt=True,
    )
    assert said.rules() == TokenRules("x", None, frozenset({"EdDSA", "PS512"}), 0, 3600, True, ("roles", "realm_access.roles"))


def test_the_limits_themselves_are_within_them() -> None:
    rules = issuer(leeway_s=600, max_lifetime_s=0.5).rules()
    assert (rules.leeway_s, rules.max_lifetime_s) == (600, 0.5)


def test_an_issuer_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        issuer().allow_any_audience = True  # type: ignore[misc]


@pytest.mark.parametrize("audiences", [["a", "b"], ("a", "b"), {"a", "b"}, frozenset({"a", "b"}), {"a": 1, "b": 2}.keys()])
def test_audiences_are_taken_in_any_collection(audiences: Any) -> None:
    assert issuer(audiences=audiences).rules().audiences == frozenset("ab")


@pytest.mark.parametrize("name", ["", None, 5, b"https://issuer.example"])
def test_an_issuer_has_a_name(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^issuer: expected the exact `iss` of the tokens, a non-empty string$"):
        issuer(name)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"audiences": []}, "audiences is empty; list what `aud` has to name, or spell out allow_any_audience=True"),
        ({"allow_any_audience": True}, "audiences and allow_any_audience contradict each other; drop one of them"),
        ({"audiences": AUDIENCE}, f"audiences {STRINGS}"),  # its letters would be the audiences
        ({"audiences": [""]}, f"audiences {STRINGS}"),
        ({"audiences": [AUDIENCE, None]}, f"audiences {STRINGS}"),
        ({"audiences": [AUDIENCE.encode()]}, f"audiences {STRINGS}"),
        ({"audiences": None}, f"audiences {STRINGS}"),
        ({"audiences": iter([AUDIENCE])}, f"audiences {STRINGS}"),  # it would be used up before the first token comes
        ({"algorithms": []}, f"algorithms is empty; {CHOICE}"),
        ({"algorithms": "RS256"}, f"algorithms {STRINGS}"),
        ({"algorithms": [1]}, f"algorithms {STRINGS}"),
        ({"algorithms": None}, f"algorithms {STRINGS}"),
        ({"algorithms": ["RS256", "none"]}, f"algorithms has 'none'; {CHOICE} (never none or HMAC)"),
        ({"algorithms": ["HS256"]}, f"algorithms has 'HS256'; {CHOICE} (never none or HMAC)"),
        ({"algorithms": ["ES256K"]}, f"algorithms has 'ES256K'; {CHOICE} (never none or HMAC)"),
        ({"algorithms": ["rs256"]}, f"algorithms has 'rs256'; {CHOICE} (never none or HMAC)"),
        ({"scope_claims": "realm_access.roles"}, f"scope_claims {STRINGS}"),
        ({"scope_claims": ["roles", ""]}, f"scope_claims {STRINGS}"),
        ({"scope_claims": None}, f"scope_claims {STRINGS}"),
        *(({"leeway_s": value}, "leeway_s has to be 0 to 600 seconds") for value in (-1, 600.5, math.inf, *NO_NUMBER, None)),
        *(({"max_lifetime_s": value}, LIFETIME) for value in (0, -1, math.inf, *NO_NUMBER)),
        ({"jwks": {}, "jwks_uri": "https://a"}, "jwks_uri and jwks are both given; keep one source of keys"),
        ({"jwks_file": "a", "discovery_uri": "a"}, "jwks_file and discovery_uri are both given; keep one source of keys"),
        ({"jwks_uri": "http://keys.example"}, f"jwks_uri {PLAIN_HTTP}"),
        ({"jwks_uri": "file:///keys"}, "jwks_uri is not an https:// URL"),
        ({"discovery_uri": "http://keys.example"}, f"discovery_uri {PLAIN_HTTP}"),
        ({"discovery_uri": "keys.example"}, "discovery_uri is not an https:// URL"),
    ],
)
def test_a_wrong_argument_is_named_with_its_issuer_and_how_to_mend_it(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        issuer(**arguments)
    assert str(caught.value) == f"issuer '{ISSUER}': {fault}"


@pytest.mark.parametrize("name", ["joe", "http://issuer.example", "urn:issuer"])
def test_an_issuer_that_is_no_address_needs_another_source_of_keys(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        issuer(name)
    assert str(caught.value) == f"issuer '{name}': {NO_DISCOVERY}"
    assert issuer(name, jwks_uri="https://issuer.example/keys").issuer == name


def test_plain_http_is_taken_where_it_is_spelled_out() -> None:
    fetch = FetchOptions(allow_insecure_http=True)
    assert issuer(jwks_uri="http://keys.example", fetch=fetch).fetch is fetch
    assert issuer("http://issuer.example", fetch=fetch).fetch is fetch


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"keys": [{"kty": "oct", "k": "AA"}]}, "secret key material"),
        ({"keys": []}, "it is empty"),
        ({}, "not a JWK Set"),
        ({"keys": [object()]}, "expected a JWK Set as plain JSON data"),
    ],
)
def test_an_inline_set_without_a_usable_key_is_a_configuration_error(given: Any, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        issuer(jwks=given).keys()


def test_an_inline_set_over_the_limit_of_keys_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="more than the 1 that are allowed"):
        issuer(jwks=jwks(key("k1"), key("k2")), cache=CachePolicy(max_keys=1)).keys()


def test_only_an_inline_set_needs_no_refresher() -> None:
    assert isinstance(issuer(jwks=jwks(key())).keys(), StaticKeys)
    assert isinstance(issuer().keys(), Refresher)


def accepts(configured: Issuer) -> bool:
    """Whether a token of the issuer is accepted with the keys that it gets."""
    with Authenticator([configured]) as auth:
        assert auth.warm(20)
        return authenticate(auth, mint(iss=configured.issuer)).key_id == "k1"


def test_without_a_source_keys_come_by_discovery_under_the_issuer() -> None:
    with JwksServer(key()) as server:
        assert accepts(issuer(server.url))
        assert [path for path, _headers in server.requests] == [DISCOVERY_PATH, JWKS_PATH]


def test_discovery_is_looked_for_below_the_path_of_the_issuer() -> None:
    # OpenID Connect Discovery 1.0 §4.1: a terminating slash is removed first; the issuer itself stays as it is.
    with JwksServer(key()) as server:
        server.metadata = {"issuer": f"{server.url}/tenant/"}
        assert accepts(issuer(f"{server.url}/tenant/"))
        assert server.requests[0][0] == f"/tenant{DISCOVERY_PATH}"


def test_keys_come_from_the_jwks_uri_the_discovery_uri_the_file_or_the_callable_that_is_given(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(jwks(key())))
    with JwksServer(key()) as server:
        server.metadata = {"issuer": ISSUER}
        assert accepts(issuer(jwks_uri=server.jwks_uri))
        assert accepts(issuer(discovery_uri=server.url + DISCOVERY_PATH))
        assert [path for path, _headers in server.requests] == [JWKS_PATH, DISCOVERY_PATH, JWKS_PATH]
    assert accepts(issuer(jwks_file=file))
    assert accepts(issuer(jwks_file=str(file)))
    assert accepts(issuer(key_source=lambda _attempt: FetchedKeys(file.read_bytes())))
    assert accepts(issuer(jwks=jwks(key())))
