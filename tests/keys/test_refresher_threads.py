"""Many callers, one fetch: real threads, a real event loop, real forks."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from grpc_bearer.errors import FetchError, Reason
from grpc_bearer.keys.cache import CachePolicy, Use
from grpc_bearer.keys.refresher import Flight, Refresher, Wait
from grpc_bearer.keys.remote import FetchOptions, JwksUriSource
from grpc_bearer.keys.source import Attempt, FetchedKeys, KeySource
from tests.support.clock import Clock
from tests.support.jwks_server import JwksServer
from tests.support.key_source import Scripted, document, key_for, query
from tests.support.sockets import Drip
from tests.support.tokens import key
from tests.support.verdicts import refused
from tests.support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = CachePolicy()
CALLERS = 200
OURS = ("grpc-bearer-keys", "grpc-bearer-fetch")


@pytest.fixture
def source() -> Iterator[Scripted]:
    scripted = Scripted("k1")
    yield scripted
    scripted.resume()


def refresher_of(source: KeySource, policy: CachePolicy = DEFAULTS, **more: Any) -> Refresher:
    settings: dict[str, Any] = {"name": "issuer", "timeout_s": 60.0, "monotonic": Clock(), "jitter": lambda: 0.0} | more
    return Refresher(source, policy, **settings)


def waiting_for(refresher: Refresher, kid: str | None) -> Flight:
    """The fetch that a token has to wait for."""
    step = refresher.ask(query(kid))
    assert isinstance(step, Wait)
    return step.flight


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name in OURS}


# When threads start and end


def test_construction_starts_no_thread_and_the_first_question_starts_one(source: Scripted) -> None:
    before = our_threads()
    with closing(refresher_of(source)) as refresher:
        assert our_threads() == before
        assert source.calls == 0
        assert key_for(refresher, "k1").kid == "k1"
        assert "grpc-bearer-keys" in [thread.name for thread in our_threads() - before]
    assert eventually(lambda: our_threads() <= before)


def test_starting_fetches_ahead_of_any_question_and_starting_twice_makes_one_thread(source: Scripted) -> None:
    before = our_threads()
    source.hang()
    with closing(refresher_of(source)) as refresher:
        for _ in range(3):
            refresher.start()
        assert source.entered.wait(PATIENCE_S)
        assert sorted(thread.name for thread in our_threads() - before) == sorted(OURS)
        source.resume()
        assert eventually(lambda: refresher.state.key_set is not None)
    assert source.calls == 1


def test_the_background_fetches_again_by_itself() -> None:
    fetches = threading.Semaphore(0)

    def counted(_attempt: Attempt) -> FetchedKeys:
        fetches.release()
        return FetchedKeys(document("k1"), max_age_s=0.0)

    policy = CachePolicy(min_fresh_s=0.02)
    with closing(Refresher(counted, policy, name="issuer", timeout_s=10.0)) as refresher:
        refresher.start()
        for _ in range(4):
            assert fetches.acquire(timeout=PATIENCE_S)


def test_a_refresher_that_was_forgotten_unclosed_ends_its_thread() -> None:
    before, tried = our_threads(), threading.Event()

    def down(_attempt: Attempt) -> FetchedKeys:
        tried.set()
        raise FetchError("HTTP status 503")

    policy = CachePolicy(backoff_initial_s=0.01, backoff_max_s=0.01)  # its thread looks up that often
    refresher = Refresher(down, policy, name="issuer", timeout_s=10.0)
    forgotten = weakref.ref(refresher)
    refresher.start()
    assert tried.wait(PATIENCE_S)
    del refresher
    assert eventually(lambda: gc.collect() >= 0 and forgotten() is None and our_threads() <= before)


# Row: N callers, cold cache


def test_200_threads_on_a_cold_cache_cause_one_fetch() -> None:
    with JwksServer(key("k1", "EdDSA")) as server:
        server.hang()
        source = JwksUriSource(server.jwks_uri, FetchOptions())
        with closing(refresher_of(source)) as refresher, ThreadPoolExecutor(CALLERS) as pool:
            together = threading.Barrier(CALLERS + 1, timeout=PATIENCE_S)

            def call() -> str | None:
                together.wait()
                flight = waiting_for(refresher, "k1")
                together.wait()
                flight.result(PATIENCE_S)
                return key_for(refresher, "k1").kid

            calls = [pool.submit(call) for _ in range(CALLERS)]
            together.wait()
            together.wait()  # all wait now
            server.resume()
            assert {call.result(PATIENCE_S) for call in calls} == {"k1"}
        assert server.fetches == 1


async def test_200_tasks_on_a_cold_cache_cause_one_fetch_and_one_that_gives_up_takes_it_from_nobody(source: Scripted) -> None:
    source.hang()
    with closing(refresher_of(source)) as refresher:

        async def call() -> str | None:
            await asyncio.wrap_future(waiting_for(refresher, "k1"))
            return key_for(refresher, "k1").kid

        impatient, *patient = [asyncio.create_task(call()) for _ in range(CALLERS)]
        await asyncio.sleep(0)  # all wait now
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert not waiting_for(refresher, "k1").done()
        source.resume()
        assert set(await asyncio.wait_for(asyncio.gather(*patient), PATIENCE_S)) == {"k1"}
    assert source.calls == 1


def test_200_threads_with_forged_kids_cause_two_fetches(source: Scripted) -> None:
    with closing(refresher_of(source)) as refresher, ThreadPoolExecutor(50) as pool:
        refresher.step()

        def call(number: int) -> None:
            with refused(Reason.TOKEN_INVALID, "no key of the issuer has this kid"):
                key_for(refresher, f"forged-{number}")

        list(pool.map(call, range(CALLERS), timeout=PATIENCE_S))
    assert source.calls == 1 + 2


# Row: a known kid while a fetch hangs


def test_a_known_kid_is_answered_while_a_fetch_hangs(source: Scripted) -> None:
    with closing(refresher_of(source)) as refresher:
        refresher.step()
        source.hang()
        flight = waiting_for(refresher, "forged")
        assert source.entered.wait(PATIENCE_S)
        for _ in range(1000):
            assert isinstance(refresher.ask(query("k1")), Use)
        assert waiting_for(refresher, "other") is flight
        assert not flight.done()


def test_no_lock_is_held_across_a_fetch_nor_across_a_change_callback() -> None:
    seen = []

    def look() -> None:
        seen.append(type(refresher.ask(query("k1"))))
        refresher.start()
        refresher.on_change(lambda: None)

    def source(_attempt: Attempt) -> FetchedKeys:
        look()  # would never return if the fetch were made under the lock
        return FetchedKeys(document("k1"))

    with closing(refresher_of(source, timeout_s=10.0)) as refresher:
        refresher.on_change(look)
        key_for(refresher, "k1")
        assert eventually(lambda: len(seen) == 2)
    assert seen == [Wait, Use]


# Closing


def test_closing_is_prompt_while_a_fetch_hangs_and_answers_those_who_wait(
    source: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    before = our_threads()
    source.hang()
    clock = Clock()
    refresher = refresher_of(source, monotonic=clock)
    flight = waiting_for(refresher, "k1")
    assert source.entered.wait(PATIENCE_S)
    begun = time.monotonic()
    refresher.close()
    background = [thread.name for thread in our_threads() - before if thread.name == "grpc-bearer-keys"]
    assert background == [] or time.monotonic() - begun > 2.0, (
        "it waits that long for its thread, on a machine that is too slow"
    )
    flight.result(PATIENCE_S / 2)  # the fetch itself would hang longer
    clock.advance(60.0)
    with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
        refresher.ask(query("k1"))
    assert source.attempts[0].abandoned
    assert eventually(lambda: our_threads() <= before)
    assert caplog.records == []  # closing is no trouble of the issuer's


def test_closing_closes_the_connection_of_a_fetch_that_hangs() -> None:
    with JwksServer() as server:
        server.raw = drip = Drip()
        refresher = refresher_of(JwksUriSource(server.jwks_uri, FetchOptions()))
        refresher.start()
        assert drip.reached.wait(PATIENCE_S)
        refresher.close()
        assert drip.gone.wait(PATIENCE_S)


def test_after_closing_known_keys_serve_and_nothing_is_fetched_any_more(source: Scripted) -> None:
    clock = Clock()
    refresher = refresher_of(source, monotonic=clock)
    key_for(refresher, "k1")
    for _ in range(2):
        refresher.close()
    assert key_for(refresher, "k1").kid == "k1"
    clock.advance(500.0)
    refresher.start()
    assert refresher.step() is None
    with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
        refresher.ask(query("k2"))
    assert source.calls == 1


def test_closing_before_the_first_question_refuses_all_of_them(source: Scripted) -> None:
    before = our_threads()
    refresher = refresher_of(source)
    refresher.close()
    with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
        refresher.ask(query("k1"))
    assert (our_threads() - before, source.calls) == (set(), 0)


def test_a_change_callback_may_close_and_those_who_wait_for_the_next_fetch_are_answered(source: Scripted) -> None:
    refresher = refresher_of(source)
    flights: list[Flight] = []

    def close() -> None:
        flights.append(waiting_for(refresher, "k2"))
        refresher.close()
        closed.set()

    closed = threading.Event()
    refresher.on_change(close)
    refresher.start()
    assert closed.wait(PATIENCE_S)
    flights[0].result(PATIENCE_S)
    assert source.calls == 1


# Between a caller's look without the lock and its look with it


class Interrupted(Clock):
    """Runs `act` once, at this thread's next reading: as a caller it has looked at the state and not locked it yet."""

    act: Callable[[], object] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.current_thread()

    def __call__(self) -> float:
        if self.act is not None and threading.current_thread() is self._thread:
            act, self.act = self.act, None
            act()
        return super().__call__()


