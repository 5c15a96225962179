"""The harnesses of `make fuzz` over their small corpus, without atheris: they run, reach what they are for, and can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from fuzz import key_sets, tokens
from fuzz.__main__ import HARNESSES
from grpc_bearer.jws import parse
from grpc_bearer.keys.jwks import parse_jwks
from tests.properties.reading import assert_nothing_is_made_up, assert_read_as_written
from tests.support.tokens import jwks, key, mint

CORPUS: Final = Path(__file__).resolve().parent.parent / "fuzz" / "corpus"
OUTCOMES: Final = {"tokens": tokens.one_input, "key_sets": key_sets.one_input}
EVERY_OUTCOME: Final = {
    "tokens": {"claims", "TOKEN_MISSING", "TOKEN_MALFORMED", "TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_NOT_YET_VALID"},
    "key_sets": {"keys", "keys, some left out", "unreadable"},
}


def inputs(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


@pytest.mark.parametrize(
    "path", [path for name in HARNESSES for path in inputs(name)], ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_an_input_of_the_corpus_breaks_nothing(path: Path) -> None:
    name = path.parent.name
    assert OUTCOMES[name](path.read_bytes()) in EVERY_OUTCOME[name]


@pytest.mark.parametrize("name", HARNESSES)
def test_the_corpus_reaches_every_outcome_and_is_small(name: str) -> None:
    assert {OUTCOMES[name](path.read_bytes()) for path in inputs(name)} == EVERY_OUTCOME[name]
    assert len(inputs(name)) <= 60
    assert all(path.stat().st_size <= 4096 for path in inputs(name))


def test_a_harness_notices_a_token_that_is_not_read_as_it_is_written() -> None:
    token = mint(key("k1", "EdDSA"))
    header, claims, signature = token.split(".")
    assert_read_as_written(parse(token), token)
    for other in (
        f"{header}.{claims}.{signature[:-2]}",
        f"{header}.{claims[:-4]}.{signature}",
        f"{header[:-4]}.{claims}.{signature}",
    ):
        with pytest.raises((AssertionError, ValueError)):
            assert_read_as_written(parse(token), other)


def test_a_harness_notices_a_key_that_its_document_does_not_have() -> None:
    documents = [json.dumps(jwks(key(kid, "EdDSA"))).encode() for kid in ("k1", "k2")]
    keys = [parse_jwks(document, 8) for document in documents]
    assert_nothing_is_made_up(keys[0], documents[0], 8)
    renamed = documents[1].replace(b'"k2"', b'"k1"')
    for document in (documents[1], renamed, documents[0].replace(b'"sig"', b'"enc"'), b'{"keys":[]}'):
        with pytest.raises((AssertionError, StopIteration)):
            assert_nothing_is_made_up(keys[0], document, 8)
