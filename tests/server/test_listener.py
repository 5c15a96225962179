"""How the service listens: options, TLS files, the bound port, and one line for each thing that stands in the way."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from grpc_bearer_server.listener import ListenError, bind, channel_options, credentials
from grpc_bearer_server.settings import Address, ServerSettings, TlsSettings
from tests.support.tls import Identity, identity

PORT_0 = Address("127.0.0.1", 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """Right ones. Read only."""
    return identity(tmp_path_factory.mktemp("tls"))


def tls(cert: str | Path, key: str | Path, client_ca: str | Path | None = None) -> TlsSettings:
    return TlsSettings(cert=Path(cert), key=Path(key), client_ca=None if client_ca is None else Path(client_ca))


def test_the_defaults_are_grpc_options() -> None:
    assert dict(channel_options(ServerSettings())) == {
        "grpc.so_reuseport": 0,
        "grpc.max_metadata_size": 24 * 1024,
        "grpc.absolute_max_metadata_size": 24 * 1024,
        "grpc.max_receive_message_length": 64 * 1024,
        "grpc.server.max_pending_requests": 10_000,
        "grpc.server.max_pending_requests_hard_limit": 10_000,
        "grpc.max_concurrent_streams": 100,
        "grpc.max_connection_idle_ms": 300_000,
        "grpc.max_connection_age_ms": 3_600_000,
        "grpc.max_connection_age_grace_ms": 300_000,
        "grpc.keepalive_time_ms": 60_000,
        "grpc.keepalive_timeout_ms": 20_000,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
    }


@pytest.mark.parametrize(("most", "waiting"), [(2, 1_000), (1_000, 1_000), (20_000, 20_000)])
def test_as_many_calls_may_wait_as_may_run_and_never_fewer_than_by_core(most: int, waiting: int) -> None:
    options = dict(channel_options(ServerSettings(max_concurrent_rpcs=most)))
    assert options["grpc.server.max_pending_requests"] == waiting
    assert options["grpc.server.max_pending_requests_hard_limit"] == waiting


def test_settings_are_grpc_options_within_what_grpc_takes() -> None:
    settings = ServerSettings(
        max_token_bytes=1000,
        max_concurrent_streams=7,
        max_connection_idle_s=1.5,
        max_connection_age_s=86_400 * 365,
        max_connection_age_grace_s=0.0001,
        keepalive_s=2,
        keepalive_timeout_s=3,
        min_ping_interval_s=4,
    )
    options = dict(channel_options(settings))
    assert options["grpc.max_metadata_size"] == options["grpc.absolute_max_metadata_size"] == 1000 + 8192
    assert options["grpc.max_concurrent_streams"] == 7
    assert options["grpc.max_connection_idle_ms"] == 1500
    assert options["grpc.max_connection_age_ms"] == 2**31 - 1
    assert options["grpc.max_connection_age_grace_ms"] == 1
    assert options["grpc.keepalive_time_ms"] == 2000
    assert options["grpc.keepalive_timeout_ms"] == 3000
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 4000


async def bound(settings: ServerSettings) -> Address:
    """Where a server that is stopped again listened."""
    server = grpc.aio.server(options=channel_options(settings))
    try:
        return bind(server, settings)
    finally:
        await server.stop(None)


async def listen_error(settings: ServerSettings) -> str:
    with pytest.raises(ListenError) as caught:
        await bound(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_port_0_is_told_as_the_port_that_it_became() -> None:
    address = await bound(ServerSettings(listen=PORT_0))
    assert address.host == "127.0.0.1"
    assert address.port > 0


async def test_a_taken_port_is_told_with_the_variable_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        assert await listen_error(ServerSettings(listen=address)) == (
            f"server.listen: {address} is taken by another program; stop that one, "
            "or set GRPC_BEARER_SERVER__LISTEN to another port"
        )


async def test_a_port_that_another_grpc_server_shares_is_taken_too() -> None:
    # so_reuseport is grpc's default: without the option a second bind of the same port would succeed.
    first, second = (grpc.aio.server(options=channel_options(ServerSettings())) for _ in range(2))
    address = bind(first, ServerSettings(listen=PORT_0))
    await first.start()
    try:
        with pytest.raises(ListenError, match="is taken by another program"):
            bind(second, ServerSettings(listen=address))
        with pytest.raises(RuntimeError):
            second.add_insecure_port(str(address))
    finally:
        await second.stop(None)
        await first.stop(None)


async def test_a_host_that_is_none_is_told() -> None:
    settings = ServerSettings(listen=Address("orders..example", 1), allow_plaintext=True)
    assert await listen_error(settings) == "server.listen: the host of orders..example:1 has no address here"


async def test_an_address_of_another_machine_is_told_with_the_system_s_reason() -> None:
    settings = ServerSettings(listen=Address("192.0.2.1", 1), allow_plaintext=True)  # RFC 5737: nobody's
    assert await listen_error(settings) == (
        "server.listen: cannot listen on 192.0.2.1:1: Cannot assign requested address; "
        "set GRPC_BEARER_SERVER__LISTEN to another one"
    )


def test_without_files_there_are_no_credentials() -> None:
    assert credentials(TlsSettings()) is None


@pytest.mark.parametrize("mutual", [False, True])
async def test_right_files_are_served_with(mutual: bool, files: Identity) -> None:
    client_ca = files.ca_file if mutual else None
    settings = ServerSettings(listen=PORT_0, tls=tls(files.cert_file, files.key_file, client_ca))
    assert (await bound(settings)).port > 0


def tls_error(settings: TlsSettings) -> str:
    with pytest.raises(ListenError) as caught:
        credentials(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("setting", ["cert", "key", "client_ca"])
def test_a_file_that_cannot_be_read_is_told(setting: str, files: Identity, tmp_path: Path) -> None:
    right = tls(files.cert_file, files.key_file, files.ca_file)
    for path, why in ((tmp_path / "nope.pem", "No such file or directory"), (tmp_path, "Is a directory")):
        wrong = right.model_copy(update={setting: path})
        assert tls_error(wrong) == f"server.tls.{setting}: {path} cannot be read: {why}"


def encrypted(files: Identity) -> bytes:
    key = load_pem_private_key(Path(files.key_file).read_bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


def of_another(_files: Identity) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda _files: b"", id="empty"),
        pytest.param(lambda _files: b"\x30\x82\x01\x00\xff", id="DER"),
        pytest.param(lambda files: Path(files.cert_file).read_bytes(), id="a certificate"),
        pytest.param(encrypted, id="encrypted"),
        pytest.param(of_another, id="of another certificate"),
    ],
)
def test_a_key_that_is_not_the_certificate_s_is_told(
    content: Callable[[Identity], bytes], files: Identity, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(content(files))
    assert tls_error(tls(files.cert_file, key)) == (
        f"server.tls: {files.cert_file} and {key} are no certificate and its unencrypted private key, both PEM"
    )


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_certificate_or_client_ca_that_is_none_is_told(content: bytes, files: Identity, tmp_path: Path) -> None:
    path = tmp_path / "no.pem"
    path.write_bytes(content)
    assert f"{path} and {files.key_file} are no certificate" in tls_error(tls(path, files.key_file))
    assert tls_error(tls(files.cert_file, files.key_file, path)) == f"server.tls.client_ca: {path} holds no PEM certificates"


async def test_a_certificate_of_a_kind_that_grpc_lacks_is_told(tmp_path: Path) -> None:
    # OpenSSL takes it, grpc's BoringSSL does not.
    key = ec.generate_private_key(ec.SECP256K1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(certificate)
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert await listen_error(ServerSettings(listen=PORT_0, tls=tls(cert_file, key_file))) == (
        f"server: gRPC cannot serve on 127.0.0.1:0 with {cert_file} and {key_file}; "
        "use an RSA, P-256, P-384, P-521 or Ed25519 key"
    )
