"""The table of troubles: how the issuer misbehaves, what its callers may see meanwhile, and what the operator reads.

One row drives both the test and the row of `docs/hostile-issuer.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.hostile_issuer.troubles import (
    OK_LINE,
    answer,
    current,
    document,
    endless,
    flapping,
    many_keys,
    nothing_but,
    private,
    reset,
    zip_bomb,
)
from tests.hostile_issuer.world import DAY_S, FRESH_S, HURRIED_S, K1, K2, K3, PATIENT_S, World
from tests.support.jwks_server import JWKS_PATH, Raw
from tests.support.sockets import Drip
from tests.support.tokens import base64url, key

FINE = "OK"
UNAVAILABLE = "UNAVAILABLE KEYS_UNAVAILABLE"
INVALID = "UNAUTHENTICATED TOKEN_INVALID"
EXPIRED = "UNAUTHENTICATED TOKEN_EXPIRED"
NOT_YET = "UNAUTHENTICATED TOKEN_NOT_YET_VALID"

LONG_S = 60.0
"""Freshness for rows that are about new keys: the background does not fetch by chance what a call has to cause."""

Trouble = Callable[[World], None]
Outcomes = tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """A row. `known`, `new` and `starting` are all that callers may see while the trouble lasts: those whose key services
    know from before, those whose key the issuer signs with since, and those of a service that starts in the middle of it.

    `says`: what `IssuerStatus` tells the operator (any of these): the last error, else the keys that were left out. `warm`:
    the service had keys before. `claims`: of the new key's tokens. `pause_s`: that the issuer asks for. `lasts_s`: at the
    least, to tell. `bomb`: its memory is measured. `flood`: tokens with ever-new forged `kid`s come all the time, and the right
    keys come at once. `elsewhere`: the answer may lead to another host.
    """

    name: str
    trouble: Trouble
    says: Outcomes = ()
    known: Outcomes = (FINE,)
    new: Outcomes = (UNAVAILABLE,)
    starting: Outcomes = (UNAVAILABLE,)
    discovery: bool = False
    tls: bool = False
    warm: bool = True
    fresh_s: float = FRESH_S
    max_stale_s: float = DAY_S
    timeout_s: float = PATIENT_S
    claims: Callable[[], Mapping[str, Any]] = dict
    pause_s: float | None = None
    lasts_s: float = 0.0
    bomb: bool = False
    flood: bool = False
    elsewhere: bool = False


def says(*details: str) -> Outcomes:
    """The last error is of the JWK Set's fetch."""
    return tuple(f"jwks_uri: {detail}" for detail in details)


def raw(send: Raw) -> Trouble:
    """The issuer answers with this."""

    def begin(world: World) -> None:
        world.server.raw = send

    return begin


def body(text: bytes) -> Trouble:
    """The issuer answers 200 with this body."""
    return raw(answer(text))


def built(make: Callable[[], bytes], *headers: str) -> Trouble:
    """The same of a body that takes memory to make."""
    return lambda world: raw(answer(make(), *headers))(world)


def _add_headers(world: World, headers: Mapping[str, str]) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    world.server.headers = {**world.server.headers, **named}


def status(code: int, **headers: str) -> Trouble:
    """The issuer answers with this status. In header names `_` stands for `-`, and `%elsewhere` and `%here` for URLs."""

    def begin(world: World) -> None:
        values = {name: value.replace("%elsewhere", world.elsewhere.jwks_uri) for name, value in headers.items()}
        _add_headers(world, {name: value.replace("%here", world.url) for name, value in values.items()})
        world.server.status = code

    return begin


def rotated(*keys: Any, **headers: str) -> Trouble:
    """The issuer publishes these keys."""

    def begin(world: World) -> None:
        _add_headers(world, headers)
        world.server.keys = keys

    return begin


