"""An LR that is sought with effort: one descent of iarn.effort, told of by the tiles of its image.

Every step restores all tiles of an image, each with its halo, and sums what they miss and its gradient: so an image of many
tiles descends as it would in one piece.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iarn.effort import Descent, missed
from iarn.encoding import Place
from iarn.metrics import bicubic_lr
from pipeline.core.records import Pixels
from pipeline.engines.tiles import Tile
from pipeline.pictures.depth import peak

DESCENT_POINTS = 2048
"""Lattice points per axis of a tile at most: what stands before each block is kept for the way back (docs/performance.md)."""


class Sought:
    """An image (H, W, 3), uint8 or uint16, and the LR (h, w, 3) that is sought for it, which ends in ``result``."""

    def __init__(
        self, pixels: Pixels, result: Pixels, place: Place, device: torch.device, *, effort: int, grey: bool = False
    ) -> None:
        self.pixels, self.result, self.place, self.effort, self.grey = pixels, result, place, effort, grey
        self._device = device
        self._forward = torch.empty(3, *result.shape[:2], device=device)

    def put(self, tile: Tile, lr: Tensor) -> None:
        """Take the part of the forward pass's LR that a tile yields, not rounded."""
        self._forward[:, tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop] = self._grey(lr)

    def begin(self) -> None:
        """Begin the descent, once the forward pass's LR is there."""
        vertical, horizontal = self.place.axes
        scale = (vertical.scale * horizontal.scale) ** 0.5
        reference = _bicubic(self.pixels, self.place).to(self._device)
        self.descent = Descent(self._forward, reference, steps=self.effort, scale=scale)
        self._listen()

    @property
    def last(self) -> bool:
        """Whether no gradient is wanted any more."""
        return self.descent.last

    @property
    def over(self) -> bool:
        """Whether the LR is found."""
        return self.descent.over

    def window(self, tile: Tile) -> Tensor:
        """Return the part (1, 3, h, w) of the LR that a tile sees."""
        top, bottom, left, right = tile.window
        return self._lr[None, :, top:bottom, left:right]

    def missed(self, x: Tensor, restored: Tensor) -> Tensor:
        """Take what a tile restored, (3, h, w), and return the gradient by it; ``x`` are the pixels that it ought to be."""
        errors, gradient = missed(x, self._grey(restored))
        self._errors += errors
        return self._grey(gradient)

    def add(self, tile: Tile, gradient: Tensor) -> None:
        """Take the gradient (3, h, w) by what a tile sees, and filling behind it."""
        top, bottom, left, right = tile.window
        self._gradient[:, top:bottom, left:right] += self._grey(gradient[:, : bottom - top, : right - left])

    def step(self) -> None:
        """Go a step on, once all tiles have been restored."""
        rgb, luma = self._errors.tolist()
        self.descent.tell((rgb, luma), self._gradient)
        if self.over:
            self.result[:] = self.descent.best.permute(1, 2, 0).cpu().numpy()
        else:
            self._listen()

    def _listen(self) -> None:
        self._lr = self.descent.lr.float() / 255
        self._gradient = torch.zeros_like(self._lr)
        self._errors = torch.zeros(2, dtype=torch.int64, device=self._device)

    def _grey(self, x: Tensor) -> Tensor:
        return x.mean(dim=0, keepdim=True).expand_as(x) if self.grey else x


def _bicubic(pixels: Pixels, place: Place) -> Tensor:
    """Return the bicubic LR (3, h, w), uint8, of pixels (H, W, 3); by channels, for it is computed of floats."""
    channels = (torch.from_numpy(np.array(pixels[..., channel])) for channel in range(3))
    lrs = [bicubic_lr(channel[None, None].float().div_(peak(pixels)), place.axes)[0, 0] for channel in channels]
    return torch.stack(lrs).mul_(255).round_().to(torch.uint8)
