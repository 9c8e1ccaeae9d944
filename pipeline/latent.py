"""The latent <-> bytes. Its coding here is the detail layer: what the restore from the LR misses, as a lossy JPEG XL.

    magic  version  height  width  tile  distance  | bytes of each tile | tiles, row by row | CRC-32 of all before it
    4s     u8       u32     u32    u32   f32       | u32 each           |                   | u32         (big-endian)

A tile of no bytes has nothing to add to the restore. Tiles bound the memory whatever the size of the image.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from pipeline.codecs import decode_jxl, encode_jxl_lossy
from pipeline.errors import DamagedLatent, UndecodableImage
from pipeline.records import Pixels, Size

TILE = 2048
"""Pixels along a tile's side: some 100 MB while one is coded; a seam every 2048 pixels costs nothing that can be measured."""

DISTANCE = 1.0
"""JPEG XL's Butteraugli distance of the detail. Measured on the eight samples, halved by bicubic: 0.5 to 2 bits per pixel take
25-35 dB to 39-44 dB."""

EFFORT = 3
"""JPEG XL's effort: 30-45 MPix/s on one core, and smaller than effort 1 by a tenth; decoding 50-70."""

_MAGIC = b"\x8aDTL"
_VERSION = 1
_HEADER = struct.Struct(">4sBIIIf")
_CRC = struct.Struct(">I")
_MIDDLE = 128


def encode(image: Pixels, restored: Pixels, *, distance: float = DISTANCE, tile: int = TILE) -> bytes:
    """Code what ``restored`` misses of ``image``, both uint8 (H, W, 3); the same pixels give the same bytes.

    Each tile is decoded again and left out where it would not bring the restore closer, so a latent never makes one worse.
    ``distance`` is Butteraugli's, 0.01 to 25. Raises ValueError where shapes differ or are not (H, W, 3).
    """
    _check_shape(image, "image")
    if restored.shape != image.shape:
        raise ValueError(f"the restore is {restored.shape}, the image {image.shape}; both must have one shape")
    height, width = image.shape[:2]
    tiles = []
    for window in _windows((height, width), tile):
        wanted = _difference(image[window], restored[window])
        tiles.append(_encode_tile(wanted, distance) if wanted.any() else b"")
    lengths = struct.pack(f">{len(tiles)}I", *map(len, tiles))
    stream = b"".join((_HEADER.pack(_MAGIC, _VERSION, height, width, tile, distance), lengths, *tiles))
    return stream + _CRC.pack(zlib.crc32(stream))


def apply(latent: bytes, restored: Pixels) -> Pixels:
    """Return ``restored``, uint8 (H, W, 3), with the detail of ``latent`` added, as a new array.

    Raises DamagedLatent where a byte of the stream is wrong or missing, ValueError where it is of another size.
    """
    _check_shape(restored, "restore")
    (height, width), tile, tiles = _parse(latent)
    if restored.shape[:2] != (height, width):
        raise ValueError(
            f"the latent is of {width} x {height} pixels, the restore has {restored.shape[1]} x {restored.shape[0]}; "
            "restore at the original size to use it"
        )
    image = np.empty_like(restored, order="C")
    for window, payload in zip(_windows((height, width), tile), tiles, strict=True):
        image[window] = _add(restored[window], _decode_tile(bytes(payload))) if payload else restored[window]
    return image


def _parse(latent: bytes) -> tuple[Size, int, list[memoryview]]:
    """Check a stream as a whole; return the image's size, the tile's side and the bytes of the tiles."""
    if not latent.startswith(_MAGIC):
        raise DamagedLatent("it does not begin as one")
    body, found = memoryview(latent)[: -_CRC.size], latent[-_CRC.size :]
    if len(latent) < _HEADER.size + _CRC.size or found != _CRC.pack(zlib.crc32(body)):
        raise DamagedLatent(f"its {len(latent)} bytes do not have the check sum that they end with")
    _, version, height, width, tile, _ = _HEADER.unpack_from(body)
    if version != _VERSION:
        raise DamagedLatent(f"version {version} of its coding was found, this program reads {_VERSION}")
    count = math.ceil(height / tile) * math.ceil(width / tile) if tile else 0
    start = _HEADER.size + 4 * count
    if not count or len(body) < start:
        raise DamagedLatent(f"no tiles of {tile} pixels make up {width} x {height}")
    tiles = []
    for length in struct.unpack_from(f">{count}I", body, _HEADER.size):
        tiles.append(body[start : start + length])
        start += length
    if start != len(body):
        raise DamagedLatent(f"its tiles have {start} bytes, {len(body)} are there")
    return (height, width), tile, tiles


def _windows(size: Size, tile: int) -> Iterator[tuple[slice, slice]]:
    """Yield the tiles of an image of ``size``, row by row; those at the far edges are smaller."""
    for top in range(0, size[0], tile):
        for left in range(0, size[1], tile):
            yield slice(top, min(top + tile, size[0])), slice(left, min(left + tile, size[1]))


def _encode_tile(wanted: np.ndarray[tuple[int, ...], np.dtype[np.int16]], distance: float) -> bytes:
    """Code the difference int16 (h, w, 3); nothing where the coding would be further from it than zero is."""
    coded = np.clip(wanted + _MIDDLE, 0, 255).astype(np.uint8)
    payload = encode_jxl_lossy(coded, distance=distance, effort=EFFORT)
    left = _difference(_decode_tile(payload), coded)
    left += np.clip(wanted, -_MIDDLE, 255 - _MIDDLE) - wanted  # what the eight bits of the detail cannot hold
    return payload if _energy(left) < _energy(wanted) else b""


def _decode_tile(payload: bytes) -> Pixels:
    try:
        return decode_jxl(payload)
    except UndecodableImage as error:
        raise DamagedLatent(error.detail) from None


def _add(restored: Pixels, detail: Pixels) -> Pixels:
    if detail.shape != restored.shape:
        raise DamagedLatent(f"a tile is {detail.shape}, {restored.shape} was expected")
    total = restored.astype(np.int16)
    total += detail
    total -= _MIDDLE
    return np.clip(total, 0, 255, out=total).astype(np.uint8)


def _difference(one: Pixels, other: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.subtract(one, other, dtype=np.int16)


def _energy(values: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> int:
    """Return the sum of squares, without a wider copy of the whole tile."""
    return sum(int(np.square(row, dtype=np.int32).sum(dtype=np.int64)) for row in values)


def _check_shape(pixels: Pixels, name: str) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype != np.uint8:
        raise ValueError(f"the {name} is {pixels.dtype} {pixels.shape}; uint8 (height, width, 3) was expected")
