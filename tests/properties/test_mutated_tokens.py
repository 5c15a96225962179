"""A valid token that was changed is refused, whatever the change; only what RFC 6750 calls the same credentials is not.

The gate has verified and remembers the token, so that a change has to get past its shortcuts too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer import Authenticator, AuthError, Issuer
from grpc_bearer.gate import Gate
from tests.properties.reading import octets_of
from tests.properties.ways import the_drivers_way, the_long_way, verdict
from tests.support.fuzzing import cases
from tests.support.tokens import AUDIENCE, ISSUER, SigningKey, base64url, compact, forged, jwks, key, mint

NOW: Final = 1_800_000_000
FOR_EVER: Final = 4_102_444_800
METHOD: Final = "/shop.v1.Orders/List"
ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
OTHER_OCTETS: Final = "".join(char for char in map(chr, range(256)) if char not in ALPHABET)
ALGORITHMS: Final = ("EdDSA", "ES256", "RS256", "PS256")

Change = tuple[str, str]
"""What was done, and the `authorization` value that came of it."""


def gate_of(*signers: SigningKey) -> Gate:
    issuer = Issuer(ISSUER, audiences=[AUDIENCE], algorithms=ALGORITHMS, jwks=jwks(*signers))
    return Authenticator([issuer], clock=lambda: NOW).gate


def remembering(signer: SigningKey, token: str) -> Gate:
    """A gate that knows the token."""
    gate = gate_of(signer)
    for _ in range(3):
        assert is_accepted(gate, f"Bearer {token}")
    assert gate.known(METHOD, [("authorization", f"Bearer {token}")]) is not None
    return gate


def is_accepted(gate: Gate, authorization: str) -> bool:
    """Whether a call with this value gets through. Whatever is raised but `AuthError` comes out."""
    try:
        the_drivers_way(gate, METHOD, [("authorization", authorization)])
    except AuthError:
        return False
    return True


def is_the_same(authorization: str, token: str) -> bool:
    """RFC 6750 §2.1, RFC 9110 §11.1: the case of the scheme and the number of spaces are free. Nothing else is."""
    return re.fullmatch(r"(?i:bearer) +" + re.escape(token), authorization, re.ASCII) is not None


def small_token(signer: SigningKey) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": FOR_EVER, "scope": "a"}
    return compact({"alg": signer.alg, "kid": signer.kid}, claims, signer)


# -- every single change -----------------------------------------------------------------------------------------------


def each_single_change(value: str) -> Iterator[Change]:
    """One octet changed to each of the other 255, left out, written twice, or swapped with the next."""
    for at, char in enumerate(value):
        before, after = value[:at], value[at + 1 :]
        for other in ALPHABET + OTHER_OCTETS:
            if other != char:
                yield "changed", before + other + after
        yield "dropped", before + after
        yield "doubled", before + char + char + after
        if after:
            yield "swapped", before + after[0] + char + after[1:]


def test_no_single_change_of_a_token_is_accepted_but_for_scheme_case_and_spaces() -> None:
    signer = key("k1", "EdDSA")
    token = small_token(signer)
    gate = remembering(signer, token)
    done: Counter[tuple[str, bool]] = Counter()
    for what, changed in each_single_change(f"Bearer {token}"):
        same = is_the_same(changed, token)
        assert is_accepted(gate, changed) is same, (what, changed)
        done[what, same] += 1
    length = len(token) + len("Bearer ")
    assert sum(done.values()) == length * (255 + 3) - 1
    assert done["changed", True] == 6  # the scheme's six letters, each in its other case
    assert done["doubled", True] == 1  # the space
    assert done["dropped", True] == 0


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_no_single_bit_of_what_a_part_stands_for_can_be_flipped(alg: str) -> None:
    """The parts are decoded, changed and encoded again, so that the base64url of each is right."""
    signer = key("k1", alg)
    token = small_token(signer)
    gate, parts = remembering(signer, token), token.split(".")
    for position, part in enumerate(parts):
        octets = octets_of(part)
        for bit in range(len(octets) * 8):
            flipped = bytearray(octets)
            flipped[bit // 8] ^= 1 << bit % 8
            changed = ".".join([*parts[:position], base64url(bytes(flipped)), *parts[position + 1 :]])
            assert not is_accepted(gate, f"Bearer {changed}"), (position, bit)


# -- many changes together ---------------------------------------------------------------------------------------------

TOKENS: Final = {alg: mint(key("k1", alg), now=NOW, exp=FOR_EVER, roles=["a", {"b": 1}]) for alg in ALGORITHMS}
GATES: Final = {alg: remembering(key("k1", alg), token) for alg, token in TOKENS.items()}
characters = st.sampled_from(ALPHABET + ".=+/ ") | st.characters(codec="utf-8")


@st.composite
def changed_at_random(draw: st.DrawFn, value: str) -> str:
    """One to six changes, of one place or of a stretch, to a value."""
    for _ in range(draw(st.integers(1, 6))):
        first, second = sorted(draw(st.tuples(st.integers(0, len(value)), st.integers(0, len(value)))))
        short = value[first : min(second, first + 8)]
        change: Any = draw(st.sampled_from(["drop", "insert", "replace", "repeat", "move", "reverse", "truncate", "case"]))
        match change:
            case "drop":
                value = value[:first] + value[first + len(short) :]
            case "insert":
                value = value[:first] + draw(st.text(characters, min_size=1, max_size=3)) + value[first:]
            case "replace":
                value = value[:first] + draw(st.text(characters, min_size=1, max_size=3)) + value[first + 1 :]
            case "repeat":
                value = value[:first] + short + value[first:]
            case "move":
                value = value[:first] + value[first + len(short) : second] + short + value[max(second, first + len(short)) :]
            case "reverse":
                value = value[:first] + short[::-1] + value[first + len(short) :]
            case "truncate":
                value = value[:second] or value
            case _:
                value = value[:first] + value[first:second].swapcase() + value[second:]
    return value


@cases(600)
@given(st.data(), st.sampled_from(ALGORITHMS))
def test_no_random_change_of_a_token_is_accepted_but_for_scheme_case_and_spaces(data: st.DataObject, alg: str) -> None:
    token = TOKENS[alg]
    changed = data.draw(changed_at_random(f"Bearer {token}"))
    assert is_accepted(GATES[alg], changed) is is_the_same(changed, token)


@cases(300)
@given(st.data(), st.sampled_from(ALGORITHMS))
def test_what_is_said_of_a_changed_token_is_what_is_said_to_a_gate_that_remembers_nothing(
    data: st.DataObject, alg: str
) -> None:
    call = [("authorization", data.draw(changed_at_random(f"Bearer {TOKENS[alg]}")))]
    assert verdict(the_drivers_way, GATES[alg], METHOD, call) == verdict(the_long_way, GATES[alg], METHOD, call)


# -- parts of several tokens -------------------------------------------------------------------------------------------


def test_parts_of_several_valid_tokens_make_no_further_valid_one() -> None:
    """Header, claims and signature of any three, of one key and of several: only the right three go together."""
    signers = [key("k1", "EdDSA"), key("k2", "EdDSA"), key("k3", "RS256"), key("k3", "PS256")]
    tokens = [mint(signer, now=NOW, exp=FOR_EVER, sub=sub) for signer in signers for sub in ("alice", "bob")]
    gate = gate_of(*signers)
    mixed = {
        ".".join([first.split(".")[0], second.split(".")[1], third.split(".")[2]])
        for first in tokens
        for second in tokens
        for third in tokens
    }
    assert len(mixed) == 4 * 2 * 8
    for token in [*tokens, *tokens, *mixed]:  # those that are right come first, and are remembered
        assert is_accepted(gate, f"Bearer {token}") is (token in tokens)


def test_a_forged_token_with_the_header_of_an_accepted_one_is_refused_each_time() -> None:
    """An accepted token's header is not read again: nothing else of it may be taken over."""
    signer = key("k1", "EdDSA")
    gate, false = remembering(signer, small_token(signer)), forged(signer, now=NOW, exp=FOR_EVER)
    for _ in range(5):
        assert not is_accepted(gate, f"Bearer {false}")


def test_the_claims_of_a_token_are_those_that_were_signed() -> None:
    """The neighbour of all the above: whatever is accepted, what comes out is what went in."""
    for alg, token in TOKENS.items():
        claims = the_drivers_way(GATES[alg], METHOD, [("authorization", f"Bearer {token}")])
        assert claims is not None
        assert (claims.sub, claims.exp, claims["roles"][1]["b"], claims.algorithm) == ("user-1", FOR_EVER, 1, alg)
