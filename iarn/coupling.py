"""One invertible block.

    forward   u' = u + F(v, e);   v' = v * exp(s(u', e)) + G(u', e)
    inverse   v = (v' - G(u', e)) * exp(-s(u', e));   u = u' - F(v, e)
    s(u, e) = clamp * tanh(H(u, e) / 2), the bounded exponent that keeps stacked blocks from diverging

u is the LR branch, v the high bands, e the encoding. F, G, H end in convolutions that start at zero, so an untrained
block is the identity. Source: Xiao et al., "Invertible Image Rescaling", ECCV 2020, equations 3 to 5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iarn.encoding import CHANNELS

GAIN = 16.0
"""Subnetworks see pixels, centred, times this and give changes divided by it: what the LR hides is a few 8-bit levels."""


class Subnetwork(nn.Module):
    """Three 3 x 3 convolutions with leaky ReLU between; takes RADIUS pixels more on each side than it gives."""

    RADIUS = 3

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs + CHANNELS, width, 3)
        self.middle = nn.Conv2d(width, width, 3)
        self.last = nn.Conv2d(width, outputs, 3)
        for convolution in (self.first, self.middle):
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.first.weight[:, inputs:] *= 0.1  # or the encoding would drown the pixels in the first steps
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.first(x), 0.2, inplace=True)
        changes: Tensor = self.last(nn.functional.leaky_relu(self.middle(x), 0.2, inplace=True))
        return changes.float() / GAIN


class Coupling(nn.Module):
    """An invertible block over an LR branch of ``low`` and high bands of ``high`` channels."""

    RADIUS = 2 * Subnetwork.RADIUS
    """Pixels each side that one output pixel of the block, or of its inverse, depends on."""

    def __init__(self, low: int, high: int, width: int, clamp: float) -> None:
        super().__init__()
        self.clamp = clamp
        self.update = Subnetwork(high, width, low)
        self.shift = Subnetwork(low, width, high)
        self.scale = Subnetwork(low, width, high)

    def forward(self, u: Tensor, v: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        u = u + self.update(_surround(v * GAIN, e))
        gain, shift = self._affine(u, e)
        return u, v * gain + shift

    def inverse(self, u: Tensor, v: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`forward`."""
        gain, shift = self._affine(u, e)
        v = (v - shift) / gain
        return u - self.update(_surround(v * GAIN, e)), v

    def _affine(self, u: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        seen = _surround((u - 0.5) * GAIN, e)
        return torch.exp(self.clamp * torch.tanh(self.scale(seen) / 2)), self.shift(seen)


def _surround(x: Tensor, e: Tensor) -> Tensor:
    """Put the encoding beside ``x`` and repeat the edges outwards, so that no convolution sees zeros beyond them."""
    beside = torch.cat([x, e.expand(len(x), -1, -1, -1)], dim=1)
    return nn.functional.pad(beside, [Subnetwork.RADIUS] * 4, mode="replicate")
