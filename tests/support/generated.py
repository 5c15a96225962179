"""Tokens made up by hypothesis: right ones in every spelling that JSON allows, and ones with something gone wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import strategies as st

from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, base64url, key

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
DATES = ("exp", "nbf", "iat")
FAULTS = (
    *("alg", "kid", "typ", "crit", "b64"),
    *("iss", "aud", "sub", "jti", "client_id", "scope", "scp", "another claim"),
    *DATES,
    *(f"type of {name}" for name in DATES),
    *("duplicate", "encoding", "base64url", "signature", "algorithm"),
)


class Raw(str):
    """A JSON value as it is to be spelled."""

    __slots__ = ()


ABSENT = object()
WRONG_TYPES = [None, 5, True, [], ["x", 5], {"x": 1}]
ODD_VALUES = [Raw("NaN"), Raw("-Infinity"), Raw("1e999"), Raw('"\\ud800"'), Raw('{"a":1,"a":2}'), Raw("[" * 40 + "]" * 40)]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Making:
    """One token in the making, and what is to be wrong with it."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    faults: frozenset[str]

    def choice(self, what: str, right: list[Any], wrong: list[Any]) -> Any:
        return self.draw(st.sampled_from(wrong if what in self.faults else right))

    def header(self, alg: str) -> dict[str, Any]:
        further = {name: self.choice("", [ABSENT, ABSENT, "x", ["x"], {"x": 1}], []) for name in ("jku", "jwk", "x5c", "cty")}
        return further | {
            "alg": self.choice("alg", [alg], [*RSA_ALGORITHMS, "ES256", "EdDSA", "none", "HS256", alg.lower(), 5, ABSENT]),
            "kid": self.choice("kid", ["k1", ABSENT], ["k2", "", "k" * 600, None, 1]),
            "typ": self.choice("typ", ["at+jwt", "JWT", "application/at+jwt", ABSENT], ["dpop+jwt", "", None, 7]),
            "crit": self.choice("crit", [ABSENT], [["b64"], ["exp"], [], None]),
            "b64": self.choice("b64", [ABSENT], [True, False, None]),
        }

    def claims(self) -> dict[str, Any]:
        members: dict[str, Any] = self.draw(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=3))
        members["another claim"] = self.choice("another claim", [ABSENT], ODD_VALUES)
        members["iss"] = self.choice("iss", [ISSUER], [f"{ISSUER}/", "", ABSENT, *WRONG_TYPES])
        audiences = [AUDIENCE, [AUDIENCE], ["x", AUDIENCE], [AUDIENCE, AUDIENCE]]
        members["aud"] = self.choice("aud", audiences, ["x", "", ABSENT, [""], *WRONG_TYPES])
        members["exp"] = self.date("exp", [60, 86_400, -300], [-900, -(10**6)])
        for name in ("nbf", "iat"):
            members[name] = self.date(name, [-86_400, 0, 300], [900, 10**6])
        for name in ("sub", "jti", "client_id"):
            members[name] = self.choice(name, ["x", "", "\u00e9\U0001f600", 'a"\\\n', ABSENT], WRONG_TYPES)
        members["scope"] = self.choice("scope", ["a b", "", ["a"], ABSENT], WRONG_TYPES)
        members["scp"] = self.choice("scp", [["a", "b"], "a", ABSENT], WRONG_TYPES)
        return members

    def date(self, name: str, right: list[int], wrong: list[int]) -> Any:
        """In seconds from now. Right and wrong are minutes from the limit, at a leeway of 600 s."""
        seconds = int(time.time()) + self.choice(name, right, wrong)
        spellings: list[Any] = [seconds, Raw(f"{seconds}.0"), Raw(f"{seconds}.25"), Raw(f"{seconds}e0"), Raw(f"{seconds}0E-1")]
        others = [str(seconds), True, False, -seconds, None, Raw("1e300"), Raw("NaN"), Raw("Infinity"), [seconds]]
        return self.choice(f"type of {name}", spellings if name == "exp" else [*spellings, ABSENT], [*others, ABSENT])

    def json(self, members: dict[str, Any]) -> bytes:
        """The members in any order and spelling; with an encoding or a repetition that is wrong, if that is the fault."""
        ascii_only, gap = self.draw(st.booleans()), self.draw(st.sampled_from(["", " ", "\r\n\t"]))
        pairs = []
        for name, value in self.draw(st.permutations([item for item in members.items() if item[1] is not ABSENT])):
            spelled = value if isinstance(value, Raw) else json.dumps(value, ensure_ascii=ascii_only)
            pairs.append((json.dumps(name, ensure_ascii=ascii_only), spelled))
        if "duplicate" in self.faults and pairs:
            pairs.append(self.draw(st.sampled_from(pairs)))
        body = f"{gap},{gap}".join(f"{name}{gap}:{gap}{value}" for name, value in pairs)
        encoding = self.choice("encoding", ["utf-8"], ["utf-16", "utf-16-le", "utf-32-be", "utf-8-sig"])
        return f"{gap}{{{body}}}{gap}".encode(encoding)

    def base64url(self, octets: bytes) -> str:
        right = base64url(octets)
        last = BASE64URL[BASE64URL.index(right[-1]) ^ 1]  # another octet, where the last character has no bits to spare
        standard = right.replace("-", "+").replace("_", "/")
        padded = right + "=" * (-len(right) % 4)
        wrong = [right[:-1] + last, standard, padded, f"{right}=", f"{right[:4]}\n{right[4:]}"]
        return str(self.choice("base64url", [right], wrong))

    def signature(self, signer: SigningKey, signing_input: bytes) -> bytes:
        rsa = signer.alg in RSA_ALGORITHMS
        alg = self.choice("algorithm", [signer.alg], list(RSA_ALGORITHMS) if rsa else [signer.alg])
        right = signer.sign(signing_input, alg)
        at, half = self.draw(st.integers(0, len(right) - 1)), len(right) // 2
        flipped = right[:at] + bytes([right[at] ^ 1 << at % 8]) + right[at + 1 :]
        der = encode_dss_signature(int.from_bytes(right[:half], "big"), int.from_bytes(right[half:], "big"))
        by_another = key("forger", signer.alg).sign(signing_input)
        wrong = [flipped, right[:at] or b"\0", b"\0" + right, right + b"\0", bytes(len(right)), der, by_another]
        return bytes(self.choice("signature", [right], wrong))


@st.composite
def tokens(draw: Callable[[st.SearchStrategy[Any]], Any], signer: SigningKey, alg: str, *, most_faults: int) -> str:
    """Tokens of `ISSUER` for `AUDIENCE`, signed by `signer`, whose header calls the algorithm `alg`."""
    making = Making(draw, frozenset(draw(st.sets(st.sampled_from(FAULTS), max_size=most_faults))))
    parts = [making.base64url(making.json(members)) for members in (making.header(alg), making.claims())]
    signature = making.signature(signer, ".".join(parts).encode())
    return ".".join([*parts, making.base64url(signature)])