def metadata(**members: str) -> Trouble:
    """The discovery document has these members."""

    def begin(world: World) -> None:
        found = {name: value.replace("%elsewhere", world.elsewhere.jwks_uri) for name, value in members.items()}
        world.server.metadata = world.server.metadata | found

    return begin


def clock(by_s: float) -> Trouble:
    """The wall clock jumps, and the new key is published."""

    def begin(world: World) -> None:
        world.clock.advance(by_s)
        world.server.keys = (K1, K2)

    return begin


def minute() -> Mapping[str, Any]:
    """Claims that are good for a minute of the real time."""
    now = int(time.time())
    return {"iat": now, "exp": now + 60}


IN_TIME = (f"no complete answer within {HURRIED_S:g} s", "jwks_uri: no answer in time")
NOT_THERE = says("cannot be fetched (ConnectionError)")
NOT_FOLLOWED = says(*(f"HTTP status {code}; redirects are not followed, configure the final address" for code in (302, 308)))
UNTRUSTED = says("no trusted TLS connection (certificate untrusted, expired or for another host)")
TOO_LARGE = says("larger than 524288 bytes")
NOT_JSON = ("the JWK Set cannot be read: not JSON",)
NO_SET = ("not a JWK Set: expected an object with an array `keys`",)
HTTP_ELSEWHERE = "is http:// on a host other than loopback; use https://, or spell out allow_insecure_http"
SECRET = "secret key material: a published set must hold public keys only"

LOGIN = b"<!DOCTYPE html><html><title>Sign in</title><form action=/login method=post></form></html>"
OCT = {"kty": "oct", "kid": "k2", "k": base64url(b"s" * 32)}
OTHER_K1, OTHER_K2 = ({**key(f"other {kid}", "EdDSA").jwk(), "kid": kid} for kid in ("k1", "k2"))
MALFORMED: tuple[Any, ...] = (None, {}, {"kty": ["OKP"]}, {"kty": "EC", "crv": "P-256", "x": "-"})
UNRESOLVABLE = ".".join(["x" * 60] * 5) + ".invalid"
"""Longer than a name may be (RFC 1035 §2.3.4): the resolver says no by itself, and asks no server on the network."""

NOTHING_ELSE: dict[str, Any] = {"new": (FINE,), "starting": (FINE,)}
"""It is no trouble: all go on."""

