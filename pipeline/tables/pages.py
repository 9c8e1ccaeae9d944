"""Where in a page of a Parquet file its one value is (parquet-format: PageHeader by Thrift's compact protocol; PLAIN)."""

from __future__ import annotations

import struct

HEAD_BYTES = 256
"""Bytes of a page in which its value begins: behind a header of some 25, and the levels."""

_LENGTH = struct.Struct("<I")
_VARINTS, _BOOLS, _BINARY, _STRUCT = (4, 5, 6), (1, 2), 8, 12  # types of fields; others are in no header of a data page


def value_start(head: bytes, size: int) -> int | None:
    """Return where the value begins in an uncompressed data page (version 1) of ``size`` bytes, of an optional column.

    ``head`` are its first bytes. Behind the header come the levels and the value, each after its length in four bytes. None
    where there is no value, or where the page is another than that.
    """
    try:
        levels = _behind_struct(head, 0)
        position = levels + _LENGTH.size + _LENGTH.unpack_from(head, levels)[0]
        length: int = _LENGTH.unpack_from(head, position)[0]
    except (IndexError, ValueError, struct.error):
        return None
    start = position + _LENGTH.size
    return start if start + length == size else None


def _behind_struct(data: bytes, position: int) -> int:
    """Return where a struct ends; raises IndexError where that is beyond the data, ValueError for a field of another type."""
    while field := data[position]:
        position += 1
        if field >> 4 == 0:  # its number follows, for it is no small step from the last one's
            position = _behind_varint(data, position)[0]
        kind = field & 15
        if kind in _VARINTS:
            position = _behind_varint(data, position)[0]
        elif kind == _BINARY:
            position, length = _behind_varint(data, position)
            position += length
        elif kind == _STRUCT:
            position = _behind_struct(data, position)
        elif kind not in _BOOLS:
            raise ValueError(f"a field of type {kind}")
    return position + 1


def _behind_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while data[position] & 128:
        value |= (data[position] & 127) << shift
        position, shift = position + 1, shift + 7
    return position + 1, value | data[position] << shift
