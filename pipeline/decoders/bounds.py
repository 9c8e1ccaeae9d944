"""Files that would cost their decoders far more than their bytes and pixels, told by their containers before they are decoded.

Source: ITU-T T.81, G.1.1.1 (scans of a progressive JPEG); ISO/IEC 23008-12, 6.5.5 and 6.9 (what describes a picture).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from pipeline.containers import avif, jpeg, png
from pipeline.containers.parts import MOST_PARTS
from pipeline.containers.tiff import SIGNATURES, Directory
from pipeline.core.errors import ImageTooLarge, UndecodableImage, UnsupportedImage
from pipeline.decoders import headers

MOST_SCANS = 500
"""Of a JPEG. Progressive ones have some 10; each is a pass over all pixels, even of 10 bytes: 0.15 ms a megapixel."""

MOST_ITEMS = 1000
"""Of an AVIF or HEIF file; libheif takes as many. libavif looks at all of them for each: 60,000 take it more than 15 s."""

MOST_ENTRIES = 300
"""Of an ICO or ICNS. Their pictures are told by size and depth, some 30; each is looked into before the icon is opened."""

MOST_REPEATED = 1 << 28
"""Bytes of metadata and profiles that the pictures of a HEIF file may have together, each with its own copy."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323
_JPEG, _PNG, _FILE_TYPE = b"\xff\xd8\xff", b"\x89PNG", b"ftyp"


def check_size(size: Sequence[Any], pixel_limit: int) -> None:
    """Refuse a picture of so much width and height: raises UndecodableImage where it is empty, ImageTooLarge."""
    width, height = size
    if min(width, height) < 1:
        raise UndecodableImage("its header tells no size")
    if width * height > pixel_limit:
        raise ImageTooLarge(width, height, pixel_limit)


def check(data: bytes) -> None:
    """Refuse a file of so many parts, or passes over its pixels, that its decoder would take minutes, or copy it many times.

    Raises UnsupportedImage, and UndecodableImage where that cannot be told.
    """
    if data.startswith(_JPEG):
        scans, others = jpeg.effort(data)
        if scans > MOST_SCANS or others > MOST_PARTS:
            raise UnsupportedImage(f"it is a JPEG of {scans} scans and {others} segments")
    elif data.startswith(_PNG):
        if len(list(islice(png.chunks(data), MOST_PARTS + 1))) > MOST_PARTS:
            raise UnsupportedImage(f"it is a PNG of more than {MOST_PARTS} chunks")
    elif len(list(islice(headers.icon_entries(data), MOST_ENTRIES + 1))) > MOST_ENTRIES:
        raise UnsupportedImage(f"it is an icon of more than {MOST_ENTRIES} pictures")
    elif data[4:8] == _FILE_TYPE:
        try:
            count, repeated = avif.effort(data)
        except (struct.error, IndexError, ValueError) as error:
            raise UndecodableImage(f"its items cannot be told: {error}") from error
        if count > MOST_ITEMS or repeated > MOST_REPEATED:
            raise UnsupportedImage(f"it has {count} items, with {repeated} bytes of metadata and profiles")


def check_tiles(data: bytes, pixel_limit: int) -> None:
    """Refuse a TIFF of tiles larger than pictures may be, for which decoders make room; raises what ``check_size`` does."""
    with suppress(struct.error, IndexError, ValueError, OverflowError):
        if data.startswith(SIGNATURES):
            numbers = Directory(data).numbers
            check_size([max([1, *numbers(tag)[:1]]) for tag in (_TILE_WIDTH, _TILE_LENGTH)], pixel_limit)
