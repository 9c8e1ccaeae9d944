"""PNG: chunks, and where the pixels' stream ends. Source: W3C PNG (third edition), 4.9, 8.1, 10 and 11; Extensions 1.5."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pipeline.containers.parts import MOST_PARTS, Fate, Part, behind, trailers, word
from pipeline.core.records import Carried

_HEAD = 8
_EMPTY = 12  # bytes of a chunk without content
_UNDERSTOOD = {b"IHDR", b"tRNS", b"IDAT", b"IEND", b"iCCP", b"eXIf", b"iDOT"}  # iDOT: where rows begin, for Apple
_CARRIED = {b"cICP", b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI", b"tIME", b"sTER", b"oFFs", b"pCAL", b"sCAL"}
_SINGLE = {b"eXIf": "second-exif", b"iCCP": "second-profile"}
_BY_COLOUR_TYPE = {b"bKGD", b"sBIT"}  # whose meaning hangs on colour type and depth
_XMP = b"XML:com.adobe.xmp\0"
_RAW_EXIF = b"Raw profile type exif\0"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of each colour type."""
_INDEXED = 3
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The passes of a picture: where each begins, and its steps, across and down."""
_PIECE = 1 << 16  # bytes of the stream at a time, and 16 times as many of pixels


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of each chunk, up to and with IEND."""
    position, kind = _HEAD, b""
    while kind != b"IEND" and position + 8 <= len(data):
        end = min(len(data), position + 12 + int.from_bytes(data[position : position + 4], "big"))
        kind = data[position + 4 : position + 8]
        yield kind, position, end
        position = end


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a PNG file, in order and without gaps."""
    found = list(islice(chunks(data), MOST_PARTS + 1))
    if len(found) > MOST_PARTS:
        raise ValueError("it has more chunks than can be told")
    kinds = {kind for kind, _, _ in found}
    same = data[24] in (8, 16) and data[25] != 3 and b"tRNS" not in kinds  # no palette: written so again
    packets = {start for kind, start, _ in found if kind == b"iTXt" and data.startswith(_XMP, start + 8)}
    read = max(packets, default=None)
    last = {kind: start for kind, start, _ in found}
    coded = [(start, end) for kind, start, end in found if kind == b"IDAT"]
    surplus = coded[-1:] if coded and not _is_all_pixels(data, coded) else []
    yield Part("signature", 0, _HEAD, Fate.UNDERSTOOD)
    end = _HEAD
    for kind, start, end in found:
        name = word(kind)
        raw_exif = b"eXIf" not in kinds and data.startswith(_RAW_EXIF, start + 8)
        if (kind == b"IEND" and end > start + _EMPTY) or (start, end) in surplus:
            yield Part(name, start, end, Fate.LOST)
        elif kind == b"PLTE":  # which only suggests where the pixels do not look their colours up
            yield Part(name, start, end, Fate.UNDERSTOOD if data[25] == _INDEXED else Fate.LOST)
        elif start in packets and start != read:
            yield Part("second-xmp", start, end, Fate.LOST)
        elif kind in _SINGLE and start != last[kind]:
            yield Part(_SINGLE[kind], start, end, Fate.LOST)
        elif kind in _UNDERSTOOD or start == read or raw_exif:
            yield Part("eXIf" if raw_exif else name, start, end, Fate.UNDERSTOOD)
        elif kind in _CARRIED or (kind in _BY_COLOUR_TYPE and same) or (kind[:1].islower() and kind[3:].islower()):
            yield Part(name, start, end, Fate.CARRIED)
        else:  # by its name it is not to be copied where the pixels are others: offsets, signatures, frames
            yield Part(name, start, end, Fate.LOST)
    yield from behind(data, end, Fate.CARRIED)


def _is_all_pixels(data: bytes, coded: Iterable[tuple[int, int]]) -> bool:
    """Return whether the chunks at some places hold one sound stream of as many bytes as the header asks for, and no more."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    left = sum(
        rows * (1 + -(-columns * depth * _CHANNELS.get(colour, 0) // 8))
        for x, y, across, down in (_ADAM7 if interlaced else _WHOLE)
        if (columns := -(-(width - x) // across)) > 0 and (rows := -(-(height - y) // down)) > 0
    )
    stream = zlib.decompressobj()
    for piece in (data[at : min(at + _PIECE, end - 4)] for start, end in coded for at in range(start + 8, end - 4, _PIECE)):
        rest = piece
        while rest and not stream.eof and left >= 0:
            try:
                left -= len(stream.decompress(rest, 16 * _PIECE))
            except zlib.error:
                return False
            rest = stream.unconsumed_tail
        if left < 0 or rest or stream.unused_data:
            return False
    return True


def put_back(data: bytes, carried: Sequence[Carried]) -> bytes:
    """Return a newly written PNG with chunks and trailer that its source had, the chunks behind its header."""
    (_, _, head), *_ = chunks(data)
    return b"".join((data[:head], *(part.data for part in carried if part.name != "trailer"), data[head:], trailers(carried)))


def with_samples_of(data: bytes, other: bytes) -> bytes:
    """Return a PNG with the header and the samples of ``other``, which has the same colour type, and all else of its own."""
    taken = [(kind, other[start:end]) for kind, start, end in chunks(other) if kind in (b"IHDR", b"IDAT")]
    (_, header), *samples = taken
    found = [data[:_HEAD], header]
    for kind, start, end in chunks(data):
        if kind == b"IDAT":
            found += (chunk for _, chunk in samples)
            samples = []
        elif kind != b"IHDR":
            found.append(data[start:end])
    return b"".join(found)
