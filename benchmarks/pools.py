"""Tokens by the thousand: 13 claims, about 1 KB each with RS256, every one of them different."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from benchmarks.cpu import pin
from tests.support.tokens import SigningKey, claims_set, compact

VALID_S = 7200
_CHUNK = 500

_FURTHER_CLAIMS: dict[str, Any] = {
    "email": "a.person@mail.example.com",
    "name": "A Person of Some Importance",
    "tenant": "8d0f7c1e-3f0b-4a83-9d6f-6f2f9c1f8b52",
    "roles": ["orders-reader", "orders-writer", "billing-reader"],
}


def token(key: SigningKey, number: int, issuer: str, **claims: Any) -> str:
    """One token, `number` in its `jti`. `claims` override, as in `tests.support.tokens.claims_set`."""
    now = int(time.time())
    members: dict[str, Any] = (
        {"iss": issuer, "jti": f"id-{number:032}", "nbf": now, "exp": now + VALID_S} | _FURTHER_CLAIMS | claims
    )
    header = {"alg": key.alg, "typ": "at+jwt", "kid": key.kid}
    # As compact as issuers write it.
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, claims_set(now, **members))]
    return compact(parts[0], parts[1], key)


def _chunk(kid: str | None, alg: str, pem: bytes, issuer: str, numbers: range, claims: str) -> list[str]:
    key = SigningKey(kid, alg, load_pem_private_key(pem, None))
    return [token(key, number, issuer, **json.loads(claims)) for number in numbers]


def many(key: SigningKey, count: int, issuer: str, cores: tuple[int, ...], **claims: Any) -> list[str]:
    """`count` different tokens, made on all of `cores`: an RSA signature takes ten times as long as its verification."""
    pem = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    same: list[Iterable[Any]] = [itertools.repeat(value) for value in (key.kid, key.alg, pem, issuer)]
    with ProcessPoolExecutor(len(cores), get_context("spawn"), initializer=pin, initargs=cores) as pool:
        made = pool.map(_chunk, *same, chunks, itertools.repeat(json.dumps(claims)))
        return list(itertools.chain.from_iterable(made))


def write(path: Path, tokens: Iterable[str]) -> Path:
    """A file with a token a line, for `benchmarks.load`."""
    path.write_text("\n".join(tokens), encoding="ascii")
    return path
