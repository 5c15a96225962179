"""Attacks by the form of a token: JSON, UTF-8, base64url."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from tests.adversary.case import ACCEPTED, MALFORMED, Group
from tests.adversary.world import World
from tests.support.tokens import base64url

HEADER: Final = '{"alg":"RS256","kid":"rsa"}'
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def duplicates(world: World) -> Iterator[Group]:
    """Two members of one name: the signer's parser and ours might take different ones."""
    group = Group("duplicate members", "RFC 7515 §4")
    for name, twice in {
        "alg, none first": '{"alg":"none","alg":"RS256","kid":"rsa"}',
        "alg, none last": '{"alg":"RS256","kid":"rsa","alg":"none"}',
        "alg, the same": '{"alg":"RS256","alg":"RS256","kid":"rsa"}',
        "alg, once in escapes": '{"alg":"RS256","\\u0061lg":"none","kid":"rsa"}',
        "kid": '{"alg":"RS256","kid":"x","kid":"rsa"}',
        "typ": '{"alg":"RS256","typ":"logout+jwt","typ":"at+jwt","kid":"rsa"}',
        "a member that nobody reads": '{"alg":"RS256","kid":"rsa","x":1,"x":1}',
        "in an object in the header": '{"alg":"RS256","kid":"rsa","x":{"a":1,"a":2}}',
    }.items():
        group.token(f"header: {name}", world.headed(twice.encode()), MALFORMED, world.token())
    for claim in ("iss", "sub", "aud", "exp", "nbf", "scope", "x"):
        claims = world.claims(nbf=1, x="1")
        once = json.dumps(claims)
        for place, twice in {
            "first": f'{{"{claim}":"evil",{once[1:]}',
            "last": f'{once[:-1]},"{claim}":"evil"}}',
        }.items():
            group.token(
                f"claims: {claim}, the other one {place}",
                world.claiming(twice.encode()),
                MALFORMED,
                world.token(nbf=1),
                "RFC 7519 §4",
            )
    once = json.dumps(world.claims())
    for name, extra in {
        "exp, once in escapes": '"e\\u0078p":1',
        "roles in an object": '"x":{"roles":[],"roles":["admin"]}',
        "in an object in an array": '"x":[{"a":1,"a":1}]',
    }.items():
        twice = f"{once[:-1]},{extra}}}"
        group.token(f"claims: {name}", world.claiming(twice.encode()), MALFORMED, world.token(), "CVE-2017-12635")
    yield group


def json_texts(world: World) -> Iterator[Group]:
    """What some parser somewhere takes for JSON."""
    group = Group("JSON that is none", "RFC 8259 §2")
    claims = json.dumps(world.claims())
    wrong: dict[str, Callable[[str], str]] = {
        "a trailing comma": lambda text: f"{text[:-1]},}}",
        "a comment": lambda text: f"/* x */{text}",
        "single quotes": lambda text: text.replace('"', "'"),
        "a name without quotes": lambda text: f"{text[:-1]},x:1}}",
        "two texts": lambda text: text + text,
        "text after its end": lambda text: f"{text} x",
        "a NUL after its end": lambda text: f"{text}\0",
        "its end missing": lambda text: text[:-1],
        "a line end in a string": lambda text: f'{text[:-1]},"x":"\n"}}',
        "a NUL in a string": lambda text: f'{text[:-1]},"x":"\0"}}',
        "NaN": lambda text: f'{text[:-1]},"x":NaN}}',
        "an unknown escape": lambda text: f'{text[:-1]},"x":"\\x41"}}',
        "a lone surrogate": lambda text: f'{text[:-1]},"x":"\\ud800"}}',
        "a lone surrogate as a name": lambda text: f'{text[:-1]},"\\udfff":1}}',
        "1e400": lambda text: f'{text[:-1]},"x":1e400}}',
        "an array around it": lambda text: f"[{text}]",
        "a string around it": json.dumps,
        "nothing but white space": lambda text: " " * len(text),
        "null": lambda _text: "null",
        "a number": lambda _text: "1",
        "a form": lambda _text: "alg=RS256&kid=rsa",
        "XML": lambda _text: "<alg>RS256</alg>",
    }
    for name, spoilt in wrong.items():
        group.token(f"header: {name}", world.headed(spoilt(HEADER).encode()), MALFORMED, world.token())
        group.token(f"claims: {name}", world.claiming(spoilt(claims).encode()), MALFORMED, world.token())
    spaced = json.dumps(world.claims(), indent=2).replace("\n", "\r\n")
    group.token(
        "white space, which is JSON",
        world.sealed(b' {"alg":"RS256",\r\n "kid":"rsa"}\t', spaced.encode()),
        ACCEPTED,
        world.token(),
        "RFC 7515 appendix A.1",
    )
    escaped = json.dumps(world.claims()).replace("orders", "\\u006frders").encode()
    group.token("escapes, which are JSON", world.claiming(escaped), ACCEPTED, world.token(), "RFC 8259 §7")
    yield group


