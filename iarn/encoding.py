"""Position-aware scale encoding: what each invertible block is told about where it stands.

Seven channels at each position of a level: where its centre falls between source pixels (cosine and sine of the phase,
per axis), the scale of each axis, and the budget. A phase, unlike an offset to the nearest centre, has no jump half-way
between two pixels, where rounding would decide its sign (every position at exactly x2).
Source of the idea: Pan et al., WACV 2023, section 3.3; the budget is ours.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from iarn.lattice import Axis

CHANNELS = 7
UNIFORM = 3
"""Channels, the last ones, that are the same everywhere: both scales, and the budget."""
COARSEST_STEP = 512.0
"""Quantisation step of the latent, in 8-bit levels, whose budget would be 0."""

CLEAN_STEP = 8.0
"""The latent step whose budget tells the network that an LR is clean: a detail layer holds what it misses, or nothing does."""


def budget_of(step: float | None) -> float:
    """Return the budget channel's value for a latent quantised with ``step`` (8-bit levels), or dropped (None).

    0 stands for a dropped latent, a larger value for a finer step: log2(512 / step) / 8. Raises ValueError outside
    0 < step < 512.
    """
    if step is None:
        return 0.0
    if not 0 < step < COARSEST_STEP:
        raise ValueError(f"Latent step {step} is outside 0 to {COARSEST_STEP:g} levels.")
    return math.log2(COARSEST_STEP / step) / 8


def encode(
    axes: tuple[Axis, Axis], level: int, budget: float, window: tuple[int, int, int, int] | None, like: Tensor
) -> Tensor:
    """Return the encoding (1, 7, h', w') at ``level`` halvings below the lattice, on the device and dtype of ``like``.

    ``window`` is (top, bottom, left, right) in LR pixels; None is the whole picture.
    """
    top, bottom, left, right = window or (0, axes[0].lr, 0, axes[1].lr)
    rows = _axis(axes[0], level, top, bottom).to(like)
    columns = _axis(axes[1], level, left, right).to(like)
    shape = (rows.shape[1], columns.shape[1])
    scales = torch.tensor([math.log2(axes[0].scale), math.log2(axes[1].scale), budget]).to(like)
    channels = [
        rows[:, :, None].expand(2, *shape),
        columns[:, None, :].expand(2, *shape),
        scales[:, None, None].expand(UNIFORM, *shape),
    ]
    return torch.cat(channels)[None].contiguous(memory_format=torch.channels_last)  # as convolutions want what it stands beside


def _axis(axis: Axis, level: int, start: int, stop: int) -> Tensor:
    """Cosine and sine of the phase of positions along one axis, (2, positions), from float64."""
    per_lr = axis.stride >> level
    position = (np.arange(start * per_lr, stop * per_lr) + 0.5) * axis.span / (axis.lr * per_lr) - 0.5
    phase = 2 * np.pi * position
    return torch.from_numpy(np.stack([np.cos(phase), np.sin(phase)]).astype(np.float32))
