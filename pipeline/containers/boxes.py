"""Boxes, which AVIF, HEIF, JPEG 2000 and JPEG XL are made of. Source: ISO/IEC 14496-12, 4.2."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield type, start, start of the content, and end of each box between two offsets."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and body + 8 <= end:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = min(end, start + size) if size else end
        if stop < body:
            return
        yield kind, start, body, stop
        start = stop
