"""Preemptive channel splitting: what the LR will keep and what it cannot, parted before anything is learned.

One split halves both axes with the Haar wavelet. The low band is the mean of each 2 x 2 cell, so it stays a picture in
the range of its input; the three high bands are orthonormal (half the signed sums of the cell).
Source: Pan et al., "Effective Invertible Arbitrary Image Rescaling", WACV 2023, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the low band (B, C, H/2, W/2) and the high bands (B, 3C, H/2, W/2) of ``x`` (B, C, H, W), H and W even."""
    top_left, top_right = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    bottom_left, bottom_right = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    left, right = top_left + bottom_left, top_right + bottom_right
    rising, falling = top_left - bottom_left, top_right - bottom_right
    high = torch.cat([left - right, rising + falling, rising - falling], dim=-3) / 2
    return (left + right) / 4, high


def merge(low: Tensor, high: Tensor) -> Tensor:
    """Undo :func:`split`."""
    horizontal, vertical, diagonal = (high / 2).chunk(3, dim=-3)
    left, right = low + horizontal, low - horizontal
    rising, falling = vertical + diagonal, vertical - diagonal
    x = low.new_empty(
        *low.shape[:-2], 2 * low.shape[-2], 2 * low.shape[-1]
    )  # and no copy beside it: it is the largest there is
    x[..., 0::2, 0::2], x[..., 0::2, 1::2] = left + rising, right + falling
    x[..., 1::2, 0::2], x[..., 1::2, 1::2] = left - rising, right - falling
    return x
