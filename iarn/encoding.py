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

    @property
    def clean(self) -> bool:
        """Whether its LR is a bicubic one."""
        return self.budget == budget_of(CLEAN_STEP)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What the blocks of a level are told.

    ``phases`` (B, 4, h, w), or (B, 4, 1, 1) where they are the same everywhere, and ``uniform`` (B, 3), B 1 where all pictures
    are told the same. ``sides`` holds the rows and the columns, B of each, up to which pictures are more than filling; None
    where none is filled up.
    """

    phases: Tensor
    uniform: Tensor
    sides: tuple[Tensor, Tensor] | None = None

    @property
    def even(self) -> bool:
        """Whether all that is told is the same at each position of a picture."""
        return self.phases.shape[-2:] == (1, 1)


def encode(places: Sequence[Place], density: int, like: Tensor) -> Encoding:
    """Return the encoding for pictures of the shape of ``like``, on its device, with ``density`` positions per LR pixel."""
    height, width = like.shape[-2:]
    windows = [place.window or (0, place.axes[0].lr, 0, place.axes[1].lr) for place in places]
    sides = [((bottom - top) * density, (right - left) * density) for top, bottom, left, right in windows]
    if all(has_even_phases(place.axes, density) for place in places):  # those of the first position, whatever the window
        rows, columns = (torch.stack([_axis(place.axes[dim], density, 0, 1)[:, :1] for place in places]) for dim in (0, 1))
    else:
        down = [_axis(place.axes[0], density, top, bottom) for place, (top, bottom, _, _) in zip(places, windows, strict=True)]
        across = [
            _axis(place.axes[1], density, left, right) for place, (_, _, left, right) in zip(places, windows, strict=True)
        ]
        rows, columns = _filled_up(down, height), _filled_up(across, width)
    rows, columns = rows.to(like.device), columns.to(like.device)
    shape = (len(places), 2, rows.shape[-1], columns.shape[-1])
    phases = torch.cat([rows[..., None].expand(shape), columns[:, :, None].expand(shape)], dim=1)
    scales = [[math.log2(axis.scale) for axis in place.axes] + [place.budget] for place in places]
    ends = torch.tensor(sides, device=like.device)
    return Encoding(
        phases=phases.contiguous(memory_format=torch.channels_last),  # as convolutions want what it stands beside
        uniform=torch.tensor(scales, device=like.device),
        sides=(ends[:, 0], ends[:, 1]) if any(side != (height, width) for side in sides) else None,
    )


def has_even_phases(axes: tuple[Axis, Axis], density: int) -> bool:
    """Return whether ``density`` positions per LR pixel stand whole source pixels apart, as at x2: all have one phase."""
    return all(axis.span % (axis.lr * density) == 0 for axis in axes)


def _filled_up(phases: list[Tensor], length: int) -> Tensor:
    """Make one tensor (B, 2, length) of phases (2, length or less)."""
    return torch.stack([torch.cat([each, each.new_zeros(2, length - each.shape[1])], dim=1) for each in phases])


def _axis(axis: Axis, density: int, start: int, stop: int) -> Tensor:
    """Cosine and sine of the phase of positions along one axis, (2, positions), from float64."""
    position = (np.arange(start * density, stop * density) + 0.5) * axis.span / (axis.lr * density) - 0.5
    phase = 2 * np.pi * position
    return torch.from_numpy(np.stack([np.cos(phase), np.sin(phase)]).astype(np.float32))
