"""The attacks: what each sends, and the load of good callers that it is measured against (pure but for the tokens' files)."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from tests.support.tokens import SigningKey, base64url, claims_set, mint

Server = Literal["service", "library"]
"""`service`: `grpc-bearer serve`, asyncio. `library`: a server of `grpc.server` behind the library's interceptor."""
Tokens = Literal["none", "good", "good, ever new", "expired", "forged", "forged, ever new", "forged, ever new kids"]

WHO_AM_I: Final = "/grpc_bearer.v1.IdentityService/WhoAmI"
WATCH_IDENTITY: Final = "/grpc_bearer.v1.IdentityService/WatchIdentity"
WATCH_HEALTH: Final = "/grpc.health.v1.Health/Watch"
CHECK_HEALTH: Final = "/grpc.health.v1.Health/Check"

FAR_OFF: Final = 4_102_444_800

OK, CANCELLED, DEADLINE, EXHAUSTED, UNAVAILABLE, UNAUTHENTICATED = "0", "1", "4", "8", "14", "16"
REFUSED, TOO_MUCH = "reset 7", "reset 11"
"""RST_STREAM: more streams than a connection may have; ENHANCE_YOUR_CALM."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What its clients do.

    `connections`, each with `window` calls under way: one ends and the next begins, at full speed. `message`: the call is
    whole; without it headers are all that is sent. `resets`: each call is cancelled as soon as it is sent. `holds`: the calls
    are begun once and stay open, whatever comes. `pad_bytes`: of further metadata. `endless`: the headers do not end.
    `ends`: how the server may end these calls, as in `Connection.ends`.
    `twin_connections`, `twin_window`: of the good callers, where the same number is more than the server serves.
    """

    name: str
    tokens: Tokens = "none"
    path: str = WHO_AM_I
    connections: int = 10
    window: int = 10
    message: bool = False
    resets: bool = False
    holds: bool = False
    pad_bytes: int = 0
    endless: bool = False
    ends: tuple[str, ...] = (UNAUTHENTICATED, REFUSED)
    servers: tuple[Server, ...] = ("service", "library")
    twin_path: str = WHO_AM_I
    twin_connections: int = 0
    twin_window: int = 0

    @property
    def twin(self) -> Attack:
        """The same load by good callers: whole calls with a good token."""
        return replace(
            self,
            tokens="good",
            path=self.twin_path,
            connections=self.twin_connections or self.connections,
            window=self.twin_window or self.window,
            message=True,
            resets=False,
            pad_bytes=0,
            endless=False,
            ends=(OK,),
        )


ATTACKS: Final = (
    Attack("headers only, no token"),
    Attack("headers only, forged token", "forged"),
    Attack("headers only, expired token", "expired"),
    Attack("forged tokens, ever new", "forged, ever new", message=True),
    Attack("forged tokens with ever-new `kid`s", "forged, ever new kids", message=True, ends=(UNAUTHENTICATED, UNAVAILABLE)),
    Attack("accepted tokens, ever new (verdict cache)", "good, ever new", message=True, ends=(OK,)),
    Attack("rapid resets", "good", message=True, resets=True, window=100, ends=("cancelled", OK, REFUSED, TOO_MUCH, "goaway")),
    Attack(
        "oversized metadata, 100 KiB a call",
        "good",
        message=True,
        pad_bytes=100 * 1024,
        ends=(EXHAUSTED, REFUSED, TOO_MUCH),
    ),
    Attack("headers that never end", endless=True, window=1, ends=(EXHAUSTED, TOO_MUCH)),
    Attack("4,000 connections, silent", connections=4000, window=0, twin_window=1, holds=True, ends=()),
    Attack(
        "10,000 streams, headers only", "forged", connections=100, window=100, holds=True, ends=(UNAUTHENTICATED, CANCELLED)
    ),
    Attack(
        "10,000 streams of Health.Watch, no token",
        path=WATCH_HEALTH,
        connections=100,
        window=100,
        message=True,
        holds=True,
        ends=(EXHAUSTED, CANCELLED),
        servers=("service",),
        twin_path=WATCH_IDENTITY,
        twin_connections=90,
    ),
    Attack(
        "10,000 Health.Check, headers only",
        path=CHECK_HEALTH,
        connections=100,
        window=100,
        holds=True,
        ends=(EXHAUSTED, DEADLINE, CANCELLED),
        servers=("service",),
        twin_path=WATCH_IDENTITY,
        twin_connections=90,
    ),
)


@dataclass(frozen=True, slots=True)
class Wallet:
    """The tokens that an attacker has. `good`: used over and over. `ever_new`: each good once, and then over again."""

    good: Sequence[str]
    ever_new: Sequence[str]
    expired: str
    kid: str

    @classmethod
    def filled(cls, rsa: SigningKey, ed25519: SigningKey, ever_new: int) -> Self:
        """With tokens that live long. The ever new ones are signed with Ed25519, in a tenth of RSA's time."""
        return cls(
            good=tuple(mint(rsa, exp=FAR_OFF, jti=f"good-{number}") for number in range(32)),
            ever_new=tuple(mint(ed25519, exp=FAR_OFF, jti=f"new-{number}") for number in range(ever_new)),
            expired=mint(rsa, iat=1_600_000_000, exp=1_700_000_000),
            kid=rsa.kid or "",
        )

    def tokens(self, kind: Tokens) -> Iterator[str | None]:
        """Without end."""
        if kind == "none":
            return itertools.repeat(None)
        if kind == "expired":
            return itertools.repeat(self.expired)
        if kind == "good":
            return itertools.cycle(self.good)
        if kind == "good, ever new":
            return itertools.cycle(self.ever_new)
        if kind == "forged":
            return itertools.repeat(next(_forged(self.kid, new_kids=False)))
        return _forged(self.kid, new_kids=kind == "forged, ever new kids")


def _forged(kid: str, *, new_kids: bool) -> Iterator[str]:
    """Well-formed RS256 tokens that say all the right things, each different, and end in noise for a signature."""
    claims = claims_set(exp=FAR_OFF)
    for number in itertools.count():
        header = {"alg": "RS256", "typ": "at+jwt", "kid": f"forged-{os.getpid()}-{number}" if new_kids else kid}
        members = claims | {"jti": f"{os.getpid()}-{number}"}
        signing_input = ".".join(base64url(json.dumps(part).encode()) for part in (header, members))
        noise = base64.urlsafe_b64encode(os.urandom(256)).rstrip(b"=").decode()
        yield f"{signing_input}.{noise}"
