"""START HERE: call metadata -> claims, as steps without I/O around the one step that may wait.

    gate = authenticator.gate                       # one version of all that a verdict depends on; take it once per call
    claims = gate.known(method, metadata)           # AuthError, the claims of a call like one before, or None:
    policy = gate.policy(method)                    # what the method requires
    claims = gate.recall(fingerprint, policy)       # AuthError, the claims of a token seen before, or None:
    candidate = gate.read_value(authorization)      # AuthError, or a token that lacks only its key and signature
    step = gate.key_for(candidate)                  # AuthError, Use(key), or Wait(flight)
    claims = gate.accept(candidate, key, policy)    # AuthError, or the claims of a caller that may call

Nothing here blocks. `grpc_bearer.sync` and `grpc_bearer.aio` carry the steps out and do the waiting, each in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .bearer import AUTHORIZATION, authorization_value, bearer_token
from .claims import Claims, compacted
from .errors import AuthError, denied, invalid, keys_unavailable
from .issuer import Issuer
from .jws import CompactJws, Header, parse
from .keys.cache import Query, Use
from .keys.jwks import Key
from .keys.refresher import Keys, Wait
from .policy.authorize import authorize
from .policy.model import AUTHENTICATED, Access, Policy, Streams
from .policy.table import Policies
from .verdict_cache import Fingerprint, VerdictCache
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

# A member of an enum costs a look-up that a call can do without.
_AUTHENTICATED: Final = Access.AUTHENTICATED
_DENY: Final = Access.DENY

MAX_KNOWN_HEADERS: Final = 1_000
MAX_KNOWN_HEADER_BYTES: Final = 512

MAX_ROUNDS: Final = 3
"""How many fetches a driver waits for: that of a cold cache, and the two that unknown kids can cause in a cooldown."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """An issuer at run time."""

    config: Issuer
    rules: TokenRules
    keys: Keys


class Candidate(NamedTuple):
    """A token that its issuer's rules accept and that lacks only its key and signature. Nothing of it may be trusted.

    `fingerprint`: what it is remembered by once it is verified; empty: it is not remembered.
    """

    jws: CompactJws
    valid: ValidClaims
    query: Query
    trusted: Trusted
    fingerprint: Fingerprint = ""


class Remembered(NamedTuple):
    """A token that was accepted: its claims, until when they may be taken as read, and the key set that verified it.

    `token_bytes`: its length.
    """

    claims: Claims
    until: float
    keys: Keys
    generation: int
    token_bytes: int


@dataclass(frozen=True, slots=True)
class Gate:
    """One version of issuers and policies, immutable: a reload makes another gate, and no call sees two.

    What it learns are answers that stay the same: `cache` holds accepted tokens, `headers` the JOSE headers of such by their
    part, `in_common` what their claims have in common. A token that is refused leaves nothing in any of them.
    """

    trusted: Mapping[str, Trusted]
    policies: Policies
    max_token_bytes: int
    clock: Callable[[], float]
    cache: VerdictCache[Remembered]
    cached_for_s: float
    headers: dict[bytes, Header]
    in_common: dict[Any, Any]

    def policy(self, method: str) -> Policy:
        """What the method requires. Raises `AuthError` POLICY_DENIED where nobody may call, `ConfigurationError`."""
        policy = self.policies.for_method(method).policy
        if policy.access is _DENY:
            raise denied("the method is closed to everybody")
        return policy

    def known(self, method: str, metadata: Metadata) -> Claims | None:
        """The claims of a call that needs no more than a look; None: go step by step. A shortcut to the same verdict.

        Raises `AuthError` INSUFFICIENT_SCOPE or POLICY_DENIED.
        """
        authorization: str | bytes | None = None
        for key, value in metadata:
            if key == AUTHORIZATION:
                if authorization is not None:  # more than one: refused, step by step
                    return None
                authorization = value
        # Text only: a fingerprint, which may be octets, is no credential.
        found = self.cache.young.get(authorization) if type(authorization) is str else None
        if found is None:
            return None
        claims, until, keys, generation, _token_bytes = found
        now = self.clock()
        if now >= until or keys.state.generation != generation:
            return None
        policy = self.policies.for_method(method).policy
        if policy is not AUTHENTICATED:
            if policy.access is not _AUTHENTICATED:
                return None
            authorize(policy, claims, now, self.trusted[claims.iss].rules.leeway_s)
        return claims

    def fingerprint(self, authorization: str) -> Fingerprint:
        """What a token is remembered by: of its whole `authorization` value, so that another spelling is another token."""
        return self.cache.fingerprint(authorization)

    def recall(self, fingerprint: Fingerprint, policy: Policy) -> Claims | None:
        """The claims of a token that was accepted before, by the present keys; None where it has to be verified.

        Raises `AuthError` INSUFFICIENT_SCOPE or POLICY_DENIED: the policy is asked each time.
        """
        found = self.cache.get(fingerprint)
        if found is None:
            return None
        claims, until, keys, generation, _token_bytes = found
        now = self.clock()
        if now >= until or keys.state.generation != generation:
            self.cache.discard(fingerprint)
            return None
        if policy is not AUTHENTICATED:
            authorize(policy, claims, now, self.trusted[claims.iss].rules.leeway_s)
        return claims

    def _remember(self, candidate: Candidate, key: Key, claims: Claims, now: float) -> None:
        """Remember its JOSE header, and a token that is seen again by a key of the present set."""
        jws, _valid, query, trusted, fingerprint = candidate
        if jws.header_part not in self.headers and len(jws.header_part) <= MAX_KNOWN_HEADER_BYTES:
            if len(self.headers) >= MAX_KNOWN_HEADERS:
                self.headers.clear()
            self.headers[jws.header_part] = jws.header
        if not fingerprint or not self.cache.is_seen_again(fingerprint):
            return
        state = trusted.keys.state
        if state.key_set is not None and state.key_set.select(query.kid, query.algorithm) is key:
            until = min(claims.exp + trusted.rules.leeway_s, now + self.cached_for_s, now + trusted.keys.usable_for_s())
            token_bytes = len(jws.signing_input) + len(jws.signature) * 4 // 3
            kept = compacted(claims, self.in_common)
            self.cache.put(fingerprint, Remembered(kept, until, trusted.keys, state.generation, token_bytes))

    def read(self, metadata: Metadata) -> Candidate:
        """All that can be said of a call's token without its key. Raises `AuthError`."""
        authorization = authorization_value(metadata)
        return self.read_value(authorization, self.fingerprint(authorization))

    def read_value(self, authorization: str, fingerprint: Fingerprint = "") -> Candidate:
        """The same of an `authorization` value."""
        return self.candidate(self._parsed(authorization), fingerprint)

    def _parsed(self, authorization: str) -> CompactJws:
        # What a compact JWS may consist of, RFC 6750 allows: its pattern need be asked only of what is none.
        if authorization.startswith("Bearer ") and authorization[7:8] != " " and len(authorization) - 7 <= self.max_token_bytes:
            try:
                return parse(authorization[7:], self.headers)
            except AuthError as error:
                refusal = error
            bearer_token(authorization, self.max_token_bytes)  # refuses by itself what is none of RFC 6750's
            raise refusal
        return parse(bearer_token(authorization, self.max_token_bytes), self.headers)

    def trusted_issuer(self, issuer: str) -> Trusted:
        """The configured issuer with exactly this `iss`. Raises `AuthError` TOKEN_INVALID."""
        trusted = self.trusted.get(issuer)
        if trusted is None:
            raise invalid("iss is not a configured issuer")
        return trusted

    def candidate(self, jws: CompactJws, fingerprint: Fingerprint = "") -> Candidate:
        """The issuer chosen, and its rules applied. Raises `AuthError`."""
        trusted = self.trusted_issuer(unverified_issuer(jws.claims_set))
        algorithm = validate_header(jws.header, trusted.rules)
        valid = validate_claims(jws.claims_set, trusted.rules, self.clock())
        return Candidate(jws, valid, Query(jws.header.kid, algorithm), trusted, fingerprint)

    def key_for(self, candidate: Candidate) -> Use | Wait:
        """The key, or a fetch to wait for before asking again. Raises `AuthError`. Never blocks."""
        return candidate.trusted.keys.ask(candidate.query)

    def accept(self, candidate: Candidate, key: Key, policy: Policy) -> Claims:
        """Verify the signature, then ask the policy: the claims of a caller that may call.

        Raises `AuthError`: TOKEN_INVALID, TOKEN_EXPIRED while the key was waited for, INSUFFICIENT_SCOPE, POLICY_DENIED.
        """
        valid, leeway_s, now = candidate.valid, candidate.trusted.rules.leeway_s, self.clock()
        exp = valid.exp
        if is_expired(exp, leeway_s, now):
            raise expired(exp)
        claims = verify(candidate.jws, valid, candidate.query.algorithm, key)
        self._remember(candidate, key, claims, now)
        if policy is not AUTHENTICATED:
            authorize(policy, claims, now, leeway_s)
        return claims

    def ends_at(self, claims: Claims, policy: Policy) -> float | None:
        """When a stream of this caller's has to end, seconds since the epoch; None for never."""
        if policy.streams is not Streams.TERMINATE:
            return None
        return claims.exp + self.trusted[claims.iss].rules.leeway_s + policy.stream_grace_s

    def left_s(self, ends_at: float) -> float:
        """Seconds until `ends_at`; negative when it has passed."""
        return ends_at - self.clock()


def wait_limit_s(candidate: Candidate) -> float:
    """How long waiting for this token's key can make sense: the time that a fetch may take."""
    return candidate.trusted.config.fetch.timeout_s


def still_no_key() -> AuthError:
    """The refusal of a call whose key did not come in time."""
    return keys_unavailable("the issuer's keys did not come in time")
