"""How the service listens: channel options, credentials, the bound port."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from .settings import Address, ServerSettings, TlsSettings, variable_of

METADATA_MARGIN_BYTES: Final = 8 * 1024  # for all other metadata; 8 KiB is grpc's own default for everything
MAX_FILES: Final = 65_536
MIN_PENDING: Final = 1_000  # core's own limit of calls that wait to be taken
MAX_REQUEST_BYTES: Final = 64 * 1024  # IdentityService's requests are empty, reflection's are names


class ListenError(Exception):
    """The service cannot listen. The text says where, why and how to mend it."""


def channel_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """grpc's server options. Soft and hard metadata limits are one: between the two, grpc drops calls at random (measured)."""
    metadata_bytes = settings.max_token_bytes + METADATA_MARGIN_BYTES
    pending = max(MIN_PENDING, settings.max_concurrent_rpcs)
    return [
        ("grpc.so_reuseport", 0),  # on by default: a second bind of the same port would silently succeed
        ("grpc.max_metadata_size", metadata_bytes),
        ("grpc.absolute_max_metadata_size", metadata_bytes),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        # Core's own limits are 1,000 and 3,000 calls that wait to be taken; between them it cancels calls at random, and beyond
        # them all, those of good callers too: 77 of 100 got through a burst of 10,000 (measured, 1.85). Never below its own
        # lower one: with a limit of 2, a single call was refused now and then (measured, 1.72).
        ("grpc.server.max_pending_requests", pending),
        ("grpc.server.max_pending_requests_hard_limit", pending),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_connection_idle_ms", _ms(settings.max_connection_idle_s)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_connection_age_grace_s)),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout_s)),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_ping_interval_s)),
    ]


def _ms(seconds: float) -> int:
    return min(max(1, round(seconds * 1000)), 2**31 - 1)  # an int option of grpc has 32 bits


def credentials(tls: TlsSettings) -> grpc.ServerCredentials | None:
    """The server's credentials, None for plaintext. Raises `ListenError`: grpc itself would fail at each handshake only."""
    if tls.cert is None or tls.key is None:
        return None
    chain, key = _read(tls.cert, "server.tls.cert"), _read(tls.key, "server.tls.key")
    client_ca = None if tls.client_ca is None else _read(tls.client_ca, "server.tls.client_ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")  # never asks on the terminal
    except (ssl.SSLError, ValueError):
        raise ListenError(
            f"server.tls: {tls.cert} and {tls.key} are no certificate and its unencrypted private key, both PEM"
        ) from None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError:
            raise ListenError(f"server.tls.client_ca: {tls.client_ca} holds no PEM certificates") from None
    return grpc.ssl_server_credentials([(key, chain)], client_ca, require_client_auth=client_ca is not None)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ListenError(f"{setting}: {path} cannot be read: {os.strerror(error.errno or 0)}") from None


def raise_file_limit() -> None:
    """Let this process open as many files as it may, within `MAX_FILES`: each connection is one.

    The usual soft limit of 1,024 is for programs that use `select`. Beyond it no new connection is taken, and a thousand
    silent ones of a stranger are enough to get there.
    """
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def bind(server: grpc.aio.Server, settings: ServerSettings) -> Address:
    """Bind, and say where: the port is known then even when 0 was asked for. Raises `ListenError`."""
    server_credentials = credentials(settings.tls)
    address = settings.listen
    _probe(address)
    try:
        if server_credentials is None:
            port = server.add_insecure_port(str(address))
        else:
            port = server.add_secure_port(str(address), server_credentials)
    except RuntimeError:
        port = 0
    if port == 0:  # the address is free, it was probed
        tls = settings.tls
        given = "" if tls.cert is None else f" with {tls.cert} and {tls.key}; use an RSA, P-256, P-384, P-521 or Ed25519 key"
        raise ListenError(f"server: gRPC cannot serve on {address}{given}")
    return Address(address.host, port)


def _probe(address: Address) -> None:
    """Bind once for the operating system's reason: grpc's own error has none, and logs a page about it."""
    try:
        found: Sequence[Any] = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ListenError(listen_fault(address, "server.listen", error)) from None
    family, kind, protocol, _name, target = found[0]
    with socket.socket(family, kind, protocol) as sock:
        # As grpc does: a port whose last connections are still closing is free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(target)
        except OSError as error:
            raise ListenError(listen_fault(address, "server.listen", error)) from None


def listen_fault(address: Address, setting: str, error: OSError | UnicodeError) -> str:
    """One line for an address that cannot be resolved or bound."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"{setting}: the host of {address} has no address here"
    variable = variable_of(setting.split("."))
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: {address} is taken by another program; stop that one, or set {variable} to another port"
    why = os.strerror(error.errno or 0)
    return f"{setting}: cannot listen on {address}: {why}; set {variable} to another one"
