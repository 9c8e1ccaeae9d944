"""The index of the pictures behind a JPEG's first one: previews, gain maps, other views. It tells where they are in the file.

Source: CIPA DC-007 (Multi-Picture Format), 5.2.2 (offsets count from the index's own header) and 5.2.3 (entries).
"""

from __future__ import annotations

import struct

_ENTRIES = 0xB002
_UNDEFINED = 7
_ENTRY = 16
HEADER = 8
"""Bytes of a segment before the header that offsets count from: marker, length, and the signature."""


def loosened(segment: bytes, start: int, end: int, size: int) -> bytes | None:
    """Return a segment that stands at ``start`` with offsets that count from ``end``, where the file's first picture ends.

    None where it is damaged, or tells of a picture that is not wholly between there and the file's ``size``.
    """
    try:
        order, at, count = _table(segment)
        changed = bytearray(segment)
        for index in range(1, count):
            length, offset = struct.unpack_from(order + "II", segment, at + _ENTRY * index + 4)
            place = start + HEADER + offset - end
            if place < 0 or end + place + length > size:
                return None
            struct.pack_into(order + "I", changed, at + _ENTRY * index + 8, place)
        same = _table(bytes(changed)) == (order, at, count)  # else its entries and its directory are one another
    except (struct.error, ValueError):
        return None
    return bytes(changed) if same else None


def fastened(segment: bytes, start: int, end: int) -> bytes:
    """Return a loosened segment for a file in which it stands at ``start`` and the first picture ends at ``end``.

    As it is where it is none.
    """
    changed = bytearray(segment)
    try:
        order, at, count = _table(segment)
        struct.pack_into(order + "I", changed, at + 4, end)
        for index in range(1, count):
            (place,) = struct.unpack_from(order + "I", segment, at + _ENTRY * index + 8)
            struct.pack_into(order + "I", changed, at + _ENTRY * index + 8, end + place - start - HEADER)
    except (struct.error, ValueError):
        return segment
    return bytes(changed)


def _table(segment: bytes) -> tuple[str, int, int]:
    """Return the order of bytes, where the entries are, and how many; raises ValueError or struct.error."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(segment[HEADER : HEADER + 4])
    if order is None:
        raise ValueError("no header")
    (first,) = struct.unpack_from(order + "I", segment, HEADER + 4)
    (tags,) = struct.unpack_from(order + "H", segment, HEADER + first)
    for index in range(tags):
        tag, kind, size, value = struct.unpack_from(order + "HHII", segment, HEADER + first + 2 + 12 * index)
        if tag == _ENTRIES and kind == _UNDEFINED and size >= _ENTRY and size % _ENTRY == 0:
            if HEADER + value + size > len(segment):
                raise ValueError("its entries are cut off")
            return order, HEADER + value, size // _ENTRY
    raise ValueError("no entries")
