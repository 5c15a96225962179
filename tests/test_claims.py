"""Claims are frozen to the depth, hide their values, and belong to one call."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from grpc_bearer import Authenticator, Claims, Issuer, NoClaimsError, current_claims, current_claims_or_none
from grpc_bearer.claims import bind_claims, deep_frozen
from tests.support.tokens import AUDIENCE, ISSUER, jwks, key, mint
from tests.support.verdicts import authenticate


def verified(**claims: Any) -> Claims:
    return authenticate(Authenticator([Issuer(ISSUER, audiences=[AUDIENCE], jwks=jwks(key()))]), mint(**claims))


def in_a_call(claims: Claims | None) -> contextvars.Context:
    """A context of its own, as each RPC has one."""
    context = contextvars.Context()
    context.run(bind_claims, claims)
    return context


def test_claims_are_a_mapping_of_every_claim() -> None:
    claims = verified(sub="alice", department="sales", email=None, null=False)
    assert isinstance(claims, Mapping)
    assert claims["department"] == "sales"
    assert claims.get("email") is None
    assert claims["null"] is False
    assert ("sub" in claims, "email" in claims) == (True, False)
    assert len(claims) == len(list(claims)) == len(dict(claims))
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti", "client_id", "scope", "department", "null"}
    assert claims == dict(claims)
    with pytest.raises(KeyError):
        claims["email"]


def test_claims_cannot_be_changed_at_any_depth() -> None:
    claims = verified(roles=[{"name": "admin", "of": ["a"]}], sub="alice")
    with pytest.raises(FrozenInstanceError):
        claims.sub = "root"  # type: ignore[misc]
    with pytest.raises(TypeError):
        claims["sub"] = "root"  # type: ignore[index]
    role = claims["roles"][0]
    assert claims["roles"] == ({"name": "admin", "of": ("a",)},)
    with pytest.raises(TypeError):
        role["name"] = "root"
    with pytest.raises(AttributeError):
        claims["roles"].append("x")
    with pytest.raises(AttributeError):
        claims.scopes.add("root")  # type: ignore[attr-defined]


def test_freezing_does_not_hold_on_to_what_it_froze() -> None:
    members: dict[str, Any] = {"a": {"b": [1, {"c": None}]}, "d": "x"}
    frozen = deep_frozen(members)
    members["a"]["b"][1]["c"] = "changed"
    members["d"] = "changed"
    assert frozen == {"a": {"b": (1, {"c": None})}, "d": "x"}


def test_no_claim_value_is_in_the_repr() -> None:
    claims = verified(sub="alice", email="alice@example.com")
    for text in (repr(claims), str(claims), f"{claims}"):
        assert text == "<Claims: aud, client_id, email, exp, iat, iss, jti, scope, sub>"


def test_where_nothing_was_verified_there_are_no_claims() -> None:
    for context in (contextvars.Context(), in_a_call(None)):
        with pytest.raises(NoClaimsError, match="no verified claims here"):
            context.run(current_claims)
        assert context.run(current_claims_or_none) is None
    assert issubclass(NoClaimsError, LookupError)


def test_a_call_sees_its_own_claims_and_no_others() -> None:
    alice, bob = verified(sub="alice"), verified(sub="bob")
    first, second = in_a_call(alice), in_a_call(bob)
    assert first.run(current_claims) is alice
    assert second.run(current_claims) is bob
    assert first.run(current_claims_or_none) is alice
    assert current_claims_or_none() is None


def test_claims_do_not_outlive_a_context_that_is_bound_anew() -> None:
    context = in_a_call(verified())
    context.run(bind_claims, None)
    with pytest.raises(NoClaimsError):
        context.run(current_claims)


def test_a_thread_that_a_handler_starts_gets_them_only_in_a_copy_of_the_context() -> None:
    seen: list[Claims | None] = []

    def look() -> None:
        seen.append(current_claims_or_none())

    def handler() -> None:
        for target in (look, lambda: copy.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    claims = verified()
    context = in_a_call(claims)
    copy = context.copy()
    context.run(handler)
    assert seen == [None, claims]
