"""Formats of a header and pixels: PNM, TGA, QOI. Nothing is carried.

Source: Netpbm, ppm(5) and pgm(5); Truevision TGA 2.0; The Quite OK Image Format 1.0.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from pipeline.containers.parts import Fate, Part, behind

_SAMPLES = {b"P5": 1, b"P6": 3}
_NUMBER = re.compile(rb"((?:\s|#[^\n]*\n)*)(\d+)")
_FOOTER = b"TRUEVISION-XFILE.\0"
_PLAIN, _IN_RUNS = (1, 2, 3), (9, 10, 11)  # kinds of pixels
_QOI_END = bytes(7) + b"\1"


def walk_pnm(data: bytes) -> Iterator[Part]:
    """Yield the parts of a binary PGM or PPM, in order and without gaps; raises ValueError for other kinds of PNM."""
    if data[:2] not in _SAMPLES:
        raise ValueError("its numbers are text")
    end, values = 2, []
    yield Part("header", 0, end, Fate.UNDERSTOOD)
    for _ in range(3):
        found = _NUMBER.match(data, end)
        if found is None:
            raise ValueError("its header is cut off")
        yield Part(
            "comment" if b"#" in found[1] else "header", end, found.end(), Fate.LOST if b"#" in found[1] else Fate.UNDERSTOOD
        )
        end = found.end()
        values.append(int(found[2]))
    width, height, most = values
    stop = min(len(data), end + 1 + width * height * _SAMPLES[data[:2]] * (2 if most > 255 else 1))
    yield Part("pixels", end, stop, Fate.UNDERSTOOD)
    yield from behind(data, stop, Fate.LOST)


def walk_tga(data: bytes) -> Iterator[Part]:
    """Yield the parts of a TGA file, in order and without gaps."""
    named, palette_size, palette_bits = data[0], *struct.unpack_from("<HB", data, 5)
    end = 18 + named
    yield Part("header", 0, 18, Fate.UNDERSTOOD)
    if named:
        yield Part("comment", 18, end, Fate.UNDERSTOOD if not any(data[18:end]) else Fate.LOST)
    pixels = end + (palette_size * -(-palette_bits // 8) if data[1] else 0)
    yield Part("palette", end, pixels, Fate.UNDERSTOOD)
    footer = len(data) - 26 if data.endswith(_FOOTER) else len(data)
    areas = struct.unpack_from("<II", data, footer) if footer < len(data) else (0, 0)
    stop = min([area for area in areas if area] or [footer])
    width, height, bits = struct.unpack_from("<HHB", data, 12)
    if data[2] in _PLAIN:
        stop = min(stop, pixels + width * height * -(-bits // 8))
    elif data[2] in _IN_RUNS:
        stop = min(stop, _end_of_runs(data, pixels, width * height, -(-bits // 8)))
    yield Part("pixels", pixels, stop, Fate.UNDERSTOOD)
    if footer == len(data):
        yield from behind(data, stop, Fate.LOST)
        return
    if stop < footer:
        yield Part("extension", stop, footer, Fate.LOST)
    yield Part("footer", footer, len(data), Fate.UNDERSTOOD)


def _end_of_runs(data: bytes, start: int, pixels: int, size: int) -> int:
    """Return the end of packets of ``pixels`` in all, of ``size`` bytes each: one that is repeated, or up to 128 of them."""
    while pixels > 0:
        count = (data[start] & 0x7F) + 1
        start += 1 + size * (1 if data[start] & 0x80 else count)
        pixels -= count
    return start


def walk_qoi(data: bytes) -> Iterator[Part]:
    """Yield the parts of a QOI file, in order and without gaps."""
    yield Part("header", 0, 13, Fate.UNDERSTOOD)
    yield Part("colour", 13, 14, Fate.LOST if data[13] else Fate.UNDERSTOOD)  # 1: linear
    end = data.index(_QOI_END, 14) + len(_QOI_END)  # no picture has it inside
    yield Part("pixels", 14, end, Fate.UNDERSTOOD)
    yield from behind(data, end, Fate.LOST)
