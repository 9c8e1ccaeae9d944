"""Effort at encoding time: a better LR than the forward pass gives, found by descending through the restore.

    E(y) = |d|^2 + |luma(d)|^2,   d = restore(round(y)) - x        y_0 = the forward pass's LR
    y_k+1 = held(y_k - rate_k m_k / r_k)                           k = 0 .. N - 1

m is a moving mean of the gradient, that at the rounded LR taken straight through the rounding; r the gradient's RMS around a
pixel, so that no step is too long where the restore is stiff. Of y_0 .. y_N the LR of the least measured E is kept, if neither
its RGB nor its luma comes back worse than with y_0. An LR is held as close to the bicubic one as that of the forward pass is,
but for SLACK. Half of E is luma, which eyes and published figures look at; docs/quality.md has what all this gains.

Nothing here knows of tiles: whoever descends restores :attr:`Descent.lr`, and tells what that misses and its gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

RATE = 0.5
"""RMS of the first step in 8-bit levels, from x2 on; in proportion to the scale below. Later rates fall by a half cosine."""

NEIGHBOURHOOD = 9
"""Side in LR pixels of the square over which the gradient's RMS is taken, and the channels with it."""

KEPT, KEPT_SQUARE = 0.7, 0.9
"""What a step keeps of the means of the gradient, and of its square, before it."""

SLACK = 0.4
"""Decibels that the LR's PSNR against the bicubic one may lose to the forward pass's."""

LUMA = 131, 257, 50
"""Red, green and blue in luma (BT.601), in whole numbers: so sums of errors are exact, in whatever order."""


class Descent:
    """One image's way to a better LR: asks for N + 1 restores of its :attr:`lr`, and for all but the last the gradient.

    ``lr`` (3, h, w) float32 is the forward pass's, not rounded; ``reference`` (3, h, w) uint8 the bicubic LR, on the same
    device; ``scale`` the source samples per LR pixel and axis. What it holds is as large as three LRs in float32.
    """

    def __init__(self, lr: Tensor, reference: Tensor, *, steps: int, scale: float) -> None:
        self._y, self._reference, self._steps = lr, reference, steps
        self._rate = RATE / 255 * min(1.0, scale / 2)
        self._mean, self._square = torch.zeros_like(lr), torch.zeros_like(lr[:1])
        self._bound = math.floor(self._distance() * 10 ** (SLACK / 10))
        self._first: tuple[int, int] | None = None
        self._least = math.inf
        self._told = 0
        self.best = self.lr
        """The LR to store, (3, h, w), uint8: of those told of so far."""

    @property
    def lr(self) -> Tensor:
        """The LR, (3, h, w), uint8, whose restore is asked for."""
        return _levels(self._y)

    @property
    def over(self) -> bool:
        """Whether no restore is asked for any more."""
        return self._told > self._steps

    @property
    def last(self) -> bool:
        """Whether no step follows the restore that is asked for, and its gradient is not wanted."""
        return self._told == self._steps

    def tell(self, errors: tuple[int, int], gradient: Tensor) -> None:
        """Take the sums of :func:`missed` over the image and the gradient of E by the LR (3, h, w), and go a step on."""
        self._first = self._first or errors
        rgb, luma = errors
        error = rgb + luma / sum(weight**2 for weight in LUMA)
        if error < self._least and rgb <= self._first[0] and luma <= self._first[1]:
            self.best, self._least = self.lr, error
        if not self.last:
            self._step(gradient)
        self._told += 1

    def _step(self, gradient: Tensor) -> None:
        gradient = gradient.nan_to_num(0, 0, 0)  # of half precision, where it overflows
        self._mean.lerp_(gradient, 1 - KEPT)
        self._square.lerp_(_around(gradient.square()), 1 - KEPT_SQUARE if self._told else 1)
        rate = self._rate * (0.5 + 0.5 * math.cos(math.pi * self._told / self._steps)) / (1 - KEPT ** (self._told + 1))
        self._y = torch.addcdiv(self._y, self._mean, self._square.sqrt().add_(1e-12), value=-rate)
        while (distance := self._distance()) > self._bound:
            self._y = torch.lerp(self._reference / 255, self._y, 0.999 * math.sqrt(self._bound / distance))

    def _distance(self) -> int:
        """Return the LR's squared distance to the bicubic one, in 8-bit levels."""
        return int((self.lr.int() - self._reference.int()).square().sum(dtype=torch.int64))


def missed(x: Tensor, restored: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``restored`` misses of ``x``, both (3, H, W) in [0, 1], and the gradient of E by it, (3, H, W), per level.

    The first are two sums of squares, int64, in 8-bit levels: over RGB, and of luma in the units of LUMA.
    """
    x = x * 255
    levels = (_levels(restored).double() - x).round_().to(torch.int64)
    weights = torch.tensor(LUMA, device=x.device)[:, None, None]
    sums = torch.stack([levels.square().sum(), (levels * weights).sum(dim=0).square().sum()])
    differences, share = (restored * 255).clamp(0, 255) - x, weights / math.sqrt(sum(weight**2 for weight in LUMA))
    return sums, differences + share * (share * differences).sum(dim=0, keepdim=True)


def _around(x: Tensor) -> Tensor:
    """Return the means (1, h, w) of ``x`` (3, h, w) over the channels and the neighbourhood of each pixel."""
    means = x.mean(dim=0, keepdim=True)
    return avg_pool2d(means[None], NEIGHBOURHOOD, 1, NEIGHBOURHOOD // 2, count_include_pad=False)[0]


def _levels(y: Tensor) -> Tensor:
    return (y * 255).round_().clamp_(0, 255).to(torch.uint8)
