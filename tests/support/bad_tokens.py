"""Bad tokens, each with one thing wrong, and what `explain` has to say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from grpc_bearer import Access, Authenticator, ClaimRule, Issuer, Policies, Policy, Reason, Rule
from grpc_bearer.policy.protos import Declared
from tests.support.authenticators import OTHER
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, base64url, claims_set, compact, jwks, key, mint

NOW: Final = 1_800_000_000
METHOD: Final = "/matrix.v1.MatrixService/UnaryUnary"
MALFORMED, INVALID, DENIED = Reason.TOKEN_MALFORMED, Reason.TOKEN_INVALID, Reason.POLICY_DENIED
HEADER: Final = {"alg": "RS256", "kid": "k1"}
OKP: Final = key("okp", "EdDSA")

EVERYTHING: Final = Policy(
    scopes=("a", "b"),
    any_scopes=("c", "d"),
    claims=(ClaimRule("department", any_of=("it", "ops")), ClaimRule("x.y", all_of=("1",)), ClaimRule("z", present=True)),
    issuers=(ISSUER,),
    audiences=(AUDIENCE, "billing"),
    max_age_s=300,
)
MEETING: Final[dict[str, Any]] = {"scope": "a b c", "department": "it", "x": {"y": [1]}, "z": "", "iat": NOW - 299}


def issuer(iss: str = ISSUER, **options: Any) -> Issuer:
    return Issuer(iss, **({"audiences": [AUDIENCE], "jwks": jwks(key())} | options))


def authenticator(policy: Policy | None = None, **options: Any) -> Authenticator:
    """One that trusts `ISSUER` and `OTHER`; `METHOD` has the policy. `options` are the issuers'."""
    policies = Policies(
        rules=[] if policy is None else [Rule([METHOD], policy)],
        find=lambda name: Declared(name, {"UnaryUnary": None}),
    )
    limit = options.pop("max_token_bytes", 4096)
    issuers = [issuer(**options), issuer(**options | {"iss": OTHER})]
    return Authenticator(issuers, policies=policies, clock=lambda: NOW, max_token_bytes=limit)


def a(**claims: Any) -> str:
    """A token of `NOW`."""
    return mint(now=NOW, **claims)


def headed(**members: Any) -> str:
    """A token of `NOW` with a JOSE header in which None is null."""
    return compact(HEADER | members, claims_set(NOW), key())


def claiming(claims: bytes) -> str:
    """A token whose claims set is spelled so."""
    return compact(HEADER, claims, key())


def unsigned(**header: Any) -> str:
    return f"{base64url(json.dumps(header).encode())}.{base64url(b'{}')}."


@dataclass(frozen=True)
class Bad:
    """A bad token, and what is to be said of it: `says` are parts of the advice."""

    token: str
    check: str
    reason: Reason
    detail: str
    expected: str
    found: str
    says: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    policy: Policy | None = None

    @property
    def method(self) -> str | None:
        """The method that is asked about."""
        return None if self.policy is None else METHOD


NOT_COMPACT = "not a compact JWS: three non-empty base64url parts"
NOT_WELL_FORMED = "bearer credentials are not well-formed"
NOT_CANONICAL = "base64url is not canonical"
FORM = "RFC 6750, at most 4096 bytes"
JSON = "base64url of strict JSON"
TYPES = "by RFC 7519 and RFC 9068"
CLOCK = "2027-01-15T08:00:00Z ± 30 s"
UNKNOWN_KID = "no key of the issuer has this kid"
UNFIT = "no key of the issuer fits alg"
SCOPE = "the token lacks a scope that the method requires"
WHOLE = "paste the token whole"

