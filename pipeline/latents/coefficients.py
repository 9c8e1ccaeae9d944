"""A difference of two images <-> coefficients: an orthonormal colour transform and the 8 x 8 DCT (ISO/IEC 10918-1, A.3.3).

    difference (h, w, 3) -> coefficients (3, 8, 8, n, m): colour, row and column of frequency, row and column of block

Both are orthonormal, so that a squared error is the same on either side. Coefficients are in levels of 8 bits, whatever the
depth of the images: a difference of 16-bit ones has 257 ``levels`` of its own in one. The way back computes with whole numbers
that float64 holds exactly, in whatever order they are added: every machine finds the same pixels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 8
"""Pixels along a block's side."""

COLOURS = 3
FRACTION = 64
"""What coefficients given to :func:`to_difference` are multiples of: the 64th part of an 8-bit level."""

LARGEST = 2**12 * FRACTION
"""The largest of them: no difference of two images has larger ones, and sums of the way back stay below 2^53."""

DEEP_LEVELS = 257
"""Levels of 16 bits in one of 8."""

_STRIP_BLOCKS = 512
_MOST = 2**14  # 8-bit levels of a difference: far above all, so that what adds to it cannot wrap

_UNIT = 2**13
"""What 1 is in the matrices of the way back."""

_LUMA = 1 / np.sqrt(3)
_COLOUR = np.array([[_LUMA] * 3, [np.sqrt(0.5), 0, -np.sqrt(0.5)], [np.sqrt(1 / 6), -np.sqrt(2 / 3), np.sqrt(1 / 6)]])
"""Rows: the mean of red, green and blue; red against blue; green against both."""


def block_grid(height: int, width: int) -> tuple[int, int]:
    """Return how many blocks, down and across, cover an image."""
    return -(-height // BLOCK), -(-width // BLOCK)


def to_coefficients(difference: NDArray[np.signedinteger[Any]], *, levels: int = 1) -> NDArray[np.float32]:
    """Return the coefficients (3, 8, 8, n, m) of a difference (h, w, 3); last lines repeat to fill the blocks."""
    height, width = difference.shape[:2]
    n, m = block_grid(height, width)
    padded = np.pad(difference, ((0, n * BLOCK - height), (0, m * BLOCK - width), (0, 0)), mode="edge")
    dct, colour = _dct().astype(np.float32), (_COLOUR / levels).astype(np.float32)
    x = padded.astype(np.float32).reshape(-1, COLOURS) @ colour.T
    x = x.reshape(n, BLOCK, m, BLOCK, COLOURS).transpose(4, 1, 0, 2, 3).reshape(-1, BLOCK) @ dct.T
    x = x.reshape(COLOURS, BLOCK, n, m, BLOCK).transpose(0, 4, 2, 3, 1).reshape(-1, BLOCK) @ dct.T
    return np.ascontiguousarray(x.reshape(COLOURS, BLOCK, n, m, BLOCK).transpose(0, 4, 1, 2, 3))


def to_difference(
    coefficients: NDArray[np.signedinteger[Any]], height: int, width: int, *, levels: int = 1
) -> NDArray[np.int16] | NDArray[np.int32]:
    """Return the difference (h, w, 3), in whole levels of its own, int16 where these are those of 8 bits and int32 else.

    Coefficients (3, 8, 8, n, m) are in 64ths of an 8-bit level.
    """
    n, m = block_grid(height, width)
    dct, colour = np.rint(_dct() * _UNIT), np.rint(_COLOUR * _UNIT)
    difference = np.empty((n * BLOCK, m * BLOCK, COLOURS), np.int16 if levels == 1 else np.int32)
    rows = max(1, _STRIP_BLOCKS // m)
    for top in range(0, n, rows):  # strips that a processor's cache holds
        strip = coefficients[:, :, :, top : top + rows]
        count = strip.shape[3]
        x = strip.transpose(0, 2, 3, 4, 1).astype(np.float64, order="C").reshape(-1, BLOCK) @ dct
        x = x.reshape(COLOURS, BLOCK, count, m, BLOCK).transpose(0, 4, 2, 3, 1).reshape(-1, BLOCK) @ dct
        x = _divided(x, _UNIT).reshape(COLOURS, BLOCK, count, m, BLOCK).transpose(2, 1, 3, 4, 0).reshape(-1, COLOURS)
        x = x @ colour
        if levels == 1:
            x = _divided(x, _UNIT * _UNIT * FRACTION)
        else:
            x = _divided(x, _UNIT)
            x *= levels
            x = _divided(x, _UNIT * FRACTION)
        np.clip(x, -_MOST * levels, _MOST * levels, out=x)
        difference[top * BLOCK : (top + count) * BLOCK] = x.reshape(count * BLOCK, m * BLOCK, COLOURS)
    return difference[:height, :width]


@cache
def _dct() -> NDArray[np.float64]:
    """Return the orthonormal DCT as a matrix (frequency, position)."""
    frequency, position = np.mgrid[:BLOCK, :BLOCK]
    matrix: NDArray[np.float64] = np.cos(np.pi * frequency * (2 * position + 1) / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix


def _divided(x: NDArray[np.float64], divisor: int) -> NDArray[np.float64]:
    """Return whole numbers over a power of two, rounded (halves up): exact in float64. ``x`` is used up."""
    x *= 1 / divisor
    x += 0.5
    return np.floor(x, out=x)
