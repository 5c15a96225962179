"""A line chart as a PNG (W3C PNG, 3rd edition), made with nothing but zlib: panels over one axis of time (pure)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

WIDTH: Final = 1100
_PANEL, _TOP, _FOOT, _LEFT, _RIGHT, _GAP = 200, 64, 66, 110, 24, 46
_BIG, _SMALL = 2, 1

_PALETTE: Final = bytes.fromhex("ffffff 1f2328 59636e d8dee4 1a7f37 0969da fff1e5 bc4c00 ddf4ff")
WHITE, BLACK, GREY, PALE, GREEN, BLUE, SHADE, MARK, SKY = range(len(_PALETTE) // 3)
COLOURS: Final = (GREEN, BLUE)

# A font of 5 columns of 8 points each, the lowest bit on top, from the space to z.
_FONT: Final = bytes.fromhex(
    "0000000000 00005f0000 0007000700 147f147f14 242a7f2a12 2313086462 3649562050 0008070300 001c224100 0041221c00"
    "2a1c7f1c2a 08083e0808 0080703000 0808080808 0000606000 2010080402 3e5149453e 00427f4000 7249494946 2141494d33"
    "1814127f10 2745454539 3c4a494931 4121110907 3649494936 464949291e 0000140000 0040340000 0008142241 1414141414"
    "0041221408 0201590906 3e415d594e 7c1211127c 7f49494936 3e41414122 7f4141413e 7f49494941 7f09090901 3e41415173"
    "7f0808087f 00417f4100 2040413f01 7f08142241 7f40404040 7f021c027f 7f0408107f 3e4141413e 7f09090906 3e4151215e"
    "7f09192946 2649494932 03017f0103 3f4040403f 1f2040201f 3f4038403f 6314081463 0304780403 6159494d43 007f414141"
    "0204081020 004141417f 0402010204 4040404040 0003070800 2054547840 7f28444438 3844444428 384444287f 3854545418"
    "00087e0902 18a4a49c78 7f08040478 00447d4000 2040403d00 7f10284400 00417f4000 7c04780478 7c08040478 3844444438"
    "fc18242418 18242418fc 7c08040408 4854545424 04043f4424 3c4040207c 1c2040201c 3c4030403c 4428102844 4c9090907c 4464544c44"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over the seconds 0, 1, 2, ..., by their names; `unit` of their values."""

    title: str
    unit: str
    lines: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that goes on from one second to another."""

    start_s: float
    end_s: float


class _Canvas:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._rows = [bytearray(width) for _row in range(height)]

    def box(self, x: int, y: int, width: int, height: int, colour: int) -> None:
        left, right = max(0, x), min(self.width, x + width)
        for row in self._rows[max(0, y) : max(0, y + height)]:
            row[left:right] = bytes([colour]) * max(0, right - left)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: int) -> None:
        steps = max(1, round(max(abs(x1 - x0), abs(y1 - y0))))
        for step in range(steps + 1):
            self.box(round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps), 2, 2, colour)

    def text(self, x: int, y: int, text: str, colour: int = BLACK, size: int = _SMALL) -> None:
        for number, character in enumerate(text):
            at = (ord(character) - 32) * 5
            glyph = _FONT[at : at + 5] if 0 <= at < len(_FONT) else _FONT[:5]
            for column, bits in enumerate(glyph):
                for row in range(8):
                    if bits >> row & 1:
                        self.box(x + (number * 6 + column) * size, y + row * size, size, size, colour)

    def png(self) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 3, 0, 0, 0)  # 8 bits, indices into a palette
        pixels = zlib.compress(b"".join(b"\0" + row for row in self._rows), 9)
        parts = [(b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", pixels), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def width_of(text: str, size: int = _SMALL) -> int:
    """Of a text, in points."""
    return 6 * size * len(text)


def nice_top(highest: float) -> float:
    """The end of an axis that starts at 0: 1, 2, 4, 5 or 8 times a power of ten, not below `highest`."""
    power = 1.0
    while power * 10 <= highest:
        power *= 10
    return next(factor * power for factor in (1, 2, 4, 5, 8, 10, 20) if factor * power >= highest)


def png(title: str, subtitle: str, panels: Sequence[Panel], outages: Sequence[Span], marks: Sequence[float]) -> bytes:
    """The picture. Shaded: the outages. Ticks below each panel: the marks."""
    height = _TOP + len(panels) * (_PANEL + _GAP) + _FOOT - _GAP
    canvas = _Canvas(WIDTH, height)
    canvas.text(16, 14, title, size=_BIG)
    canvas.text(16, 40, subtitle, GREY)
    seconds = max(len(values) for panel in panels for values in panel.lines.values()) - 1
    for number, panel in enumerate(panels):
        _panel(canvas, panel, _TOP + number * (_PANEL + _GAP), max(1, seconds), outages, marks)
    return canvas.png()


def _panel(canvas: _Canvas, panel: Panel, y: int, seconds: int, outages: Sequence[Span], marks: Sequence[float]) -> None:
    width, plot_y, plot_height = WIDTH - _LEFT - _RIGHT, y + 26, _PANEL - 26
    top = nice_top(max(1e-9, *(max(values) for values in panel.lines.values())))

    def x_of(second: float) -> float:
        return _LEFT + min(max(second, 0), seconds) / seconds * width

    def y_of(value: float) -> float:
        return plot_y + plot_height - value / top * plot_height

    for span in outages:
        start = round(x_of(span.start_s))
        canvas.box(start, plot_y, max(1, round(x_of(span.end_s)) - start), plot_height, SHADE)
    for step in range(5):
        value = top * step / 4
        canvas.box(_LEFT, round(y_of(value)), width, 1, PALE)
        label = f"{value:g}"
        canvas.text(_LEFT - 8 - width_of(label), round(y_of(value)) - 4, label, GREY)
    for mark in marks:
        canvas.box(round(x_of(mark)), plot_y + plot_height + 2, 2, 5, MARK)
    step_s = next((step for step in (1, 2, 5, 10, 20, 60, 120, 600) if 8 * step >= seconds), 3600)
    for second in range(0, seconds + 1, step_s):
        label = f"{second} s"
        canvas.text(round(x_of(second)) - width_of(label) // 2, plot_y + plot_height + 10, label, GREY)
    canvas.text(16, y + 4, f"{panel.title}, {panel.unit}" if panel.unit else panel.title, size=_SMALL)
    at = _LEFT + 200
    for colour, (name, values) in zip(COLOURS, panel.lines.items(), strict=False):
        canvas.box(at, y + 7, 18, 3, colour)
        canvas.text(at + 24, y + 4, name)
        at += 44 + width_of(name)
        points = [(x_of(second), y_of(value)) for second, value in enumerate(values)]
        for (x0, y0), (x1, y1) in pairwise(points):
            canvas.line(x0, y0 - 1, x1, y1 - 1, colour)
