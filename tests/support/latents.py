"""Latents that only a writer with a fault makes."""

from __future__ import annotations

import struct
import zlib

INDEX = 19
"""Where a latent's index begins: bytes and check sum of each tile, four each."""


def tile_lengths(stream: bytes, count: int) -> list[int]:
    """Return the bytes of each of a latent's tiles."""
    return list(struct.unpack_from(f">{2 * count}I", stream, INDEX)[::2])


def sealed(head: bytes, lengths: list[int], tiles: bytes) -> bytes:
    """Return a latent with these 19 bytes of a header, an index of these lengths, and right check sums."""
    index, start = b"", 0
    for length in lengths:
        index += struct.pack(">II", length, zlib.crc32(tiles[start : start + length]))
        start += length
    return head + index + struct.pack(">I", zlib.crc32(head + index)) + tiles


def resealed(stream: bytes, count: int, position: int, value: bytes) -> bytes:
    """Return a latent of ``count`` tiles with other bytes, of its header or behind its index, and right check sums."""
    behind = INDEX + 8 * count + 4
    changed = stream[:position] + value + stream[position + len(value) :]
    return sealed(changed[:INDEX], tile_lengths(stream, count), changed[behind:])