header, claims, signature = a().split(".")
BAD: Final = {
    # -- as it was pasted
    "nothing": Bad("", "credentials", MALFORMED, NOT_WELL_FORMED, FORM, "0 bytes", (WHOLE,)),
    "with its scheme": Bad(f"Bearer {a()}", "credentials", MALFORMED, NOT_WELL_FORMED, FORM, "' ' at 7", ("without Bearer",)),
    "broken by a line": Bad(
        "a.b\n.c", "credentials", MALFORMED, NOT_WELL_FORMED, FORM, "6 bytes, '\\n' at 4", ("line breaks",)
    ),
    "not ASCII": Bad("a b.é", "credentials", MALFORMED, NOT_WELL_FORMED, FORM, "'é' at 5", (WHOLE,)),
    "too long": Bad(
        "a" * 4097, "credentials", MALFORMED, "token too long", FORM, "4097 bytes", ("less into the token", "max_token_bytes")
    ),
    "opaque": Bad(
        "8xLOxBtZp8", "form", MALFORMED, NOT_COMPACT, "three base64url parts", "1 part: 10 ch", ("no JWT", "audience")
    ),
    "encrypted": Bad(
        "a.b.c.d.e", "form", MALFORMED, NOT_COMPACT, "three base64url parts", "5 parts: 1, 1", ("JWE", "encrypted")
    ),
    "cut off": Bad(f"{header}.{claims}", "form", MALFORMED, NOT_COMPACT, "three base64url parts", "2 parts: ", (WHOLE,)),
    "not signed": Bad(
        unsigned(alg="none"), "form", MALFORMED, NOT_COMPACT, "three base64url parts", "3 parts: 20, 3, 0", ("not signed",)
    ),
    "padded": Bad(f"{a()}==", "form", MALFORMED, NOT_COMPACT, "three base64url parts", "3 parts: ", ("without padding",)),
    "JOSE header with spare bits": Bad(
        f"eyJ9.{claims}.{signature}", "JOSE header", MALFORMED, "JOSE header: not JSON", JSON, "not JSON", ("plain JSON",)
    ),
    "JOSE header of odd length": Bad(
        f"e.{claims}.{signature}", "JOSE header", MALFORMED, NOT_CANONICAL, JSON, NOT_CANONICAL, (WHOLE,)
    ),
    "claims set of odd length": Bad(
        f"{header}.e.{signature}", "claims set", MALFORMED, NOT_CANONICAL, JSON, NOT_CANONICAL, (WHOLE,)
    ),
    "signature with spare bits": Bad(
        f"{header}.{claims}.ab", "signature part", MALFORMED, NOT_CANONICAL, "base64url, canonical", NOT_CANONICAL, (WHOLE,)
    ),
    # -- JOSE header
    "no alg": Bad(compact({}, {}, key()), "JOSE header", MALFORMED, "JOSE header: alg is not a string", JSON, "", ("set alg",)),
    "crit": Bad(
        headed(crit=["exp"]),
        "JOSE header",
        MALFORMED,
        "JOSE header: crit names an extension that is not understood",
        JSON,
        "",
        ("crit",),
    ),
    "b64": Bad(
        headed(b64=True), "JOSE header", MALFORMED, "JOSE header: b64 is not allowed in a JWT", JSON, "", ("without b64",)
    ),
    "kid of a wrong type": Bad(
        headed(kid=5), "JOSE header", MALFORMED, "JOSE header: kid is not a string of 1 to 512 characters", JSON, "", ("kid",)
    ),
    "typ of a wrong type": Bad(
        headed(typ=None), "JOSE header", MALFORMED, "JOSE header: typ is not a string", JSON, "", ("at+jwt",)
    ),
    "JOSE header that is a list": Bad(
        f"{base64url(b'[]')}.{claims}.{signature}",
        "JOSE header",
        MALFORMED,
        "JOSE header: not a JSON object",
        JSON,
        "",
        ("JSON",),
    ),
    # -- claims set
    "duplicate claim": Bad(
        claiming(b'{"a":1,"a":2}'), "claims set", MALFORMED, "claims set: duplicate JSON member", JSON, "", ("duplicate",)
    ),
    "NaN": Bad(
        claiming(b'{"exp":NaN}'), "claims set", MALFORMED, "claims set: NaN or Infinity in JSON", JSON, "", ("numbers",)
    ),
    "claims set that is no object": Bad(
        claiming(b'"x"'), "claims set", MALFORMED, "claims set: not a JSON object", JSON, "", ("plain JSON",)
    ),
    # -- issuer
    "no iss": Bad(a(iss=None), "iss", INVALID, "iss is missing", "one of https://issuer.example, ", "(absent)", ("set iss",)),
    "iss of a wrong type": Bad(a(iss=[ISSUER]), "iss", MALFORMED, "iss is not a string", "one of ", f"['{ISSUER}']", ("type",)),
    "another iss": Bad(
        a(iss="https://evil.example"),
        "iss",
        INVALID,
        "iss is not a configured issuer",
        "one of https://issuer.example, https://other.example",
        "'https://evil.example'",
        ("get a token of one of https://issuer.example", "add this issuer"),
    ),
    "iss with a slash": Bad(
        a(iss=f"{OTHER}/"), "iss", INVALID, "iss is not a configured issuer", "one of ", f"'{OTHER}/'", ("slash", f"is {OTHER}")
    ),
    "iss without its slash": Bad(
        a(), "iss", INVALID, "iss is not a configured issuer", "", f"'{ISSUER}'", (f"is {ISSUER}/",), {"iss": f"{ISSUER}/"}
    ),
    # -- what its header says
    "HMAC": Bad(
        headed(alg="HS256"),
        "alg",
        INVALID,
        "alg is not allowed for this issuer",
        "one of ES256, EdDSA, RS256",
        "HS256",
        ("never",),
    ),
    "none, and signed": Bad(
        headed(alg="None"), "alg", INVALID, "alg is not allowed for this issuer", "one of ", "None", ("RFC 8725",)
    ),
    "alg that nobody knows": Bad(
        headed(alg="\x1b[31mX"),
        "alg",
        INVALID,
        "alg is not allowed for this issuer",
        "one of ",
        r"'\x1b[31mX'",
        (r"add '\x1b[31mX' to its algorithms",),
    ),
    "alg that the issuer has keys for": Bad(
        mint(OKP, now=NOW),
        "alg",
        INVALID,
        "alg is not allowed for this issuer",
        "RS256",
        "EdDSA",
        ("has keys for EdDSA: add it",),
        {"algorithms": ["RS256"], "jwks": jwks(key(), OKP)},
    ),
    "alg by its newer name": Bad(
        mint(OKP, now=NOW, header={"alg": "Ed25519"}),
        "alg",
        INVALID,
        "alg is not allowed for this issuer",
        "RS256",
        "Ed25519",
        ("has keys for EdDSA: add it",),
        {"algorithms": ["RS256"], "jwks": jwks(key(), OKP)},
    ),
    "alg of an issuer that has no other keys": Bad(
        mint(OKP, now=NOW),
        "alg",
        INVALID,
        "alg is not allowed for this issuer",
        "RS256",
        "EdDSA",
        ("the issuer's key set has only OKP keys (for EdDSA), but only RS256 is allowed",),
        {"algorithms": ["RS256"], "jwks": jwks(OKP)},
    ),
    "ID token, by an issuer of access tokens": Bad(
        headed(typ="JWT"),
        "typ",
        INVALID,
        "typ is not that of an access token",
        "at+jwt",
        "JWT",
        ("an ID token",),
        {"require_at_jwt": True},
    ),
    "no typ, where it says what a token is": Bad(
        headed(),
        "typ",
        INVALID,
        "typ is not at+jwt",
        "at+jwt",
        "(absent)",
        ("RFC 9068", "require_at_jwt"),
        {"require_at_jwt": True},
    ),
    "logout token": Bad(
        headed(typ="logout+jwt"),
        "typ",
        INVALID,
        "typ is not that of an access token",
        "at+jwt, JWT or absent",
        "logout+jwt",
        ("send an access token",),
    ),
    # -- what its claims say
    "exp that is text": Bad(
        a(exp="soon"), "claim types", MALFORMED, "exp is not a NumericDate", TYPES, "exp string, iat number", ("type",)
    ),
    "aud that is a number": Bad(
        a(aud=7), "claim types", MALFORMED, "aud is neither a string nor an array of strings", TYPES, "aud number", ("type",)
    ),
    "scope that is an object": Bad(
        a(scope={}), "claim types", MALFORMED, "scope is neither a string nor an array of strings", TYPES, "scope object", ()
    ),
    "sub that is true": Bad(a(sub=True), "claim types", MALFORMED, "sub is not a string", TYPES, "sub boolean", ("type",)),
    "another audience": Bad(
        a(aud=["x", "y"]),
        "aud",
        INVALID,
        "aud names none of the accepted audiences",
        "orders",
        "['x', 'y']",
        ("a token for orders", "add this token's audience"),
    ),
    "no audience": Bad(
        a(aud=None), "aud", INVALID, "aud names none of the accepted audiences", "orders", "(absent)", ("set aud", "for orders")
    ),
    "no exp": Bad(a(exp=None), "exp is there", INVALID, "exp is missing", "a NumericDate", "(absent)", ("set exp",)),
    "too long a life": Bad(
        a(exp=NOW + 7200),
        "lifetime",
        INVALID,
        "the lifetime from iat to exp is missing or over the limit",
        "at most 3600 s from iat to exp",
        "7200 s",
        ("shorter life", "max_lifetime_s"),
        {"max_lifetime_s": 3600},
    ),
    "a life without a beginning": Bad(
        a(iat=None),
        "lifetime",
        INVALID,
        "the lifetime from iat to exp is missing or over the limit",
        "at most 3600 s",
        "iat (absent)",
        ("set iat",),
        {"max_lifetime_s": 3600},
    ),
    "expired": Bad(
        a(exp=NOW - 30),
        "exp",
        Reason.TOKEN_EXPIRED,
        "exp has passed",
        f"after {CLOCK}",
        f"{NOW - 30} (2027-01-15T07:59:30Z)",
        ("get a new token",),
    ),
    "not yet valid": Bad(
        a(nbf=NOW + 31),
        "nbf",
        Reason.TOKEN_NOT_YET_VALID,
        "nbf is in the future",
        f"not after {CLOCK}",
        f"{NOW + 31} (2027-01-15T08:00:31Z)",
        ("clocks", "leeway_s"),
    ),
    "issued in the future": Bad(
        a(iat=NOW + 31),
        "iat",
        Reason.TOKEN_NOT_YET_VALID,
        "iat is in the future",
        f"not after {CLOCK}",
        "08:00:31Z",
        ("clocks",),
    ),
    # -- keys
    "unknown kid": Bad(
        mint(key("k2"), now=NOW),
        "key",
        INVALID,
        UNKNOWN_KID,
        "one key: kid k2 for RS256",
        "kid k1 for RS256",
        ("does not publish this key",),
    ),
    "unknown kid, of a kind that the issuer has not": Bad(
        mint(OKP, now=NOW),
        "key",
        INVALID,
        UNKNOWN_KID,
        "one key: kid okp for EdDSA",
        "kid k1 for RS256",
        ("none for EdDSA at all",),
    ),
    "a key of another kind": Bad(
        mint(OKP, now=NOW, header={"kid": "k1"}),
        "key",
        INVALID,
        UNFIT,
        "one key: kid k1 for EdDSA",
        "kid k1 for RS256",
        ("keys for RS256, and none that fits", "for EdDSA"),
    ),
    "a key set of keys that are not allowed": Bad(
        a(),
        "key",
        INVALID,
        UNKNOWN_KID,
        "one key: kid k1 for RS256",
        "kid okp for EdDSA",
        ("has only OKP keys (for EdDSA), but only RS256 is allowed",),
        {"algorithms": ["RS256"], "jwks": jwks(OKP)},
    ),
    "no kid, and a key set of keys that are not allowed": Bad(
        mint(now=NOW, header={"kid": None}),
        "key",
        INVALID,
        UNFIT,
        "the only key for RS256",
        "kid ec for ES256",
        ("has only EC and RSA keys (for ES256, PS256), but only RS256 is allowed", "left out of its key set: keys[2]: kty"),
        {
            "algorithms": ["RS256"],
            "jwks": {"keys": [key("ec", "ES256").jwk(), key().jwk(kid="ps", alg="PS256"), {"kty": "XYZ"}]},
        },
    ),
    "no kid, and two keys": Bad(
        mint(now=NOW, header={"kid": None}),
        "key",
        INVALID,
        "more than one key of the issuer fits",
        "the only key for RS256",
        "kid k1 for RS256; kid k2 for RS256",
        ("a kid of its own",),
        {"jwks": jwks(key(), key("k2"))},
    ),
    "a key that was left out": Bad(
        mint(key("k2"), now=NOW),
        "key",
        INVALID,
        UNKNOWN_KID,
        "one key: kid k2 for RS256",
        "kid k1 for RS256",
        ("left out of its key set: keys[1]: use is not sig",),
        {"jwks": {"keys": [key().jwk(), key("k2").jwk(use="enc")]}},
    ),
    # -- signature
    "forged": Bad(
        compact(HEADER, claims_set(NOW), SigningKey("k1", "RS256", key("forger").private_key)),
        "signature",
        INVALID,
        "the signature does not verify",
        "by the key k1, with RS256",
        "256 bytes",
        ("changed after it was signed", "kid k1 for RS256"),
    ),
    "forged, and the key has no kid": Bad(
        compact({"alg": "RS256"}, claims_set(NOW), key("forger")),
        "signature",
        INVALID,
        "the signature does not verify",
        "by the key without a kid, with RS256",
        "256 bytes",
        ("kid (absent) for RS256",),
        {"jwks": {"keys": [key().jwk(kid=None)]}},
    ),
    # -- the method's policy
    "a closed method": Bad(
        a(),
        "method",
        DENIED,
        "the method is closed to everybody",
        "open",
        "deny (rules[0])",
        ("open it",),
        {},
        Policy(Access.DENY),
    ),
    "optional is not lax": Bad(
        a(exp=NOW - 30),
        "exp",
        Reason.TOKEN_EXPIRED,
        "exp has passed",
        "after",
        "07:59:30Z",
        ("new token",),
        {},
        Policy(Access.OPTIONAL),
    ),
    "another issuer than the method's": Bad(
        a(**MEETING, iss=OTHER),
        "policy: issuers",
        DENIED,
        "iss is none of the issuers that the method accepts",
        ISSUER,
        OTHER,
        ("an issuer that the method accepts",),
        {},
        EVERYTHING,
    ),
    "another audience than the method's": Bad(
        a(aud=[AUDIENCE, "x"]),
        "policy: audiences",
        DENIED,
        "aud names none of the audiences that the method accepts",
        "billing",
        "['orders', 'x']",
        ("an audience that the method accepts",),
        {},
        Policy(audiences=("billing",)),
    ),
    "a scope too few": Bad(
        a(**MEETING | {"scope": "b c"}),
        "policy: scopes",
        Reason.INSUFFICIENT_SCOPE,
        SCOPE,
        "a, b, and one of c, d",
        "b c",
        ("the method requires: a and b, and one of c, d",),
        {},
        EVERYTHING,
    ),
    "no scope at all": Bad(
        a(scope=None),
        "policy: scopes",
        Reason.INSUFFICIENT_SCOPE,
        SCOPE,
        "one of c, d",
        "(absent)",
        ("requires: one of c, d",),
        {},
        Policy(any_scopes=("c", "d")),
    ),
    "a claim of another value": Bad(
        a(**MEETING | {"department": "hr"}),
        "policy: claim department",
        DENIED,
        "the claim department is not what the method requires",
        "one of it, ops",
        "'hr'",
        ("claim is what the method requires",),
        {},
        EVERYTHING,
    ),
    "a nested claim that lacks": Bad(
        a(**MEETING | {"x": {}}),
        "policy: claim x.y",
        DENIED,
        "the claim x.y is not what the method requires",
        "1",
        "(absent)",
        (),
        {},
        EVERYTHING,
    ),
    "a claim that is not there": Bad(
        a(**MEETING | {"z": None}),
        "policy: claim z",
        DENIED,
        "the claim z is not what the method requires",
        "present",
        "(absent)",
        (),
        {},
        EVERYTHING,
    ),
    "a login long ago": Bad(
        a(**MEETING | {"iat": NOW - 331}),
        "policy: max_age_s",
        DENIED,
        "the caller authenticated too long ago, or the token does not say when",
        "at most 300 s ago ± 30 s",
        f"iat {NOW - 331} (2027-01-15T07:54:29Z)",
        ("log in again",),
        {},
        EVERYTHING,
    ),
    "a login at no time": Bad(
        a(**MEETING | {"auth_time": 10**400}),
        "policy: max_age_s",
        DENIED,
        "the caller authenticated too long ago, or the token does not say when",
        "at most 300 s ago ± 30 s",
        "auth_time 1000",
        ("log in again",),
        {},
        EVERYTHING,
    ),
}
