"""A bounded memory of accepted tokens: the same token again costs a dictionary look-up.

Only tokens that were accepted get in, so a flood of forged ones changes nothing here. Against a flood of good ones there are
two generations: what is looked up while old becomes young again, and when the young ones have filled their half, the old
ones are dropped. A token in use survives, one that was seen once does not. Reads take no lock. See docs/adr/0017.
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

    `max_bytes`: of the remembered tokens' text. `max_age_s`: at the most, whatever `exp` says. `hashed`: keep a token's
    SHA-256 in place of its text, so that no token lies about in the heap, for a few calls fewer a second (docs/adr/0017).
    Raises `ConfigurationError`.
    """

    max_entries: int = 10_000
    max_bytes: int = 16 * 1024 * 1024
    max_age_s: float = 300.0
    hashed: bool = False

    def __post_init__(self) -> None:
        if self.max_entries < 0 or self.max_bytes < 0:
            raise ConfigurationError("verdicts: max_entries and max_bytes have to be 0 or more")
        if not 0 < self.max_age_s <= 86_400:
            raise ConfigurationError("verdicts: max_age_s has to be above 0 and at most 86400 seconds")


_SEEN_PLACES: Final = 1 << 17

Fingerprint = str | bytes
"""What a token is remembered by: its text, or the SHA-256 of that."""


class VerdictCache(Generic[T]):
    """Values by the fingerprint of a token. What a value is good for, and until when, is the caller's to say: no clock here.

    `young`: the tokens in use, for a look-up that costs no call. `size_of`: the bytes that a value counts for.
    """

    def __init__(self, policy: VerdictCachePolicy, size_of: Callable[[T], int]) -> None:
        self._half_entries: Final = policy.max_entries // 2
        self._half_bytes: Final = policy.max_bytes // 2
        self._hashed: Final = policy.hashed
        self._size_of = size_of
        self._forget()
        _live.add(self)

    def _forget(self) -> None:
        self.young: dict[Fingerprint, T] = {}
        self._old: dict[Fingerprint, T] = {}
        self._young_bytes = 0
        self._seen = bytearray(_SEEN_PLACES if self._half_entries else 1)
        self._seen_count = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def fingerprint(self, text: str) -> Fingerprint:
        """What a token of this text is remembered by; empty where nothing is remembered."""
        if not self._half_entries:
            return ""
        return sha256(text.encode("utf-8", "surrogatepass")).digest() if self._hashed else text

    def get(self, fingerprint: Fingerprint) -> T | None:
        """The token's value, None when it is not remembered. One that is on its way from young to old may be missed."""
        value = self.young.get(fingerprint)
        if value is not None:
            return value
        value = self._old.get(fingerprint)
        if value is not None:
            self.put(fingerprint, value)
        return value

    def is_seen_again(self, fingerprint: Fingerprint) -> bool:
        """Whether the token has been asked about here before, lately. At worst one in eight is taken for another."""
        place = hash(fingerprint) % _SEEN_PLACES
        if self._seen[place]:
            return True
        self._seen[place] = 1
        self._seen_count += 1
        if self._seen_count > _SEEN_PLACES // 8:
            self._seen, self._seen_count = bytearray(_SEEN_PLACES), 0
        return False

    def put(self, fingerprint: Fingerprint, value: T) -> None:
        """Remember. What does not fit in at all is not remembered."""
        size = self._size_of(value)
        if size > self._half_bytes or not self._half_entries:
            return
        with self._lock:  # held for a few dictionary operations
            known = self.young.get(fingerprint)
            if known is not None:
                size -= self._size_of(known)
            elif len(self.young) >= self._half_entries or self._young_bytes + size > self._half_bytes:
                self._old, self.young, self._young_bytes = self.young, {}, 0
            self.young[fingerprint] = value
            self._young_bytes += size

    def discard(self, fingerprint: Fingerprint) -> None:
        """Forget one that is no longer good."""
        with self._lock:
            known = self.young.pop(fingerprint, None)
            if known is not None:
                self._young_bytes -= self._size_of(known)
            self._old.pop(fingerprint, None)


_live: weakref.WeakSet[VerdictCache[Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # The lock may have been held; and a hit asks for no key, which is what starts the child's own refresher.
    for cache in list(_live):
        cache._forget()


with suppress(AttributeError):  # a platform that does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
