"""The memory of accepted tokens: bounded whatever comes, and kept for those that are in use."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from grpc_bearer import ConfigurationError, VerdictCachePolicy
from grpc_bearer.verdict_cache import VerdictCache


class ByText:
    """A cache whose values are texts, each of which counts for the length of its token."""

    def __init__(self, policy: VerdictCachePolicy) -> None:
        self.cache = VerdictCache[tuple[str, str]](policy, lambda value: len(value[0]))

    def __len__(self) -> int:
        return len(self.cache)

    def get(self, token: str) -> str | None:
        found = self.cache.get(self.cache.fingerprint(token))
        return None if found is None else found[1]

    def put(self, token: str, value: str) -> None:
        self.cache.put(self.cache.fingerprint(token), (token, value))

    def discard(self, token: str) -> None:
        self.cache.discard(self.cache.fingerprint(token))


def cache_of(max_entries: int = 1000, max_bytes: int = 1_000_000) -> ByText:
    return ByText(VerdictCachePolicy(max_entries=max_entries, max_bytes=max_bytes))


def token(number: int, size: int = 10) -> str:
    return f"{number:0{size}}"


def flood(cache: ByText, count: int, size: int = 10) -> list[str]:
    """Puts tokens that are used once; returns them."""
    tokens = [token(number, size) for number in range(count)]
    for each in tokens:
        cache.put(each, each)
    return tokens


def longest_in_a_flood(cache: ByText, size: int = 10) -> int:
    """How many there are at the most while ever-new ones come, each of which is there when it has come."""
    longest = 0
    for each in [f"n{token(number, size - 1)}" for number in range(500)]:
        cache.put(each, each)
        longest = max(longest, len(cache))
        assert cache.get(each) == each
    return longest


def kept(cache: ByText, tokens: list[str]) -> list[str]:
    """Those that are remembered, which this brings to the young ones."""
    return [each for each in tokens if cache.get(each) is not None]


def test_what_is_put_is_found_under_its_own_token_only() -> None:
    cache = cache_of()
    cache.put("a", "of a")
    cache.put("b", "of b")
    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.get("A"), cache.get("")) == ("of a", "of b", None, None, None)


def test_the_later_value_of_a_token_takes_the_place_of_the_earlier() -> None:
    cache = cache_of(max_entries=4)
    cache.put("a", "earlier")
    cache.put("a", "later")
    assert (cache.get("a"), len(cache)) == ("later", 1)
    flood(cache, 2)  # it is old now
    cache.put("a", "latest")
    assert cache.get("a") == "latest"


@pytest.mark.parametrize(
    ("bounds", "size", "at_the_most"),
    [
        ({"max_entries": 10}, 10, 10),
        ({"max_entries": 11}, 10, 10),
        ({"max_entries": 2}, 10, 2),
        ({"max_bytes": 200}, 10, 20),
        ({"max_bytes": 209}, 10, 20),
        ({"max_bytes": 200}, 51, 2),
        ({"max_entries": 10, "max_bytes": 60}, 10, 6),
    ],
)
def test_a_flood_fills_the_bounds_and_no_more(bounds: dict[str, int], size: int, at_the_most: int) -> None:
    assert longest_in_a_flood(cache_of(**bounds), size) == at_the_most


def test_tokens_that_are_looked_up_again_and_again_stay_within_the_bounds() -> None:
    """One that has come over to the young ones may be among the old ones too: that counts."""
    cache = cache_of(max_entries=20, max_bytes=10 * 15)
    tokens = flood(cache, 15)
    for each in tokens * 20:
        if cache.get(each) is None:
            cache.put(each, each)
        assert len(cache) <= 14  # of 10 bytes each, 7 in each half


def test_a_token_in_use_survives_a_flood_and_one_that_was_seen_once_does_not() -> None:
    cache = cache_of(max_entries=100)
    cache.put("in use", "1")
    cache.put("seen once", "2")
    for number in range(10_000):
        cache.put(token(number), "flood")
        if number % 40 == 0:
            assert cache.get("in use") == "1"
    assert cache.get("seen once") is None
    assert cache.get("in use") == "1"


def test_a_token_is_good_for_half_the_memory_without_a_look_and_gone_after_two_halves() -> None:
    cache = cache_of(max_entries=10)
    cache.put("a", "1")
    flood(cache, 4 + 5)
    assert len(cache) == 10
    assert cache.get("a") == "1"  # still there, and young again:
    cache = cache_of(max_entries=10)
    cache.put("a", "1")
    flood(cache, 4 + 5 + 1)
    assert cache.get("a") is None


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_bytes": 0}, {"max_entries": 1}, {"max_bytes": 1}])
def test_with_no_room_for_two_halves_nothing_is_remembered(bounds: dict[str, int]) -> None:
    cache = cache_of(**bounds)
    cache.put("a", "1")
    assert (cache.get("a"), len(cache)) == (None, 0)
    cache.discard("a")


def test_a_token_longer_than_half_the_bytes_is_not_kept_and_drives_none_out() -> None:
    cache = cache_of(max_bytes=100)
    tokens = flood(cache, 5)
    cache.put("x" * 51, "too long")
    assert cache.get("x" * 51) is None
    assert kept(cache, tokens) == tokens
    cache.put("x" * 50, "fits")
    assert cache.get("x" * 50) == "fits"
    assert len(cache) == 6  # the others are the old ones


@pytest.mark.parametrize("later", [0, 4], ids=["young", "old"])
def test_a_discarded_token_is_forgotten_young_or_old(later: int) -> None:
    cache = cache_of(max_entries=8)
    cache.put("a", "1")
    others = flood(cache, later)
    cache.discard("a")
    cache.discard("never seen")
    assert cache.get("a") is None
    assert len(cache) == later
    assert kept(cache, others) == others


def test_one_that_is_in_both_generations_is_discarded_from_both() -> None:
    cache = cache_of(max_entries=4)
    cache.put("a", "1")
    flood(cache, 2)  # `a` is old, and
    assert cache.get("a") == "1"  # comes over
    cache.discard("a")
    assert cache.get("a") is None


def test_a_discarded_token_gives_its_room_back() -> None:
    cache = cache_of(max_bytes=100)
    tokens = flood(cache, 5)
    for number in range(100):
        cache.put(token(number + 50), "comes and goes")  # takes the young ones over to the old ones, the first time
        cache.discard(token(number + 50))
    assert kept(cache, tokens) == tokens


# -- what is worth remembering ------------------------------------------------------------------------------------------


def test_a_token_is_seen_again_when_it_comes_for_the_second_time() -> None:
    cache = cache_of().cache
    assert [cache.is_seen_again("a") for _ in range(3)] == [False, True, True]
    assert cache_of().cache.is_seen_again("a") is False  # each has a memory of its own


def test_few_are_taken_for_seen_that_were_not_however_many_come() -> None:
    cache = cache_of().cache
    taken = sum(cache.is_seen_again(f"token {number}") for number in range(200_000))
    assert taken < 200_000 // 8


def test_what_was_seen_long_ago_is_forgotten() -> None:
    cache = cache_of().cache
    cache.is_seen_again("a")
    for number in range(40_000):
        cache.is_seen_again(f"token {number}")
    assert [cache.is_seen_again(f"token {number}") for number in range(39_990, 40_000)] == [True] * 10
    again = sum(cache.is_seen_again(f"token {number}") for number in range(100))
    assert again < 50


def test_with_the_memory_off_nothing_is_told_apart_and_no_room_is_taken() -> None:
    cache = cache_of(max_entries=0).cache
    assert cache.fingerprint("a") == ""
    assert len(cache._seen) == 1


@pytest.mark.parametrize("text", ["Bearer a.b.c", "\u00e9\ud800", ""])
def test_hashed_no_token_is_kept_as_text(text: str) -> None:
    cache = VerdictCache[str](VerdictCachePolicy(hashed=True), len)
    fingerprint = cache.fingerprint(text)
    assert isinstance(fingerprint, bytes)
    assert len(fingerprint) == 32
    cache.put(fingerprint, "value")
    assert cache.get(cache.fingerprint(text)) == "value"
    assert cache.get(cache.fingerprint(f"{text} ")) is None
    assert text not in cache.young


WRONG: dict[str, dict[str, Any]] = {
    "entries below 0": {"max_entries": -1},
    "bytes below 0": {"max_bytes": -1},
    "no age": {"max_age_s": 0},
    "an age below 0": {"max_age_s": -1.0},
    "an age above a day": {"max_age_s": 86_400.5},
    "an age without an end": {"max_age_s": float("inf")},
    "an age that is no number": {"max_age_s": float("nan")},
}


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG)
def test_a_wrong_figure_is_an_error_that_names_it(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ConfigurationError, match=rf"^verdicts: .*\b{name}\b.* to be "):
        VerdictCachePolicy(**values)


def test_figures_at_their_limits_are_taken() -> None:
    policy = VerdictCachePolicy(max_entries=0, max_bytes=0, max_age_s=86_400)
    assert (policy.max_entries, policy.max_bytes, policy.max_age_s) == (0, 0, 86_400)
    assert VerdictCachePolicy() == VerdictCachePolicy(max_entries=10_000, max_bytes=16_777_216, max_age_s=300.0)


def test_eight_threads_never_see_a_wrong_value_or_more_than_the_bounds() -> None:
    cache, faults, start = cache_of(max_entries=20, max_bytes=10 * 16), list[str](), threading.Barrier(8)
    tokens = [token(number) for number in range(40)]

    def work(offset: int) -> None:
        start.wait(10)
        for turn in range(2_000):
            each = tokens[(turn * 7 + offset * 5) % len(tokens)]
            value = cache.get(each)
            if value is None:
                cache.put(each, f"of {each}")
            elif value != f"of {each}":
                faults.append(f"{each}: {value}")
            if turn % 50 == offset:
                cache.discard(each)
            if len(cache) > 16:
                faults.append(f"{len(cache)} entries")

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert faults == []
    assert 0 < len(cache) <= 16
    assert longest_in_a_flood(cache) == 16  # and what the threads left behind has not spoilt the counts


FORKING = """
import os, sys
from grpc_bearer.verdict_cache import VerdictCache, VerdictCachePolicy
cache = VerdictCache(VerdictCachePolicy(), len)
cache.put(b"token", "value")
cache._lock.acquire()  # as if another thread were in it at that moment
child = os.fork()
if child == 0:
    before = cache.get(b"token")
    cache.put(b"token", "the child's")
    sys.exit((before, cache.get(b"token")) != (None, "the child's"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or cache.get(b"token") != "value")
"""


def test_a_forked_child_starts_with_an_empty_memory_and_a_free_lock() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
