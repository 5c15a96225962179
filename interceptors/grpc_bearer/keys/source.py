"""What a key source is: one callable. The HTTP, discovery, file and inline ones are made in `keys.fetch` and here."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ConfigurationError, FetchError

MAX_FILE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """A JWK Set document as it came, and the freshness its issuer gave it: seconds, None when it gave none."""

    document: bytes
    max_age_s: float | None = None


class Attempt:
    """One fetch: how long it may take, and what to do when it is given up on.

    A source that holds something which can hang (a socket) registers its closing with `on_abandon`; it is called from
    another thread, at most once.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._abandoned = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for this fetch any more."""
        return self._abandoned

    def on_abandon(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the fetch is given up on; at once if it has been already."""
        with self._lock:
            if not self._abandoned:
                self._callbacks.append(callback)
                return
        callback()

    def abandon(self) -> None:
        """Give the fetch up. What a callback raises is dropped: neither the others nor the background thread may miss out."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
            self._abandoned = True
        for callback in callbacks:
            with suppress(Exception):
                callback()


class KeySource(Protocol):
    """Fetches an issuer's JWK Set. Called in a thread of its own, never concurrently for one issuer.

    Raises `FetchError`; any other exception counts as a failed fetch too, reported by its type only.
    """

    def __call__(self, attempt: Attempt, /) -> FetchedKeys: ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A JWK Set in a file; read again when its freshness is over and when an unknown `kid` comes up."""

    path: str

    def __call__(self, _attempt: Attempt, /) -> FetchedKeys:
        try:
            with open(self.path, "rb") as file:
                document = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise FetchError(f"the JWK Set file cannot be read: {os.strerror(error.errno or 0)}") from None
        if len(document) > MAX_FILE_BYTES:
            raise FetchError(f"the JWK Set file is larger than {MAX_FILE_BYTES} bytes")
        return FetchedKeys(document)


@dataclass(frozen=True, slots=True)
class InlineSource:
    """A JWK Set given in code. It never changes."""

    document: bytes

    @classmethod
    def of(cls, jwks: Mapping[str, Any]) -> InlineSource:
        """Raises `ConfigurationError` when `jwks` is not plain JSON data."""
        try:
            return cls(json.dumps(jwks).encode())
        except (TypeError, ValueError):
            raise ConfigurationError("jwks: expected a JWK Set as plain JSON data: {'keys': [...]}") from None

    def __call__(self, _attempt: Attempt, /) -> FetchedKeys:
        return FetchedKeys(self.document)
