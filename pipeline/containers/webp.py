"""WebP: RIFF chunks. Source: RFC 9649, 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.containers.parts import Fate, Part, behind, trailers, word
from pipeline.core.records import Carried

_UNDERSTOOD = {b"VP8X", b"VP8 ", b"ALPH"}
_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""Chunks that are read where the header says so, of each kind the first."""

_LOSSLESS = b"VP8L"
"""Pixels coded without loss: that they were is carried, and the restored ones are coded so."""


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a WebP file, in order and without gaps."""
    whole = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    yield Part("header", 0, 12, Fate.UNDERSTOOD)
    position, flags = 12, data[20] if data[12:16] == b"VP8X" else 0
    seen: set[bytes] = set()
    while position + 8 <= whole:
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        end, kind = min(len(data), position + 8 + size + size % 2), data[position : position + 4]
        name = word(kind)
        if kind == _LOSSLESS:
            yield Part(name, position, end, Fate.CARRIED, b"")
        else:
            read = kind in _UNDERSTOOD or (flags & _FLAGS.get(kind, 0) and kind not in seen)
            yield Part(name, position, end, Fate.UNDERSTOOD if read else Fate.LOST)
        seen.add(kind)
        position = end
    yield from behind(data, position, Fate.CARRIED)


def put_back(data: bytes, carried: Sequence[Carried]) -> bytes:
    """Return a newly written WebP with the trailer that its source had."""
    return data + trailers(carried)
