"""What the servers of both stacks share: where they listen, and a certificate for those that have to be secure."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK: Final = "127.0.0.1"
SERVER_OPTIONS: Final = (("grpc.so_reuseport", 0),)  # else a second server could listen on the same port, unnoticed
CHANNEL_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)  # no connection is shared with another test


@cache
def _certificate() -> tuple[bytes, bytes]:
    """A self-signed one for loopback, made once per process, and its private key; both PEM."""
    private_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "grpc_bearer.testing")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False)
        .sign(private_key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return certificate.public_bytes(pem), private_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)


def listen(server: Any, *, tls: bool) -> str:
    """Have a server of either stack listen on a free port; the target to connect to."""
    address = f"{LOOPBACK}:0"
    if not tls:
        return f"{LOOPBACK}:{server.add_insecure_port(address)}"
    certificate, private_key = _certificate()
    return f"{LOOPBACK}:{server.add_secure_port(address, grpc.ssl_server_credentials([(private_key, certificate)]))}"


def channel_credentials() -> grpc.ChannelCredentials:
    """What a channel needs to trust such a server."""
    return grpc.ssl_channel_credentials(_certificate()[0])
