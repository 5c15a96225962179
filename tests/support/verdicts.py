"""The authenticator's steps in one line, and what a refusal has to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from grpc_bearer import Authenticator, AuthError, Claims, Reason
from grpc_bearer.keys.cache import Use


@contextmanager
def refused(reason: Reason, detail: str) -> Iterator[None]:
    """The block has to end with an `AuthError` of exactly this reason and detail."""
    with pytest.raises(AuthError) as caught:
        yield
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


def refusal(step: Callable[[], object]) -> AuthError | None:
    """What a step refuses with, None when it does not. Whatever else it raises comes out."""
    try:
        step()
    except AuthError as error:
        return error
    return None


def metadata(token: str) -> list[tuple[str, str | bytes]]:
    """The metadata of a call that carries the token."""
    return [("user-agent", "test"), ("authorization", f"Bearer {token}")]


def authenticate(auth: Authenticator, token: str) -> Claims:
    """The claims of a token whose key is at hand. Raises `AuthError`."""
    candidate = auth.read(metadata(token))
    step = auth.key_for(candidate)
    assert isinstance(step, Use), "the key is not at hand"
    return auth.accept(candidate, step.key)
