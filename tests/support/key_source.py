"""A key source in code, and a refresher asked as a driver asks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from grpc_bearer.keys.cache import Query, Use
from grpc_bearer.keys.jwks import Key
from grpc_bearer.keys.refresher import Refresher
from grpc_bearer.keys.source import Attempt, FetchedKeys
from tests.support.tokens import jwks, key
from tests.support.waiting import PATIENCE_S

ALGORITHM = "EdDSA"


def document(*kids: str) -> bytes:
    """The JWK Set of a key for each `kid`."""
    return json.dumps(jwks(*(key(kid, ALGORITHM) for kid in kids))).encode()


class Scripted:
    """Brings the keys of `kids`, or what `answer` returns or raises. Set its attributes between fetches; `calls` counts these.

    `hang()` holds fetches back until `resume()` or until they are given up on; `entered` is set when one has begun.
    """

    def __init__(self, *kids: str) -> None:
        self.kids: tuple[str, ...] = kids
        self.answer: Callable[[], Any] | None = None
        self.calls = 0
        self.attempts: list[Attempt] = []
        self.entered = threading.Event()
        self._go_on = threading.Event()
        self._go_on.set()

    def fails_with(self, error: BaseException) -> None:
        """Have fetches raise `error`."""

        def fail() -> Any:
            raise error

        self.answer = fail

    def hang(self) -> None:
        """Hold fetches back."""
        self.entered.clear()
        self._go_on.clear()

    def resume(self) -> None:
        """Let them go on."""
        self._go_on.set()

    def __call__(self, attempt: Attempt) -> Any:
        self.calls += 1
        self.attempts.append(attempt)
        attempt.on_abandon(self._go_on.set)
        self.entered.set()
        self._go_on.wait(PATIENCE_S)
        return FetchedKeys(document(*self.kids)) if self.answer is None else self.answer()


def query(kid: str | None) -> Query:
    """What a token with this `kid` asks."""
    return Query(kid, ALGORITHM)


def key_for(refresher: Refresher, kid: str | None) -> Key:
    """The key for a token, waited for as a driver does. Raises `AuthError`."""
    while not isinstance(step := refresher.ask(query(kid)), Use):
        step.flight.result(PATIENCE_S)
    return step.key
