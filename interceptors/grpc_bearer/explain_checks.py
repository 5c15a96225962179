"""The checks of a token as text for people: what each expects, and what it finds (pure).

Everything that comes from a token is quoted where it has characters that a terminal would obey, and cut where it is long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from .claims import claim_at
from .gate import Candidate
from .jws import CompactJws
from .keys.jwks import Key
from .policy.model import ClaimRule, Policy
from .policy.table import Entry
from .verifier import MAX_NUMERIC_DATE, TokenRules

NOT_GIVEN: Final = "(absent)"
MAX_SHOWN: Final = 200

_TYPED: Final = ("exp", "nbf", "iat", "sub", "aud", "jti", "client_id", "scope", "scp")
_JSON_TYPES: Final = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A check: `found` is empty where there is nothing to tell apart from how it ended."""

    name: str
    expected: str
    found: str


def one_of(values: Collection[str]) -> str:
    """The values as a choice."""
    return next(iter(values)) if len(values) == 1 else f"one of {', '.join(sorted(values))}"


def cut(text: str) -> str:
    """Text of a bounded length."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(text)} characters)"


def plain(text: str) -> str:
    """Text of a token: as it is, or quoted and escaped where a terminal would do more than show it."""
    return cut(text if text and text.isprintable() else repr(text))


def shown(value: Any) -> str:
    """A claim's value."""
    return NOT_GIVEN if value is None else cut(repr(value))


def _claim(claims_set: Mapping[str, Any], name: str) -> str:
    return cut(repr(claims_set[name])) if name in claims_set else NOT_GIVEN


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _date(claims_set: Mapping[str, Any], name: str) -> str:
    value = claims_set.get(name)
    return f"{value} ({_utc(value)})" if _is_date(value) else _claim(claims_set, name)