def utf8(world: World) -> Iterator[Group]:
    """One octet sequence, one text."""
    group = Group("invalid UTF-8", "RFC 8259 §8.1")
    claims = json.dumps(world.claims())
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "cp500"):
        group.token(f"header in {encoding}", world.headed(HEADER.encode(encoding)), MALFORMED, world.token())
        group.token(f"claims in {encoding}", world.claiming(claims.encode(encoding)), MALFORMED, world.token())
    octets = {
        "an overlong slash": b"\xc0\xaf",
        "an overlong NUL": b"\xc0\x80",
        "a surrogate": b"\xed\xa0\x80",
        "a pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
        "Latin-1": b"\xe9",
        "a character cut off": b"\xe2\x82",
        "a continuation alone": b"\x80",
        "beyond U+10FFFF": b"\xf4\x90\x80\x80",
        "0xFF": b"\xff",
    }
    for name, wrong in octets.items():
        header = HEADER[:-1].encode() + b',"x":"' + wrong + b'"}'
        body = claims[:-1].encode() + b',"x":"' + wrong + b'"}'
        group.token(f"{name} in the header", world.headed(header), MALFORMED, world.token(), "RFC 3629 §3")
        group.token(f"{name} in the claims", world.claiming(body), MALFORMED, world.token(x="é€😀"), "RFC 3629 §3")
    yield group


_SPELLINGS: Final[dict[str, tuple[Callable[[str], str], str]]] = {
    "padded": (lambda text: text + "=" * (-len(text) % 4 or 1), "RFC 7515 §2"),
    "one character too many": (lambda text: text + "A" * ((1 - len(text)) % 4), "RFC 4648 §3.2"),
    "a line end in it": (lambda text: f"{text[:8]}\r\n{text[8:]}", "CVE-2022-25898"),
    "a space in it": (lambda text: f"{text[:8]} {text[8:]}", "RFC 4648 §3.3"),
    "percent-encoded": (lambda text: f"{text[:8]}%{ord(text[8]):X}{text[9:]}", "RFC 4648 §3.3"),
    "a plus": (lambda text: f"{text[:8]}+{text[9:]}", "RFC 4648 §5"),
    "a slash": (lambda text: f"{text[:8]}/{text[9:]}", "RFC 4648 §5"),
    "a tilde": (lambda text: f"{text[:8]}~{text[9:]}", "RFC 4648 §3.3"),
    "an asterisk": (lambda text: f"{text[:8]}*{text[9:]}", "CVE-2022-25898"),
    "nothing": (lambda _text: "", "RFC 7515 §7.1"),
}
_SPARE: Final = {2: 0b1111, 3: 0b11}
"""Bits that mean nothing in the last character, by the characters of the last group."""


def _spelled(world: World, index: int, change: Callable[[str], str], remainder: int | None = None) -> str:
    """A token with one part spelled otherwise. The signature is over header and claims as they are spelled."""
    parts = world.parts(remainder)
    parts[index] = change(parts[index])
    if index < 2:
        signing_input = ".".join(parts[:2])
        return f"{signing_input}.{base64url(world.rsa.sign(signing_input.encode()))}"
    return ".".join(parts)


def _with_bit(bit: int, text: str) -> str:
    return text[:-1] + _ALPHABET[_ALPHABET.index(text[-1]) | bit]


def base64url_forms(world: World) -> Iterator[Group]:
    """One octet sequence, one spelling. The signature is over the spelling that is sent, so only the form can refuse."""
    group = Group("base64url", "RFC 7515 §2")
    for index, part in enumerate(("header", "claims", "signature")):
        for name, (change, source) in _SPELLINGS.items():
            token = _spelled(world, index, change)
            sent = token if token.isprintable() else token.encode()
            group.token(f"{part}: {name}", sent, MALFORMED, world.token(), source)
        for remainder, spare in _SPARE.items():
            if index == 2 and remainder == 3:
                continue  # a signature of 256 octets ends in two characters
            bits = [bit for bit in (1, 2, 4, 8) if bit & spare]
            for bit in bits:
                other = partial(_with_bit, bit)
                name = f"{part}: spare bit {bit} set, in a last group of {remainder} characters"
                right = ".".join(world.parts(remainder))
                group.token(name, _spelled(world, index, other, remainder), MALFORMED, right, "RFC 4648 §3.5")
    header, claims, signature = world.parts()
    outside = f"{header}.{claims}.{signature[:8]}".encode() + b"\xe9" + signature[9:].encode()
    group.token("an octet above 0x7E in the signature", outside, MALFORMED, world.token(), "RFC 4648 §3.3")
    header, claims, signature = world.parts()
    for name, token in {
        "a dot in front": f".{header}.{claims}.{signature}",
        "a dot at the end": f"{header}.{claims}.{signature}.",
        "two dots for one": f"{header}..{claims}.{signature}",
        "a fourth part": f"{header}.{claims}.{signature}.{signature}",
        "two parts": f"{header}.{claims}",
        "one part": header,
        "dots in percent encoding": f"{header}%2E{claims}%2E{signature}",
        "commas for dots": f"{header},{claims},{signature}",
    }.items():
        group.token(name, token, MALFORMED, f"{header}.{claims}.{signature}", "RFC 7515 §7.1")
    yield group