def test_keys_that_another_caller_has_fetched_meanwhile_are_used_and_not_fetched_again(source: Scripted) -> None:
    clock = Interrupted()
    with closing(refresher_of(source, monotonic=clock)) as refresher:
        key_for(refresher, "k1")
        source.kids = ("k2",)
        clock.act = lambda: key_for(refresher, "k2")
        assert isinstance(refresher.ask(query("k2")), Use)
    assert source.calls == 2


def test_a_kid_that_another_caller_has_asked_for_meanwhile_in_vain_is_refused_without_a_fetch(source: Scripted) -> None:
    clock = Interrupted()
    unknown = "no key of the issuer has this kid"

    def in_vain() -> None:
        with refused(Reason.TOKEN_INVALID, unknown):
            key_for(refresher, "forged")

    with closing(refresher_of(source, monotonic=clock)) as refresher:
        key_for(refresher, "k1")
        clock.act = in_vain
        with refused(Reason.TOKEN_INVALID, unknown):
            refresher.ask(query("forged"))
    assert source.calls == 2


def test_a_refresher_that_was_closed_meanwhile_begins_no_fetch(source: Scripted) -> None:
    clock = Interrupted()
    refresher = refresher_of(source, monotonic=clock)
    key_for(refresher, "k1")
    clock.act = refresher.close
    with refused(Reason.KEYS_UNAVAILABLE, "the authenticator is closed"):
        refresher.ask(query("k2"))
    assert source.calls == 1


# Forking


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("unused", ["threads before the fork: 1", "child: k1", "parent: k1"]),
        ("warm", ["child: k1, 0 fetches", "child: k2", "parent: k1"]),
        ("hanging", ["child: fetching: False", "child: k1", "parent: k1"]),
        ("locked", ["child: k1", "parent: k1"]),
        ("closed", ["child: the authenticator is closed", "parent: the authenticator is closed"]),
    ],
)
def test_forking_is_safe_in_any_state(scenario: str, expected: list[str]) -> None:
    command = [sys.executable, "-m", "tests.support.forking", scenario]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "interceptors")])}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr
