"""Attacks by what a token is put into: JWE, compression, JSON, other tokens, and more of everything than there should be."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from tests.adversary.case import ACCEPTED, INVALID, MALFORMED, Group
from tests.adversary.forms import HEADER
from tests.adversary.world import World
from tests.support.tokens import base64url


def other_serialisations(world: World) -> Iterator[Group]:
    """A JWE, a JWS in JSON, and a token in a token are no access tokens."""
    jwe = Group("JWE", "RFC 7516 §9")
    part = base64url(b"0123456789abcdef")
    for alg, enc in (
        ("RSA-OAEP-256", "A256GCM"),
        ("dir", "A128CBC-HS256"),
        ("ECDH-ES", "A128GCM"),
        ("PBES2-HS256+A128KW", "A128GCM"),
        ("none", "none"),
    ):
        header = {"alg": alg, "enc": enc, "kid": "rsa", "cty": "JWT", "p2c": 2**31 - 1, "p2s": part}
        five = f"{base64url(json.dumps(header).encode())}.{part}.{part}.{part}.{part}"
        jwe.token(f"{alg} in five parts", five, MALFORMED, world.token(), "CVE-2023-51774")
        three = world.headed(header)
        jwe.token(f"{alg} in three parts, signed", three, INVALID, world.token(), "CVE-2022-3102")
    direct = base64url(b'{"alg":"dir","enc":"A128GCM"}')
    jwe.token("dir, with an empty key", f"{direct}..{part}.{part}.{part}", MALFORMED, world.token(), "RFC 7516 §7.1")
    jwe.token("RS256 in five parts", f"{world.token()}.{part}.{part}", MALFORMED, world.token(), "CVE-2022-3102")
    jwe.token(
        "enc in the header of a signed token, which is ignored",
        world.token(header={"enc": "A128GCM"}),
        ACCEPTED,
        world.token(),
        "RFC 7515 §4",
    )
    yield jwe
    zipped = Group("zip", "RFC 7516 §4.1.3")
    zipped.token(
        "zip in the header of a signed token, which is ignored",
        world.token(header={"zip": "DEF"}),
        ACCEPTED,
        world.token(),
        "RFC 7515 §4",
    )
    plain = json.dumps(world.claims()).encode()
    for name, payload in {
        "deflated claims": zlib.compress(plain)[2:-4],
        "claims in zlib's form": zlib.compress(plain),
        "claims in gzip's form": zlib.compress(plain, wbits=31),
        "a bomb of 8 MB": zlib.compress(b'{"x":"' + bytes(8_000_000) + b'"}', 9)[2:-4],
    }.items():
        header = {"alg": "RS256", "kid": "rsa", "zip": "DEF"}
        zipped.token(name, world.sealed(header, payload), MALFORMED, world.token(), "CVE-2024-28180" if "bomb" in name else "")
    yield zipped
    yield _json_serialisation(world)
    yield _nested(world)


def _json_serialisation(world: World) -> Group:
    group = Group("JSON serialisation", "RFC 7515 §7.2")
    protected, payload, signature = world.token().split(".")
    flattened = {"payload": payload, "protected": protected, "signature": signature}
    unprotected = {"payload": payload, "header": {"alg": "RS256", "kid": "rsa"}, "signature": signature}
    one = {"protected": protected, "signature": signature}
    texts: dict[str, Any] = {
        "flattened": flattened,
        "flattened, its header not protected": unprotected,
        "general": {"payload": payload, "signatures": [one]},
        "general, a forged signature first": {"payload": payload, "signatures": [one | {"signature": "AA"}, one]},
        "general, without signatures": {"payload": payload, "signatures": []},
        "both at once": flattened | {"signatures": [one]},
    }
    for name, members in texts.items():
        value = json.dumps(members, separators=(",", ":"))
        group.token(f"{name}, as it is", value, MALFORMED, world.token(), "CVE-2016-9122" if "forged" in name else "")
        group.token(f"{name}, in base64url", base64url(value.encode()), MALFORMED, world.token())
        group.token(
            f"{name}, as a payload",
            world.sealed({"alg": "RS256", "kid": "rsa"}, world.claims() | {"jws": members}),
            ACCEPTED,
            world.token(),
            "RFC 7519 §4.3",
        )
    evil = base64url(json.dumps(world.claims(sub="root")).encode())
    polyglot = f'{{"{protected}.{evil}.":"","protected":"{protected}","payload":"{payload}","signature":"{signature}"}}'
    group.token("compact and JSON at once", polyglot, MALFORMED, world.token(), "CVE-2022-39227")
    return group


def _nested(world: World) -> Group:
    group = Group("nested tokens", "RFC 7519 §5.2")
    inner = world.token()
    header = {"alg": "RS256", "kid": "rsa", "cty": "JWT"}
    group.token("a token as payload", world.sealed(header, inner.encode()), MALFORMED, inner)
    group.token("a token as payload, in quotes", world.sealed(header, json.dumps(inner).encode()), MALFORMED, inner)
    group.token(
        "a forged token around a right one", world.sealed(header, inner.encode(), world.as_if(world.rsa)), MALFORMED, inner
    )
    deep = inner
    for _ in range(4):
        deep = world.sealed(header, deep.encode())
    group.token("five tokens in each other", deep, MALFORMED, inner)
    group.token(
        "claims of another token in a claim",
        world.sealed(header, {"claims": world.claims()}),
        INVALID,
        world.token(claims={"iss": "x"}),
    )
    group.token("a token with a disclosure", f"{inner}~{base64url(b'[1,2,3]')}~", MALFORMED, inner, "RFC 9901 §4")
    return group


def bombs(world: World) -> Iterator[Group]:
    """What is meant to cost much: size, depth, dots, numbers."""
    group = Group("size and depth bombs", "RFC 8259 §9")
    right = world.token(padding="x" * 10_000)
    group.token("a token of 17 KiB, rightly signed", world.token(padding="x" * 12_800), MALFORMED, right, "CVE-2025-61920")
    group.token(
        "a header of 17 KiB, rightly signed", world.token(header={"x": "x" * 12_800}), MALFORMED, right, "CVE-2025-61920"
    )
    group.token("64 KiB of one character", "A" * 65_536, MALFORMED, right, "CVE-2025-61920")
    for depth in (32, 33, 4_000):
        opened, closed = "[" * (depth - 1), "]" * (depth - 1)
        reason = ACCEPTED if depth == 32 else MALFORMED
        claims = json.dumps(world.claims())
        group.token(
            f"claims {depth} deep",
            world.claiming(f'{claims[:-1]},"x":{opened}{closed}}}'.encode()),
            reason,
            world.token(),
            "CVE-2020-36518",
        )
        group.token(
            f"a header {depth} deep",
            world.headed(f'{HEADER[:-1]},"x":{opened}{closed}}}'.encode()),
            reason,
            world.token(),
            "CVE-2020-36518",
        )
    objects = '{"x":' * 1_000 + "1" + "}" * 1_000
    group.token("objects 1,000 deep", world.claiming(objects.encode()), MALFORMED, world.token(), "CVE-2020-36518")
    group.token("arrays that never close", world.claiming(b"[" * 9_000), MALFORMED, world.token(), "CVE-2020-36518")
    group.token("brackets in a string, which are no depth", world.token(x="[{" * 1_000), ACCEPTED, world.token(), "RFC 8259 §7")
    group.token(
        "a string of escaped quotes that never ends",
        world.claiming(b'{"x":"' + b"[" * 40 + b'\\"' * 4_000),
        MALFORMED,
        world.token(),
    )
    claims = json.dumps(world.claims())
    for digits in (4_301, 9_000):
        group.token(
            f"an integer of {digits:,} digits",
            world.claiming(f'{claims[:-1]},"x":{"9" * digits}}}'.encode()),
            MALFORMED,
            world.token(),
            "CVE-2020-10735",
        )
    group.token(
        "1,000 members, all of one name",
        world.claiming(("{" + '"x":1,' * 999 + '"x":1}').encode()),
        MALFORMED,
        world.token(),
        "RFC 7519 §4",
    )
    for dots in (4, 1_000, 5_000, 16_000):
        group.token(f"{dots:,} dots", "." * dots, MALFORMED, world.token(), "CVE-2025-30204")
    group.token("8,000 parts of a character", ".".join("a" * 8_000), MALFORMED, world.token(), "CVE-2025-27144")
    group.token("a right token and 5,000 dots", world.token() + "." * 5_000, MALFORMED, world.token(), "CVE-2025-22868")
    group.token("5,000 dots and a right token", "." * 5_000 + world.token(), MALFORMED, world.token(), "CVE-2025-22868")
    group.token("16,000 padding characters", "A" + "=" * 16_000, MALFORMED, world.token(), "RFC 6750 §2.1")
    yield group
