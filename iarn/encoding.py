"""Position-aware scale encoding: what each invertible block is told about where it stands.

Seven channels at each position of a level: where its centre falls between source pixels (cosine and sine of the phase,
per axis), the scale of each axis, and the budget. A phase, unlike an offset to the nearest centre, has no jump half-way
between two pixels, where rounding would decide its sign (every position at exactly x2).
Source of the idea: Pan et al., WACV 2023, section 3.3; the budget is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iarn.lattice import Axis

PHASES = 4
UNIFORM = 3
"""Channels that are the same everywhere: both scales, and the budget."""
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


Window = tuple[int, int, int, int]
"""Top, bottom, left, right of a part of the LR, in LR pixels."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a picture of a batch stands: the axes of its image, which part of the LR it is (None: all), and the budget.

    What is computed may be larger than the window; rows below and columns to the right of it are then filled up, no matter how.
    """

    axes: tuple[Axis, Axis]
    budget: float = 0.0
    window: Window | None = None


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What the blocks of a level are told.

    ``phases`` (B, 4, h, w) and ``uniform`` (B, 3), B 1 where all pictures are told the same. ``sides`` holds the rows and
    the columns, B of each, up to which pictures are more than filling; None where none is filled up.
    """

    phases: Tensor
    uniform: Tensor
    sides: tuple[Tensor, Tensor] | None = None


def encode(places: Sequence[Place], level: int, like: Tensor) -> Encoding:
    """Return the encoding for pictures of the shape of ``like`` at ``level`` halvings below the lattice, on its device."""
    shape = (like.shape[-2], like.shape[-1])
    phases, sides = zip(*(_phases(place, level, shape) for place in places), strict=True)
    scales = [[math.log2(axis.scale) for axis in place.axes] + [place.budget] for place in places]
    filled = any(side != shape for side in sides)
    return Encoding(  # in channels-last order, as convolutions want what it stands beside
        phases=torch.stack(phases).to(like.device).contiguous(memory_format=torch.channels_last),
        uniform=torch.tensor(scales, device=like.device),
        sides=(torch.tensor(sides, device=like.device)[:, 0], torch.tensor(sides, device=like.device)[:, 1])
        if filled
        else None,
    )


def _phases(place: Place, level: int, shape: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Return the phases (4, h, w) of a picture filled up to ``shape``, and how many rows and columns are not filling."""
    rows, columns = place.axes
    top, bottom, left, right = place.window or (0, rows.lr, 0, columns.lr)
    down, across = _axis(rows, level, top, bottom), _axis(columns, level, left, right)
    sides = (down.shape[1], across.shape[1])
    down = torch.cat([down, down.new_zeros(2, shape[0] - sides[0])], dim=1)
    across = torch.cat([across, across.new_zeros(2, shape[1] - sides[1])], dim=1)
    return torch.cat([down[:, :, None].expand(2, *shape), across[:, None, :].expand(2, *shape)]), sides


def _axis(axis: Axis, level: int, start: int, stop: int) -> Tensor:
    """Cosine and sine of the phase of positions along one axis, (2, positions), from float64."""
    per_lr = axis.stride >> level
    position = (np.arange(start * per_lr, stop * per_lr) + 0.5) * axis.span / (axis.lr * per_lr) - 0.5
    phase = 2 * np.pi * position
    return torch.from_numpy(np.stack([np.cos(phase), np.sin(phase)]).astype(np.float32))
