"""Why a token is accepted or refused: the interceptor's own steps, one by one, with what each expected and what it found.

The verdict is that of `gate`, whose functions are called here in its order; `explain_checks` and `explain_faults` only word
it. An explanation holds claim values: it is for the person who has the token, not for a log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from .authenticator import Authenticator
from .bearer import bearer_token
from .claims import Claims
from .errors import AuthError, Reason
from .explain_checks import (
    Check,
    claims_checks,
    credentials_check,
    issuer_check,
    key_check,
    method_check,
    part_checks,
    policy_checks,
    signature_check,
)
from .explain_faults import Facts, check_of, fault_of
from .gate import MAX_ROUNDS, Candidate, Gate, Trusted, still_no_key, wait_limit_s
from .jws import parse
from .keys.cache import Query, Use
from .keys.jwks import Key
from .observe import unexpected
from .policy.model import Access, Policy
from .policy.table import Entry
from .verifier import unverified_issuer

Outcome = Literal["passed", "failed", "not reached"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One check: its name, how it ended, and what it expected and found, as text for people."""

    name: str
    outcome: Outcome
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The checks in their order: those that passed, the one that failed, and what of its stage was not reached for it.

    `reason`, `detail` and `advice` are None for a token that is accepted. `detail` is what the service's log says, `advice`
    what to do next. `entry`: the method's policy and where it comes from, None where no method was asked about. `claims` are
    None unless they were verified.
    """

    steps: tuple[Step, ...]
    reason: Reason | None
    detail: str | None
    advice: str | None
    entry: Entry | None
    claims: Claims | None

    @property
    def accepted(self) -> bool:
        """Whether the call may go on."""
        return self.reason is None


def explain(auth: Authenticator, token: str, method: str | None = None, *, wait_s: float = 5.0) -> Explanation:
    """Explain what the interceptors would make of `token` in a call of `method` (None: any that requires a valid token).

    `token`: what follows `Bearer ` in the header. `method`: `/package.Service/Method`; whether there is such a method is not
    looked at. Blocks for at most `wait_s` where the issuer's keys have to be fetched.
    Raises `ConfigurationError` for a method whose proto has a wrong policy.
    """
    gate = auth.gate
    entry = None if method is None else gate.policies.for_method(method)
    walk = _Walk(time.monotonic() + wait_s)
    try:
        claims = walk.through(gate, token, entry)
    except AuthError as error:
        return walk.refused(error, entry)
    except Exception as error:  # a bug of ours, which the interceptors answer with INTERNAL
        return walk.refused(unexpected(method or "explain", error), entry)
    return Explanation(tuple(walk.steps), None, None, None, entry, claims)


class _Walk:
    """Collects steps. A stage is a few checks that one call of the gate's makes; its error says which of them failed."""

    def __init__(self, deadline: float) -> None:
        self.steps: list[Step] = []
        self._facts = Facts()
        self._deadline = deadline

    def through(self, gate: Gate, token: str, entry: Entry | None) -> Claims | None:
        facts, policy = self._facts, Policy()
        if entry is not None:
            facts.policy = entry.policy
            policy = self._stage(lambda _: [method_check(entry)], lambda: gate.policy(entry.method))
            if policy.access is Access.PUBLIC:
                self.steps.append(Step("token", "not reached", "nothing: the method is public", "it is not looked at"))
                return None
        given = token
        token = facts.token = self._stage(
            lambda _: [credentials_check(given, gate.max_token_bytes)],
            lambda: bearer_token(f"Bearer {given}", gate.max_token_bytes),
        )
        jws = self._stage(lambda parsed: part_checks(token, parsed), lambda: parse(token))
        facts.header, facts.claims_set, facts.issuers = jws.header, jws.claims_set, tuple(gate.trusted)
        trusted = self._stage(
            lambda _: [issuer_check(jws.claims_set, facts.issuers)],
            lambda: gate.trusted_issuer(unverified_issuer(jws.claims_set)),
        )
        facts.trusted, now = trusted, gate.clock()
        # One moment for what is worded and what is decided. It is asked anew when the key has come, as in a call.
        reading = replace(gate, clock=lambda: now)
        candidate = self._stage(lambda _: claims_checks(jws, trusted.rules, now), lambda: reading.candidate(jws))
        key = self._stage(lambda found: [key_check(candidate, found)], lambda: self._awaited_key(gate, candidate))
        facts.key = key
        return self._stage(
            lambda _: [signature_check(candidate, key), *policy_checks(policy, candidate)],
            lambda: gate.accept(candidate, key, policy),
        )

    def _stage(self, checks: Callable[[T | None], Sequence[Check]], action: Callable[[], T]) -> T:
        """`checks`: asked after the fact, with the result of `action`, None where that refused."""
        try:
            result = action()
        except AuthError as error:
            self._failed(checks(None), check_of(error.detail, self._facts), error.detail)
            raise
        self.steps += [Step(check.name, "passed", check.expected, check.found) for check in checks(result)]
        return result

    def _failed(self, checks: Sequence[Check], name: str, detail: str) -> None:
        if all(check.name != name for check in checks):  # exp, which is asked again when the key has come
            before = next(step for step in self.steps if step.name == name)
            checks = [Check(name, f"{before.expected}, also once the key has come", before.found), *checks]
        outcome: Outcome = "passed"
        for check in checks:
            if check.name == name:
                self.steps.append(Step(name, "failed", check.expected, check.found or detail))
                outcome = "not reached"
            else:
                found = check.found or ("as expected" if outcome == "passed" else "")
                self.steps.append(Step(check.name, outcome, check.expected, found))

    def _awaited_key(self, gate: Gate, candidate: Candidate) -> Key:
        deadline = min(self._deadline, time.monotonic() + wait_limit_s(candidate))
        step = gate.key_for(candidate)
        if isinstance(step, Use):
            return step.key
        for _round in range(MAX_ROUNDS):
            try:
                step.flight.result(timeout=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                break
            step = gate.key_for(candidate)
            if isinstance(step, Use):
                return step.key
        raise still_no_key()

    def refused(self, error: AuthError, entry: Entry | None) -> Explanation:
        """The explanation of a refusal, with its advice."""
        fault, facts = fault_of(error.detail), self._facts
        if fault.check == "alg" and facts.trusted is not None:  # what the issuer has keys for is the better half of the advice
            self._fetch_keys(facts.trusted)
        return Explanation(tuple(self.steps), error.reason, error.detail, fault.advice(facts), entry, None)

    def _fetch_keys(self, trusted: Trusted) -> None:
        with suppress(AuthError, TimeoutError):
            step = trusted.keys.ask(Query(None, min(trusted.rules.algorithms)))
            if not isinstance(step, Use):
                step.flight.result(timeout=max(0.0, self._deadline - time.monotonic()))
