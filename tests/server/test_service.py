"""The service as its users run it: real processes of `grpc-bearer serve`, and clients that are not ours."""

from __future__ import annotations

import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from grpc_bearer.v1.identity_pb2 import WatchIdentityResponse
from tests.support import tls
from tests.support.deaf_peer import await_response_headers, call_that_takes_no_data
from tests.support.jwks_server import JwksServer
from tests.support.service import Service, serving_process, trusting
from tests.support.service_client import (
    IDENTITY_SERVICE,
    NOT_SERVING,
    SERVING,
    Client,
    Running,
    client_of,
    end_of,
    end_of_stream,
    running,
)
from tests.support.tokens import ISSUER, forged, key, mint, new_key
from tests.support.waiting import eventually

SHUTTING_DOWN = (grpc.StatusCode.UNAVAILABLE, "the server is shutting down, call again")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service by a settings file that says nothing but its issuer."""
    with running(tmp_path_factory.mktemp("shared")) as one:
        yield one


def test_a_caller_gets_the_verified_claims_of_a_configured_issuer(shared: Running) -> None:
    told = shared.client.who_am_i(mint())
    assert (told.issuer, told.subject, list(told.audiences)) == (ISSUER, "user-1", ["orders"])
    first = next(shared.client.watch_identity(mint(sub="user-2")))
    assert (first.identity.subject, first.state) == ("user-2", WatchIdentityResponse.STATE_EXPIRING)  # it lives a minute


def test_a_refusal_says_why_and_the_log_has_the_cause_and_nothing_of_the_token(shared: Running) -> None:
    token = forged()
    assert end_of(shared.client.asking(token)) == (grpc.StatusCode.UNAUTHENTICATED, "the bearer token is not valid here")
    assert eventually(lambda: "TOKEN_INVALID: the signature does not verify" in shared.service.process.stderr)
    assert not any(part in shared.service.process.stderr for part in token.split("."))


def test_health_is_serving_for_the_server_and_for_the_service(shared: Running) -> None:
    assert shared.client.health() == shared.client.health(IDENTITY_SERVICE) == SERVING


def test_reflection_is_off_by_default(shared: Running) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        shared.client.services()
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_token_up_to_the_limit_passes_and_a_longer_one_is_refused_for_its_length(shared: Running) -> None:
    def of_size(octets: int) -> str:
        short = mint(pad="")
        return mint(pad="x" * ((octets - len(short)) * 3 // 4))

    long, too_long = of_size(15 * 1024), of_size(16 * 1024 + 100)
    assert len(long) > 15_000
    assert shared.client.who_am_i(long).subject == "user-1"
    assert end_of(shared.client.asking(too_long)) == (grpc.StatusCode.UNAUTHENTICATED, "the bearer token is malformed")


def test_it_is_not_serving_before_the_first_keys_and_a_call_waits_for_them(tmp_path: Path) -> None:
    with JwksServer(key()) as issuer:
        issuer.hang()
        with serving_process(tmp_path, config=trusting(issuer)) as service, client_of(service) as client:
            watch = client.watch_health(IDENTITY_SERVICE)
            assert next(watch).status == NOT_SERVING
            call = client.asking(mint())
            issuer.resume()
            assert call.result().identity.subject == "user-1"
            assert next(watch).status == SERVING


def test_sigterm_lets_calls_finish_ends_streams_tells_health_and_exits_with_0(tmp_path: Path) -> None:
    with running(tmp_path, ["drain_s = 60"], "fetch = { timeout_s = 60 }") as one:
        health, watched = one.client.watch_health(), one.client.watch_identity(mint())
        assert next(health).status == SERVING
        next(watched)
        rotated = new_key("k2")
        one.issuer.keys = (key(), rotated)
        one.issuer.hang()
        fetches = one.issuer.fetches
        call = one.client.asking(mint(rotated))  # its key is not there: the call waits for a fetch
        assert eventually(lambda: one.issuer.fetches > fetches)
        one.service.process.signal(signal.SIGTERM)
        assert next(health).status == NOT_SERVING
        assert end_of_stream(watched) == end_of_stream(health) == SHUTTING_DOWN
        with client_of(one.service) as late:
            assert late.asking(mint()).exception().code() is grpc.StatusCode.UNAVAILABLE  # nothing new is let in
        assert not call.done()
        one.issuer.resume()
        assert call.result().identity.key_id == "k2"
        assert one.service.process.wait() == 0


def test_a_second_signal_ends_the_calls_in_flight(tmp_path: Path) -> None:
    with running(tmp_path, ["drain_s = 600"], "fetch = { timeout_s = 300 }") as one:
        one.issuer.hang()
        fetches = one.issuer.fetches
        call = one.client.asking(mint(new_key("k2")), timeout_s=300)
        assert eventually(lambda: one.issuer.fetches > fetches)
        health = one.client.watch_health()
        assert next(health).status == SERVING
        one.service.process.signal(signal.SIGINT)
        assert next(health).status == NOT_SERVING
        one.service.process.signal(signal.SIGTERM)
        assert call.exception().code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert one.service.process.wait() == 0


def test_a_peer_that_takes_no_data_holds_the_drain_no_longer_than_its_limit(tmp_path: Path) -> None:
    with (
        running(tmp_path, ["drain_s = 0.2"]) as one,
        call_that_takes_no_data(one.service.target, "/grpc.health.v1.Health/Watch") as connection,
    ):
        await_response_headers(connection)
        one.service.process.signal(signal.SIGTERM)
        assert one.service.process.wait() == 0


def test_no_more_calls_than_the_limits_allow_run_on_a_connection_and_on_the_server(tmp_path: Path) -> None:
    with (
        running(tmp_path, ["max_concurrent_streams = 1", "max_concurrent_rpcs = 4"]) as one,
        client_of(one.service) as second,
        client_of(one.service) as third,
        client_of(one.service) as fourth,
        client_of(one.service) as fifth,
    ):
        time.sleep(0.5)  # on older grpcio the call that asked for its health counts for a moment after its end
        streams = [client.watch_identity(mint()) for client in (one.client, second, third, fourth)]
        for stream in streams:
            next(stream)
        # The connection has its one stream: a further call is not even sent.
        assert end_of(one.client.asking(mint(), timeout_s=0.2))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        # And the server has its four calls, on whatever connections.
        assert end_of(fifth.asking(mint()))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].cancel()
        assert eventually(lambda: fifth.asking(mint()).exception() is None)


def test_connections_are_taken_beyond_the_soft_limit_of_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))  # what the child starts with
    try:
        with ExitStack() as stack:
            one = stack.enter_context(running(tmp_path))
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for _connection in range(150):
                client = stack.enter_context(client_of(one.service))
                assert client.health() == SERVING
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_settings_of_tokens_and_reasons_hold_for_calls_and_for_watched_identities(tmp_path: Path) -> None:
    with running(tmp_path, ["max_token_bytes = 1000", "reveal_reasons = false"], "leeway_s = 300") as one:
        bare = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert end_of(one.client.asking(mint(pad="x" * 1000))) == bare
        watched = one.client.watch_identity(mint(iat=None, exp=time.time() - 298.5))  # to go on for 1.5 s
        assert next(watched).state == WatchIdentityResponse.STATE_EXPIRING
        assert end_of_stream(watched) == bare


def test_tls_is_for_clients_that_trust_the_authority(tmp_path: Path) -> None:
    own, other = tls.identity(tmp_path / "own"), tls.identity(tmp_path / "other")
    with JwksServer(key()) as issuer:
        files = {"SERVER__TLS__CERT": own.cert_file, "SERVER__TLS__KEY": own.key_file}
        with serving_process(tmp_path, config=trusting(issuer), **files) as service:
            assert service.announced.endswith("(TLS)")
            assert reaches(service, trust(own))
            assert not reaches(service, trust(other))
            assert not reaches(service, None)


def test_mutual_tls_is_for_clients_with_a_certificate_of_the_authority(tmp_path: Path) -> None:
    own, clients, other = (tls.identity(tmp_path / name) for name in ("own", "clients", "other"))
    with JwksServer(key()) as issuer:
        files = [f'cert = "{own.cert_file}"', f'key = "{own.key_file}"', f'client_ca = "{clients.ca_file}"']
        with serving_process(tmp_path, config="\n".join(["[server.tls]", *files, trusting(issuer)])) as service:
            assert service.announced.endswith("(mutual TLS)")
            assert reaches(service, trust(own, clients))
            assert not reaches(service, trust(own))
            assert not reaches(service, trust(own, other))


def trust(server: tls.Identity, client: tls.Identity | None = None) -> grpc.ChannelCredentials:
    """Credentials that trust a server's authority, with a client's own certificate if it has one."""

    def read(path: str) -> bytes:
        return Path(path).read_bytes()

    if client is None:
        return grpc.ssl_channel_credentials(read(server.ca_file))
    return grpc.ssl_channel_credentials(read(server.ca_file), read(client.key_file), read(client.cert_file))


def reaches(service: Service, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a caller with a good token gets an answer over such a connection."""
    with client_of(service, credentials) as client:
        call = client.asking(mint())
        if call.exception() is None:
            return True
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        return False


