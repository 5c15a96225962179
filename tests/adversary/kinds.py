"""Attacks by the JOSE header's further members: extensions that are not understood, and tokens of another kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.adversary.case import ACCEPTED, INVALID, MALFORMED, Group
from tests.adversary.headers import TYPES
from tests.adversary.world import NOW, STRICT, World
from tests.support.tokens import base64url


def extensions(world: World) -> Iterator[Group]:
    """`crit`, `b64`, `zip`: a verifier that understands none of them must refuse the first, and not be led by the others."""
    crit = Group("crit", "RFC 7515 §4.1.11")
    for value in ([], ["exp"], ["b64"], ["alg"], ["kid", "kid"], [""], [1], "exp", None, True, 1, {"exp": True}):
        header = {"crit": value, "exp": NOW}
        crit.token(
            f"{json.dumps(value)}",
            world.token(header=header),
            MALFORMED,
            world.token(header={"exp": NOW}),
            "CVE-2025-59420" if value else "",
        )
    crit.token(
        "an unknown name, which must be understood",
        world.token(header={"crit": ["x"], "x": 1}),
        MALFORMED,
        world.token(header={"x": 1}),
    )
    yield crit
    b64 = Group("b64", "RFC 7797 §7")
    for value in (False, True, None, "false", 0, []):
        b64.token(f"{json.dumps(value)}", world.token(header={"b64": value}), MALFORMED, world.token())
        b64.token(
            f"{json.dumps(value)}, in crit",
            world.token(header={"b64": value, "crit": ["b64"]}),
            MALFORMED,
            world.token(),
            "RFC 7797 §6",
        )
    protected = base64url(json.dumps({"alg": "RS256", "kid": "rsa", "b64": False, "crit": ["b64"]}).encode())
    claims = json.dumps(world.claims(), separators=(",", ":"))
    signing_input = f"{protected}.{claims}"
    unencoded = f"{signing_input}.{base64url(world.rsa.sign(signing_input.encode()))}"
    b64.token("a payload that is not encoded", unencoded, MALFORMED, world.token(), "RFC 7797 §5.2")
    detached = f"{protected}..{base64url(world.rsa.sign(signing_input.encode()))}"
    b64.token("a payload that is detached", detached, MALFORMED, world.token(), "RFC 7515 appendix F")
    yield b64


def types(world: World) -> Iterator[Group]:
    """A token of another kind is no access token, and a strict issuer's has to say that it is one."""
    group = Group("typ confusion", "RFC 8725 §3.11")
    for name, value in TYPES.items():
        group.token(
            f"{name} in place of a string", world.token(header={"typ": value}), MALFORMED, world.token(), "RFC 7515 §4.1.9"
        )
    other = (
        *(
            "logout+jwt",
            "dpop+jwt",
            "secevent+jwt",
            "oauth-authz-req+jwt",
            "token-introspection+jwt",
            "client-authentication+jwt",
        ),
        *(
            "kb+jwt",
            "vc+sd-jwt",
            "dc+sd-jwt",
            "entity-statement+jwt",
            "rt+jwt",
            "id_token",
            "ID",
            "JOSE",
            "JOSE+JSON",
            "JWE",
            "JWS",
        ),
        *(
            "",
            " at+jwt",
            "at+jwt ",
            "at+jwt; charset=utf-8",
            "application/application/at+jwt",
            "text/at+jwt",
            "at jwt",
            "at+jwt\0",
            "xat+jwt",
        ),
    )
    for typ in other:
        group.token(f"{typ!r}", world.token(header={"typ": typ}), INVALID, world.token())
    for typ in ("JWT", "jwt", "AT+JWT", "application/at+jwt", "APPLICATION/JWT"):
        group.token(f"{typ!r}, as good as at+jwt", world.token(header={"typ": typ}), ACCEPTED, world.token(), "RFC 7519 §5.1")
    strict = world.token(world.spare, iss=STRICT)
    for typ in ("JWT", "application/jwt", "logout+jwt", "at+jw", "at-jwt"):
        group.token(
            f"{typ!r}, where at+jwt is required",
            world.token(world.spare, {"typ": typ}, iss=STRICT),
            INVALID,
            strict,
            "RFC 9068 §4",
        )
    group.token(
        "none, where at+jwt is required",
        world.token(world.spare, {"del_": ["typ"]}, iss=STRICT),
        INVALID,
        strict,
        "RFC 9068 §4",
    )
    group.token(
        "an ID token for a client",
        world.token(header={"typ": "JWT"}, aud="client-1", nonce="n", at_hash="h"),
        INVALID,
        world.token(),
    )
    id_token = world.token(world.spare, {"typ": "JWT"}, iss=STRICT, nonce="n", at_hash="h")
    group.token("an ID token for this audience", id_token, INVALID, strict, "RFC 9068 §5")
    event: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
    group.token("a logout token", world.token(header={"typ": "logout+jwt"}, events=event), INVALID, world.token())
    group.token("a logout token that hides", world.token(header={"typ": "JWT"}, events=event, exp=None), INVALID, world.token())
    yield group
