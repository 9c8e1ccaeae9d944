"""What a training step is of: drawn sizes, uses and patches, each by a generator that the caller seeds."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from iarn.recipe import TrainingConfig

FINEST_STEP, COARSEST_STEP = 1.0, 64.0
"""Quantisation steps of a kept latent, in 8-bit levels, between which training draws log-uniformly."""

COARSEST_PRECISION = 4
"""Levels between the values of a clean LR, at most, that training draws: a coarser one costs fewer bytes."""

AS_CODED = 0.0
"""Stands for those levels where a clean LR is coded as files are."""

Size = tuple[int, int]


class Use(StrEnum):
    """What is stored beside an LR: nothing, so that it hides what it can; the latent; or a detail layer."""

    LEAN = "lean"
    KEPT = "kept"
    CLEAN = "clean"


def sample_sizes(config: TrainingConfig, generator: torch.Generator) -> tuple[Size, Size]:
    """Draw a patch size and its LR size, (height, width) each: scales that the recipe's strides are for, or any from 1 on."""
    strides = config.network.strides
    above, largest = 1, strides[-1]
    if config.strides:
        largest = config.strides[int(torch.randint(len(config.strides), (), generator=generator))]
        above = strides[strides.index(largest) - 1]
    first, second, kind = torch.rand(3, generator=generator).tolist()
    scale = above * (largest / above) ** first
    scales = [scale, scale]
    if kind < config.asymmetric:
        scales[0 if kind < config.asymmetric / 2 else 1] = largest**second
    elif kind < config.asymmetric + config.whole:
        scales = [float(above + 1 + int(first * (largest - above)))] * 2
    stride = next(stride for stride in strides[1:] if stride >= max(scales))
    lr = config.lattice // stride
    sides = [max(lr + 1, min(lr * stride, round(lr * scale))) for scale in scales]
    longer = sides.index(max(sides))
    coarser = strides[strides.index(stride) - 1]
    sides[longer] = max(sides[longer], lr * coarser + 1)  # or rounding would bring x2.01 down to x2, another lattice
    return (sides[0], sides[1]), (lr, lr)


def sample_use(config: TrainingConfig, generator: torch.Generator) -> tuple[Use, float]:
    """Draw what a step trains for, and what it rounds to, in 8-bit levels: the latent where it is kept, a clean LR, or 1."""
    kind, first, second = torch.rand(3, generator=generator).tolist()
    if kind < config.kept:
        return Use.KEPT, FINEST_STEP * (COARSEST_STEP / FINEST_STEP) ** first
    if kind < config.kept + config.clean:
        if first < config.coded:
            return Use.CLEAN, AS_CODED
        first = (first - config.coded) / (1 - config.coded)
        return Use.CLEAN, 1.0 if first < 0.5 else 2.0 + int(second * (COARSEST_PRECISION - 1))
    return Use.LEAN, 1.0


def sample_patches(
    images: Sequence[Tensor],
    size: Size,
    config: TrainingConfig,
    generator: torch.Generator,
    *,
    part: tuple[int, int] = (0, 1),
) -> Tensor:
    """Draw a batch of patches (B, 3, height, width) in [0, 1], flipped and turned at random, on the device of ``images``.

    ``part`` (i, n) gives the i-th of n parts of the batch, B its share.
    """
    own = config.batch // part[1]
    draws = torch.rand(config.batch, 5, generator=generator)[part[0] * own : (part[0] + 1) * own]
    patches = []
    for index, top, left, turn, smooth in draws.tolist():
        image = images[int(index * len(images))]
        turns, flip = divmod(int(turn * 8), 2)
        height, width = size if turns % 2 == 0 else size[::-1]
        if min(image.shape[1] - height, image.shape[2] - width) < 0:
            raise ValueError(f"An image of {tuple(image.shape[1:])} is smaller than a patch, {(height, width)}; leave it out.")
        row, column = int(top * (image.shape[1] - height + 1)), int(left * (image.shape[2] - width + 1))
        patch = image[:, row : row + height, column : column + width].float() / 255
        if smooth < config.smooth:
            corner = patch[None, :, : -(-height // 8), : -(-width // 8)]
            patch = interpolate(corner, size=(height, width), mode="bicubic").clamp(0, 1)[0]
        patch = torch.rot90(patch, turns, (1, 2))
        patches.append(patch.flip(2) if flip else patch)
    return torch.stack(patches).contiguous(memory_format=torch.channels_last)
