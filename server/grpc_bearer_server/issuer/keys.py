"""The embedded issuer's signing keys: made at the first start, kept in a state folder that only its owner can read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import get_default_algorithms

FILE_NAME: Final = "signing-keys.json"

_MAKERS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "RS256": lambda: rsa.generate_private_key(public_exponent=65_537, key_size=2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }
)
ALGORITHMS: Final = tuple(_MAKERS)


class StateError(Exception):
    """The state folder cannot be used. The text says what is wrong and how to mend it."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, with the `kid` and `alg` of its public JWK."""

    kid: str
    alg: str
    private_key: Any

    def public_jwk(self) -> dict[str, Any]:
        """The public JWK (RFC 7517 §4)."""
        members: dict[str, Any] = json.loads(get_default_algorithms()[self.alg].to_jwk(self.private_key.public_key()))
        members.pop("key_ops", None)
        return members | {"kid": self.kid, "alg": self.alg, "use": "sig"}


def _signing_key(alg: str, private_key: PrivateKeyTypes) -> SigningKey:
    public = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(hashlib.sha256(public).hexdigest()[:16], alg, private_key)


def load_or_make(state_dir: Path) -> Mapping[str, SigningKey]:
    """The signing keys by algorithm, from `state_dir`; made there (0600) when there are none. Raises `StateError`."""
    path = state_dir / FILE_NAME
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_if_absent(path)
        if path.stat().st_mode & 0o077:
            raise StateError(f"{path}: can be read by others; run chmod 600 on it, or delete it for new keys")
        pems = json.loads(path.read_text(encoding="ascii"))
    except OSError as error:
        raise StateError(f"{error.filename or path}: {os.strerror(error.errno or 0)}; choose another state_dir") from None
    except ValueError:
        raise StateError(f"{path}: does not hold signing keys; delete it for new ones") from None
    try:
        return MappingProxyType({alg: _signing_key(alg, load_pem_private_key(pems[alg].encode(), None)) for alg in ALGORITHMS})
    except (TypeError, KeyError, AttributeError, ValueError):
        raise StateError(f"{path}: does not hold a private key for each of {', '.join(ALGORITHMS)}; delete it") from None


def _write_if_absent(path: Path) -> None:
    """Write whole or not at all; of two that start at once, the first one's keys are kept for both."""
    pems = {
        alg: make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for alg, make in _MAKERS.items()
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            json.dump(pems, file)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        Path(temporary).unlink()
