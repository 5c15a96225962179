"""Where keys come from besides HTTP: a file, a set given in code, a callable of one's own; and how a fetch is given up on."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from grpc_bearer.errors import ConfigurationError, Reason
from grpc_bearer.keys.cache import CachePolicy, Query, Use
from grpc_bearer.keys.refresher import Refresher, StaticKeys
from grpc_bearer.keys.source import MAX_FILE_BYTES, Attempt, FetchedKeys, FileSource, InlineSource, KeySource
from tests.support.clock import Clock
from tests.support.fetching import fetch, fetch_error
from tests.support.key_source import document
from tests.support.tokens import jwks, key
from tests.support.verdicts import refused

POLICY = CachePolicy()


def refresher_of(source: KeySource, clock: Clock, timeout_s: float = 10.0) -> Refresher:
    return Refresher(source, POLICY, name="issuer", timeout_s=timeout_s, monotonic=clock, jitter=lambda: 0.0)


def key_ids(refresher: Refresher) -> list[str | None]:
    keys = refresher.state.key_set
    return [] if keys is None else [known.kid for known in keys.keys]


# A file


def test_a_file_is_read_anew_at_each_fetch_and_says_nothing_of_freshness(tmp_path: Path) -> None:
    source = FileSource(str(tmp_path / "jwks.json"))
    for content in (document("k1"), document("k2")):
        (tmp_path / "jwks.json").write_bytes(content)
        assert fetch(source) == FetchedKeys(content, None)


def test_keys_added_to_the_file_serve_when_its_freshness_is_over(tmp_path: Path) -> None:
    file, clock = tmp_path / "jwks.json", Clock()
    file.write_bytes(document("k1"))
    refresher = refresher_of(FileSource(str(file)), clock)
    refresher.step()
    file.write_bytes(document("k1", "k2"))
    assert refresher.step() == pytest.approx(480.0)
    clock.advance(480.0)
    refresher.step()
    assert key_ids(refresher) == ["k1", "k2"]


@pytest.mark.parametrize(("name", "why"), [("missing.json", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_a_failed_fetch_that_says_why(tmp_path: Path, name: str, why: str) -> None:
    detail = fetch_error(FileSource(str(tmp_path / name))).detail
    assert detail == f"the JWK Set file cannot be read: {why}"


def test_a_file_of_the_size_limit_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(b" " * MAX_FILE_BYTES)
    assert len(fetch(FileSource(str(file))).document) == MAX_FILE_BYTES
    file.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    assert fetch_error(FileSource(str(file))).detail == "the JWK Set file is larger than 524288 bytes"


def test_a_file_that_hangs_is_given_up_on_at_the_deadline(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refresher = refresher_of(FileSource(str(fifo)), Clock(), timeout_s=0.1)
    refresher.step()
    assert refresher.state.last_error == "no complete answer within 0.1 s"
    os.close(os.open(fifo, os.O_RDWR))  # lets the reader go


# A set given in code


def test_an_inline_set_is_at_hand_at_once_and_never_fetched() -> None:
    keys = StaticKeys(InlineSource.of(jwks(key("k1", "EdDSA"))), POLICY)
    keys.start()
    keys.on_change(lambda: pytest.fail("nothing changes"))
    step = keys.ask(Query("k1", "EdDSA"))
    assert step.key.kid == "k1"
    with refused(Reason.TOKEN_INVALID, "no key of the issuer has this kid"):
        keys.ask(Query("k2", "EdDSA"))
    keys.close()
    assert keys.ask(Query(None, "EdDSA")) == step
    assert (keys.state.generation, keys.state.fresh_for_s) == (1, float("inf"))


def test_an_inline_set_is_a_source_too() -> None:
    assert json.loads(fetch(InlineSource.of({"keys": []})).document) == {"keys": []}


@pytest.mark.parametrize("value", [{"keys": [b"bytes"]}, {"keys": {1, 2}}, {("a", "b"): []}])
def test_an_inline_set_that_is_not_plain_json_data_is_a_wrong_setting(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^jwks: expected a JWK Set as plain JSON data"):
        InlineSource.of(value)


def test_an_inline_set_without_a_usable_key_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"^jwks: the JWK Set has no usable key"):
        StaticKeys(InlineSource.of({"keys": []}), POLICY)
    with pytest.raises(ConfigurationError, match=r"^jwks: the JWK Set has 2 keys, more than the 1 that are allowed"):
        StaticKeys(InlineSource.of(json.loads(document("k1", "k2"))), CachePolicy(max_keys=1))


# A callable


def test_a_function_is_a_source_and_may_say_how_long_its_keys_are_fresh() -> None:
    clock, attempts = Clock(), []

    def from_the_vault(attempt: Attempt) -> FetchedKeys:
        attempts.append(attempt)
        return FetchedKeys(document("k1"), max_age_s=100.0)

    refresher = refresher_of(from_the_vault, clock, timeout_s=7.0)
    refresher.step()
    assert refresher.step() == pytest.approx(80.0)
    assert isinstance(refresher.ask(Query("k1", "EdDSA")), Use)
    refresher.close()
    assert [(attempt.timeout_s, attempt.abandoned) for attempt in attempts] == [(7.0, True)]


# Giving up


def test_giving_up_calls_each_callback_once() -> None:
    attempt, calls = Attempt(1.0), []
    attempt.on_abandon(lambda: calls.append("first"))
    attempt.on_abandon(lambda: calls.append("second"))
    assert (attempt.abandoned, calls) == (False, [])
    attempt.abandon()
    attempt.abandon()
    assert (attempt.abandoned, calls) == (True, ["first", "second"])


def test_what_is_registered_after_giving_up_is_called_at_once() -> None:
    attempt, called = Attempt(1.0), threading.Event()
    attempt.abandon()
    attempt.on_abandon(called.set)
    assert called.is_set()


def test_a_callback_that_raises_keeps_neither_the_others_nor_the_caller() -> None:
    attempt, called = Attempt(1.0), threading.Event()

    def broken() -> None:
        raise OSError("already closed")

    attempt.on_abandon(broken)
    attempt.on_abandon(called.set)
    attempt.abandon()
    assert called.is_set()
