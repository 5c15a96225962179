"""For each way a token can be refused: which check it was, and what to do next. Keyed by the detail that the log has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from .errors import AuthError
from .explain_checks import key_text, one_of, plain
from .gate import Trusted
from .jws import Header, base64url
from .keys.jwks import Key, NoKey, canonical_algorithm
from .policy.model import Policy

NOT_CANONICAL: Final = "base64url is not canonical"


@dataclass(slots=True)
class Facts:
    """What is known by the time that a check fails: advice is worded from it."""

    token: str = field(default="", repr=False)
    header: Header | None = None
    claims_set: Mapping[str, Any] = field(default_factory=dict, repr=False)
    issuers: tuple[str, ...] = ()
    trusted: Trusted | None = None
    key: Key | None = None
    policy: Policy = Policy()

    @property
    def algorithm(self) -> str:
        """The token's, in its canonical name."""
        return "" if self.header is None else canonical_algorithm(self.header.alg)

    @property
    def offered(self) -> frozenset[str]:
        """The algorithms that the issuer has keys for; empty when it has none yet."""
        key_set = None if self.trusted is None else self.trusted.keys.state.key_set
        return frozenset[str]() if key_set is None else frozenset[str]().union(*(key.algorithms for key in key_set.keys))

    @property
    def allowed(self) -> frozenset[str]:
        """The algorithms that are allowed for the issuer."""
        return frozenset[str]() if self.trusted is None else self.trusted.rules.algorithms

    @property
    def skipped(self) -> str:
        """What was left out of the issuer's key set, as the end of a sentence."""
        key_set = None if self.trusted is None else self.trusted.keys.state.key_set
        return f"; left out of its key set: {', '.join(key_set.skipped)}" if key_set is not None and key_set.skipped else ""


@dataclass(frozen=True, slots=True)
class Fault:
    """`check`: the name of the failed check. `advice`: what to do next."""

    check: str
    advice: Callable[[Facts], str]


def _say(text: str) -> Callable[[Facts], str]:
    return lambda _facts: text


def _key_type(algorithm: str) -> str:
    return "OKP" if algorithm == "EdDSA" else "EC" if algorithm.startswith("ES") else "RSA"


def _mismatch(facts: Facts) -> str:
    """That none of the issuer's keys is for an allowed algorithm, which no token can mend; empty where one is."""
    if not facts.offered or not facts.offered.isdisjoint(facts.allowed):
        return ""
    types = " and ".join(sorted(set(map(_key_type, facts.offered))))
    offered, allowed = ", ".join(sorted(facts.offered)), ", ".join(sorted(facts.allowed))
    return (
        f"the issuer's key set has only {types} keys (for {offered}), but only {allowed} is allowed: "
        f"add what it has to the issuer's algorithms, or have the issuer publish another key{facts.skipped}"
    )


def _compact(facts: Facts) -> str:
    parts = facts.token.split(".")
    if len(parts) == 1:
        return "this is no JWT: have the issuer give JWT access tokens (with some, asking for an audience does that)"
    if len(parts) == 5:
        return "this is an encrypted token (JWE, RFC 7516), which cannot be read here: have the issuer sign only"
    if len(parts) == 3 and parts[0] and parts[1] and not parts[2]:
        return "this token is not signed, and without a signature none is accepted: have the issuer sign it"
    return _FORM


def _iss(facts: Facts) -> str:
    issuer = facts.claims_set.get("iss")
    for known in facts.issuers:
        if isinstance(issuer, str) and known.rstrip("/") == issuer.rstrip("/"):
            return f"iss has to match to the letter, also in the slash at its end: configured is {known}"
    return f"get a token of {one_of(facts.issuers)}, or add this issuer to the configured ones"


def _alg(facts: Facts) -> str:
    alg = facts.algorithm
    if alg in facts.offered:
        return (
            _mismatch(facts)
            or f"the issuer has keys for {alg}: add it to the issuer's algorithms, or have it sign with another"
        )
    sign = f"have the issuer sign with {one_of(facts.allowed)}"
    if alg.lower() == "none" or alg.startswith("HS"):
        return f"{sign}: none and HMAC are never allowed beside a JWK Set (RFC 8725 §3.1)"
    return f"{sign}, or add {plain(alg)} to its algorithms if it is meant to sign so"


