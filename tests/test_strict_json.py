"""JSON with one meaning or none (RFC 8725 §2.6 and §3.7; RFC 8259; RFC 7515 §4; RFC 7519 §4)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bearer.strict_json import DuplicateMembers, StrictJsonError, loads
from tests.support.fuzzing import cases

FACE = "\U0001f600"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (' {"a" : [1, -2.5, true, null, "x"]}\r\n\t', {"a": [1, -2.5, True, None, "x"]}),
        ('"\u00e9"', "\u00e9"),
        (r'"\u00e9\n\""', '\u00e9\n"'),
        (r'"\ud83d\ude00"', FACE),  # a pair of surrogates is one character
        (f'"{FACE}"', FACE),
        ("1e308", 1e308),
        ("1e-400", 0.0),
        ("9" * 4300, int("9" * 4300)),
        ('{"a":{"a":1},"b":{"a":2}}', {"a": {"a": 1}, "b": {"a": 2}}),  # the same name in other objects
        ('{"a":1,"A":2}', {"a": 1, "A": 2}),  # names are compared with their case
        ("{}", {}),
    ],
)
def test_json_that_means_one_thing_is_read(text: str, value: Any) -> None:
    assert loads(text.encode()) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ('{"a":1}'.encode("utf-16"), "JSON is not UTF-8"),
        (b'"\xe9"', "JSON is not UTF-8"),  # Latin-1
        (b'"\xc0\xaf"', "JSON is not UTF-8"),  # an over-long "/"
        (b'"\xed\xa0\x80"', "JSON is not UTF-8"),  # a surrogate, encoded by itself
        (b'"\xf4\x90\x80\x80"', "JSON is not UTF-8"),  # beyond U+10FFFF
        ('{"a":1}'.encode("utf-16-le"), "not JSON"),
        ('{"a":1}'.encode("utf-32-be"), "not JSON"),
        (b'\xef\xbb\xbf{"a":1}', "not JSON"),  # a byte order mark (RFC 8259 §8.1)
        (b'{"a":1,"a":1}', "duplicate JSON member"),
        (b'{"a":1,"b":2,"\\u0061":3}', "duplicate JSON member"),  # the same name, spelled otherwise
        (b'[{"b":{"a":1,"a":2}}]', "duplicate JSON member"),
        (b"[NaN]", "NaN or Infinity in JSON"),
        (b"Infinity", "NaN or Infinity in JSON"),
        (b'{"a":-Infinity}', "NaN or Infinity in JSON"),
        (b"1e400", "JSON number out of range"),  # parse_constant does not see these
        (b"[-1.5E999]", "JSON number out of range"),
        (b'"\\ud83d"', "lone surrogate in JSON"),
        (b'"\\ude00\\ud83d"', "lone surrogate in JSON"),
        (b'{"\\udfff":1}', "lone surrogate in JSON"),
        (b"9" * 4301, "not JSON"),  # Python's limit on the digits of an integer is a ValueError
        (b"", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"{} x", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"// x\n{}", "not JSON"),
        (b'"a\nb"', "not JSON"),  # a control character has to be escaped
        (b'"a', "not JSON"),
        (b"01", "not JSON"),
        (b"+1", "not JSON"),
        (b"1.", "not JSON"),
        (b".5", "not JSON"),
        (b"True", "not JSON"),
        ("\uff11".encode(), "not JSON"),  # a fullwidth digit
        (b"\x00", "not JSON"),
        (b"\x0c{}", "not JSON"),  # a form feed is no JSON white space
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(StrictJsonError) as caught:
        loads(data)
    assert str(caught.value) == why


def nested(depth: int, opening: str, closing: str, core: str = "") -> bytes:
    return (opening * depth + core + closing * depth).encode()


@pytest.mark.parametrize(("opening", "closing", "core"), [("[", "]", ""), ('{"a":', "}", "1"), ('[{"a":', "}]", "1")])
def test_json_may_be_32_deep_and_no_deeper(opening: str, closing: str, core: str) -> None:
    levels = opening.count("[") + opening.count("{")
    loads(nested(32 // levels, opening, closing, core))
    with pytest.raises(StrictJsonError, match=r"^JSON is too deep$"):
        loads(nested(32 // levels + 1, opening, closing, core))


@pytest.mark.parametrize("depth", [1_000, 200_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_that_would_exhaust_the_stack_is_refused_before_it_is_parsed(opening: str, depth: int) -> None:
    with pytest.raises(StrictJsonError, match=r"^JSON is too deep$"):
        loads(opening.encode() * depth)


@pytest.mark.parametrize(
    "text",
    [
        '["' + "[{" * 100 + '"]',
        '["\\"' + "[" * 100 + '"]',
        '["\\\\","' + "]" * 50 + "[" * 50 + '"]',
        "[" + ",".join(["[]"] * 100) + "]",
        "[" + ",".join(['{"a":[1]}'] * 100) + "]",
    ],
)
def test_brackets_in_strings_and_beside_one_another_are_not_depth(text: str) -> None:
    assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize("before", [b"[],", b'{"a":[]},' * 40, b'"\\"",' * 40 + b"[],", b'"[[[[",'])
def test_what_stands_before_it_neither_hides_depth_nor_adds_to_it(before: bytes) -> None:
    loads(b"[" + before + nested(31, "[", "]") + b"]")
    with pytest.raises(StrictJsonError, match=r"^JSON is too deep$"):
        loads(b"[" + before + nested(32, "[", "]") + b"]")


@pytest.mark.parametrize("text", ["[]" * 40 + '"' + '\\"' * 250_000, "[]" * 40 + '"' * 499_999, "[]" * 40 + "\\" * 500_000])
def test_looking_for_depth_takes_time_in_proportion_to_the_text(text: str) -> None:
    # A string that never ends was once scanned to the end from each of its escaped quotes: minutes for this text.
    before = time.process_time()
    with pytest.raises(StrictJsonError):
        loads(text.encode())
    assert time.process_time() - before < 10


def test_marking_puts_a_mark_where_an_object_had_duplicates_and_keeps_the_rest() -> None:
    first, second = loads(b'[{"a":1,"a":{"b":2}},{"c":"\\u0041"}]', mark_duplicates=True)
    assert isinstance(first, DuplicateMembers)
    assert second == {"c": "A"}


@pytest.mark.parametrize("data", [b'[{"a":1,"a":2},"\\ud800"]', b'[{"a":1,"a":2},NaN]', b'[{"a":1,"a":2}'])
def test_marking_forgives_nothing_else(data: bytes) -> None:
    with pytest.raises(StrictJsonError):
        loads(data, mark_duplicates=True)


@cases(500)
@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,\\u0aDd1eE.-N \n', max_size=30).map(str.encode))
def test_whatever_the_octets_they_are_refused_or_read_as_json_reads_them(data: bytes) -> None:
    try:
        value = loads(data)
    except StrictJsonError:
        return
    assert json.dumps(value) == json.dumps(json.loads(data))
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=15,
)


@cases(300)
@given(JSON_VALUES, st.booleans())
def test_whatever_json_says_is_read_as_it_was_meant(value: Any, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value
