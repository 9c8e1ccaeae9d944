"""JPEG 2000: boxes, and comments in the codestream. Nothing is carried: what is written again has pixels alone.

Source: ISO/IEC 15444-1, Annexes A and I.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pipeline.containers.boxes import boxes
from pipeline.containers.parts import Fate, Part, behind, word

_UNDERSTOOD = {b"jP  ", b"ftyp", b"jp2h", b"jp2c", b"ihdr", b"bpcc", b"cdef", b"pclr", b"cmap"}
_WRITTEN = {b"\0\0\0\x10", b"\0\0\0\x11"}  # sRGB and grey, which is all that a written file says of its colours
_CODESTREAM = b"\xff\x4f\xff\x51"
_COM, _SOT, _EOC = b"\xff\x64", b"\xff\x90", b"\xff\xd9"
_BANNERS = (b"Created by OpenJPEG", b"Kakadu", b"CREATOR: JasPer")
"""How the comments begin by which encoders name themselves."""


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a JPEG 2000 file, in order and without gaps."""
    if data.startswith(_CODESTREAM):  # what is written again has boxes around it
        yield Part("codestream", 0, 0, Fate.LOST)
        yield from _codestream(data, 0, 0, len(data))
        return
    end = 0
    for kind, start, body, end in boxes(data, 0, len(data)):
        if kind == b"jp2h":
            yield Part("jp2h", start, body, Fate.UNDERSTOOD)
            yield from (_header(data, *box) for box in boxes(data, body, end))
        elif kind == b"jp2c":
            yield from _codestream(data, start, body, end)
        else:
            yield _named(kind, start, end)
    yield from behind(data, end, Fate.LOST)


def _header(data: bytes, kind: bytes, start: int, body: int, end: int) -> Part:
    if kind != b"colr":
        return _named(kind, start, end)
    plain = data[body : body + 1] == b"\1" and data[body + 3 : body + 7] in _WRITTEN
    return Part("colr" if plain else "colours", start, end, Fate.UNDERSTOOD if plain else Fate.LOST)


def _named(kind: bytes, start: int, end: int) -> Part:
    return Part(word(kind), start, end, Fate.UNDERSTOOD if kind in _UNDERSTOOD else Fate.LOST)


def _codestream(data: bytes, start: int, body: int, end: int) -> Iterator[Part]:
    """Yield a codestream from ``body`` on, its box from ``start``, with the comments of its main header apart."""
    position = body + 2
    while position + 4 <= end and data[position] == 0xFF and data[position : position + 2] != _SOT:
        following = min(end, position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big")))
        if data[position : position + 2] == _COM and not data[position + 6 : following].startswith(_BANNERS):
            yield Part("jp2c", start, position, Fate.UNDERSTOOD)
            yield Part("comment", position, following, Fate.LOST)
            start = following
        position = following
    stop = _end_of_tiles(data, position, end)
    yield Part("jp2c", start, stop, Fate.UNDERSTOOD)
    yield from behind(data[:end], stop, Fate.LOST)


def with_alpha(data: bytes) -> bytes:
    """Return a newly written JP2 file that says of its last channel that it is alpha (I.5.3.6)."""
    start, body, end = next((start, body, end) for kind, start, body, end in boxes(data, 0, len(data)) if kind == b"jp2h")
    count = next(int.from_bytes(data[at + 8 : at + 10], "big") for kind, _, at, _ in boxes(data, body, end) if kind == b"ihdr")
    channels = [(number, 0, number + 1) for number in range(count - 1)] + [(count - 1, 1, 0)]
    told = struct.pack(f">I4sH{3 * count}H", 10 + 6 * count, b"cdef", count, *(each for one in channels for each in one))
    return data[:start] + struct.pack(">I", end - start + len(told)) + data[start + 4 : end] + told + data[end:]


def _end_of_tiles(data: bytes, position: int, end: int) -> int:
    """Return the end of a codestream whose tile parts begin at ``position``: behind its mark, else ``end``."""
    while position + 12 <= end and data[position : position + 2] == _SOT:
        size = int.from_bytes(data[position + 6 : position + 10], "big")
        if size < 14:  # 0: the last goes on to the mark
            break
        position += size
    return position + 2 if data[position : position + 2] == _EOC and position + 2 <= end else end
