"""Whoever verifies a token, each configured for the same: signature, allowed algorithm, `iss`, `aud`, `exp`.

A peer is made for one algorithm and verifies a list of tokens; it is None where its package is not installed.
"""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks import extras
from benchmarks.server import UNARY
from benchmarks.stage import ROOT, Algorithm
from benchmarks.variants import authenticator
from grpc_bearer.bearer import authorization_value
from grpc_bearer.gate import Gate
from grpc_bearer.jws import base64url
from grpc_bearer.keys.cache import Use
from tests.support.processes import Process
from tests.support.tokens import SigningKey, jwks

NODE = ROOT / "benchmarks" / "node"

VerifyAll = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Task:
    """What is verified: `tokens` of one key, its issuer and how its keys can be had."""

    algorithm: Algorithm
    key: SigningKey
    tokens: Sequence[str]
    issuer: str
    audience: str
    jwks_uri: str


def _module(name: str) -> ModuleType | None:
    try:
        with warnings.catch_warnings(record=True):  # authlib.jose says that it will move, past any filter
            return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def raw(task: Task) -> VerifyAll:
    """The signature alone, by cryptography, on input that lies ready: what nobody can be faster than."""
    inputs = []
    for token in task.tokens:
        signing_input, _dot, signature = token.rpartition(".")
        octets = base64url(signature.encode())
        if task.algorithm == "ES256":
            octets = encode_dss_signature(int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big"))
        inputs.append((signing_input.encode(), octets))
    verify = task.key.private_key.public_key().verify
    further: tuple[Any, ...] = {
        "RS256": (padding.PKCS1v15(), SHA256()),
        "ES256": (ec.ECDSA(SHA256()),),
        "EdDSA": (),
    }[task.algorithm]

    def run() -> None:
        for message, signature in inputs:
            verify(signature, message, *further)

    return run


def ours(task: Task, *, fast: bool = False) -> VerifyAll:
    """All that is done for a call whose token is new, less grpc. `fast`: with the extras."""
    return by_gate(authenticator(task.issuer, task.audience, task.jwks_uri).gate, task.tokens, fast=fast)


def by_gate(gate: Gate, tokens: Sequence[str], *, fast: bool = False, methods: Sequence[str] = (UNARY,)) -> VerifyAll:
    """Every token verified as on a miss, with the metadata of a call around it. They come again, and are not remembered.

    `methods`: which the calls take turns at.
    """
    asked = list(itertools.islice(itertools.cycle(methods), len(tokens)))
    calls = [(("user-agent", "grpc-python/1"), ("authorization", f"Bearer {token}")) for token in tokens]

    def run() -> None:
        extras.use(fast)
        for method, metadata in zip(asked, calls, strict=True):
            policy = gate.policy(method)
            candidate = gate.read_value(authorization_value(metadata))
            step = gate.key_for(candidate)
            assert isinstance(step, Use)
            gate.accept(candidate, step.key, policy)

    return run


def pyjwt(task: Task) -> VerifyAll:
    """`jwt.decode` with the key at hand."""
    key = jwt.PyJWK(task.key.jwk()).key

    def run() -> None:
        for token in task.tokens:
            jwt.decode(token, key, algorithms=[task.algorithm], audience=task.audience, issuer=task.issuer)

    return run


def pyjwt_client(task: Task) -> VerifyAll:
    """`PyJWKClient` and `jwt.decode`, as PyJWT's documentation has it for a `jwks_uri`."""
    client = jwt.PyJWKClient(task.jwks_uri)

    def run() -> None:
        for token in task.tokens:
            key = client.get_signing_key_from_jwt(token).key
            jwt.decode(token, key, algorithms=[task.algorithm], audience=task.audience, issuer=task.issuer)

    return run


def joserfc(task: Task) -> VerifyAll | None:
    """`joserfc.jwt.decode` with a key set, and its claims registry."""
    module, keys = _module("joserfc.jwt"), _module("joserfc.jwk")
    if module is None or keys is None:
        return None
    key_set = keys.KeySet.import_key_set(jwks(task.key))
    registry = module.JWTClaimsRegistry(
        iss={"essential": True, "value": task.issuer},
        aud={"essential": True, "value": task.audience},
        exp={"essential": True},
    )
    decode = module.decode
    warnings.filterwarnings("ignore", "EdDSA is deprecated")  # it prefers the name of RFC 9864; our issuer uses the common one

    def run() -> None:
        for token in task.tokens:
            registry.validate(decode(token, key_set, algorithms=[task.algorithm]).claims)

    return run


def authlib(task: Task) -> VerifyAll | None:
    """`authlib.jose.JsonWebToken.decode` with a key set, and `validate`."""
    module = _module("authlib.jose")
    if module is None:
        return None
    key_set = module.JsonWebKey.import_key_set(jwks(task.key))
    options = {
        "iss": {"essential": True, "value": task.issuer},
        "aud": {"essential": True, "value": task.audience},
        "exp": {"essential": True},
    }
    decode = module.JsonWebToken([task.algorithm]).decode

    def run() -> None:
        for token in task.tokens:
            decode(token, key_set, claims_options=options).validate()

    return run


OURS: Final = "ours"
OURS_FAST: Final = "ours, with grpc-bearer[fast]"
PYTHON_PEERS: dict[str, Callable[[Task], VerifyAll | None]] = {
    OURS: ours,
    OURS_FAST: partial(ours, fast=True),
    "PyJWT decode": pyjwt,
    "PyJWKClient + decode": pyjwt_client,
    "joserfc": joserfc,
    "authlib": authlib,
}

JSONWEBTOKEN = "jsonwebtoken + jwks-rsa"
NODE_PEERS: dict[str, tuple[Algorithm, ...]] = {
    JSONWEBTOKEN: ("RS256", "ES256"),  # it has no EdDSA
    "jose": ("RS256", "ES256", "EdDSA"),
}


def node_is_there() -> bool:
    """Whether Node is on PATH and its packages are installed (`npm ci` in `benchmarks/node`)."""
    return shutil.which("node") is not None and (NODE / "node_modules").is_dir()


class Node:
    """A Node process that verifies when it is told to."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def verify_all(self, contender: str, task: Task, tokens_file: Path) -> tuple[int, int]:
        """Calls and nanoseconds of CPU, by the process's own account."""
        command = {
            "contender": contender,
            "algorithm": task.algorithm,
            "file": str(tokens_file),
            "jwksUri": task.jwks_uri,
            "issuer": task.issuer,
            "audience": task.audience,
        }
        self._process.send(json.dumps(command))
        answer = json.loads(self._process.line(r"^\{", 60.0))
        return answer["calls"], answer["cpuNs"]
