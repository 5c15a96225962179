"""Harness: a JWK Set document -> a key set or `KeysUnreadableError`; and what the set answers to tokens."""

from __future__ import annotations

from typing import Final

from grpc_bearer.errors import KeysUnreadableError
from grpc_bearer.keys.jwks import SUPPORTED_ALGORITHMS, Key, parse_jwks
from tests.properties.reading import assert_nothing_is_made_up

MAX_KEYS: Final = 8


def one_input(data: bytes) -> str:
    """What became of it: "keys", "keys, some left out" or "unreadable". Raises whatever shows a fault of ours."""
    try:
        keys = parse_jwks(data, MAX_KEYS)
    except KeysUnreadableError as error:
        text = str(error)
        assert text.isprintable()
        assert len(text) <= 500
        return "unreadable"
    assert_nothing_is_made_up(keys, data, MAX_KEYS)
    for kid in {None, *(key.kid for key in keys.keys)}:
        for algorithm in SUPPORTED_ALGORITHMS:
            found = keys.select(kid, algorithm)
            fitting = [key for key in keys.keys if kid in (None, key.kid) and algorithm in key.algorithms]
            assert isinstance(found, Key) is (len(fitting) == 1), "the choice is unique or there is none"
            for key in fitting:
                assert not key.verify(algorithm, b"signed by nobody", bytes(64)), "a key that verifies what nobody signed"
    return "keys, some left out" if keys.skipped else "keys"
