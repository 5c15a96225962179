"""What the background thread does in each of its turns, one turn at a time, on a clock that is passed in."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import InvalidStateError
from contextlib import closing, contextmanager
from typing import Any

import pytest

from grpc_bearer.errors import FetchError, Reason
from grpc_bearer.keys.cache import CachePolicy
from grpc_bearer.keys.refresher import Refresher, Wait
from grpc_bearer.keys.remote import FetchOptions, JwksUriSource
from grpc_bearer.keys.source import FetchedKeys, KeySource
from tests.support.clock import Clock
from tests.support.jwks_server import JwksServer
from tests.support.key_source import Scripted, document, key_for, query
from tests.support.tokens import key
from tests.support.verdicts import refused

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
NAME = "https://issuer.example"
SECRET = "s3cret-text-of-an-exception"
LAST_FETCH_FAILED = "the last fetch of the issuer's keys failed, and it is too early for another"
UNKNOWN_KID = "no key of the issuer has this kid"


def refresher_of(source: KeySource, clock: Clock | None = None, jitter: float = 0.0, timeout_s: float = 20.0) -> Refresher:
    return Refresher(source, CachePolicy(), name=NAME, timeout_s=timeout_s, monotonic=clock or Clock(), jitter=lambda: jitter)


def key_ids(refresher: Refresher) -> list[str | None]:
    keys = refresher.state.key_set
    return [] if keys is None else [known.kid for known in keys.keys]


def pause_s(refresher: Refresher) -> float:
    """How long the background thread would sleep now. Nothing may be due."""
    wait_s = refresher.step()
    assert wait_s is not None
    assert wait_s > 0
    return wait_s


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="grpc_bearer")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """What was logged since the last look."""
    found = [f"{record.levelname} {record.getMessage()}" for record in log.records]
    log.clear()
    return found


@contextmanager
def no_new_threads() -> Iterator[None]:
    """No thread can be started: each would need a stack of 64 TiB."""
    usual = threading.stack_size(2**46)
    try:
        yield
    finally:
        threading.stack_size(usual)


# Row: refresh ahead


def test_keys_are_fetched_again_in_the_background_at_80_percent_of_their_freshness() -> None:
    source, clock = Scripted("k1"), Clock()
    refresher = refresher_of(source, clock)
    assert refresher.step() == 0.0
    assert pause_s(refresher) == pytest.approx(480.0)
    clock.advance(479.0)
    assert pause_s(refresher) == pytest.approx(1.0)
    source.kids = ("k1", "k2")
    clock.advance(1.0)
    refresher.step()
    assert (source.calls, key_ids(refresher)) == (2, ["k1", "k2"])


def test_a_fleet_that_starts_together_does_not_fetch_together() -> None:
    pauses = []
    for jitter in (0.0, 0.5, 0.99):
        refresher = refresher_of(Scripted("k1"), jitter=jitter)
        refresher.step()
        pauses.append(pause_s(refresher))
    assert pauses == pytest.approx([480.0, 456.0, 432.48])


def test_the_freshness_that_the_issuer_gives_sets_the_pace() -> None:
    with JwksServer(key("k1", "EdDSA")) as server:
        server.headers = {"Cache-Control": "max-age=7200", "Age": "200"}
        refresher = refresher_of(JwksUriSource(server.jwks_uri, FetchOptions()))
        refresher.step()
        assert pause_s(refresher) == pytest.approx(5600.0)


# Row: a fetch fails


def test_while_fetches_fail_the_last_good_keys_serve_for_a_day_past_their_freshness_and_tries_back_off() -> None:
    source, clock = Scripted("k1"), Clock()
    refresher = refresher_of(source, clock)
    with closing(refresher):
        refresher.step()
        source.fails_with(FetchError("HTTP status 503"))
        clock.advance(480.0)
        pauses = []
        for _ in range(8):
            refresher.step()
            pauses.append(pause_s(refresher))
            clock.advance(pauses[-1])
        assert pauses == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0])
        clock.now = 1000.0 + 600.0 + DAY_S - 1.0
        refresher.step()  # as the background would have done
        assert key_for(refresher, "k1").kid == "k1"
        clock.advance(1.0)
        for kid in ("k1", "unknown", None):
            with refused(Reason.KEYS_UNAVAILABLE, LAST_FETCH_FAILED):
                refresher.ask(query(kid))


def test_an_issuer_that_comes_back_is_found_again() -> None:
    source, clock = Scripted("k1"), Clock()
    source.fails_with(FetchError("HTTP status 503"))
    refresher = refresher_of(source, clock)
    refresher.step()
    clock.advance(pause_s(refresher))
    source.answer = None
    refresher.step()
    assert (refresher.state.failures, refresher.state.last_error, key_ids(refresher)) == (0, None, ["k1"])


def test_retry_after_of_the_issuer_is_waited_for() -> None:
    with JwksServer() as server:
        server.status, server.headers = 503, {"Retry-After": "42"}
        refresher = refresher_of(JwksUriSource(server.jwks_uri, FetchOptions()))
        refresher.step()
        assert pause_s(refresher) == pytest.approx(42.0)


# Row: empty, non-JSON or keyless document


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the JWK Set cannot be read: not JSON"),
        (b"<!doctype html><title>Sign in</title>", "the JWK Set cannot be read: not JSON"),
        (document("k1")[:-1], "the JWK Set cannot be read: not JSON"),
        (b"[]", "not a JWK Set: expected an object with an array `keys`"),
        (b'{"error": "s3cret"}', "not a JWK Set: expected an object with an array `keys`"),
        (b'{"keys": []}', "the JWK Set has no usable key: it is empty"),
        (b'{"keys": [{"kty": "s3cret"}]}', "the JWK Set has no usable key: keys[0]: kty or crv is not supported"),
        (b'{"keys": [' + b"1," * 100 + b"1]}", "the JWK Set has 101 keys, more than the 100 that are allowed"),
    ],
)
def test_a_document_without_a_usable_key_is_a_failed_fetch_and_the_last_good_set_stays(body: bytes, error: str) -> None:
    clock = Clock()
    with (
        JwksServer(key("k1", "EdDSA")) as server,
        closing(refresher_of(JwksUriSource(server.jwks_uri, FetchOptions()), clock)) as refresher,
    ):
        refresher.step()
        server.body = body
        clock.advance(480.0)
        refresher.step()
        assert (refresher.state.failures, refresher.state.last_error) == (1, error)
        assert key_for(refresher, "k1").kid == "k1"
        assert pause_s(refresher) == pytest.approx(1.0)


# Row: unknown kid


def test_forged_kids_cost_two_fetches_a_cooldown_and_a_rotation_gets_the_second() -> None:
    source, clock = Scripted("k1"), Clock()
    with closing(refresher_of(source, clock)) as refresher:
        refresher.step()
        for _ in range(20):
            with refused(Reason.TOKEN_INVALID, UNKNOWN_KID):
                key_for(refresher, "forged")
        assert source.calls == 2
        source.kids = ("k1", "k2")
        assert key_for(refresher, "k2").kid == "k2"
        assert source.calls == 3
        for attempt in range(200):
            with refused(Reason.TOKEN_INVALID, UNKNOWN_KID):
                key_for(refresher, f"forged-{attempt}")
        assert source.calls == 3
        clock.advance(30.0)
        with refused(Reason.TOKEN_INVALID, UNKNOWN_KID):
            key_for(refresher, "forged")
        assert source.calls == 4


def test_an_unknown_kid_while_the_issuer_is_down_is_unavailable_and_costs_no_storm() -> None:
    source, clock = Scripted("k1"), Clock()
    with closing(refresher_of(source, clock)) as refresher:
        refresher.step()
        source.fails_with(FetchError("HTTP status 503"))
        for attempt in range(50):
            with refused(Reason.KEYS_UNAVAILABLE, LAST_FETCH_FAILED):
                key_for(refresher, f"kid-{attempt}")
        assert source.calls == 2
        assert key_for(refresher, "k1").kid == "k1"


# Sources that are not ours


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        TimeoutError(SECRET),
        RecursionError(SECRET),
        InvalidStateError(SECRET),
        asyncio.CancelledError(SECRET),
        GeneratorExit(SECRET),
        KeyboardInterrupt(SECRET),
        SystemExit(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_source_that_raises_anything_counts_as_failed_at_once_and_its_text_is_not_told(
    error: BaseException, log: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    source = Scripted("k1")
    source.fails_with(error)
    refresher = refresher_of(source)
    refresher.step()
    assert refresher.state.last_error == f"the fetch failed: {type(error).__name__}"
    assert pause_s(refresher) == pytest.approx(1.0)
    assert SECRET not in log.text
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("answer", [None, document("k1"), FetchedKeys("text"), FetchedKeys(None)])  # type: ignore[arg-type]
def test_a_source_that_brings_something_else_counts_as_failed(answer: Any) -> None:
    source = Scripted()
    source.answer = lambda: answer
    refresher = refresher_of(source)
    refresher.step()
    assert refresher.state.last_error == "the fetch failed: AttributeError"


@pytest.mark.parametrize(
    ("max_age_s", "expected"), [(float("nan"), 480.0), ("300", 480.0), (300, 240.0), (float("inf"), 0.8 * DAY_S), (-5.0, 48.0)]
)
def test_a_freshness_that_is_no_number_counts_as_none_given_and_never_as_fetch_on(max_age_s: Any, expected: float) -> None:
    source = Scripted()
    source.answer = lambda: FetchedKeys(document("k1"), max_age_s)
    refresher = refresher_of(source)
    refresher.step()
    assert pause_s(refresher) == pytest.approx(expected)


@pytest.mark.parametrize(("retry_after_s", "expected"), [(float("nan"), 1.0), ("300", 1.0), (300, 300.0), (-5.0, 1.0)])
def test_a_retry_after_that_is_no_number_counts_as_none_given(retry_after_s: Any, expected: float) -> None:
    source = Scripted()
    source.fails_with(FetchError("not now", retry_after_s))
    refresher = refresher_of(source)
    refresher.step()
    assert (refresher.state.last_error, pause_s(refresher)) == ("not now", expected)


def test_a_source_whose_giving_up_fails_does_not_stop_the_background() -> None:
    def source(attempt: Any) -> FetchedKeys:
        attempt.on_abandon(lambda: 1 / 0)
        return FetchedKeys(document("k1"))

    refresher = refresher_of(source)
    assert refresher.step() == 0.0
    assert pause_s(refresher) == pytest.approx(480.0)


def test_a_fetch_is_given_up_on_at_the_deadline_and_what_it_brings_later_is_dropped() -> None:
    source = Scripted("k1")
    source.hang()
    refresher = refresher_of(source, timeout_s=0.05)
    refresher.step()
    assert refresher.state.last_error == "no complete answer within 0.05 s"
    assert source.attempts[0].abandoned
    assert refresher.state.key_set is None


def test_a_fetch_for_which_no_thread_can_be_started_counts_as_failed() -> None:
    refresher = refresher_of(Scripted("k1"))
    with no_new_threads():
        refresher.step()
    assert refresher.state.last_error == "the fetch failed: RuntimeError"
    assert pause_s(refresher) == pytest.approx(1.0)


def test_a_background_that_cannot_be_started_is_logged_and_the_next_call_tries_again(log: pytest.LogCaptureFixture) -> None:
    with closing(refresher_of(Scripted("k1"))) as refresher:
        with no_new_threads():
            waiting = refresher.ask(query("k1"))
        assert lines(log) == [f"ERROR issuer {NAME}: no thread could be started to fetch keys; the next call tries again"]
        assert isinstance(waiting, Wait)
        assert not waiting.flight.done()
        assert key_for(refresher, "k1").kid == "k1"
        assert waiting.flight.done()


def test_closing_answers_those_who_wait_for_a_background_that_could_not_be_started() -> None:
    refresher = refresher_of(Scripted("k1"))
    with no_new_threads():
        waiting = refresher.ask(query("k1"))
    refresher.close()
    assert isinstance(waiting, Wait)
    assert waiting.flight.done()


# What an operator reads


def test_the_log_says_what_came_of_fetches_once_and_with_the_next_try(log: pytest.LogCaptureFixture) -> None:
    source, clock = Scripted("k1"), Clock()
    source.fails_with(FetchError("jwks_uri: HTTP status 503", 2.5))
    refresher = refresher_of(source, clock)
    refresher.step()
    assert lines(log) == [f"WARNING issuer {NAME}: jwks_uri: HTTP status 503; no keys yet; next try in 2.5 s"]
    bad = json.loads(document("k1"))
    bad["keys"].append({"kty": "EC", "use": "enc", "crv": "P-256", "kid": SECRET})
    source.answer = lambda: FetchedKeys(json.dumps(bad).encode())
    clock.advance(pause_s(refresher))
    refresher.step()
    assert lines(log) == [
        f"INFO issuer {NAME}: 1 keys",
        f"WARNING issuer {NAME}: a key is left out: keys[1]: use is not sig",
    ]
    clock.advance(480.0)
    refresher.step()
    assert lines(log) == []  # the same keys again
    source.fails_with(FetchError("jwks_uri: no answer in time"))
    clock.advance(480.0)
    refresher.step()
    assert lines(log) == [f"WARNING issuer {NAME}: jwks_uri: no answer in time; the last good keys stay; next try in 1.0 s"]
    source.answer = lambda: FetchedKeys(json.dumps(bad).encode())
    clock.advance(1.0)
    refresher.step()
    assert lines(log) == [f"INFO issuer {NAME}: keys can be fetched again"]


def test_each_change_callback_is_called_after_each_fetch_whatever_the_others_do(log: pytest.LogCaptureFixture) -> None:
    source, clock = Scripted("k1"), Clock()
    refresher = refresher_of(source, clock)
    seen: list[tuple[int, int]] = []

    def broken() -> None:
        raise ValueError(SECRET)

    def look() -> None:
        seen.append((refresher.state.generation, refresher.state.failures))

    refresher.on_change(look)
    refresher.on_change(broken)
    refresher.on_change(look)
    refresher.step()
    assert f"ERROR issuer {NAME}: an on_change callback failed: ValueError" in lines(log)
    source.fails_with(FetchError("HTTP status 503"))
    clock.advance(480.0)
    refresher.step()
    assert seen == [(1, 0), (1, 0), (1, 1), (1, 1)]
    assert SECRET not in log.text
