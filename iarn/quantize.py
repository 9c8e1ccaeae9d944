"""Rounding that lets gradients through."""

from __future__ import annotations

import torch
from torch import Tensor


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded`` with the gradient of ``x`` (Bengio et al., 2013, straight-through estimator)."""
    return x + (rounded - x).detach()


def to_8bit(x: Tensor) -> Tensor:
    """Round ``x`` to the 256 levels of [0, 1] as a stored LR has them; gradients pass straight through."""
    return straight_through(x, torch.round(x.clamp(0, 1) * 255) / 255)


def to_levels(x: Tensor, spacing: float) -> Tensor:
    """Round ``x`` to those of the 256 levels of [0, 1] that are ``spacing`` apart, from 0 on, and to 255."""
    return (torch.round(x.clamp(0, 1) * (255 / spacing)) * (spacing / 255)).clamp(0, 1)


def to_step(z: Tensor, step: float) -> Tensor:
    """Round a latent to multiples of ``step`` 8-bit levels; gradients pass straight through."""
    return straight_through(z, torch.round(z * (255 / step)) * (step / 255))