def _is_date(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_NUMERIC_DATE


def method_check(entry: Entry) -> Check:
    """Whether anybody may call, and which rule says so."""
    return Check("method", "one that is open to callers", f"{entry.policy.access} ({entry.source})")


def credentials_check(token: str, max_token_bytes: int) -> Check:
    """The form of RFC 6750, and the length."""
    odd = next((at for at, character in enumerate(token) if not (character.isascii() and character.isprintable())), None)
    space = token.find(" ")
    at = space if odd is None and space >= 0 else odd
    where = "" if at is None else f", {token[at]!r} at {at + 1}"
    return Check("credentials", f"RFC 6750, at most {max_token_bytes} bytes", f"{len(token)} bytes{where}")


def part_checks(token: str, jws: CompactJws | None) -> list[Check]:
    """What `parse` looks at; `jws` is None where it refused."""
    lengths = [str(len(part)) for part in token.split(".")]
    form = f"{len(lengths)} part{'s' if len(lengths) > 1 else ''}: {', '.join(lengths)} characters"
    header = claims = signature = ""
    if jws is not None:
        typ = NOT_GIVEN if jws.header.typ is None else plain(jws.header.typ)
        kid = NOT_GIVEN if jws.header.kid is None else plain(jws.header.kid)
        header = f"alg {plain(jws.header.alg)}, kid {kid}, typ {typ}"
        claims = cut(", ".join(map(plain, jws.claims_set))) or "no claims"
        signature = f"{len(jws.signature)} bytes"
    return [
        Check("form", "three base64url parts", cut(form)),
        Check("JOSE header", "base64url of strict JSON", header),
        Check("claims set", "base64url of strict JSON", claims),
        Check("signature part", "base64url, canonical", signature),
    ]


def issuer_check(claims_set: Mapping[str, Any], issuers: Collection[str]) -> Check:
    """Whose token it says it is."""
    return Check("iss", one_of(issuers), _claim(claims_set, "iss"))


def claims_checks(jws: CompactJws, rules: TokenRules, now: float) -> list[Check]:
    """What an issuer's rules say of header and claims, in the order of `verifier`."""
    claims_set, header = jws.claims_set, jws.header
    types = ", ".join(f"{name} {_JSON_TYPES[type(claims_set[name])]}" for name in _TYPED if name in claims_set)
    lifetime = "no limit" if rules.max_lifetime_s is None else f"at most {rules.max_lifetime_s:g} s from iat to exp"
    clock = f"{_utc(now)} ± {rules.leeway_s:g} s"
    return [
        Check("alg", one_of(rules.algorithms), plain(header.alg)),
        Check(
            "typ",
            "at+jwt" if rules.require_at_jwt else "at+jwt, JWT or absent",
            NOT_GIVEN if header.typ is None else plain(header.typ),
        ),
        Check("claim types", "by RFC 7519 and RFC 9068", types or "none of these claims"),
        Check("aud", "anything" if rules.audiences is None else one_of(rules.audiences), _claim(claims_set, "aud")),
        Check("exp is there", "a NumericDate", _claim(claims_set, "exp")),
        Check("lifetime", lifetime, _lifetime(claims_set)),
        Check("exp", f"after {clock}", _date(claims_set, "exp")),
        Check("nbf", f"not after {clock}", _date(claims_set, "nbf")),
        Check("iat", f"not after {clock}", _date(claims_set, "iat")),
    ]


def _lifetime(claims_set: Mapping[str, Any]) -> str:
    iat, exp = claims_set.get("iat"), claims_set.get("exp")
    return f"{exp - iat:.0f} s" if _is_date(iat) and _is_date(exp) else f"iat {_date(claims_set, 'iat')}"


def key_check(candidate: Candidate, key: Key | None) -> Check:
    """The choice of the key; `key` is None where there was none."""
    query = candidate.query
    kid = "the only key" if query.kid is None else f"one key: kid {plain(query.kid)}"
    return Check("key", f"{kid} for {query.algorithm}", _keys(candidate) if key is None else key_text(key))


def _keys(candidate: Candidate) -> str:
    """What the issuer has. After the fetch: a check is worded when it is over."""
    state = candidate.trusted.keys.state
    known = [] if state.key_set is None else [key_text(key) for key in state.key_set.keys]
    failed = [] if state.last_error is None else [f"the last fetch failed: {state.last_error}"]
    return cut("; ".join([*(known or ["no keys"]), *failed]))


def key_text(key: Key) -> str:
    """A key by its `kid` and what it may verify."""
    return f"kid {NOT_GIVEN if key.kid is None else plain(key.kid)} for {', '.join(sorted(key.algorithms))}"


def signature_check(candidate: Candidate, key: Key) -> Check:
    """The signature itself."""
    kid = "the key without a kid" if key.kid is None else f"the key {plain(key.kid)}"
    return Check("signature", f"by {kid}, with {candidate.query.algorithm}", f"{len(candidate.jws.signature)} bytes")


def policy_checks(policy: Policy, candidate: Candidate) -> list[Check]:
    """What the method requires, in the order of `policy.authorize`."""
    valid = candidate.valid
    claims: Mapping[str, Any] = valid.members
    checks = []
    if policy.issuers:
        checks.append(Check("policy: issuers", one_of(policy.issuers), valid.iss))
    if policy.audiences:
        checks.append(Check("policy: audiences", one_of(policy.audiences), _claim(claims, "aud")))
    if policy.scopes or policy.any_scopes:
        found = cut(" ".join(map(plain, sorted(valid.scopes)))) or NOT_GIVEN
        checks.append(Check("policy: scopes", _wanted(policy.any_scopes, policy.scopes), found))
    checks += [
        Check(f"policy: claim {rule.name}", rule_text(rule), shown(claim_at(rule.name, claims))) for rule in policy.claims
    ]
    if policy.max_age_s is not None:
        source = "auth_time" if "auth_time" in claims else "iat"
        limit = f"authenticated at most {policy.max_age_s:g} s ago ± {candidate.trusted.rules.leeway_s:g} s"
        checks.append(Check("policy: max_age_s", limit, f"{source} {_date(claims, source)}"))
    return checks


def rule_text(rule: ClaimRule) -> str:
    """What a rule wants of its claim."""
    return _wanted(rule.any_of, rule.all_of) or "present"


def _wanted(any_of: tuple[str, ...], all_of: tuple[str, ...]) -> str:
    """As in "a, b, and one of c, d"."""
    every = ", ".join(all_of)
    choice = one_of(any_of) if any_of else ""
    return f"{every}, and {choice}" if every and choice else every or choice
