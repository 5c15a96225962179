"""A bounded memory of accepted tokens: the same token again costs a dictionary look-up.

Only tokens that were accepted get in, so a flood of forged ones changes nothing here. Against a flood of good ones there are
two generations: what is looked up while old becomes young again, and when the young ones have filled their half, the old
ones are dropped. A token in use survives, one that was seen once does not. Reads take no lock. No token lies about here:
each is known by its SHA-256. See docs/adr/0013.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

from .errors import ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VerdictCachePolicy:
    """How much is remembered, and for how long. `max_entries` 0 turns it off.

    `max_bytes`: of the remembered tokens' text; what hangs on a token (its claims) takes about three times as much again.
    `max_age_s`: at the most, whatever `exp` says. Raises `ConfigurationError`.
    """

    max_entries: int = 10_000
    max_bytes: int = 16 * 1024 * 1024
    max_age_s: float = 300.0

    def __post_init__(self) -> None:
        if self.max_entries < 0 or self.max_bytes < 0:
            raise ConfigurationError("verdicts: max_entries and max_bytes have to be 0 or more")
        if not 0 < self.max_age_s <= 86_400:
            raise ConfigurationError("verdicts: max_age_s has to be above 0 and at most 86400 seconds")


@dataclass(frozen=True, slots=True)
class _Generations(Generic[T]):
    young: dict[bytes, T]
    old: dict[bytes, T]


class VerdictCache(Generic[T]):
    """Values by the fingerprint of a token. What a value is good for, and until when, is the caller's to say: no clock here.

    `size_of`: the bytes that a value counts for.
    """

    def __init__(self, policy: VerdictCachePolicy, size_of: Callable[[T], int]) -> None:
        self._half_entries: Final = policy.max_entries // 2
        self._half_bytes: Final = policy.max_bytes // 2
        self._size_of = size_of
        self._forget()
        _live.add(self)

    def _forget(self) -> None:
        self._generations: _Generations[T] = _Generations({}, {})
        self._young_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        generations = self._generations
        return len(generations.young) + len(generations.old)

    def fingerprint(self, text: str) -> bytes:
        """The SHA-256 of a token's text, whatever is in it; empty where nothing is remembered."""
        if not self._half_entries:
            return b""
        return sha256(text.encode("utf-8", "surrogatepass")).digest()

    def get(self, fingerprint: bytes) -> T | None:
        """The token's value, None when it is not remembered."""
        generations = self._generations
        value = generations.young.get(fingerprint)
        if value is not None:
            return value
        value = generations.old.get(fingerprint)
        if value is not None:
            self.put(fingerprint, value)
        return value

    def put(self, fingerprint: bytes, value: T) -> None:
        """Remember. What does not fit in at all is not remembered."""
        size = self._size_of(value)
        if size > self._half_bytes or not self._half_entries:
            return
        with self._lock:  # held for a few dictionary operations
            generations = self._generations
            known = generations.young.get(fingerprint)
            if known is not None:
                generations.young[fingerprint] = value
                self._young_bytes += size - self._size_of(known)
                return
            if len(generations.young) >= self._half_entries or self._young_bytes + size > self._half_bytes:
                self._generations = generations = _Generations({}, generations.young)
                self._young_bytes = 0
            generations.young[fingerprint] = value
            self._young_bytes += size

    def discard(self, fingerprint: bytes) -> None:
        """Forget one that is no longer good."""
        with self._lock:
            generations = self._generations
            known = generations.young.pop(fingerprint, None)
            if known is not None:
                self._young_bytes -= self._size_of(known)
            generations.old.pop(fingerprint, None)


_live: weakref.WeakSet[VerdictCache[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # The lock may have been held; and a hit asks for no key, which is what starts the child's own refresher.
    for cache in list(_live):
        cache._forget()


with suppress(AttributeError):  # a platform that does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