# serve --dev


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[tuple[Service, Client]]:
    folder = tmp_path_factory.mktemp("dev")
    with (
        serving_process(folder, "--dev", DEV__STATE_DIR=str(state_dir)) as service,
        client_of(service) as client,
    ):
        yield service, client


def test_serve_dev_prints_its_addresses_and_a_call_to_paste_whose_token_is_good(dev: tuple[Service, Client]) -> None:
    service, client = dev
    assert service.announced == f"serving on {service.target} (plaintext, loopback only)"
    embedded = service.process.line("^embedded issuer http://127.0.0.1:").split()[2]
    pasted = service.process.line("grpcurl")
    call = re.fullmatch(r' *grpcurl -plaintext -H "authorization: Bearer (\S+)" (\S+) (\S+)', pasted)
    assert call is not None
    assert call[2] == service.target
    assert call[3] == f"{IDENTITY_SERVICE}/WhoAmI"
    told = client.who_am_i(call[1])
    assert (told.issuer, told.subject, list(told.audiences)) == (embedded, "dev-user", ["grpc-bearer-dev"])


def test_reflection_is_on_in_serve_dev(dev: tuple[Service, Client]) -> None:
    _service, client = dev
    assert set(client.services()) == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        IDENTITY_SERVICE,
    }


def test_serve_dev_keeps_the_issuers_of_its_settings_and_ends_with_ctrl_c(tmp_path: Path, state_dir: Path) -> None:
    with JwksServer(key()) as issuer:
        own = {"DEV__STATE_DIR": str(state_dir), "DEV__AUDIENCE": "mine"}
        with serving_process(tmp_path, "--dev", config=trusting(issuer), **own) as service:
            with client_of(service) as client:  # closed before the end: grpc 1.72 waits for one that is idle
                assert client.who_am_i(mint()).issuer == ISSUER
                token = service.process.line("grpcurl").partition("Bearer ")[2].partition('"')[0]
                assert client.who_am_i(token).audiences == ["mine"]
            service.process.signal(signal.SIGINT)
            assert service.process.wait() == 0
