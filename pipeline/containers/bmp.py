"""BMP: headers, palette, pixels. Source: Microsoft, BITMAPFILEHEADER, BITMAPINFOHEADER, BITMAPV5HEADER."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from pipeline.containers.parts import Fate, Part, behind, is_padding, trailers
from pipeline.core.records import Carried

_RESERVED, _DENSITY = slice(6, 10), slice(38, 46)
_PLAIN, _UNCOMPRESSED = 0, {0, 3, 6}
_SRGB = {b"BGRs", b" niW"}
_PLAIN_DENSITY = struct.pack("<ii", 3780, 3780)  # 96 dpi, which is written where nothing is said


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a BMP file, in order and without gaps."""
    size, pixels, header = struct.unpack_from("<I4xII", data, 2)
    yield Part("header", 0, 6, Fate.UNDERSTOOD)
    yield Part("reserved", 6, 10, Fate.CARRIED if any(data[_RESERVED]) else Fate.UNDERSTOOD)
    yield Part("header", 10, 14, Fate.UNDERSTOOD)
    end, palette, bits, compression = 14 + header, pixels, 0, 0
    if header >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        plain = data[_DENSITY] in (bytes(8), _PLAIN_DENSITY)
        yield Part("header", 14, 38, Fate.UNDERSTOOD)
        yield Part("density", 38, 46, Fate.UNDERSTOOD if plain else Fate.CARRIED)
        yield Part("header", 46, min(end, 70), Fate.UNDERSTOOD)
        if end > 70:  # primaries, gamma, profile: versions 4 and 5
            srgb = data[70:74] in _SRGB or not any(data[70 : min(end, 122)])
            yield Part("colour", 70, end, Fate.UNDERSTOOD if srgb else Fate.LOST)
        (used,) = struct.unpack_from("<I", data, 46)
        colours = used or (1 << bits if bits <= 8 else 0)
        palette = min(pixels, end + 4 * colours + (16 if compression in (3, 6) else 0))
        size = pixels + (width * bits + 31) // 32 * 4 * abs(height) if compression in _UNCOMPRESSED else size
    yield Part("palette", end, palette, Fate.UNDERSTOOD)
    if palette < pixels:
        padding = is_padding(data[palette:pixels])
        yield Part("padding" if padding else "gap", palette, pixels, Fate.UNDERSTOOD if padding else Fate.LOST)
    stop = max(pixels, min(len(data), size))
    fourth = data[pixels + 3 : stop : 4] if bits == 32 and compression == _PLAIN else b""
    hidden = fourth.strip(b"\0") and fourth.strip(b"\xff")  # which Pillow does not read, and other programs write as alpha
    yield Part("alpha" if hidden else "pixels", pixels, stop, Fate.LOST if hidden else Fate.UNDERSTOOD)
    yield from behind(data, stop, Fate.CARRIED)


def put_back(data: bytes, carried: Sequence[Carried]) -> bytes:
    """Return a newly written BMP with the reserved words, the density and the trailer that its source had."""
    made = bytearray(data)
    for part in carried:
        if place := {"reserved": _RESERVED, "density": _DENSITY}.get(part.name):
            made[place] = part.data
    return bytes(made) + trailers(carried)
