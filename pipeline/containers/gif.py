"""GIF: blocks. Source: CompuServe, GIF89a specification, 15 to 27. It is never written again, so nothing is carried."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.containers.parts import Fate, Part, behind

_EXTENSION, _IMAGE, _END = 0x21, 0x2C, 0x3B
_CONTROL = 0xF9
_SQUARE = (0, 49)
"""Aspects of a pixel that are not told, or are 1: (value + 15) / 64."""
_NAMES = {0xFE: "comment", 0x01: "text", 0xFF: "application"}


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a GIF file, in order and without gaps."""
    position = 13 + _table(data[10])
    yield Part("header", 0, 12, Fate.UNDERSTOOD)
    yield Part("aspect", 12, 13, Fate.UNDERSTOOD if data[12] in _SQUARE else Fate.LOST)
    yield Part("palette", 13, position, Fate.UNDERSTOOD)
    while position < len(data) and data[position] in (_EXTENSION, _IMAGE):
        start = position
        if data[position] == _IMAGE:
            position = _behind_blocks(data, start + 11 + _table(data[start + 9]))
            yield Part("image", start, position, Fate.UNDERSTOOD)
        else:
            label = data[start + 1]
            looping = data[start + 3 : start + 14] in (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # of a single frame nothing comes of it
            position = _behind_blocks(data, start + 2)
            known = label == _CONTROL or looping
            yield Part(_NAMES.get(label, "extension"), start, position, Fate.UNDERSTOOD if known else Fate.LOST)
    end = min(len(data), position + 1)
    yield Part("end", position, end, Fate.UNDERSTOOD)
    yield from behind(data, end, Fate.LOST)


def _table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(data: bytes, position: int) -> int:
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return min(len(data), position + 1)
