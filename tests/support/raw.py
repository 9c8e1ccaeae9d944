"""A camera raw file, put together by hand: a sensor's values, and a JPEG as its preview."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
"""Of the sensor."""

Tag = tuple[int, str, tuple[int, ...]]


def dng(preview: bytes | None, *, orientation: int = 1) -> bytes:
    """Return a DNG (Adobe, DNG 1.7; TIFF 6.0, 2), with a JPEG in a directory of its own unless ``preview`` is None."""
    sensor = (np.arange(WIDTH * HEIGHT) % 4000 + 100).astype("<u2").tobytes()
    at = 8 + len(_directory(_sensor(0, 0, orientation), 8))
    inner = b"" if preview is None else _directory(_preview(preview, 0), at)
    pixels = at + len(inner)
    if preview is not None:
        inner = _directory(_preview(preview, pixels + len(sensor)), at)
    outer = _directory(_sensor(pixels, 0 if preview is None else at, orientation), 8)
    return b"II*\0" + struct.pack("<I", 8) + outer + inner + sensor + (preview or b"")


def _sensor(pixels: int, inner: int, orientation: int) -> list[Tag]:
    unit = tuple(number for row in np.eye(3, dtype=int).ravel().tolist() for number in (row, 1))
    return [
        (254, "I", (0,)), (256, "I", (WIDTH,)), (257, "I", (HEIGHT,)), (258, "H", (16,)), (259, "H", (1,)),
        (262, "H", (32803,)), (273, "I", (pixels,)), (274, "H", (orientation,)), (277, "H", (1,)), (278, "I", (HEIGHT,)),
        (279, "I", (2 * WIDTH * HEIGHT,)), (284, "H", (1,)), *([(330, "I", (inner,))] if inner else [(331, "I", (0,))]),
        (33421, "H", (2, 2)), (33422, "B", (0, 1, 1, 2)), (50706, "B", (1, 4, 0, 0)), (50708, "B", tuple(b"Test\0")),
        (50714, "H", (0,)), (50717, "H", (4095,)), (50721, "ii", unit), (50728, "II", (1, 1) * 3),
    ]  # fmt: skip


def _preview(jpeg: bytes, at: int) -> list[Tag]:
    width, height = Image.open(BytesIO(jpeg)).size
    return [
        (254, "I", (1,)), (256, "I", (width,)), (257, "I", (height,)), (258, "H", (8, 8, 8)), (259, "H", (7,)),
        (262, "H", (6,)), (273, "I", (at,)), (277, "H", (3,)), (278, "I", (height,)), (279, "I", (len(jpeg),)),
        (284, "H", (1,)),
    ]  # fmt: skip


def _directory(tags: list[Tag], at: int) -> bytes:
    """Return a directory that stands at an offset, with the values that do not fit into its entries behind it."""
    kinds = {"B": 1, "H": 3, "I": 4, "II": 5, "ii": 10}
    entries, behind, start = struct.pack("<H", len(tags)), b"", at + 2 + 12 * len(tags) + 4
    for number, letters, values in tags:
        packed = struct.pack(f"<{len(values)}{letters[0]}", *values)
        entries += struct.pack("<HHI", number, kinds[letters], len(values) // len(letters))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", start + len(behind))
            behind += packed + bytes(len(packed) % 2)
    return entries + bytes(4) + behind
