"""START HERE: call metadata -> verdict, as steps without I/O around the one step that may wait.

    gate = authenticator.gate                       # one version of all that a verdict depends on; take it once per call
    policy = gate.policy(method)                    # what the method requires
    verdict = gate.recall(authorization, policy)    # AuthError, the verdict on a token seen before, or None:
    candidate = gate.read_value(authorization)      # AuthError, or a token that lacks only its key and signature
    step = gate.key_for(candidate)                  # AuthError, Use(key), or Wait(flight)
    verdict = gate.accept(candidate, key, policy)   # AuthError, or the claims of a caller that may call

Nothing here blocks. `grpc_bearer.sync` and `grpc_bearer.aio` carry the steps out and do the waiting, each in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from .bearer import authorization_value, bearer_token
from .claims import Claims
from .errors import AuthError, denied, invalid, keys_unavailable
from .issuer import Issuer
from .jws import CompactJws, parse
from .keys.cache import Query, Use
from .keys.jwks import Key
from .keys.refresher import Keys, Wait
from .policy.authorize import authorize
from .policy.model import AUTHENTICATED, Access, Policy, Streams
from .policy.table import Policies
from .verdict_cache import VerdictCache
from .verifier import (
    TokenRules,
    ValidClaims,
    expired,
    is_expired,
    unverified_issuer,
    validate_claims,
    validate_header,
    verify,
)

Metadata = Iterable[tuple[str, str | bytes]]

MAX_ROUNDS: Final = 3
"""How many fetches a driver waits for: that of a cold cache, and the two that unknown kids can cause in a cooldown."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """An issuer at run time."""

    config: Issuer
    rules: TokenRules
    keys: Keys


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that its issuer's rules accept and that lacks only its key and signature. Nothing of it may be trusted.

    `authorization`: the metadata value that it came in, to remember it by once it is verified; None: it is not remembered.
    """

    jws: CompactJws
    valid: ValidClaims
    query: Query
    trusted: Trusted
    authorization: str | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """A token that was accepted: its claims, until when they may be taken as read, and the key set that verified it."""

    claims: Claims
    until: float
    trusted: Trusted
    generation: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A caller that may call. `ends_at`: when a stream of this call has to end, seconds since the epoch; None for never."""

    claims: Claims
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class Gate:
    """One version of issuers and policies, immutable: a reload makes another gate, and no call sees two."""

    trusted: Mapping[str, Trusted]
    policies: Policies
    max_token_bytes: int
    clock: Callable[[], float]
    cache: VerdictCache[Remembered]
    cached_for_s: float

    def policy(self, method: str) -> Policy:
        """What the method requires. Raises `AuthError` POLICY_DENIED where nobody may call, `ConfigurationError`."""
        policy = self.policies.for_method(method).policy
        if policy.access is Access.DENY:
            raise denied("the method is closed to everybody")
        return policy

    def recall(self, authorization: str, policy: Policy) -> Verdict | None:
        """The verdict on a token that was accepted before, by the present keys; None where it has to be verified.

        Raises `AuthError` INSUFFICIENT_SCOPE or POLICY_DENIED: the policy is asked each time.
        """
        found = self.cache.get(authorization)
        if found is None:
            return None
        now = self.clock()
        if now >= found.until or found.trusted.keys.state.generation != found.generation:
            self.cache.discard(authorization)
            return None
        if policy is not AUTHENTICATED:
            authorize(policy, found.claims, now, found.trusted.rules.leeway_s)
        return _verdict(found.claims, found.trusted.rules.leeway_s, policy)

    def _remember(self, candidate: Candidate, key: Key, claims: Claims, now: float) -> None:
        """Remember a verified token, if the key that verified it is of the present set."""
        trusted = candidate.trusted
        state = trusted.keys.state
        if candidate.authorization is None or state.key_set is None:
            return
        if state.key_set.select(candidate.query.kid, candidate.query.algorithm) is key:
            until = min(claims.exp + trusted.rules.leeway_s, now + self.cached_for_s, now + trusted.keys.usable_for_s())
            self.cache.put(candidate.authorization, Remembered(claims, until, trusted, state.generation))

    def read(self, metadata: Metadata) -> Candidate:
        """All that can be said of a call's token without its key. Raises `AuthError`."""
        return self.read_value(authorization_value(metadata))

    def read_value(self, authorization: str) -> Candidate:
        """The same of an `authorization` value."""
        return self.candidate(parse(bearer_token(authorization, self.max_token_bytes)), authorization)

    def trusted_issuer(self, issuer: str) -> Trusted:
        """The configured issuer with exactly this `iss`. Raises `AuthError` TOKEN_INVALID."""
        trusted = self.trusted.get(issuer)
        if trusted is None:
            raise invalid("iss is not a configured issuer")
        return trusted

    def candidate(self, jws: CompactJws, authorization: str | None = None) -> Candidate:
        """The issuer chosen, and its rules applied. Raises `AuthError`."""
        trusted = self.trusted_issuer(unverified_issuer(jws.claims_set))
        algorithm = validate_header(jws.header, trusted.rules)
        valid = validate_claims(jws.claims_set, trusted.rules, self.clock())
        return Candidate(jws, valid, Query(jws.header.kid, algorithm), trusted, authorization)

    def key_for(self, candidate: Candidate) -> Use | Wait:
        """The key, or a fetch to wait for before asking again. Raises `AuthError`. Never blocks."""
        return candidate.trusted.keys.ask(candidate.query)

    def accept(self, candidate: Candidate, key: Key, policy: Policy) -> Verdict:
        """Verify the signature, then ask the policy.

        Raises `AuthError`: TOKEN_INVALID, TOKEN_EXPIRED while the key was waited for, INSUFFICIENT_SCOPE, POLICY_DENIED.
        """
        valid, leeway_s, now = candidate.valid, candidate.trusted.rules.leeway_s, self.clock()
        if is_expired(valid.exp, leeway_s, now):
            raise expired(valid.exp)
        claims = verify(candidate.jws, valid, candidate.query.algorithm, key)
        self._remember(candidate, key, claims, now)
        authorize(policy, claims, now, leeway_s)
        return _verdict(claims, leeway_s, policy)

    def left_s(self, ends_at: float) -> float:
        """Seconds until `ends_at`; negative when it has passed."""
        return ends_at - self.clock()


def _verdict(claims: Claims, leeway_s: float, policy: Policy) -> Verdict:
    terminates = policy.streams is Streams.TERMINATE
    return Verdict(claims, claims.exp + leeway_s + policy.stream_grace_s if terminates else None)


def wait_limit_s(candidate: Candidate) -> float:
    """How long waiting for this token's key can make sense: the time that a fetch may take."""
    return candidate.trusted.config.fetch.timeout_s


def still_no_key() -> AuthError:
    """The refusal of a call whose key did not come in time."""
    return keys_unavailable("the issuer's keys did not come in time")
