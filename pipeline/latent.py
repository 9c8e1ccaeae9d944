"""The latent <-> bytes. Its coding is the detail layer: what the restore from a clean LR misses, as AVIF.

    magic  version  height  width  tile  quality | bytes of each tile | tiles, row by row | CRC-32 of all before it
    4s     u8       u32     u32    u32   u8      | u32 each           |                   | u32         (big-endian)

A tile of no bytes has nothing to add to the restore. Tiles bound the memory whatever the size of the image.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from pipeline.errors import DamagedLatent, UndecodableImage, UnwritableImage
from pipeline.image import decode_detail, encode_detail
from pipeline.records import Pixels, Size

TILE = 2048
"""Pixels along a tile's side: a seam every 2048 pixels costs nothing that can be measured."""

QUALITIES = tuple(max(q for q in range(101) if ((100 - q) * 63 + 50) // 100 == step) for step in range(63, -1, -1))
"""Those of AVIF's qualities that differ: libavif has 64 quantisers, from the coarsest to the finest."""

USUAL_QUALITY, DECIBELS_PER_STEP = QUALITIES.index(75), 0.33
"""Where a search begins, and what a step usually brings: photographs of BSD100 at x2 and x4 reach 39.4 to 39.8 dB at quality
72, 42.2 to 42.5 at 84."""

STRAIGHT_TRIALS = 3
"""Trials of a search that follow a slope, before it halves what is left open."""

_MAGIC = b"\x8aDTL"
_VERSION = 2
_HEADER = struct.Struct(">4sBIIIB")
_CRC = struct.Struct(">I")
_MIDDLE = 128


def encode(image: Pixels, restored: Pixels, *, quality: int, tile: int = TILE) -> bytes:
    """Code what ``restored`` misses of ``image``, both uint8 (H, W, 3); the same pixels give the same bytes.

    Each tile is decoded again and left out where it would not bring the restore closer, so a latent never makes one worse.
    ``quality`` is AVIF's, 0 to 100. Raises ValueError where shapes differ or are not (H, W, 3).
    """
    _check_shape(image, "image")
    if restored.shape != image.shape:
        raise ValueError(f"the restore is {restored.shape}, the image {image.shape}; both must have one shape")
    height, width = image.shape[:2]
    tiles = []
    for window in _windows((height, width), tile):
        wanted = _difference(image[window], restored[window])
        tiles.append(_encode_tile(wanted, quality) if wanted.any() else b"")
    lengths = struct.pack(f">{len(tiles)}I", *map(len, tiles))
    stream = b"".join((_HEADER.pack(_MAGIC, _VERSION, height, width, tile, quality), lengths, *tiles))
    return stream + _CRC.pack(zlib.crc32(stream))


def encode_to_floor(
    image: Pixels, restored: Pixels, decibels: Callable[[Pixels], float], floor: float, *, usual: float
) -> tuple[bytes, Pixels] | None:
    """Return the coarsest latent found whose result reaches ``floor``, and that result; None where the finest does not.

    ``decibels`` says how close a result is to ``image``, the more the closer; ``usual`` is what the quality 75 brings of them.
    Some four trials, ten at most; none where ``restored`` reaches the floor itself. Where decibels do not rise with every
    quality, a coarser latent than the one found may reach the floor as well.
    """
    if decibels(restored) >= floor:
        return encode(restored, restored, quality=QUALITIES[0]), restored
    best: tuple[bytes, Pixels] | None = None
    low, high = (-1, -math.inf), (len(QUALITIES), math.inf)  # steps that miss the floor and that reach it, with their decibels
    step = USUAL_QUALITY + round((floor - usual) / DECIBELS_PER_STEP)
    trial = 0
    while high[0] - low[0] > 1:
        step = min(max(step, low[0] + 1), high[0] - 1)
        stream = encode(image, restored, quality=QUALITIES[step])
        result = apply(stream, restored)
        reached = decibels(result)
        if reached >= floor:
            best, high = (stream, result), (step, reached)
        else:
            low = (step, reached)
        trial += 1
        step = _next_step(low, high, floor) if trial < STRAIGHT_TRIALS else (low[0] + high[0]) // 2
    return best


def _next_step(low: tuple[int, float], high: tuple[int, float], floor: float) -> int:
    """Return the step where the floor should lie by the slope between what was tried, or by the usual one."""
    if math.isfinite(low[1]) and math.isfinite(high[1]):
        return low[0] + math.ceil((floor - low[1]) / (high[1] - low[1]) * (high[0] - low[0]))
    if math.isfinite(low[1]):
        return low[0] + math.ceil((floor - low[1]) / DECIBELS_PER_STEP)
    if math.isfinite(high[1]):
        return high[0] - max(1, math.floor((high[1] - floor) / DECIBELS_PER_STEP))
    return (low[0] + high[0]) // 2


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
        image[window] = _add(restored[window], bytes(payload)) if payload else restored[window]
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


def _encode_tile(wanted: np.ndarray[tuple[int, ...], np.dtype[np.int16]], quality: int) -> bytes:
    """Code the difference int16 (h, w, 3); nothing where the coding would be further from it than zero is."""
    coded = np.clip(wanted + _MIDDLE, 0, 255).astype(np.uint8)
    payload = encode_detail(coded, quality=quality)
    try:
        decoded = decode_detail(payload, size=coded.shape[:2])
    except UndecodableImage as error:
        raise UnwritableImage("AVIF", error.detail) from None
    left = _difference(decoded, coded)
    left += np.clip(wanted, -_MIDDLE, 255 - _MIDDLE) - wanted  # what the eight bits of the detail cannot hold
    return payload if _energy(left) < _energy(wanted) else b""


def _add(restored: Pixels, payload: bytes) -> Pixels:
    try:
        detail = decode_detail(payload, size=(restored.shape[0], restored.shape[1]))
    except UndecodableImage as error:
        raise DamagedLatent(f"a tile {error}") from None
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
