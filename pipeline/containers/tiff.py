"""TIFF: the tags of its one directory, and every byte that they point at.

Private tags are carried whatever they are: GeoTIFF's, GDAL's, IPTC. Source: TIFF 6.0, 2, 7 and 14; Adobe Photoshop TIFF
Technical Notes (Deflate); BigTIFF (AWare Systems).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.containers.parts import MOST_PARTS, Fate, Part, is_padding
from pipeline.core.records import Carried

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF or a BigTIFF begins, in either order of bytes."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNITS = _SIZES | {5: 4, 10: 4}
_COUNTING = {3: "H", 4: "I", 13: "I", 16: "Q"}
"""Kinds of whole numbers."""
_LAYOUT = {
    254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338, 339, 347,
    *range(512, 522), *range(529, 533),
}  # fmt: skip
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_DIRECTORIES = {_EXIF, _GPS, _INTEROPERABILITY}
_OFFSETS, _LENGTHS = {273: 279, 324: 325}, {279, 325}
DESCRIPTIVE = frozenset({
    269, 270, 271, 272, 274,  # DocumentName, ImageDescription, Make, Model, Orientation
    282, 283, 296, 305, 306, 315, 316,  # XResolution, YResolution, ResolutionUnit, Software, DateTime, Artist, HostComputer
    18246, 33432, *range(40091, 40096),  # Rating, Copyright, and what Windows notes: XPTitle to XPSubject
    _EXIF, _GPS,
})  # fmt: skip
"""Tags that describe the picture: they are read as its EXIF, and come back with that."""
_XMP, _PROFILE = 700, 34675
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _STRIPS, _ROWS, _COUNTS, _PREDICTOR = 256, 257, 258, 259, 273, 278, 279, 317
_SAMPLES, _PHOTOMETRIC, _EXTRA = 277, 262, 338
_SHORT, _LONG, _DEFLATE, _DIFFERENCES = 3, 4, 8, 2
_STRIP_BYTES, _LEVEL = 1 << 18, 6
_MOST_BYTES = (1 << 32) - (1 << 24)  # of samples: room for the directory, and for what it gets besides
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1}
_NAMED = {330: "pictures", 37724: "layers", 400: "pictures"}
"""Tags that are neither understood nor put back: further pictures, and Photoshop's layers."""


@dataclass(frozen=True)
class Tag:
    """An entry of a directory: where it stands, and its values, in the file's order of bytes."""

    number: int
    kind: int
    count: int
    start: int
    end: int
    at: int
    """Where the values are."""
    held: int
    """Bytes of the values that are there: fewer than are told of where the file ends before them."""
    data: bytes = field(repr=False)
    """The file: values are copied out of it when they are asked for, because tags may share them, and tell of all of it."""

    @property
    def values(self) -> bytes:
        """The values."""
        return self.data[self.at : self.at + self.held]


