"""Attacks by the call's metadata: the header around the token."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from tests.adversary.case import ACCEPTED, MALFORMED, MISSING, Group, Metadata
from tests.adversary.world import World


def authorization(world: World) -> Iterator[Group]:
    """RFC 6750 §2.1 to the letter: what a `split()`, a `strip()` or a `dict()` would let through."""
    group = Group("the authorization entry", "RFC 6750 §2.1")

    def one(name: str, value: str | bytes, reason: object, source: str = "", token: str | None = None) -> None:
        group.call(name, (("authorization", value),), reason, token or world.token(), source)  # type: ignore[arg-type]

    for scheme in ("bearer", "BEARER", "bEaReR"):
        one(f"scheme {scheme}, whose case is free", f"{scheme} {world.token()}", ACCEPTED, "RFC 9110 §11.1")
    for spaces in (2, 3, 60):
        one(f"{spaces} spaces, as many as one likes", f"Bearer{' ' * spaces}{world.token()}", ACCEPTED, "RFC 6750 §2.1")
    not_well_formed: dict[str, str | bytes] = {
        "Bearer alone": "Bearer",
        "Bearer and a space": b"Bearer ",
        "Bearer twice": f"Bearer Bearer {world.token()}",
        "Bearer with a colon": f"Bearer: {world.token()}",
        "Bearer with an equals sign": f"Bearer={world.token()}",
        "Bearer with a comma": f"Bearer,{world.token()}",
        "quotes": f'Bearer "{world.token()}"',
        "angle brackets": f"Bearer <{world.token()}>",
        "token=": f"Bearer token={world.token()}",
        "a comma after it": f"Bearer {world.token()},",
        "two tokens with a comma": f"Bearer {world.token()},{world.token()}",
        "two tokens with a space": f"Bearer {world.token()} {world.token()}",
        "two credentials": f"Bearer {world.token()}, Bearer {world.token()}",
        "Basic after it": f"Bearer {world.token()}, Basic YTpi",
        "a semicolon and a parameter": f"Bearer {world.token()}; realm=x",
        "a space in the middle": f"Bearer {world.token()[:20]} {world.token()[20:]}",
        "undefined": "Bearer undefined.",
        "an opaque token": "Bearer 2YotnFZFEjr1zCsicMWpAA",
        "padding alone": "Bearer ====",
        "a space at the end": f"Bearer {world.token()} ".encode(),
        "a TAB for the space": f"Bearer\t{world.token()}".encode(),
        "a TAB after the space": f"Bearer \t{world.token()}".encode(),
        "a TAB at the end": f"Bearer {world.token()}\t".encode(),
        "NBSP for the space": b"Bearer\xa0" + world.token().encode(),
        "NBSP in UTF-8": b"Bearer\xc2\xa0" + world.token().encode(),
        "an ideographic space": "Bearer\u3000".encode() + world.token().encode(),
        "a form feed for the space": f"Bearer\x0c{world.token()}".encode(),
        "a vertical tab for the space": f"Bearer\x0b{world.token()}".encode(),
        "a NUL for the space": f"Bearer\0{world.token()}".encode(),
        "a NUL at the end": f"Bearer {world.token()}\0".encode(),
        "a NUL and more": f"Bearer {world.token()}\0evil".encode(),
        "a line end at the end": f"Bearer {world.token()}\n".encode(),
        "CR LF and another header": f"Bearer {world.token()}\r\nx-role: admin".encode(),
        "CR LF and a fold": f"Bearer\r\n {world.token()}".encode(),
        "DEL at the end": f"Bearer {world.token()}\x7f".encode(),
        "0xFF at the end": f"Bearer {world.token()}".encode() + b"\xff",
        "a byte order mark before the token": b"Bearer \xef\xbb\xbf" + world.token().encode(),
        "a zero-width space at the end": f"Bearer {world.token()}\u200b".encode(),
    }
    for name, value in not_well_formed.items():
        one(name, value, MALFORMED, "RFC 9110 §5.5" if isinstance(value, bytes) else "")
    no_scheme: dict[str, str | bytes] = {
        "nothing": b"",
        "a space": b" ",
        "the token alone": world.token(),
        "Basic": "Basic " + base64.b64encode(b"user-1:password").decode(),
        "Basic with the token as password": "Basic " + base64.b64encode(f"x:{world.token()}".encode()).decode(),
        "DPoP": f"DPoP {world.token()}",
        "Digest": 'Digest username="a"',
        "Negotiate": "Negotiate YII=",
        "Token": f"Token {world.token()}",
        "JWT": f"JWT {world.token()}",
        "Bearers": f"Bearers {world.token()}",
        "XBearer": f"XBearer {world.token()}",
        "Bearer-": f"Bearer- {world.token()}",
        "Bearer and the token with no space between": f"Bearer{world.token()}",
        "Basic before it": f"Basic YTpi, Bearer {world.token()}",
        "a comma in front": f", Bearer {world.token()}",
        "quotes around all": f'"Bearer {world.token()}"',
        "a space in front": f" Bearer {world.token()}".encode(),
        "a NUL in front": f"\0Bearer {world.token()}".encode(),
        "a byte order mark in front": b"\xef\xbb\xbfBearer " + world.token().encode(),
        "a Cyrillic e in the scheme": "B\u0435arer ".encode() + world.token().encode(),
        "a full-width B": "\uff22earer ".encode() + world.token().encode(),
        "the Kelvin sign": "To\u212aen ".encode() + world.token().encode(),
    }
    for name, value in no_scheme.items():
        one(f"another scheme: {name}", value, MISSING, "RFC 9110 §11.4")
    yield group
    yield _entries(world)


KEYS: Final = (
    "x-authorization",
    "proxy-authorization",
    "authorizatio",
    "authorization2",
    "x-forwarded-authorization",
    "cookie",
    "access_token",
    "x-jwt-assertion",
)


def _entries(world: World) -> Group:
    group = Group("other and more entries", "RFC 9110 §5.3")
    good = f"Bearer {world.token()}"
    repeated: dict[str, tuple[str | bytes, ...]] = {
        "the same token twice": (good, good),
        "a good one and another good one": (good, f"Bearer {world.token()}"),
        "a good one first": (good, "Bearer x"),
        "a good one last": ("Bearer x", good),
        "a forged one first": (f"Bearer {world.token(world.as_if(world.rsa))}", good),
        "Basic first": ("Basic YTpi", good),
        "Basic last": (good, "Basic YTpi"),
        "an empty one first": (b"", good.encode()),
        "an empty one last": (good.encode(), b""),
        "three": (good, good, good),
        "a hundred": (good[:40],) * 100,
        "a token in two halves": (good[:200], good[200:]),
    }
    for name, values in repeated.items():
        metadata: Metadata = tuple(("authorization", value) for value in values)
        group.call(f"twice: {name}", metadata, MALFORMED, world.token())
    group.call("no entry", (), MISSING, world.token(), "RFC 6750 §3")
    for key in KEYS:
        group.call(f"under {key}", ((key, f"Bearer {world.token()}"),), MISSING, world.token(), "RFC 6750 §2.1")
    group.call(
        "authorization-bin",
        (("authorization-bin", f"Bearer {world.token()}".encode()),),
        MISSING,
        world.token(),
        "RFC 6750 §2.1",
    )
    both: Metadata = (("authorization", good), ("authorization-bin", b"Bearer x"))
    group.call("authorization-bin beside a right one, which is not looked at", both, ACCEPTED, world.token(), "RFC 6750 §2.1")
    beside: Metadata = (("x-authorization", "Bearer x"), ("authorization", f"Bearer {world.token()}"), ("cookie", "a=b"))
    group.call("other entries beside a right one", beside, ACCEPTED, world.token(), "RFC 6750 §2.1")
    return group
