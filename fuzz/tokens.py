"""Harness: the metadata of a call -> claims or `AuthError`, by the shortcuts and by the long way.

The first octet of an input says how the rest becomes a call, so that the fuzzer gets past base64url and the signature:
`v` the `authorization` value as it is; `j` three lines that become the parts of a token; `s` two lines, header and claims set,
that are signed by the key that the gate trusts; `m` lines of `name: value`, several entries; `d` a line with an
`authorization` value that goes before one of `s`, which the gate has been made to remember. Anything else is `v`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from jwt.api_jws import PyJWS

from grpc_bearer import Authenticator, AuthError, Claims, Issuer, VerdictCachePolicy
from grpc_bearer.bearer import authorization_value, bearer_token
from grpc_bearer.jws import parse
from grpc_bearer.testing.keys import SigningKey, base64url, jwks
from tests.properties.reading import assert_read_as_written, same_json
from tests.properties.ways import Metadata, the_drivers_way, the_long_way, verdict

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "orders"
NOW: Final = 1_800_000_000
METHOD: Final = "/shop.v1.Orders/List"
ALGORITHMS: Final = ("EdDSA", "Ed25519")

# A constant, so that an input does in every process what it did in the one that found it.
SIGNER: Final = SigningKey("k1", "EdDSA", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
GATE: Final = Authenticator(
    [Issuer(ISSUER, audiences=[AUDIENCE], algorithms=ALGORITHMS, jwks=jwks(SIGNER), scope_claims=["realm.roles"])],
    verdicts=VerdictCachePolicy(max_entries=16),
    clock=lambda: NOW,
).gate
PYJWS: Final = PyJWS(algorithms=["EdDSA"])
PYJWS.register_algorithm("Ed25519", OKPAlgorithm())


def call_of(data: bytes) -> Metadata:
    """The metadata that an input stands for."""
    how, rest = data[:1], data[1:]
    if how == b"j":
        return [("authorization", "Bearer " + ".".join(base64url(part) for part in rest.split(b"\n", 2)))]
    if how == b"s":
        return [("authorization", f"Bearer {_signed(rest)}")]
    if how == b"d":
        other, _, rest = rest.partition(b"\n")
        right = ("authorization", f"Bearer {_signed(rest)}")
        for _ in range(3):
            verdict(the_drivers_way, GATE, METHOD, [right])
        return [("authorization", other.decode("latin-1")), right]
    if how == b"m":
        entries = [line.partition(b": ") for line in rest.split(b"\n")]
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, _, value in entries]
    return [("authorization", (rest if how == b"v" else data).decode("latin-1"))]


def _signed(lines: bytes) -> str:
    header, _, claims = lines.partition(b"\n")
    signing_input = f"{base64url(header)}.{base64url(claims)}"
    return f"{signing_input}.{base64url(SIGNER.sign(signing_input.encode()))}"


def one_input(data: bytes) -> str:
    """What became of it: "claims" or the reason of the refusal. Raises whatever shows a fault of ours."""
    call = call_of(data)
    found = verdict(the_drivers_way, GATE, METHOD, call)
    assert found == verdict(the_long_way, GATE, METHOD, call), "a shortcut answers otherwise than the long way"
    try:
        token = bearer_token(authorization_value(call), GATE.max_token_bytes)
        jws = parse(token)
    except AuthError as error:
        assert found[:2] == ("refused", error.reason)
        return str(error.reason)
    assert_read_as_written(jws, token)
    if found[0] == "refused":
        return str(found[1])
    claims = the_drivers_way(GATE, METHOD, call)
    assert claims is not None
    assert_signed(claims, token)
    return "claims"


def assert_signed(claims: Claims, token: str) -> None:
    """PyJWT verifies the token too, and it says these claims."""
    payload = PYJWS.decode_complete(token, SIGNER.private_key.public_key(), algorithms=list(ALGORITHMS))["payload"]
    assert same_json(_plain(claims), json.loads(payload))
    assert claims.iss == ISSUER
    assert AUDIENCE in claims.aud
    assert claims.exp + 30 > NOW


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    return [_plain(element) for element in value] if isinstance(value, tuple) else value
