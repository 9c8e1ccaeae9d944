"""EXIF orientation: read from the bytes, and turned in or out as a view that copies nothing.

Read here and not by Pillow, whose reader warns on damaged EXIF. XMP is asked where EXIF says nothing.
Source: CIPA DC-008 (Exif 2.32), 4.5.2 and 4.6.4; Adobe XMP part 2, 3.2 (tiff:Orientation).
"""

from __future__ import annotations

import re
import struct

import numpy as np

from pipeline.core.records import Pixels

JPEG_PREFIX = b"Exif\0\0"
"""What a JPEG file puts before its EXIF block."""

_TAG = 0x0112
_SHORT, _LONG = 3, 4
_IN_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*(\d)\b")


def orientation_of(exif: bytes | None, xmp: bytes | None = None) -> int:
    """Return the orientation, 1 to 8, that an EXIF block (with or without the JPEG prefix) asks for, or XMP where it does not.

    1, which is upright, where there is none, where it is out of range, or where the block is damaged.
    """
    found = _orientation_in_exif(exif)
    if found is None and (said := _IN_XMP.search(xmp or b"")):
        found = int(said[1])
    return found if found is not None and 1 <= found <= 8 else 1


def _orientation_in_exif(exif: bytes | None) -> int | None:
    block = (exif or b"").removeprefix(JPEG_PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for index in range(count):
            entry = start + 2 + 12 * index
            tag, kind = struct.unpack_from(order + "HH", block, entry)
            if tag == _TAG and kind in (_SHORT, _LONG):
                (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, entry + 8)
                return int(value)
    except struct.error:  # an offset or a count that points outside the block
        pass
    return None


def upright(stored: Pixels, orientation: int) -> Pixels:
    """Return pixels of a file, (h, w) or (h, w, C) uint8, as a view that a viewer would show; 5 to 8 swap height and width."""
    match orientation:
        case 2:
            return stored[:, ::-1]
        case 3:
            return stored[::-1, ::-1]
        case 4:
            return stored[::-1]
        case 5:
            return stored.swapaxes(0, 1)
        case 6:
            return np.rot90(stored, -1)
        case 7:
            return stored[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return np.rot90(stored)
    return stored


def as_stored(shown: Pixels, orientation: int) -> Pixels:
    """Return upright pixels, (H, W) or (H, W, C) uint8, as a view in the file's own order: the inverse of ``upright``."""
    return upright(shown, {6: 8, 8: 6}.get(orientation, orientation))  # all others undo themselves
