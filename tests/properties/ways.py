"""The two ways to a verdict: the one that a driver goes, shortcuts first, and the long one, which remembers nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from grpc_bearer import Access, AuthError, Claims, VerdictCachePolicy
from grpc_bearer.bearer import authorization_value, bearer_token, has_authorization
from grpc_bearer.gate import Candidate, Gate, Remembered, still_no_key
from grpc_bearer.jws import parse
from grpc_bearer.keys.cache import Use
from grpc_bearer.policy.model import Policy
from grpc_bearer.verdict_cache import VerdictCache

Metadata = Sequence[tuple[str, str | bytes]]
Verdict = tuple[Any, ...]


def verdict(way: Callable[[Gate, str, Metadata], Claims | None], gate: Gate, method: str, metadata: Metadata) -> Verdict:
    """What a call gets, as something to compare. Whatever is raised but `AuthError` comes out."""
    try:
        claims = way(gate, method, metadata)
    except AuthError as error:
        return ("refused", error.reason, error.detail, dict(error.caller_metadata))
    if claims is None:
        return ("without claims",)
    return ("claims", repr(sorted(claims.items())), claims.aud, claims.scopes, claims.key_id, claims.algorithm)


def the_drivers_way(gate: Gate, method: str, metadata: Metadata) -> Claims | None:
    """As `sync.py` and `aio.py` go. Raises `AuthError`."""
    claims = gate.known(method, metadata)
    if claims is not None:
        return claims
    policy = gate.policy(method)
    if _is_open(policy, metadata):
        return None
    authorization = authorization_value(metadata)
    fingerprint = gate.fingerprint(authorization)
    claims = gate.recall(fingerprint, policy)
    return _accepted(gate, gate.read_value(authorization, fingerprint), policy) if claims is None else claims


def the_long_way(gate: Gate, method: str, metadata: Metadata) -> Claims | None:
    """Step by step, as if the gate had never seen a token. Raises `AuthError`."""
    nothing = VerdictCache[Remembered](VerdictCachePolicy(max_entries=0), lambda _remembered: 0)
    forgetful = replace(gate, cache=nothing, headers={})
    policy = forgetful.policy(method)
    if _is_open(policy, metadata):
        return None
    token = bearer_token(authorization_value(metadata), forgetful.max_token_bytes)
    return _accepted(forgetful, forgetful.candidate(parse(token)), policy)


def _is_open(policy: Policy, metadata: Metadata) -> bool:
    return policy.access is Access.PUBLIC or (policy.access is Access.OPTIONAL and not has_authorization(metadata))


def _accepted(gate: Gate, candidate: Candidate, policy: Policy) -> Claims:
    step = gate.key_for(candidate)
    if not isinstance(step, Use):
        raise still_no_key()
    return gate.accept(candidate, step.key, policy)
