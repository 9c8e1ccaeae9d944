"""Preemptive channel splitting: what the LR will keep and what it cannot, parted before anything is learned.

One split divides both axes by two, with the Haar wavelet, or by three, with the orthonormal DCT-II of each 3 x 3 cell. The low
band is the mean of each cell, so it stays a picture in the range of its input; the high bands are orthonormal.
Source: Pan et al., "Effective Invertible Arbitrary Image Rescaling", WACV 2023, section 3.2; the split by three is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def split(x: Tensor, by: int = 2) -> tuple[Tensor, Tensor]:
    """Return the low band (B, C, h, w) and the high bands (B, C (by^2 - 1), h, w) of ``x`` (B, C, by h, by w), by 2 or 3."""
    return _split_by_two(x) if by == 2 else _split_by_three(x)


def merge(low: Tensor, high: Tensor, by: int = 2) -> Tensor:
    """Undo :func:`split`."""
    x = low.new_empty(*low.shape[:-2], by * low.shape[-2], by * low.shape[-1])  # no copy beside it: it is the largest there is
    if by == 2:
        _merge_by_two(low, high, x)
    else:
        _merge_by_three(low, high, x)
    return x


def _split_by_two(x: Tensor) -> tuple[Tensor, Tensor]:
    top_left, top_right = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    bottom_left, bottom_right = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    left, right = top_left + bottom_left, top_right + bottom_right
    rising, falling = top_left - bottom_left, top_right - bottom_right
    high = torch.cat([left - right, rising + falling, rising - falling], dim=-3) / 2
    return (left + right) / 4, high


def _merge_by_two(low: Tensor, high: Tensor, x: Tensor) -> None:
    horizontal, vertical, diagonal = (high / 2).chunk(3, dim=-3)
    left, right = low + horizontal, low - horizontal
    rising, falling = vertical + diagonal, vertical - diagonal
    x[..., 0::2, 0::2], x[..., 0::2, 1::2] = left + rising, right + falling
    x[..., 1::2, 0::2], x[..., 1::2, 1::2] = left - rising, right - falling


def _split_by_three(x: Tensor) -> tuple[Tensor, Tensor]:
    bands: list[Tensor] = []
    for rows in _waves(*(x[..., row::3, :] for row in range(3))):
        bands += _waves(*(rows[..., column::3] for column in range(3)))
    low, *high = (band * scale for band, scale in zip(bands, _SCALES, strict=True))
    return low, torch.cat(high, dim=-3)


def _merge_by_three(low: Tensor, high: Tensor, x: Tensor) -> None:
    parts = (low, *high.chunk(8, dim=-3))
    bands = [band / scale for band, scale in zip(parts, _SCALES, strict=True)]
    columns = [_samples(*bands[first : first + 3]) for first in (0, 3, 6)]  # of each wave down, at each column
    for column in range(3):
        for row, samples in enumerate(_samples(*(wave[column] for wave in columns))):
            x[..., row::3, column::3] = samples


def _waves(first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the DCT-II of three samples: their mean, and what is orthonormal, slope and bend."""
    return (first + second + third) / 3, (first - third) / math.sqrt(2), (first - 2 * second + third) / math.sqrt(6)


def _samples(mean: Tensor, slope: Tensor, bend: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Undo :func:`_waves`."""
    slope, bend = slope / math.sqrt(2), bend / math.sqrt(6)
    around = mean + bend
    return around + slope, mean - 2 * bend, around - slope


_SCALES = (1.0, math.sqrt(3), math.sqrt(3), math.sqrt(3), 1.0, 1.0, math.sqrt(3), 1.0, 1.0)
"""By band, the waves down and those across within each: a mean of one axis is orthonormal times sqrt(3)."""
