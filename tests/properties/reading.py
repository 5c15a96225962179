"""What was read of a token or a JWK Set, held against the standard library and PyJWT: it says what they say, and no more."""

from __future__ import annotations

import base64
import json
from typing import Any

from jwt import PyJWK

from grpc_bearer.jws import CompactJws
from grpc_bearer.keys.jwks import SUPPORTED_ALGORITHMS, Key, KeySet

SECRET_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def octets_of(part: str) -> bytes:
    """What base64url stands for, read as laxly as anybody does."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def same_json(one: Any, other: Any) -> bool:
    """By their text, because 1, 1.0 and True are equal to Python."""
    return json.dumps(one) == json.dumps(other)


def assert_read_as_written(jws: CompactJws, token: str) -> None:
    """Each part is what the token has at its place, is spelled in the one right way, and means what `json` reads in it."""
    header_part, claims_part, signature_part = token.split(".")
    assert jws.header_part == header_part.encode()
    assert jws.signing_input == f"{header_part}.{claims_part}".encode()
    assert base64.urlsafe_b64encode(jws.signature).rstrip(b"=") == signature_part.encode()
    for part in (header_part, claims_part):
        assert base64.urlsafe_b64encode(octets_of(part)).rstrip(b"=") == part.encode()
    members = json.loads(octets_of(header_part))
    assert jws.header == (members["alg"], members.get("kid"), members.get("typ"))
    assert members.keys().isdisjoint({"crit", "b64"})
    assert same_json(jws.claims_set, json.loads(octets_of(claims_part)))


def numbers(public_key: Any) -> object:
    """What makes a public key that one and no other."""
    return public_key.public_bytes_raw() if hasattr(public_key, "public_bytes_raw") else public_key.public_numbers()


def assert_nothing_is_made_up(keys: KeySet, document: bytes, max_keys: int) -> None:
    """Each key is a member of the document, as PyJWT alone would load it; the others are accounted for."""
    members = json.loads(document)["keys"]
    assert 0 < len(keys.keys) + len(keys.skipped) <= len(members) <= max_keys
    assert all(line.isprintable() for line in keys.skipped)
    left = [member for member in members if isinstance(member, dict)]
    for loaded in keys.keys:
        # Of several that are the same key, one may be left out: it is enough that one says all that was taken from it.
        member = next(each for each in left if each.get("kid") == loaded.kid and _is_to_verify(each) and _is(loaded, each))
        left.remove(member)
        assert loaded.algorithms <= SUPPORTED_ALGORITHMS


def _is_to_verify(member: dict[str, Any]) -> bool:
    return (
        SECRET_MEMBERS.isdisjoint(member)
        and member.get("use", "sig") == "sig"
        and isinstance(operations := member.get("key_ops", ["verify"]), list)
        and "verify" in operations
    )


def _is(loaded: Key, member: dict[str, Any]) -> bool:
    algorithm = min(loaded.algorithms)
    alg = member.get("alg", algorithm)
    try:
        by_pyjwt = PyJWK(member, algorithm=algorithm).key
    except Exception:  # whatever PyJWT makes of a bad key: it is none
        return False
    return {"Ed25519": "EdDSA"}.get(alg, alg) in loaded.algorithms and numbers(by_pyjwt) == numbers(loaded._public_key)