def _unknown_kid(facts: Facts) -> str:
    text = "the issuer does not publish this key: was it rotated out, or is the token of another environment?"
    lacking = "" if facts.algorithm in facts.offered else f"; it has none for {plain(facts.algorithm)} at all"
    return _mismatch(facts) or f"{text}{lacking}{facts.skipped}"


def _unfit(facts: Facts) -> str:
    return _mismatch(facts) or (
        f"the issuer publishes keys for {', '.join(sorted(facts.offered))}, and none that fits this token's alg and kid: "
        f"have it publish the key that it signs with, for {plain(facts.algorithm)}{facts.skipped}"
    )


def _aud(facts: Facts) -> str:
    audiences = frozenset[str]() if facts.trusted is None else facts.trusted.rules.audiences or frozenset[str]()
    wanted = " or ".join(sorted(audiences))
    if "aud" not in facts.claims_set:
        return f"have the issuer set aud: ask it for a token for {wanted}"
    return f"ask the issuer for a token for {wanted}, or add this token's audience to the issuer's audiences"


def _lifetime(facts: Facts) -> str:
    if "iat" not in facts.claims_set:
        return "have the issuer set iat, from which the life is counted, or drop max_lifetime_s"
    return "have the issuer give tokens a shorter life, or raise max_lifetime_s"


def _signature(facts: Facts) -> str:
    kid = "the published one" if facts.key is None else f"the published one, {key_text(facts.key)}"
    return f"the token was changed after it was signed, or signed with another key than {kid}: get a new one from the issuer"


def _keys(facts: Facts) -> str:
    error = None if facts.trusted is None else facts.trusted.keys.state.last_error
    return f"the token may be good, but the issuer's keys cannot be had ({error or 'no answer yet'}): see whether it is up"


def _scope(facts: Facts) -> str:
    wanted = [" and ".join(facts.policy.scopes)] if facts.policy.scopes else []
    wanted += [one_of(facts.policy.any_scopes)] if facts.policy.any_scopes else []
    return f"ask the issuer for a token with the scopes that the method requires: {', and '.join(wanted)}"


_FORM: Final = (
    "paste the token whole, without Bearer before it, without quotes and line breaks: "
    "header.claims.signature, each base64url without padding"
)
_CLAIM: Final = _say("have the issuer give the claim the type that RFC 7519 and RFC 9068 say")
_STRICT: Final = _say(
    "have the issuer write it as plain JSON in UTF-8: no duplicate members, no exotic numbers, no deep nesting"
)
_DATES: Final = _say("see that the clocks of issuer and service agree; leeway_s grants some skew")

