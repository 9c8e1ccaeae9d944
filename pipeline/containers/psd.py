"""PSD, and PSB for large pictures: five sections. Neither is ever written again, so nothing is carried.

Source: Adobe, Photoshop File Formats Specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from pipeline.containers.parts import Fate, Part, behind

PROFILE = 1039
"""The number of the resource that is the ICC profile."""
_NAMES = {1005: "density", 1028: "iptc", 1033: "thumbnail", 1036: "thumbnail", 1058: "exif", 1059: "exif", 1060: "xmp"}
CHANNELS = {0: 1, 1: 1, 2: 1, 3: 3, 4: 4, 9: 3}
"""Channels of each colour mode: bitmap, grey, indexed, RGB, CMYK, Lab."""


def is_large(data: bytes) -> bool:
    """Return whether a file is a PSB, whose lengths of layers and of packed lines are twice as wide."""
    return data[4:6] == b"\0\2"


def sections(data: bytes) -> tuple[int, int, int, int]:
    """Return where the image resources, the layers, what is in these, and the pixels begin."""
    (palette,) = struct.unpack_from(">I", data, 26)
    resources = 30 + palette
    layers = resources + 4 + struct.unpack_from(">I", data, resources)[0]
    length = ">Q" if is_large(data) else ">I"
    inside = layers + struct.calcsize(length)
    return resources, layers, inside, inside + struct.unpack_from(length, data, layers)[0]


def is_flat(data: bytes) -> bool:
    """Return whether a PSD has no layers and no channels but its mode's own."""
    channels, mode = struct.unpack_from(">H", data, 12)[0], struct.unpack_from(">H", data, 24)[0]
    _, _, inside, pixels = sections(data)
    return bool(channels == CHANNELS.get(mode) and not any(data[inside:pixels]))


def is_whole(data: bytes) -> bool:
    """Return whether all pixels of a PSD are there, plain or in runs."""
    return end_of_pixels(data) <= len(data)


def end_of_pixels(data: bytes) -> int:
    """Return where the pixels of a PSD end, plain or in runs; its header, of packed ones, tells no more than the file's end."""
    channels, height, width, depth = struct.unpack_from(">HIIH", data, 12)
    *_, start = sections(data)
    (compression,) = struct.unpack_from(">H", data, start)
    size = channels * height * -(-width * depth // 8)
    if compression == 1:
        told = np.frombuffer(data, ">u4" if is_large(data) else ">u2", channels * height, start + 2)
        size = told.nbytes + int(told.sum(dtype=np.int64))
    return len(data) if compression > 1 else int(start + 2 + size)


def resources(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number of each image resource, where it begins, where its content does, and where it ends."""
    position, layers, *_ = sections(data)
    position += 4
    while position + 12 <= layers:
        number, length = struct.unpack_from(">4xHB", data, position)
        at = position + 7 + length + (1 + length) % 2  # names are padded to an even length
        (size,) = struct.unpack_from(">I", data, at)
        end = min(layers, at + 4 + size + size % 2)
        yield number, position, at + 4, end
        position = end


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a PSD file, in order and without gaps."""
    start, layers, inside, pixels = sections(data)
    yield Part("header", 0, start + 4, Fate.UNDERSTOOD)
    end = start + 4
    for number, begin, _, end in resources(data):
        fate = Fate.UNDERSTOOD if number == PROFILE else Fate.LOST
        yield Part(_NAMES.get(number, "resources"), begin, end, fate)
    yield Part("padding", end, layers, Fate.UNDERSTOOD)
    layered = any(data[inside:pixels])
    yield Part("layers" if layered else "padding", layers, pixels, Fate.LOST if layered else Fate.UNDERSTOOD)
    end = min(len(data), end_of_pixels(data))
    yield Part("pixels", pixels, end, Fate.UNDERSTOOD)
    yield from behind(data, end, Fate.LOST)
