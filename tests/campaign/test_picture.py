"""The picture of a long run is a PNG that holds what was measured."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest

from campaign.picture import BLUE, GREEN, SHADE, WIDTH, Panel, Span, nice_top, png


def chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    """By the PNG specification, checksums included."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(picture):
        (size,) = struct.unpack_from(">I", picture, at)
        kind, data = picture[at + 4 : at + 8], picture[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", picture, at + 8 + size) == (zlib.crc32(kind + data),)
        yield kind, data
        at += 12 + size


def rows(picture: bytes) -> list[bytes]:
    """Its pixels, as indices into the palette."""
    found = dict(chunks(picture))
    assert list(found) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height = struct.unpack_from(">II", found[b"IHDR"])
    pixels = zlib.decompress(found[b"IDAT"])
    assert len(pixels) == height * (width + 1)
    assert max(pixels) < len(found[b"PLTE"]) // 3
    return [pixels[row * (width + 1) + 1 : (row + 1) * (width + 1)] for row in range(height)]


def lowest_and_highest(picture: list[bytes], colour: int, right_half: bool) -> tuple[int, int]:
    """The rows in which a line is, in one half of the picture below the legend."""
    half = slice(WIDTH // 2, None) if right_half else slice(None, WIDTH // 2)
    found = [number for number, row in enumerate(picture) if number > 90 and colour in row[half]]
    return min(found), max(found)


def test_a_line_that_rises_is_higher_on_the_right_and_a_flat_one_is_not() -> None:
    values = [1.0] * 10 + [9.0] * 10
    picture = rows(png("title", "subtitle", [Panel("memory", "MiB", {"rising": values, "flat": [5.0] * 20})], [], []))
    assert lowest_and_highest(picture, GREEN, right_half=True)[0] < lowest_and_highest(picture, GREEN, right_half=False)[0]
    top, bottom = lowest_and_highest(picture, BLUE, right_half=True)
    assert bottom - top <= 1
    assert lowest_and_highest(picture, BLUE, right_half=False) == (top, bottom)


def test_an_outage_is_shaded_where_it_was() -> None:
    panel = Panel("threads", "", {"a": [1.0] * 101})
    picture = rows(png("", "", [panel], [Span(50.0, 75.0)], []))
    shaded = [x for row in picture for x, colour in enumerate(row) if colour == SHADE]
    assert WIDTH * 0.5 < min(shaded) < WIDTH * 0.6
    assert WIDTH * 0.7 < max(shaded) < WIDTH * 0.8


def test_a_picture_of_ten_minutes_is_small() -> None:
    noisy = [20 + 7 * (second * 37 % 11) / 11 for second in range(600)]
    panels = [Panel(name, "", {"a": noisy, "b": noisy[::-1]}) for name in ("memory", "threads", "files")]
    assert len(png("t", "s", panels, [], [])) < 100_000


@pytest.mark.parametrize(
    ("highest", "top"), [(0.3, 1), (1, 1), (1.1, 2), (3, 4), (46, 50), (79, 80), (81, 100), (100, 100), (101, 200)]
)
def test_an_axis_ends_at_a_round_figure(highest: float, top: float) -> None:
    assert nice_top(highest) == top
