"""Alarms: each at its time and once, none that was cancelled, and nothing left behind."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from grpc_bearer.expiry import Alarms
from tests.support.clock import Clock
from tests.support.logs import logged
from tests.support.waiting import PATIENCE_S, eventually

HOUR_S = 3600.0
CENTURIES_S = 8000 * 365 * 24 * HOUR_S  # to the year 9999, which `exp` may name


def alarm_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "grpc-bearer-expiry"}


class Rings:
    """What rang, in its order."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, name: str) -> Callable[[], None]:
        return lambda: self.rung.append(name)


def test_alarms_ring_in_the_order_of_their_times_and_each_once() -> None:
    alarms, rings = Alarms(), Rings()
    for name, in_s in (("c", 0.15), ("a", 0.05), ("b", 0.1)):
        alarms.at(in_s, rings.ring(name))
    assert len(alarms) == 3
    assert eventually(lambda: len(rings.rung) == 3)
    assert rings.rung == ["a", "b", "c"]
    assert len(alarms) == 0


def test_alarms_of_one_time_ring_in_the_order_in_which_they_were_set() -> None:
    alarms, rings = Alarms(monotonic=lambda: 0.0), Rings()
    for number in range(100):
        alarms.at(0, rings.ring(str(number)))
    assert eventually(lambda: len(rings.rung) == 100)
    assert rings.rung == [str(number) for number in range(100)]


@pytest.mark.parametrize("in_s", [0.0, -1.0, -CENTURIES_S])
def test_an_alarm_whose_time_has_passed_rings_at_once(in_s: float) -> None:
    rang = threading.Event()
    Alarms().at(in_s, rang.set)
    assert rang.wait(PATIENCE_S)


def test_an_alarm_does_not_ring_before_its_time() -> None:
    rang_after: list[float] = []
    began = time.monotonic()
    Alarms().at(0.1, lambda: rang_after.append(time.monotonic() - began))
    assert eventually(lambda: bool(rang_after))
    assert rang_after[0] >= 0.1


@pytest.mark.parametrize("in_s", [HOUR_S, CENTURIES_S])
def test_an_alarm_that_is_set_later_and_rings_sooner_is_not_held_up(in_s: float) -> None:
    """Not even by one of the year 9999, which is more than a thread can wait for in one go."""
    alarms, rang = Alarms(), threading.Event()
    late = alarms.at(in_s, lambda: None)
    time.sleep(0.05)  # so that the thread waits for it
    alarms.at(0.05, rang.set)
    assert rang.wait(PATIENCE_S)
    assert len(alarms) == 1
    late.cancel()


def test_a_cancelled_alarm_does_not_ring() -> None:
    alarms, rings = Alarms(), Rings()
    cancelled = alarms.at(0.05, rings.ring("cancelled"))
    alarms.at(0.1, rings.ring("kept"))
    cancelled.cancel()
    cancelled.cancel()
    assert len(alarms) == 1
    assert eventually(lambda: len(alarms) == 0)
    assert rings.rung == ["kept"]


def test_cancelling_an_alarm_that_has_rung_changes_nothing() -> None:
    alarms, rang = Alarms(), threading.Event()
    alarm = alarms.at(0, rang.set)
    assert rang.wait(PATIENCE_S)
    alarm.cancel()
    assert eventually(lambda: len(alarms) == 0)


class Stream:
    """Stands for all that a callback holds on to."""

    def end(self) -> None:
        """Nothing."""


def test_a_cancelled_alarm_lets_go_of_what_it_held_at_once() -> None:
    alarms, stream = Alarms(), Stream()
    held = weakref.ref(stream)
    alarm = alarms.at(HOUR_S, stream.end)
    del stream
    gc.collect()
    assert held() is not None
    alarm.cancel()
    gc.collect()
    assert held() is None


def test_cancelled_alarms_do_not_pile_up() -> None:
    """Tokens live for hours and streams for a moment."""
    alarms = Alarms()
    kept = [alarms.at(HOUR_S, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        alarms.at(HOUR_S, lambda: None).cancel()
        assert len(alarms._heap) <= 200
    assert len(alarms) == len(kept)
    for alarm in kept:
        alarm.cancel()
    assert len(alarms) == 0


def test_of_many_that_are_cancelled_in_whatever_order_none_rings_and_all_others_do_in_theirs() -> None:
    clock = Clock(0)
    alarms, rings = Alarms(clock), Rings()
    made = [(number, alarms.at(0.2 + number % 7 / 50, rings.ring(str(number)))) for number in range(1000)]
    for number, alarm in sorted(made, key=lambda each: each[0] * 7919 % 1000):
        if number % 3:
            alarm.cancel()
    left = range(0, 1000, 3)
    assert len(alarms) == len(left)
    assert rings.rung == []
    clock.advance(1)
    assert eventually(lambda: len(rings.rung) == len(left))
    assert rings.rung == [str(number) for number in sorted(left, key=lambda number: (number % 7, number))]


def test_the_thread_starts_with_the_first_alarm_and_ends_with_the_last() -> None:
    alarms, before = Alarms(), alarm_threads()
    for _ in range(2):
        assert alarm_threads() <= before
        rang = threading.Event()
        alarms.at(0.02, rang.set)
        alarms.at(0.01, lambda: None)
        (thread,) = alarm_threads() - before
        assert thread.daemon  # or a token of the year 9999 would keep the process alive
        assert rang.wait(PATIENCE_S)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_the_thread_ends_soon_after_all_that_it_waited_for_was_cancelled() -> None:
    """Else a test suite with a stream a test would have as many threads, until their tokens expire."""
    alarms, before = Alarms(longest_wait_s=0.05), alarm_threads()
    alarm = alarms.at(HOUR_S, lambda: None)
    (thread,) = alarm_threads() - before
    thread.join(0.2)
    assert thread.is_alive()
    alarm.cancel()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    rang = threading.Event()
    alarms.at(0.0, rang.set)
    assert rang.wait(PATIENCE_S)


def test_alarms_are_set_and_cancelled_from_many_threads() -> None:
    alarms, rung = Alarms(), threading.Semaphore(0)

    def set_some() -> None:
        for number in range(200):
            alarm = alarms.at(number % 5 / 1000 if number % 2 else HOUR_S, rung.release)
            if number % 2 == 0:
                alarm.cancel()

    threads = [threading.Thread(target=set_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert all(rung.acquire(timeout=PATIENCE_S) for _ in range(800))
    assert not rung.acquire(blocking=False)
    assert eventually(lambda: len(alarms) == 0)


def test_a_callback_that_fails_is_a_line_in_the_log_and_the_next_one_rings() -> None:
    alarms, rang = Alarms(), threading.Event()

    def fail() -> None:
        raise ValueError("s3cret")

    with logged() as lines:
        alarms.at(0, fail)
        alarms.at(0.01, rang.set)
        assert rang.wait(PATIENCE_S)
    assert lines == [(logging.ERROR, "a stream could not be ended: ValueError")]


def test_an_alarm_may_set_the_next_one() -> None:
    alarms, rang = Alarms(), threading.Event()

    def set_next() -> None:
        alarms.at(0, rang.set)

    alarms.at(0, set_next)
    assert rang.wait(PATIENCE_S)
