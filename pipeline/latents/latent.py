"""The latent <-> bytes. Its coding is the detail layer: what the restore from a clean LR misses, as quantised coefficients.

A latent is laid out as :mod:`~pipeline.latents.layout` says. ``step`` is the quantiser's, in 64ths of an 8-bit level, for
pictures of 8 bits a channel and of 16, whose restore has 16. A tile of no bytes has nothing to add to the restore; another has
six bytes that tell how much nearer to zero than their multiples of the step values of 1, 2 and more stand, in the first colour
and in the others (:mod:`~pipeline.latents.coefficients`), and what :mod:`~pipeline.latents.coder` wrote. Tiles bound the memory
whatever the size of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Pixels, Size
from pipeline.latents import coder, contexts
from pipeline.latents.coefficients import BLOCK, DEEP_LEVELS, FRACTION, LARGEST, block_grid, to_coefficients, to_difference
from pipeline.latents.layout import Window, pack, windows
from pipeline.latents.opened import OpenLatent

TILE = 512
"""Pixels along a tile's side: so are those of viewers' tiles (docs/performance.md)."""

FINEST_STEP, COARSEST_STEP = FRACTION // 2, 512 * FRACTION
"""Bounds of a search for a floor, in 64ths of a level: a finer one stores what no 8-bit picture shows."""

FINEST_DEEP_STEP = FRACTION // 8
"""The finest for 16 bits: the largest coefficient there may be is still a value that the coder takes."""

USUAL_STEP = 12 * FRACTION
"""Where a search begins for the decibels that it is told are usual."""

TRIALS = 8
"""Restores that a search for a floor measures, at most; one more where none of them reached it."""

FARTHEST = 3.0
"""Octaves between two trials of a search, at most."""

CLOSE_ENOUGH = 0.02
"""Decibels above the floor at which a search ends."""

DECIBELS_PER_OCTAVE = 4.5
"""What half the step usually brings, around 40 dB."""

LEAST_SLOPE = 0.5
"""Decibels per octave that a search believes in, at least."""

BIT_PRICE = 0.065
"""What a bit may cost, in squared errors of a step: of two values the one is taken that costs less in all. Measured with
details of BSD100 at x4, bytes at 40 and 42 dB: 0 (plain rounding below 0.63 of a step) 1, 0.04 0.98, 0.06 0.975, 0.1 0.98."""

_SHIFTS = 3  # of values 1, 2 and larger
_SHIFT_UNIT = 256

LARGEST_SHARED_TILE = 1024
"""Side of the largest tiles that are coded side by side: one of 4,096, as other writers may make them, takes some 720 MB."""

Item = TypeVar("Item")
Result = TypeVar("Result")

Difference = NDArray[np.int16] | NDArray[np.int32]


def encode(image: Pixels, restored: Pixels, *, step: int, tile: int = TILE, threads: int = 1) -> bytes:
    """Code what ``restored`` misses of ``image``, (H, W, 3), both uint8 or both uint16; equal pixels give equal bytes here.

    A tile is left out where its coding would not bring the restore closer, so a latent never makes one worse. ``step``, 32 to
    65535 and from 8 for uint16, is in 64ths of a level. Tiles are coded in so many ``threads``; more than one do not pay
    while Python runs in one at a time. Raises ValueError where the step is another, or shapes differ or are not (H, W, 3).
    """
    if not (finest := _finest(image)) <= step <= 65535:
        raise ValueError(f"step {step} was given; from {finest} to 65535 can be coded")
    return _encode(image, restored, step, tile, threads=threads)[0]


def _encode(
    image: Pixels, restored: Pixels, step: int, tile: int, *, dry: bool = False, threads: int = 1
) -> tuple[bytes, Pixels]:
    """Return a latent, without bytes where ``dry``, and what :func:`apply` makes of it."""
    _check_shape(image, "image")
    if (restored.shape, restored.dtype) != (image.shape, image.dtype):
        found, wanted = (f"{pixels.dtype} {pixels.shape}" for pixels in (restored, image))
        raise ValueError(f"the restore is {found}, the image {wanted}; both must have one shape and depth")
    height, width = image.shape[:2]
    result = np.empty_like(restored, order="C")

    def code(window: Window) -> bytes:
        payload, result[window] = _encode_tile(image[window], restored[window], step, dry=dry)
        return payload

    tiles = _side_by_side(code, list(windows((height, width), tile)), tile, threads)
    return pack(image.dtype, (height, width), tile, step, tiles), result


def encode_to_floor(
    image: Pixels, restored: Pixels, decibels: Callable[[Pixels], float], floor: float, *, usual: float
) -> tuple[bytes, Pixels] | None:
    """Return the coarsest latent found whose result reaches ``floor``, and that result; None where the finest does not.

    ``decibels`` says how close a result is to ``image``, the more the closer; ``usual`` is what a step of 12 levels brings of
    them. Five or six trials, TRIALS and one more at most; none where ``restored`` reaches the floor itself.
    """
    if decibels(restored) >= floor:
        return _encode(restored, restored, COARSEST_STEP, TILE)

    def trial(step: int) -> float:
        return decibels(_encode(image, restored, step, TILE, dry=True)[1])

    found = search_step(trial, floor, usual=usual, finest=_finest(image))
    return None if found is None else _encode(image, restored, found, TILE)


def search_step(decibels: Callable[[int], float], floor: float, *, usual: float, finest: int = FINEST_STEP) -> int | None:
    """Return the coarsest step tried whose ``decibels`` reach ``floor``, or None where the ``finest`` misses it.

    Follows the slope between the steps on either side of the floor over the steps' logarithm; while there is none, the slope
    of the two latest trials, and the usual one at first.
    """
    aim = floor + CLOSE_ENOUGH / 2
    at = math.log2(USUAL_STEP) + (usual - aim) / DECIBELS_PER_OCTAVE
    slope = DECIBELS_PER_OCTAVE
    tried: dict[int, float] = {}
    reached: tuple[float, float] | None = None  # the coarsest step that reaches the floor, and the finest that does not
    missed: tuple[float, float] | None = None
    while len(tried) < TRIALS:
        step = min(max(int(2**at), finest), COARSEST_STEP)
        if step in tried:
            break
        at, latest = math.log2(step), next(reversed(tried.items()), None)
        value = tried[step] = decibels(step)
        if latest is not None and math.isfinite(latest[1] - value):
            slope = min(max((latest[1] - value) / (at - math.log2(latest[0])), LEAST_SLOPE), DECIBELS_PER_OCTAVE)
        if value >= floor:
            reached = at, value
        else:
            missed = at, value
        if floor <= value <= floor + CLOSE_ENOUGH:
            break
        if reached and missed:
            share = (reached[1] - aim) / (reached[1] - missed[1]) if math.isfinite(reached[1]) else 0.5
            at = reached[0] + min(max(share, 0.05), 0.95) * (missed[0] - reached[0])
        else:
            at += min(max((value - aim) / slope, -FARTHEST), FARTHEST)
    if reached is None and finest not in tried and decibels(finest) >= floor:
        return finest
    return None if reached is None else round(2 ** reached[0])


def apply(latent: bytes | OpenLatent, restored: Pixels, window: Window | None = None, *, threads: int = 1) -> Pixels:
    """Return ``restored``, uint8 or uint16 (H, W, 3), with the detail of ``latent`` added, as a new array.

    Where it is but a ``window`` of the image, of these rows and columns, only the tiles that it touches are read and decoded;
    ``threads`` as for :func:`encode`. Raises DamagedLatent where a byte of these or of the index is wrong or missing,
    ValueError where it is of another size or depth.
    """
    _check_shape(restored, "restore")
    opened = latent if isinstance(latent, OpenLatent) else OpenLatent(latent)
    header = opened.header
    size = header.size
    if header.dtype != restored.dtype:
        raise ValueError(f"the latent is of another depth, {header.dtype}, than the restore, which is {restored.dtype}")
    rows, columns = window or (slice(0, size[0]), slice(0, size[1]))
    own = rows.stop - rows.start, columns.stop - columns.start
    if restored.shape[:2] != own or rows.stop > size[0] or columns.stop > size[1]:
        raise ValueError(
            f"the latent is of {size[1]} x {size[0]} pixels, the restore has {restored.shape[1]} x {restored.shape[0]}; "
            "restore at the original size to use it"
        )
    image = restored.copy()

    def add(number: int, place: Window) -> None:
        down, across = place
        shared = _shared(rows, down), _shared(columns, across)
        own = _from(shared[0], rows.start), _from(shared[1], columns.start)
        of_tile = _from(shared[0], down.start), _from(shared[1], across.start)
        size = down.stop - down.start, across.stop - across.start
        shifts, values = _decode_tile(opened.payload(number), size, header.version)
        image[own] = _add(restored[own], values, header.step, shifts, of_tile)

    opened.fetch((rows, columns))
    _side_by_side(lambda each: add(*each), opened.touched((rows, columns)), header.tile, threads)
    return image


def _side_by_side(function: Callable[[Item], Result], tiles: Sequence[Item], side: int, threads: int) -> list[Result]:
    """Return what a function gives of each tile, computed in so many threads.

    Tiles of a ``side`` above LARGEST_SHARED_TILE go one at a time, whatever was asked for.
    """
    if threads < 2 or len(tiles) < 2 or side > LARGEST_SHARED_TILE:
        return list(map(function, tiles))
    with ThreadPoolExecutor(min(threads, len(tiles)), thread_name_prefix="latent") as pool:
        return list(pool.map(function, tiles))


def _encode_tile(image: Pixels, restored: Pixels, step: int, *, dry: bool) -> tuple[bytes, Pixels]:
    """Return the bytes of a tile and what becomes of it; nothing where it would be no closer to the image than it is."""
    wanted = _difference(image, restored)
    if not wanted.any():
        return b"", restored
    coefficients = to_coefficients(wanted, levels=_levels(image))
    values, coded = _quantise(coefficients, step / FRACTION, dry=dry)
    shifts = _best_shifts(coefficients, values, step / FRACTION)
    result = _add(restored, values, step, shifts)
    if _energy(_difference(image, result)) >= _energy(wanted):
        return b"", restored
    return shifts + coded, result


def _quantise(coefficients: NDArray[np.float32], step: float, *, dry: bool) -> tuple[coder.Values, bytes]:
    """Return values, multiples of ``step``, each the cheaper of the two around its coefficient, and their bytes."""
    model, threshold = contexts.shipped(), _thresholds()
    writer = None if dry else coder.Writer(model)

    def take(found: contexts.Contexts, sites: coder.Sites) -> NDArray[np.int32]:
        wave = sites.of(coefficients) * np.float32(1 / step)
        magnitudes = np.abs(wave)
        lower = magnitudes.astype(np.int32)
        magnitudes -= lower
        at = found * np.int32(threshold.shape[1]) + np.minimum(lower, contexts.LARGEST)
        lower += magnitudes > threshold.ravel()[at]
        values = np.where(wave < 0, -lower, lower)
        if writer is not None:
            writer.put(found, values)
        return values

    values = coder.walk((coefficients.shape[3], coefficients.shape[4]), take, model)
    return values, b"" if writer is None else writer.finish()


@cache
def _thresholds() -> NDArray[np.float32]:
    """Return (context, magnitude) how far above a magnitude, in steps, the next larger value begins to pay."""
    expected = contexts.shipped().tables()
    bits = -np.log2(expected / expected.sum(axis=1, keepdims=True))[:, contexts.LARGEST :]  # 0, 1, ... LARGEST, escape
    thresholds: NDArray[np.float32] = np.clip(0.5 + BIT_PRICE * np.diff(bits, axis=1), 0.5, 0.95).astype(np.float32)
    return thresholds


def _best_shifts(coefficients: NDArray[np.float32], values: coder.Values, step: float) -> bytes:
    """Return how much nearer to zero than a value's multiple of the step its coefficients stand in the mean."""
    shifts = bytearray()
    for colours in (slice(0, 1), slice(1, None)):
        own, magnitudes = coefficients[colours], np.abs(values[colours])
        for size in range(1, _SHIFTS + 1):
            chosen = magnitudes == size if size < _SHIFTS else magnitudes >= size
            nearer = magnitudes[chosen] - np.abs(own[chosen]) / step
            mean = float(nearer.mean(dtype=np.float64)) if nearer.size else 0.0
            shifts.append(min(max(round(mean * _SHIFT_UNIT), 0), _SHIFT_UNIT - 1))
    return bytes(shifts)


