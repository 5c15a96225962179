"""The models: addresses, what contradicts itself, and that every figure of an issuer reaches the library."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from grpc_bearer import CachePolicy, FetchOptions, Issuer, Policies, VerdictCachePolicy
from grpc_bearer_server.assembly import authenticator_of
from grpc_bearer_server.settings import (
    Address,
    DevSettings,
    IssuerSettings,
    ServerSettings,
    Settings,
    TlsSettings,
    variable_of,
)
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint
from tests.support.verdicts import authenticate

TLS = {"cert": "cert.pem", "key": "key.pem"}


def an_issuer(**values: Any) -> IssuerSettings:
    return IssuerSettings.model_validate({"issuer": "https://issuer.example", "audiences": ["orders"]} | values)


def fault(model: type[BaseModel], **values: Any) -> str:
    """The one thing that the model finds wrong."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    (detail,) = caught.value.errors()
    return detail["msg"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("[::1]:50051", "::1", 50051),
        ("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1),
        ("localhost:0", "localhost", 0),
        ("orders.example:65535", "orders.example", 65535),
    ],
)
def test_an_address_is_read_and_written_as_host_and_port(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert str(Address(host, port)) == text


@pytest.mark.parametrize(
    "text",
    ["", "127.0.0.1", ":50051", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:123456", "127.0.0.1:٣", "::1:50051", "[::1]",
     "[]:1", "[localhost]:1", "a b:1", "http://127.0.0.1:1", "127.0.0.1:1\n", "127.0.0.1:-1", 50051, None, ["127.0.0.1:1"]],
)  # fmt: skip
def test_an_address_of_another_form_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="write it as"):
        Address.parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_plaintext_is_served_on_loopback(host: str) -> None:
    assert ServerSettings(listen=Address(host, 1)).listen.is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "orders.example", "localhost.example", "127.0.0.1.example"])
def test_plaintext_elsewhere_has_to_be_spelled_out(host: str) -> None:
    listen = Address(host, 1)
    assert f"{listen} is not on loopback" in fault(ServerSettings, listen=listen)
    assert not ServerSettings(listen=listen, allow_plaintext=True).listen.is_loopback
    assert not ServerSettings(listen=listen, tls=TlsSettings.model_validate(TLS)).allow_plaintext


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"cert": "c"}, "cert and key belong together"),
        ({"key": "k"}, "cert and key belong together"),
        ({"client_ca": "a"}, "client_ca needs cert and key"),
    ],
)
def test_half_a_tls_configuration_is_refused(files: dict[str, str], text: str) -> None:
    assert text in fault(TlsSettings, **files)
    assert TlsSettings.model_validate(TLS | {"client_ca": "a"}).client_ca == Path("a")


@pytest.mark.parametrize("listen", ["0.0.0.0:50052", "[::]:50052", "10.0.0.1:50052", "issuer.example:50052"])
def test_the_embedded_issuer_listens_on_loopback_only(listen: str) -> None:
    assert "is not on loopback" in fault(DevSettings, listen=listen)
    assert DevSettings.model_validate({"listen": "[::1]:0"}).listen == Address("::1", 0)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (ServerSettings, {"max_token_bytes": 255}),
        (ServerSettings, {"max_token_bytes": (1 << 20) + 1}),
        (ServerSettings, {"drain_s": -0.1}),
        (ServerSettings, {"drain_s": 3600.1}),
        (ServerSettings, {"drain_s": float("inf")}),
        (ServerSettings, {"keepalive_s": float("nan")}),
        (ServerSettings, {"keepalive_timeout_s": 0}),
        (ServerSettings, {"max_connection_idle_s": -1}),
        (ServerSettings, {"max_connection_age_s": 86_400 * 366}),
        (ServerSettings, {"max_connection_age_grace_s": 0}),
        (ServerSettings, {"min_ping_interval_s": 0}),
        (ServerSettings, {"max_concurrent_rpcs": 0}),
        (ServerSettings, {"max_concurrent_rpcs": 2**31}),
        (ServerSettings, {"max_concurrent_streams": 0}),
        (ServerSettings, {"max_concurrent_streams": 2**31}),
        (ServerSettings, {"log_level": "trace"}),
        (ServerSettings, {"stack": "sync"}),  # the service is asyncio, there is nothing to choose
        (DevSettings, {"ttl_s": 0}),
        (DevSettings, {"ttl_s": 86_401}),
        (DevSettings, {"audience": ""}),
    ],
)
def test_a_value_outside_its_limits_is_refused(model: type[BaseModel], values: dict[str, Any]) -> None:
    assert fault(model, **values)