FAULTS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        "no authorization entry": Fault("credentials", _say("send the metadata `authorization: Bearer TOKEN`")),
        "authorization is of another scheme": Fault("credentials", _say("send the scheme Bearer")),
        "more than one authorization entry": Fault("credentials", _say("send one authorization entry")),
        "authorization is not text": Fault("credentials", _say("send the token as text")),
        "bearer credentials are not well-formed": Fault("credentials", _say(_FORM)),
        "token too long": Fault("credentials", _say("have the issuer put less into the token, or raise max_token_bytes")),
        "not a compact JWS: three non-empty base64url parts": Fault("form", _compact),
        NOT_CANONICAL: Fault("form", _say(_FORM)),
        "JOSE header: alg is not a string": Fault("JOSE header", _say("have the issuer set alg (RFC 7515 §4.1.1)")),
        "JOSE header: crit names an extension that is not understood": Fault("JOSE header", _say("sign without crit")),
        "JOSE header: b64 is not allowed in a JWT": Fault("JOSE header", _say("sign without b64 (RFC 7797 §7)")),
        "JOSE header: kid is not a string of 1 to 512 characters": Fault(
            "JOSE header", _say("set kid to the key's, or leave it out")
        ),
        "JOSE header: typ is not a string": Fault("JOSE header", _say("set typ to at+jwt")),
        "iss is not a string": Fault("iss", _CLAIM),
        "iss is missing": Fault("iss", _say("have the issuer set iss (RFC 9068 §2.2)")),
        "iss is not a configured issuer": Fault("iss", _iss),
        "alg is not allowed for this issuer": Fault("alg", _alg),
        "typ is not at+jwt": Fault("typ", _say("send an access token (RFC 9068), or drop require_at_jwt")),
        "typ is not that of an access token": Fault("typ", _say("send an access token; an ID token or a logout token is none")),
        "aud is neither a string nor an array of strings": Fault("claim types", _CLAIM),
        "aud names none of the accepted audiences": Fault("aud", _aud),
        "exp is missing": Fault("exp is there", _say("have the issuer set exp: tokens without an end are not accepted")),
        "the lifetime from iat to exp is missing or over the limit": Fault("lifetime", _lifetime),
        "exp has passed": Fault("exp", _say("get a new token")),
        "nbf is in the future": Fault("nbf", _DATES),
        "iat is in the future": Fault("iat", _DATES),
        NoKey.UNKNOWN_KID.value: Fault("key", _unknown_kid),
        NoKey.UNFIT.value: Fault("key", _unfit),
        NoKey.AMBIGUOUS.value: Fault("key", _say("have the issuer give each key a kid of its own, and put it into its tokens")),
        "the last fetch of the issuer's keys failed, and it is too early for another": Fault("key", _keys),
        "the kid is unknown, and the last fetch of the issuer's keys failed": Fault("key", _keys),
        "the issuer's keys did not come in time": Fault("key", _keys),
        "as many calls as may wait for keys do so already": Fault("key", _keys),
        "the authenticator is closed": Fault("key", _say("the service is ending: ask a running one")),
        "the signature does not verify": Fault("signature", _signature),
        "the method is closed to everybody": Fault(
            "method", _say("open it in its rule or proto option, if it is meant to be called")
        ),
        "iss is none of the issuers that the method accepts": Fault(
            "policy: issuers", _say("send a token of an issuer that the method accepts")
        ),
        "aud names none of the audiences that the method accepts": Fault(
            "policy: audiences", _say("ask for a token for an audience that the method accepts")
        ),
        "the token lacks a scope that the method requires": Fault("policy: scopes", _scope),
        "the caller authenticated too long ago, or the token does not say when": Fault(
            "policy: max_age_s", _say("log in again")
        ),
    }
)
_PATTERNS: Final = (
    (re.compile(r"JOSE header: .*"), Fault("JOSE header", _STRICT)),
    (re.compile(r"claims set: .*"), Fault("claims set", _STRICT)),
    (
        re.compile(r"\w+ is (?:not a NumericDate|not a string|neither a string nor an array of strings)"),
        Fault("claim types", _CLAIM),
    ),
)
_CLAIM_RULE: Final = re.compile(r"the claim (.+) is not what the method requires", re.DOTALL)
_UNKNOWN: Final = Fault("internal", _say("this is a bug of grpc-bearer's: the log has the place"))


def fault_of(detail: str) -> Fault:
    """The fault that an `AuthError.detail` stands for."""
    known = FAULTS.get(detail)
    if known is not None:
        return known
    rule = _CLAIM_RULE.fullmatch(detail)
    if rule is not None:
        return Fault(f"policy: claim {rule[1]}", _say("ask the issuer for a token whose claim is what the method requires"))
    return next((fault for pattern, fault in _PATTERNS if pattern.fullmatch(detail)), _UNKNOWN)


def check_of(detail: str, facts: Facts) -> str:
    """The name of the check that failed."""
    if detail != NOT_CANONICAL:
        return fault_of(detail).check
    # One detail for three parts. They are read in their order, so it was the first that cannot be.
    named = zip(("JOSE header", "claims set", "signature part"), facts.token.split("."), strict=True)
    return next(name for name, part in named if not _is_canonical(part))


def _is_canonical(part: str) -> bool:
    try:
        base64url(part.encode())
    except AuthError:
        return False
    return True