class Directory:
    """The first directory of a TIFF file, or another at ``start``.

    Raises struct.error where it is not there, ValueError where it has more tags, or one of them more numbers, than can be told.
    """

    def __init__(self, data: bytes, start: int | None = None) -> None:
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = data[2:4] in (b"+\0", b"\0+")
        self.head = 16 if self.big else 8
        if start is None:
            (start,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), data, self.head // 2)
        width, count, step = (8, "Q", 20) if self.big else (2, "H", 12)
        (number,) = struct.unpack_from(self.order + count, data, start)
        if number > MOST_PARTS:
            raise ValueError("it has more tags than can be told")
        self.start, self.end = start, start + width + number * step + (8 if self.big else 4)
        self.tags = [self._tag(data, start + width + index * step, step) for index in range(number)]
        self._counting = {tag.number: tag for tag in reversed(self.tags) if tag.kind in _COUNTING}

    def _tag(self, data: bytes, start: int, step: int) -> Tag:
        number, kind, count = struct.unpack_from(self.order + ("HHQ" if self.big else "HHI"), data, start)
        size, field = _SIZES.get(kind, 1) * count, start + step - (8 if self.big else 4)
        at = field
        if size > (8 if self.big else 4):
            (at,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), data, field)
        return Tag(number, kind, count, start, start + step, at, max(0, min(size, len(data) - at)), data)

    def numbers(self, number: int) -> list[int]:
        """Return the values of a tag of whole numbers; none where it is not there."""
        tag = self._counting.get(number)
        if tag is None:
            return []
        if tag.count > MOST_PARTS:
            raise ValueError("a tag has more numbers than can be told")
        return list(struct.unpack_from(f"{self.order}{tag.count}{_COUNTING[tag.kind]}", tag.values))


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a TIFF file of one picture, in order and without gaps."""
    directory = Directory(data)
    found = [Part("header", 0, directory.head, Fate.UNDERSTOOD), *islice(_directory(data, directory), MOST_PARTS + 1)]
    if len(found) > MOST_PARTS:
        raise ValueError("it has more parts than can be told")
    end = 0
    for part in sorted(found, key=lambda part: (part.start, part.end)):
        if part.start > end:
            padding = is_padding(data[end : part.start])
            yield Part("padding" if padding else "stray", end, part.start, Fate.UNDERSTOOD if padding else Fate.LOST)
        yield part
        end = max(end, part.end)
    if end < len(data):
        padding = is_padding(data[end:])
        yield Part("padding" if padding else "stray", end, len(data), Fate.UNDERSTOOD if padding else Fate.LOST)


def _directory(data: bytes, directory: Directory) -> Iterator[Part]:
    yield Part("directory", directory.start, directory.start + (8 if directory.big else 2), Fate.UNDERSTOOD)
    hidden, left = _has_hidden_channels(directory), len(data)
    for tag in directory.tags:
        name, fate = ("channels", Fate.LOST) if hidden and tag.number == _SAMPLES else _named(tag)
        left -= tag.held if fate is Fate.CARRIED else 0
        if left < 0:
            raise ValueError("its tags tell of more bytes than it has")
        yield Part(name, tag.start, tag.end, fate, _stored(directory.order, tag) if fate is Fate.CARRIED else None)
        if not tag.start <= tag.at < tag.end:
            yield Part("values", tag.at, min(len(data), tag.at + tag.held), Fate.UNDERSTOOD)
    for number, lengths in _OFFSETS.items():
        for start, length in zip(directory.numbers(number), directory.numbers(lengths), strict=False):
            yield Part("pixels", start, min(len(data), start + length), Fate.UNDERSTOOD)
    for start in (start for number in sorted(_DIRECTORIES) for start in directory.numbers(number)[:1]):
        inner = Directory(data, start)
        yield Part("directory", inner.start, inner.end, Fate.UNDERSTOOD)
        for tag in inner.tags:
            yield Part("values", tag.at, min(len(data), tag.at + tag.held), Fate.UNDERSTOOD)
        for place in inner.numbers(_INTEROPERABILITY)[:1]:
            further = Directory(data, place)
            yield Part("interoperability", further.start, further.end, Fate.LOST)
    yield Part("directory", directory.end - (8 if directory.big else 4), directory.end, Fate.UNDERSTOOD)


def _named(tag: Tag) -> tuple[str, Fate]:
    if tag.number in _LAYOUT or tag.number in DESCRIPTIVE or tag.number in (_XMP, _PROFILE):
        return f"tag-{tag.number}", Fate.UNDERSTOOD
    whole = tag.kind in _SIZES and tag.held == _SIZES[tag.kind] * tag.count
    if tag.number in _NAMED or not whole or tag.kind in (13, 16, 17, 18):
        return _NAMED.get(tag.number, f"tag-{tag.number}"), Fate.LOST
    return f"tag-{tag.number}", Fate.CARRIED


def _has_hidden_channels(directory: Directory) -> bool:
    """Return whether there are channels that are neither colour nor the one alpha."""
    colours = _COLOURS.get((directory.numbers(_PHOTOMETRIC) or [-1])[0])
    samples, extra = (directory.numbers(_SAMPLES) or [1])[0], directory.numbers(_EXTRA)
    return colours is not None and samples > colours + (1 if extra[:1] in ([1], [2]) else 0)


def _stored(order: str, tag: Tag) -> bytes:
    """Return a tag as it is carried: number, kind, count and values, little-endian."""
    return struct.pack("<HHI", tag.number, tag.kind, tag.count) + _swapped(tag.values, tag.kind, order)


def _swapped(values: bytes, kind: int, order: str) -> bytes:
    unit = _UNITS[kind]
    if order == "<" or unit == 1:
        return values
    return b"".join(values[at : at + unit][::-1] for at in range(0, len(values), unit))


def put_back(data: bytes, carried: Sequence[Carried]) -> bytes:
    """Return a newly written TIFF (not BigTIFF) with a directory of its own tags and those that its source had, at the end."""
    directory = Directory(data)
    order = directory.order
    entries = {tag.number: data[tag.start : tag.end] for tag in directory.tags}
    added = {struct.unpack_from("<H", part.data)[0]: part.data for part in carried}
    start = len(data) + len(data) % 2
    end = start + 2 + 12 * len(entries.keys() | added.keys()) + 4
    outside = b""
    for number, stored in added.items():
        _, kind, count = struct.unpack_from("<HHI", stored)
        field = values = _swapped(stored[8:], kind, order)
        if len(values) > 4:
            field = struct.pack(order + "I", end + len(outside))
            outside += values + bytes(len(values) % 2)
        entries[number] = struct.pack(order + "HHI", number, kind, count) + field.ljust(4, b"\0")
    table = struct.pack(order + "H", len(entries)) + b"".join(entries[number] for number in sorted(entries)) + bytes(4)
    before = bytearray(data.ljust(start, b"\0"))
    before[4:8] = struct.pack(order + "I", start)
    before[directory.start : directory.end] = bytes(directory.end - directory.start)
    return bytes(before) + table + outside


def with_samples(data: bytes, samples: NDArray[np.uint16]) -> bytes:
    """Return a newly written TIFF (not BigTIFF) with samples (H, W) or (H, W, C) instead of its own C, and all else as it is.

    They are compressed by Deflate, as differences along rows. Raises OverflowError where the file would have 4 GiB or more.
    """
    directory = Directory(data)
    order = directory.order
    height, width, *channels = samples.shape
    rows = max(1, _STRIP_BYTES // max(1, samples[:1].nbytes))
    found, places, lengths = [data, bytes(len(data) % 2)], list[int](), list[int]()
    end = len(data) + len(data) % 2
    for top in range(0, height, rows):
        differences = samples[top : top + rows].astype(order + "u2")
        differences[:, 1:] -= differences[:, :-1].copy()
        strip = zlib.compress(differences.tobytes(), _LEVEL)
        found += (strip, bytes(len(strip) % 2))
        places.append(end)
        lengths.append(len(strip))
        end += len(strip) + len(strip) % 2
    if end >= _MOST_BYTES:
        raise OverflowError("it would have 4 GiB or more")
    tags = [
        (_WIDTH, _LONG, [width]), (_LENGTH, _LONG, [height]), (_BITS, _SHORT, [16] * (channels[0] if channels else 1)),
        (_COMPRESSION, _SHORT, [_DEFLATE]), (_STRIPS, _LONG, places), (_ROWS, _LONG, [rows]), (_COUNTS, _LONG, lengths),
        (_PREDICTOR, _SHORT, [_DIFFERENCES]),
    ]  # fmt: skip
    found[0] = _blanked(data, directory, {number for number, _, _ in tags})
    return put_back(b"".join(found), [_tag(*tag) for tag in tags])


def _blanked(data: bytes, directory: Directory, numbers: set[int]) -> bytes:
    """Return a TIFF without its samples, and without the values of some of its tags that stand outside of the directory."""
    blank = bytearray(data)
    spans = list(zip(directory.numbers(_STRIPS), directory.numbers(_COUNTS), strict=True))
    spans += [(tag.at, tag.held) for tag in directory.tags if tag.number in numbers]
    for start, length in spans:
        blank[start : start + length] = bytes(length)
    return bytes(blank)


def _tag(number: int, kind: int, values: Sequence[int]) -> Carried:
    letter = "H" if kind == _SHORT else "I"
    return Carried(name=f"tag-{number}", data=struct.pack(f"<HHI{len(values)}{letter}", number, kind, len(values), *values))
