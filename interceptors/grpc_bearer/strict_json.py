"""JSON as RFC 8725 wants it read: one meaning per text, or none (pure).

Stricter than `json.loads` where that is lax: UTF-8 only (RFC 8259 §8.1), no duplicate member (RFC 7515 §4, RFC 7519 §4),
no NaN or Infinity, no number that overflows to infinity (1e400: `parse_constant` does not see those), no lone surrogate,
bounded depth.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from json.scanner import make_scanner
from types import ModuleType
from typing import Any, Final

orjson: ModuleType | None
try:
    import orjson
except ImportError:  # it comes with grpc-bearer[fast]
    orjson = None

MAX_DEPTH: Final = 32
"""Arrays and objects inside one another, at the most."""

# The closing quote is optional: a string that never ends would else be scanned to the end of the text from each of its
# escaped quotes (0.2 s for a token of 16 KiB, measured).
_STRUCTURE: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class StrictJsonError(ValueError):
    """The text is not strict JSON. The message is constant and fit for a log."""


class DuplicateMembers:
    """Stands where an object with duplicate members stood, for readers that drop one bad part of a good whole."""

    __slots__ = ()


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonError("duplicate JSON member")
    return members


def _marked_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any] | DuplicateMembers:
    members = dict(pairs)
    return members if len(members) == len(pairs) else DuplicateMembers()


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise StrictJsonError("JSON number out of range")
    return number


def _no_constant(_name: str) -> Any:
    raise StrictJsonError("NaN or Infinity in JSON")


def _decoder(pairs: Callable[[list[tuple[str, Any]]], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=pairs, parse_float=_finite, parse_constant=_no_constant)


# Made once: json.loads with hooks makes one per call, which costs more than the parse of a JOSE header. The scanner is what a
# decoder calls after it has looked for white space with two regular expressions.
_DECODER: Final = _decoder(_unique_members)
_MARKING_DECODER: Final = _decoder(_marked_duplicates)
_SCAN: Final = make_scanner(_DECODER)  # type: ignore[arg-type]  # the stub means the Python version
_SCAN_MARKING: Final = make_scanner(_MARKING_DECODER)  # type: ignore[arg-type]


def _too_deep(text: str) -> bool:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        token = match.group()
        if token in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token in "]}":
            depth -= 1
    return False


def _unchanged(orjson: ModuleType, data: bytes) -> Any:
    """The value by orjson, where writing it again gives these very octets; None for all other texts.

    What comes back unchanged had no duplicate member to lose, no number to round and no second meaning.
    """
    try:
        value = orjson.loads(data)
        return value if orjson.dumps(value) == data else None
    except (ValueError, TypeError):
        return None


def loads(data: bytes, *, mark_duplicates: bool = False) -> Any:
    """Parse one JSON text.

    `mark_duplicates`: put a `DuplicateMembers` where an object repeats a member, in place of refusing the whole text.
    Raises `StrictJsonError`; never anything else, whatever the bytes.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise StrictJsonError("JSON is not UTF-8") from None
    # Brackets are counted before they are matched: the scan costs more than the parse, and honest tokens never need it.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        if _too_deep(text):
            raise StrictJsonError("JSON is too deep")
    elif orjson is not None:
        value = _unchanged(orjson, data)
        if value is not None:
            return value
    decoder, scan = (_MARKING_DECODER, _SCAN_MARKING) if mark_duplicates else (_DECODER, _SCAN)
    try:
        try:
            value, end = scan(text, 0)
        except StopIteration:  # no value at the very start: white space, or no JSON
            value, end = None, -1
        if end != len(text):
            value = decoder.decode(text)
        if "\\u" in text:  # only an escape can bring a lone surrogate in: UTF-8 has none
            json.dumps(value, ensure_ascii=False, default=lambda _duplicate: None).encode("utf-8")
    except StrictJsonError:
        raise
    except UnicodeEncodeError:
        raise StrictJsonError("lone surrogate in JSON") from None
    except (ValueError, RecursionError):  # ValueError: also an integer beyond Python's digit limit
        raise StrictJsonError("not JSON") from None
    return value
