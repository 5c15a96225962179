"""Metrics: what is counted under which labels, the state of keys and settings, and where they are served."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from grpc_bearer import Authenticator, Issuer, Observation, Policies, Reason
from grpc_bearer_server.assembly import IDENTITY_SERVICE, OWN_SERVICES
from grpc_bearer_server.listener import ListenError, listen_fault
from grpc_bearer_server.metrics import Metrics, MetricsServer
from grpc_bearer_server.reload import Loaded, Reloader
from grpc_bearer_server.settings import Address
from tests.support.jwks_server import JwksServer
from tests.support.scraping import Samples, scrape
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key

WHO_AM_I = f"/{IDENTITY_SERVICE}/WhoAmI"
ANY_PORT = Address("127.0.0.1", 0)
NAMED = "/somebody.elses.v1.Service/Named"


def issuer_of(**keys: object) -> Issuer:
    return Issuer(ISSUER, audiences=[AUDIENCE], **keys)  # type: ignore[arg-type]


@pytest.fixture
def auth() -> Iterator[Authenticator]:
    policies = Policies(services=OWN_SERVICES, public_methods=[NAMED])
    with Authenticator([issuer_of(jwks=jwks(key(), key("k2")))], policies=policies) as one:
        yield one


def reloader_of(auth: Authenticator) -> Reloader:
    return Reloader(Loaded.from_file(None), lambda _settings: auth.reload())


def scraped(metrics: Metrics) -> Samples:
    with MetricsServer(ANY_PORT, metrics.registry) as server:
        return scrape(f"http://{server.address}/metrics")


def test_a_verdict_is_counted_by_a_known_method_or_as_other(auth: Authenticator) -> None:
    metrics = Metrics(auth, reloader_of(auth))
    for observation in [
        Observation(WHO_AM_I, None, True, ISSUER),
        Observation(WHO_AM_I, None, True, None),
        Observation(WHO_AM_I, Reason.TOKEN_EXPIRED, True, None),
        Observation(WHO_AM_I, Reason.TOKEN_EXPIRED, False, None),
        Observation("/grpc.health.v1.Health/Check", None, True, None),
        Observation(NAMED, None, True, None),
        Observation(NAMED + "x", None, True, None),
        Observation(WHO_AM_I + "x", None, True, None),
        Observation(WHO_AM_I[1:], Reason.TOKEN_MISSING, True, None),
        Observation("", Reason.TOKEN_MISSING, True, None),
    ]:
        metrics.observe(observation)
    told = scraped(metrics)
    assert {name[1:]: value for name, value in told.items() if name[0] == "grpc_bearer_verdicts_total"} == {
        ("yes", WHO_AM_I, "OK"): 2,
        ("yes", WHO_AM_I, "TOKEN_EXPIRED"): 1,
        ("no", WHO_AM_I, "TOKEN_EXPIRED"): 1,
        ("yes", "/grpc.health.v1.Health/Check", "OK"): 1,
        ("yes", NAMED, "OK"): 1,
        ("yes", "other", "OK"): 2,
        ("yes", "other", "TOKEN_MISSING"): 2,
    }


def test_a_method_that_was_looked_up_at_a_call_is_other_still(auth: Authenticator) -> None:
    metrics = Metrics(auth, reloader_of(auth))
    auth.gate.policy("/grpc_bearer.v1.IdentityService/Nothing")
    metrics.observe(Observation("/grpc_bearer.v1.IdentityService/Nothing", None, True, None))
    assert scraped(metrics)["grpc_bearer_verdicts_total", "yes", "other", "OK"] == 1


def test_gauges_tell_how_keys_stand(auth: Authenticator) -> None:
    told = scraped(Metrics(auth, reloader_of(auth)))
    assert {name[0]: value for name, value in told.items() if name[1:] == (ISSUER,)} == {
        "grpc_bearer_issuer_ready": 1,
        "grpc_bearer_issuer_keys": 2,
        "grpc_bearer_issuer_stale": 0,
        "grpc_bearer_issuer_fetch_failures": 0,
    } | {name[0]: value for name, value in told.items() if name[0] == "grpc_bearer_issuer_keys_age_seconds"}


def test_an_age_is_told_from_the_first_fetch_on() -> None:
    with JwksServer(key()) as server, Authenticator([issuer_of(jwks_uri=server.jwks_uri)]) as auth:
        metrics = Metrics(auth, reloader_of(auth))
        age = ("grpc_bearer_issuer_keys_age_seconds", ISSUER)
        before = scraped(metrics)
        assert age not in before
        assert before["grpc_bearer_issuer_ready", ISSUER] == before["grpc_bearer_issuer_keys", ISSUER] == 0
        assert auth.warm(20)
        after = scraped(metrics)
        assert 0 <= after[age] < 60
        assert after["grpc_bearer_issuer_ready", ISSUER] == after["grpc_bearer_issuer_keys", ISSUER] == 1


async def test_gauges_tell_which_version_of_the_settings_is_in_use(auth: Authenticator, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("")
    reloader = Reloader(Loaded.from_file(path), lambda _settings: auth.reload())
    metrics = Metrics(auth, reloader)

    def version() -> tuple[float, float]:
        told = scraped(metrics)
        return told["grpc_bearer_settings_version",], told["grpc_bearer_settings_reload_failed",]

    assert version() == (1, 0)
    path.write_text("[server]\nstrict = true\n")
    await reloader.look()
    assert version() == (2, 0)
    path.write_text("[server")
    await reloader.look()
    assert version() == (2, 1)


def test_metrics_are_served_on_ipv6_too() -> None:
    try:
        with MetricsServer(Address("::1", 0), CollectorRegistry()) as server:
            assert scrape(f"http://{server.address}/metrics") == {}
    except ListenError:
        pytest.skip("this machine has no IPv6")


def test_the_port_is_free_again_afterwards() -> None:
    with MetricsServer(ANY_PORT, CollectorRegistry()) as server:
        address = server.address
        with urlopen(f"http://{address}/metrics", timeout=20) as answer:
            assert answer.status == 200
    with MetricsServer(address, CollectorRegistry()) as again:
        assert again.address == address


def test_a_taken_port_and_a_host_that_is_none_are_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ListenError) as refusal:
            MetricsServer(address, CollectorRegistry())
    assert str(refusal.value) == (
        f"metrics.listen: {address} is taken by another program; stop that one, "
        "or set GRPC_BEARER_METRICS__LISTEN to another port"
    )
    with pytest.raises(ListenError, match=r"^metrics\.listen: the host of a\.\.b:1 has no address here$"):
        MetricsServer(Address("a..b", 1), CollectorRegistry())
    unresolved = listen_fault(Address("a.b", 1), "metrics.listen", socket.gaierror(-2, "Name or service not known"))
    assert unresolved == "metrics.listen: the host of a.b:1 has no address here"
