"""The authenticator's steps in one line, and what a refusal has to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from grpc_bearer import Authenticator, AuthError, Claims, Policy, Reason
from grpc_bearer.keys.cache import Use
from grpc_bearer.policy.model import AUTHENTICATED


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


def authenticate(auth: Authenticator, token: str, policy: Policy = AUTHENTICATED) -> Claims:
    """The claims of a token whose key is at hand, for a method of this policy. Raises `AuthError`."""
    gate = auth.gate
    candidate = gate.read(metadata(token))
    step = gate.key_for(candidate)
    assert isinstance(step, Use), "the key is not at hand"
    return gate.accept(candidate, step.key, policy)