SCENARIOS = (
    # Not there
    Scenario("down at start", lambda w: w.door.shut(), NOT_THERE, known=(UNAVAILABLE,), warm=False),
    Scenario("down when warm: takes requests, never answers", lambda w: w.server.hang(), IN_TIME, timeout_s=HURRIED_S),
    Scenario("refuses connections", lambda w: w.door.shut(), NOT_THERE),
    Scenario(
        "refuses connections, for longer than `max_stale_s`",
        lambda w: w.door.shut(),
        NOT_THERE,
        known=(FINE, UNAVAILABLE),
        max_stale_s=0.0,
    ),
    Scenario("resets connections", raw(reset), NOT_THERE),
    Scenario("429 with `Retry-After: 1`", status(429, Retry_After="1"), says("HTTP status 429"), pause_s=1.0, lasts_s=0.6),
    Scenario("500", status(500), says("HTTP status 500")),
    Scenario("503 with the right keys as its body", status(503), says("HTTP status 503")),
    Scenario(
        "DNS failure (of the `jwks_uri` in the metadata)",
        metadata(jwks_uri=f"https://{UNRESOLVABLE}/jwks.json"),
        NOT_THERE,
        discovery=True,
    ),
    # Slow, endless, too large
    Scenario("body that drips", raw(Drip(OK_LINE + b"Content-Length: 100000\r\n\r\n", b" ")), IN_TIME, timeout_s=HURRIED_S),
    Scenario("headers that never end, dripping", raw(Drip(OK_LINE, b"X: 1\r\n")), IN_TIME, timeout_s=HURRIED_S),
    Scenario(
        "headers that never end, at full speed",
        raw(endless(OK_LINE, b"X: " + b"x" * 60_000 + b"\r\n")),
        NOT_THERE,
        bomb=True,
    ),
    Scenario("one header line that never ends", raw(endless(OK_LINE + b"X: ", b"x" * 65536)), NOT_THERE, bomb=True),
    Scenario(
        "`100 Continue` that never ends",
        raw(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
        IN_TIME,
        timeout_s=HURRIED_S,
        bomb=True,
    ),
    Scenario(
        "gzip bomb, 50 MiB, declared",
        built(lambda: zip_bomb(50), "Content-Encoding: gzip"),
        says("compressed although it was asked for as it is"),
        bomb=True,
    ),
    Scenario(
        "gzip bomb, 50 MiB, undeclared",
        built(lambda: zip_bomb(50)),
        ("the JWK Set cannot be read: JSON is not UTF-8",),
        bomb=True,
    ),
    Scenario("50 MiB", raw(endless(OK_LINE + b"Content-Length: 52428800\r\n\r\n", b" " * 65536, 800)), TOO_LARGE, bomb=True),
    Scenario("body that never ends", raw(endless(OK_LINE + b"\r\n", b" " * 65536)), TOO_LARGE, bomb=True),
    Scenario(
        "body that never ends, in chunks of ten octets",
        raw(endless(OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n", (b"a\r\n" + b" " * 10 + b"\r\n") * 4_000)),
        TOO_LARGE,
        bomb=True,
    ),
    Scenario("20,000 right keys (3 MB)", built(lambda: many_keys(20_000)), TOO_LARGE, bomb=True),
    Scenario(
        "20,000 members in 60 kB",
        built(lambda: nothing_but(b"{}", 60_011)),
        ("the JWK Set has 20000 keys, more than the 100 that are allowed",),
        bomb=True,
    ),
    Scenario(
        "512 KiB of the smallest objects",
        built(lambda: nothing_but(b'{"":0}', 512 * 1024)),
        ("the JWK Set has 74896 keys, more than the 100 that are allowed",),
        bomb=True,
    ),
    Scenario("500,000 brackets", built(lambda: b"[" * 500_000), ("the JWK Set cannot be read: JSON is too deep",), bomb=True),
    # Somewhere else
    Scenario("redirect from https to http", status(302, Location="%elsewhere"), NOT_FOLLOWED[:1], tls=True),
    Scenario("redirect to another host", status(308, Location="%elsewhere"), NOT_FOLLOWED[1:]),
    Scenario("redirect in a loop", status(302, Location="%here" + JWKS_PATH), NOT_FOLLOWED[:1]),
    Scenario("expired certificate", lambda w: w.certify(expired=True), UNTRUSTED, tls=True),
    Scenario("certificate of another host", lambda w: w.certify("issuer.example"), UNTRUSTED, tls=True),
    Scenario(
        "metadata of another issuer",
        metadata(issuer="https://other.example"),
        ("discovery document: its issuer is not the configured one, to the letter",),
        discovery=True,
    ),
    Scenario(
        "metadata with an `http://` `jwks_uri` off loopback",
        metadata(jwks_uri="http://issuer.example/jwks.json"),
        ("discovery document: jwks_uri " + HTTP_ELSEWHERE,),
        discovery=True,
    ),
    Scenario(
        "metadata with the `jwks_uri` of another host, which has the keys (many providers do so)",
        metadata(jwks_uri="%elsewhere"),
        discovery=True,
        elsewhere=True,
        **NOTHING_ELSE,
    ),
    # No JWK Set
    Scenario("the right keys as `text/plain`", raw(answer(current(K1, K2), "Content-Type: text/plain")), **NOTHING_ELSE),
    Scenario("HTML login page, 200", raw(answer(LOGIN, "Content-Type: text/html")), NOT_JSON),
    Scenario("truncated JSON", body(current(K1, K2)[:-20]), NOT_JSON),
    Scenario(
        "body shorter than its `Content-Length`",
        raw(answer(current(K1, K2)[:-20], length=len(current(K1, K2)))),
        NOT_JSON,
    ),
    Scenario("empty body", body(b""), NOT_JSON),
    Scenario("empty set", body(document()), ("the JWK Set has no usable key: it is empty",)),
    Scenario("object without `keys`", body(b"{}"), NO_SET),
    Scenario(
        "two `keys` members, each with a set of its own",
        body(b'{"keys": [], ' + current(K1, K2)[1:]),
        NO_SET,
    ),
    Scenario("`keys` that is no array", body(b'{"keys": {"k1": {}}}'), NO_SET),
    # Keys that should not be there
    Scenario(
        "the new key with its private half",
        body(document(K1.jwk(), private(K2))),
        (f"keys[1]: {SECRET}",),
        new=(INVALID,),
        starting=(FINE,),
    ),
    Scenario(
        "a symmetric key under the new `kid`",
        body(document(K1.jwk(), OCT)),
        (f"keys[1]: {SECRET}",),
        new=(INVALID,),
        starting=(FINE,),
    ),
    Scenario(
        "private and symmetric keys only",
        body(document(private(K1), OCT)),
        (f"the JWK Set has no usable key: keys[0]: {SECRET}; keys[1]: {SECRET}",),
    ),
    Scenario("two keys under the new `kid`", body(document(K1.jwk(), OTHER_K2, K2.jwk())), new=(INVALID,), starting=(FINE,)),
    Scenario(
        "another key under the known `kid`, beside the known one",
        body(document(OTHER_K1, K1.jwk(), K2.jwk())),
        known=(FINE, INVALID),
        new=(FINE,),
        starting=(INVALID,),
    ),
    Scenario("the new key without its `kid`", body(document(K1.jwk(), K2.jwk(kid=None))), new=(INVALID,), starting=(FINE,)),
    Scenario(
        "malformed keys among good ones",
        body(document(K1.jwk(), *MALFORMED, K2.jwk())),
        (
            "; ".join(
                f"keys[{index}]: {why}"
                for index, why in enumerate(
                    (
                        "not a JSON object, or one with duplicate members",
                        "kty is missing",
                        "kty is not a string",
                        "the key's members cannot be read",
                    ),
                    start=1,
                )
            ),
        ),
        **NOTHING_ELSE,
    ),
    # Keys that change
    Scenario("rotation with overlap", rotated(K1, K2), fresh_s=LONG_S, **NOTHING_ELSE),
    Scenario(
        "rotation without overlap: the known key is withdrawn",
        rotated(K2),
        known=(FINE, INVALID),
        new=(FINE,),
        starting=(INVALID,),
        fresh_s=LONG_S,
    ),
    Scenario(
        "rotation with overlap, amid a flood of forged `kid`s",
        rotated(K1, K2),
        new=(FINE, INVALID),
        starting=(FINE,),
        fresh_s=LONG_S,
        flood=True,
    ),
    Scenario(
        "flapping between a set with the new key and one without",
        lambda w: raw(flapping((K1, K2), (K1, K3)))(w),
        new=(FINE, INVALID),
        starting=(FINE,),
    ),
    *(
        Scenario(f"`Cache-Control: {value}`", rotated(K1, K2, Cache_Control=value), **NOTHING_ELSE)
        for value in ("max-age=99999999999999999999", "max-age=0", "no-store", "max-age=-1", "max-age=soon")
    ),
    # Time
    Scenario("wall clock a day ahead", clock(DAY_S), **NOTHING_ELSE),
    Scenario("wall clock a day back", clock(-DAY_S), **NOTHING_ELSE),
    Scenario("wall clock a day ahead, tokens of a minute", clock(DAY_S), new=(EXPIRED,), starting=(FINE,), claims=minute),
    Scenario("wall clock a day back, tokens of a minute", clock(-DAY_S), new=(NOT_YET,), starting=(FINE,), claims=minute),
)
