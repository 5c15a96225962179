"""Attacks by the claims: types, dates, audiences, issuers. All of them are rightly signed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from grpc_bearer.errors import Reason
from tests.adversary.case import ACCEPTED, EARLY, EXPIRED, INVALID, MALFORMED, Group
from tests.adversary.world import NOW, OTHER, SLASHED, STRICT, World
from tests.support.tokens import AUDIENCE, ISSUER

VALUES: Final[dict[str, Any]] = {
    "null": None,
    "false": False,
    "true": True,
    "0": 0,
    "1": 1,
    "1.5": 1.5,
    "text": "text",
    "[]": [],
    '["text"]': ["text"],
    "[1]": [1],
    "[null]": [None],
    '[["text"]]': [["text"]],
    "{}": {},
    '{"text": true}': {"text": True},
}
STRING: Final = {"text"}
STRINGS: Final = {"text", "[]", '["text"]'}
NUMBER: Final = {"0", "1", "1.5"}
RIGHT_TYPES: Final = {
    "iss": STRING,
    "sub": STRING,
    "jti": STRING,
    "client_id": STRING,
    "aud": STRINGS,
    "scope": STRINGS,
    "scp": STRINGS,
    "exp": NUMBER,
    "nbf": NUMBER,
    "iat": NUMBER,
}
SOURCE: Final = {"scope": "RFC 8693 §4.2", "scp": "RFC 8693 §4.2", "client_id": "RFC 8693 §4.3"}


def spelled(world: World, name: str, value: str) -> str:
    """A token with a claim whose JSON text is this, whatever it is."""
    claims = json.dumps(world.claims() | {name: "@"})
    return world.claiming(claims.replace('"@"', value).encode())


def wrong_types(world: World) -> Iterator[Group]:
    """A claim that is read has the type that its RFC gives it, or the token is none."""
    group = Group("claims of a wrong type", "RFC 7519 §4.1")
    for name, kinds in RIGHT_TYPES.items():
        for kind, value in VALUES.items():
            if kind not in kinds:
                group.token(
                    f"{name}: {kind}",
                    spelled(world, name, json.dumps(value)),
                    MALFORMED,
                    world.token(nbf=1),
                    SOURCE.get(name, ""),
                )
    for name in ("scopes", "permissions"):
        for kind, value in VALUES.items():
            if kind not in STRINGS:
                token, right = spelled(world, name, json.dumps(value)), spelled(world, name, '["a"]')
                group.token(f"{name}: {kind}, which grants nothing", token, ACCEPTED, right, "RFC 7519 §4.3")
    yield group


def numeric_dates(world: World) -> Iterator[Group]:
    """No clock reads these."""
    group = Group("NumericDate", "RFC 7519 §2")
    no_dates = {
        **{
            name: name
            for name in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "-1", "-1e-9", "1e308", "1e12", "253402300800")
        },
        "the text of a number": f'"{NOW + 60}"',
        "RFC 3339": '"2030-01-01T00:00:00Z"',
        "milliseconds": f"{(NOW + 60) * 1000}",
        "5,000 digits": "9" * 5_000,
        "a leading zero": f"0{NOW + 60}",
        "a plus": f"+{NOW + 60}",
        "a dot at the end": f"{NOW + 60}.",
        "underscores": "1_900_000_000",
        "hexadecimal": "0x7FFFFFFF",
        "full-width digits": "１９０００００００００",
    }
    for name in ("exp", "nbf", "iat"):
        for form, value in no_dates.items():
            source = "RFC 8259 §6" if value[0] in "NI-0+１" else ""
            group.token(f"{name}: {form}", spelled(world, name, value), MALFORMED, world.token(nbf=NOW, exp=NOW + 60.5), source)
    dates: list[tuple[str, float, Reason | None]] = [
        *(("exp", value, EXPIRED) for value in (0, 0.5, 1, NOW - 86_400, NOW - 31, NOW - 30, NOW - 30.5)),
        *(("exp", value, ACCEPTED) for value in (NOW - 29, NOW - 29.5, NOW, NOW + 0.5, 253_402_300_799)),
        *(("nbf", value, EARLY) for value in (NOW + 30.5, NOW + 31, NOW + 86_400, 253_402_300_799)),
        *(("nbf", value, ACCEPTED) for value in (0, NOW, NOW + 30)),
        *(("iat", value, EARLY) for value in (NOW + 30.5, NOW + 31, NOW + 86_400, 253_402_300_799)),
        *(("iat", value, ACCEPTED) for value in (0, NOW, NOW + 30)),
    ]
    section = {"exp": "RFC 7519 §4.1.4", "nbf": "RFC 7519 §4.1.5", "iat": "RFC 7519 §4.1.6"}
    for name, date, reason in dates:
        token = spelled(world, name, json.dumps(date))
        group.token(f"{name}: now {date - NOW:+}, with a leeway of 30 s", token, reason, world.token(), section[name])
    group.token("exp: -0.0", spelled(world, "exp", "-0.0"), EXPIRED, world.token(), "RFC 8259 §6")
    group.token("exp: 18e8", spelled(world, "exp", "18000000600e-1"), ACCEPTED, world.token(), "RFC 8259 §6")
    group.token("exp: missing", world.token(exp=None), INVALID, world.token(), "RFC 9068 §2.2")
    strict = world.token(world.spare, iss=STRICT)
    group.token(
        "a life of an hour and a second, where one is allowed",
        world.token(world.spare, iss=STRICT, exp=NOW + 3601),
        INVALID,
        strict,
        "RFC 6750 §5.3",
    )
    group.token(
        "no iat, where a life is limited", world.token(world.spare, iss=STRICT, iat=None), INVALID, strict, "RFC 6750 §5.3"
    )
    group.token(
        "exp before iat, both future, where a life is limited",
        world.token(world.spare, iss=STRICT, iat=NOW + 7200, exp=NOW + 60),
        EARLY,
        strict,
        "RFC 7519 §4.1.6",
    )
    yield group


def audiences(world: World) -> Iterator[Group]:
    """A token for another service is refused, however near its name is."""
    group = Group("aud", "RFC 7519 §4.1.3")
    others: dict[str, Any] = {
        "empty": "",
        "an empty array": [],
        "an empty name": [""],
        "another": "invoices",
        "others": ["invoices", "billing"],
        "a part of the name": "order",
        "more than the name": "orders2",
        "a space after it": "orders ",
        "a space in front": " orders",
        "capitals": "ORDERS",
        "a list in a string": "orders,billing",
        "a list by spaces": "orders billing",
        "an array in a string": '["orders"]',
        "a wildcard": "*",
        "a pattern": "ord.*",
        "a NUL after it": "orders\0",
        "a Cyrillic o": "оrders",
        "a soft hyphen": "or\u00adders",
        "the issuer": ISSUER,
        "the client": "client-1",
        "1,000 others": [f"a{number}" for number in range(1_000)],
    }
    for name, value in others.items():
        source = "CVE-2020-26160" if value in ("", [], [""]) else ""
        group.token(name, world.token(aud=value), INVALID, world.token(aud=[AUDIENCE, "invoices"]), source)
    group.token("missing", world.token(aud=None), INVALID, world.token(), "RFC 8725 §3.9")
    for name, value in {"one of many": [*others["1,000 others"], AUDIENCE], "twice": [AUDIENCE, AUDIENCE]}.items():
        group.token(name, world.token(aud=value), ACCEPTED, world.token())
    yield group


def issuers(world: World) -> Iterator[Group]:
    """To the letter: no normal form of a URL, and no key of another issuer."""
    group = Group("iss", "RFC 8725 §3.8")
    for name, iss in {
        "a slash at the end": f"{ISSUER}/",
        "two slashes": "https://issuer.example//",
        "http": "http://issuer.example",
        "capitals": "HTTPS://ISSUER.EXAMPLE",
        "a capital in the host": "https://Issuer.example",
        "the default port": f"{ISSUER}:443",
        "a port": f"{ISSUER}:8443",
        "a path": f"{ISSUER}/realms/evil",
        "a path that leads back": f"{ISSUER}/x/..",
        "a query": f"{ISSUER}?",
        "a fragment": f"{ISSUER}#",
        "a space after it": f"{ISSUER} ",
        "a line end after it": f"{ISSUER}\n",
        "a NUL after it": f"{ISSUER}\0",
        "a space in front": f" {ISSUER}",
        "a dot after the host": f"{ISSUER}.",
        "a longer host": f"{ISSUER}.evil.example",
        "a subdomain": "https://a.issuer.example",
        "the host as user name": f"{ISSUER}@evil.example",
        "percent encoding": "https://issuer%2Eexample",
        "a Cyrillic letter": "https://іssuer.example",
        "a full-width dot": "https://issuer．example",
        "a part of it": ISSUER[:-1],
        "its scheme alone": "https://",
        "one letter": "h",
        "empty": "",
        "all issuers at once": f"{ISSUER},{OTHER}",
        "a wildcard": "*",
        "a self-issued one": "https://self-issued.me/v2",
    }.items():
        group.token(
            name, world.token(iss=iss), INVALID, world.token(), "CVE-2024-53861" if iss and ISSUER.startswith(iss) else ""
        )
    group.token("missing", world.token(iss=None), INVALID, world.token(), "RFC 9068 §2.2")
    slashed = world.token(world.spare, iss=SLASHED)
    group.token("without the slash that it has", world.token(world.spare, iss=SLASHED[:-1]), INVALID, slashed)
    group.token("with a second slash", world.token(world.spare, iss=f"{SLASHED}/"), INVALID, slashed)
    es256 = world.es["ES256"]
    group.token("of another issuer, by a key of the same kid", world.token(es256, iss=OTHER), INVALID, world.token(es256))
    group.token(
        "of the main one, by a key that another issuer has under this kid",
        world.token(world.spare, {"kid": "es256"}),
        INVALID,
        world.token(es256),
    )
    group.token("of a strict issuer, by the main one's key", world.token(iss=STRICT), INVALID, world.token())
    pss = world.token(world.pss, iss=OTHER)
    group.token("of an issuer that does not allow PS256", pss, INVALID, world.token(world.pss), "RFC 8725 §3.1")
    unlisted, listed = world.token(world.ed, iss=STRICT), world.token(world.spare, iss=STRICT)
    group.token("of an issuer that publishes an EdDSA key and allows ES256 alone", unlisted, INVALID, listed, "RFC 8725 §3.1")
    yield group