def _decode_tile(payload: bytes, size: Size, version: int) -> tuple[bytes, coder.Values]:
    """Return the shifts and the values of a tile of ``size``, (height, width), of a ``version`` of the coding."""
    model = contexts.shipped(version)
    shifts, coded = payload[: 2 * _SHIFTS], payload[2 * _SHIFTS :]
    try:
        reader = coder.Reader(coded, model)
        values = coder.walk(block_grid(*size), lambda found, _: reader.get(found), model)
        whole = reader.at_end()
    except ValueError as error:
        raise DamagedLatent(f"a tile cannot be decoded: {error}") from None
    if len(shifts) < 2 * _SHIFTS or not whole:
        raise DamagedLatent(f"a tile of {len(payload)} bytes is not of {size[1]} x {size[0]} pixels")
    return shifts, values


def _add(restored: Pixels, values: coder.Values, step: int, shifts: bytes, window: Window | None = None) -> Pixels:
    """Return ``restored`` with what the values stand for; in whole numbers, so that every machine finds the same pixels.

    The values are of a tile, of which ``restored`` is a ``window``, or all.
    """
    rows, columns = window or (slice(0, restored.shape[0]), slice(0, restored.shape[1]))
    top, left = rows.start // BLOCK, columns.start // BLOCK
    values = values[..., top : block_grid(rows.stop, 1)[0], left : block_grid(1, columns.stop)[1]]
    coefficients = values.astype(np.int32)  # the largest value times the largest step is less than 2^31
    coefficients *= step
    for colours, own in ((slice(0, 1), shifts[:_SHIFTS]), (slice(1, None), shifts[_SHIFTS:])):
        nearer = [step * each // _SHIFT_UNIT for each in own]
        table = np.array([*nearer[::-1], 0, *(-each for each in nearer)], np.int32)  # for -3 and less, -2, ... 3 and more
        coefficients[colours] += table[np.clip(values[colours], -_SHIFTS, _SHIFTS) + _SHIFTS]
    np.clip(coefficients, -LARGEST, LARGEST, out=coefficients)
    down, across = _from(rows, top * BLOCK), _from(columns, left * BLOCK)
    total = to_difference(coefficients, down.stop, across.stop, levels=_levels(restored))[down, across]
    total += restored
    return np.clip(total, 0, np.iinfo(restored.dtype).max, out=total).astype(restored.dtype)


def _shared(one: slice, other: slice) -> slice:
    """Return what is in both, which touch."""
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _from(part: slice, origin: int) -> slice:
    """Return ``part`` as it is counted from ``origin``."""
    return slice(part.start - origin, part.stop - origin)


def _difference(image: Pixels, other: Pixels) -> Difference:
    return np.subtract(image, other, dtype=np.int16 if image.dtype == np.uint8 else np.int32)


def _energy(values: Difference) -> int:
    """Return the sum of squares, exactly, without a wider copy of the whole tile."""
    strips = (values[top : top + BLOCK].ravel().astype(np.float64) for top in range(0, len(values), BLOCK))
    return sum(int(strip @ strip) for strip in strips)


def _levels(pixels: Pixels) -> int:
    """Return how many of its levels an image has in one of 8 bits."""
    return 1 if pixels.dtype == np.uint8 else DEEP_LEVELS


def _finest(image: Pixels) -> int:
    return FINEST_STEP if image.dtype == np.uint8 else FINEST_DEEP_STEP


def _check_shape(pixels: Pixels, name: str) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"the {name} is {pixels.dtype} {pixels.shape}; uint8 or uint16 (height, width, 3) was expected")