@pytest.mark.parametrize("settings", [Settings(), ServerSettings(), TlsSettings(), DevSettings(), an_issuer()])
def test_settings_are_frozen(settings: BaseModel) -> None:
    name = next(iter(type(settings).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, name, None)


def test_every_argument_of_an_issuer_can_be_set_and_reaches_the_library() -> None:
    settings = an_issuer(
        algorithms=["ES256"],
        discovery="https://elsewhere.example/metadata",
        leeway_s=1,
        max_lifetime_s=60,
        require_at_jwt=True,
        fetch={"timeout_s": 2, "allow_insecure_http": True},
        cache={"fresh_s": 120},
    )
    expected = Issuer(
        "https://issuer.example",
        audiences=("orders",),
        algorithms=("ES256",),
        discovery_uri="https://elsewhere.example/metadata",
        leeway_s=1,
        max_lifetime_s=60,
        require_at_jwt=True,
        fetch=FetchOptions(timeout_s=2, allow_insecure_http=True),
        cache=CachePolicy(fresh_s=120),
    )
    assert settings.to_issuer() == expected
    in_code_only = {"_", "jwks", "key_source"}
    renamed = {"discovery_uri": "discovery"}
    arguments = {renamed.get(spec.name, spec.name) for spec in fields(Issuer)} - in_code_only
    assert set(IssuerSettings.model_fields) == arguments


@pytest.mark.parametrize("max_entries", [0, 10])
def test_how_tokens_are_remembered_reaches_the_library(max_entries: int) -> None:
    settings = Settings.model_validate({"verdicts": {"max_entries": max_entries, "max_bytes": 1 << 20, "max_age_s": 7}})
    assert settings.verdicts == VerdictCachePolicy(max_entries, 1 << 20, 7.0)
    issuer = Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))
    auth = authenticator_of(settings, [issuer], Policies())
    token = mint()
    for _call in range(2):  # a token is remembered when it comes again
        assert authenticate(auth, token).sub == "user-1"
    assert (len(auth.gate.cache), auth.gate.cached_for_s) == (min(max_entries, 1), 7.0)


@pytest.mark.parametrize(
    ("source", "value"),
    [("jwks_uri", "https://issuer.example/keys"), ("jwks_file", Path("keys.json")), ("allow_any_audience", True)],
)
def test_where_keys_come_from_reaches_the_library(source: str, value: object) -> None:
    audiences = () if source == "allow_any_audience" else ("orders",)
    settings = an_issuer(**{"audiences": audiences, source: value})
    assert getattr(settings.to_issuer(), source) == value


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"audiences": []}, "or spell out allow_any_audience = true"),
        ({"issuer": "internal"}, "give jwks_uri, jwks_file or discovery"),
        ({"discovery": "http://issuer.example"}, "discovery is http:// on a host other than loopback"),
        ({"discovery": "https://a.example", "jwks_file": "f"}, "jwks_file and discovery are both given"),
    ],
)
def test_advice_about_an_issuer_speaks_of_settings(values: dict[str, Any], advice: str) -> None:
    text = fault(IssuerSettings, **({"issuer": "https://issuer.example", "audiences": ["orders"]} | values))
    assert advice in text
    assert "discovery_uri" not in text


def test_a_variable_is_named_after_the_place_in_the_file() -> None:
    assert variable_of(["issuers", 0, "fetch", "timeout_s"]) == "GRPC_BEARER_ISSUERS__0__FETCH__TIMEOUT_S"
