"""The extras `grpc-bearer[fast]`: the same answers to everything, installed or not."""

from __future__ import annotations

import json
import subprocess
import sys
from binascii import a2b_base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer import jws, strict_json
from grpc_bearer.jws import base64url
from grpc_bearer.strict_json import StrictJsonError, loads
from tests.support.fuzzing import cases

ROOT = Path(__file__).resolve().parent.parent
orjson = pytest.importorskip("orjson", reason="the extras grpc-bearer[fast] are not installed")
b64decode = pytest.importorskip("pybase64").b64decode

WITHOUT = """
import sys
sys.modules["orjson"] = sys.modules["pybase64"] = None
import pytest
from grpc_bearer import jws, strict_json
assert strict_json.orjson is None and "a2b_base64" in repr(jws._decoded)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-W", "error", *sys.argv[1:]]))
"""


def test_what_reads_tokens_passes_its_tests_without_the_extras_too() -> None:
    modules = ("test_strict_json", "test_jws", "test_gate", "test_verifier_signatures", "test_differential")
    paths = [f"tests/{module}.py" for module in modules]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *paths], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_here_they_are_in_use() -> None:
    assert strict_json.orjson is orjson
    assert getattr(jws._decoded, "func", None) is b64decode


def outcome(read: Any, data: bytes) -> str:
    """What came of it, as text, because 1, 1.0 and True are equal to Python."""
    try:
        return repr(read(data))
    except StrictJsonError as error:
        return f"refused: {error}"


def read_without(data: bytes) -> Any:
    """As where orjson is not installed: white space around it changes no value, and no text comes back unchanged with it."""
    return loads(b" " + data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@cases(400)
@given(JSON, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_any_json_is_the_same_value_to_both(value: Any, separators: tuple[str, str], ascii_only: bool) -> None:
    data = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert outcome(loads, data) == outcome(read_without, data)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":2}}',
        '{"a":1,"\\u0061":1}',
        "1e400",
        "[1E2]",
        "-0",
        "-0.0",
        "1.0",
        "1e16",
        "0.1",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "9" * 4301,
        "NaN",
        '"\\ud800"',
        '"\\u2028"',
        '"\u2028\x7f"',
        '"\\/"',
        "null",
        "[" * 33 + "]" * 33,
        "[" * 32 + "]" * 32,
    ],
)
def test_what_two_readers_could_read_differently_is_the_same_to_both(text: str) -> None:
    assert outcome(loads, text.encode()) == outcome(read_without, text.encode())


@cases(400)
@given(st.binary(max_size=40) | st.text(alphabet="AQgwz09-_+/=\n .", max_size=12).map(str.encode))
def test_base64url_is_the_same_octets_to_both_or_refused_by_both(text: bytes) -> None:
    def decoded(decode: Any) -> bytes | str:
        try:
            return bytes(decode(text.translate(jws._TO_STANDARD) + b"=" * (-len(text) % 4)))
        except ValueError:
            return "refused"

    assert decoded(lambda octets: b64decode(octets, validate=True)) == decoded(
        lambda octets: a2b_base64(octets, strict_mode=True)
    )


def test_a_text_that_is_no_base64url_is_refused() -> None:
    for text in (b"A+AA", b"A/AA", b"AA==", b"AA\n", b"\xff\xff\xff\xff"):
        with pytest.raises(Exception, match=r"TOKEN_MALFORMED"):
            base64url(text)
