"""One invertible block.

    forward   u' = u + F(v, e);   v' = v * exp(s(u', e)) + G(u', e)
    inverse   v = (v' - G(u', e)) * exp(-s(u', e));   u = u' - F(v, e)
    s(u, e) = clamp * tanh(H(u, e) / 2), the bounded exponent that keeps stacked blocks from diverging

u is the LR branch, v the high bands, e the encoding. F and the pair (H, G), two halves of the output of one subnetwork,
end in convolutions that start at zero, so an untrained block is the identity. Source: Xiao et al., "Invertible Image
Rescaling", ECCV 2020, equations 3 to 5; there H and G are two subnetworks (docs/training.md compares).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iarn.encoding import CHANNELS, UNIFORM

GAIN = 16.0
"""Subnetworks see pixels, centred, times this and give changes divided by it: what the LR hides is a few 8-bit levels."""


class Subnetwork(nn.Module):
    """Three 3 x 3 convolutions with leaky ReLU between; takes RADIUS pixels more on each side than it gives.

    The encoding stands beside the pixels, and its part that is the same everywhere also multiplies the channels of the first
    convolution: so one set of weights can do one thing with a latent and another without.
    """

    RADIUS = 3

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs + CHANNELS, width, 3)
        self.middle = nn.Conv2d(width, width, 3)
        self.last = nn.Conv2d(width, outputs, 3)
        self.modulation = nn.Linear(UNIFORM, width, bias=False)
        for convolution in (self.first, self.middle):
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.first.weight[:, inputs:] *= 0.1  # or the encoding would drown the pixels in the first steps
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the changes (B, outputs, h - 6, w - 6) for ``x`` (B, inputs + 7, h, w), the encoding its last channels."""
        strength = 1 + self.modulation(x[0, -UNIFORM:, 0, 0])
        x = nn.functional.leaky_relu(self.first(x) * strength[:, None, None], 0.2, inplace=True)
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
        self.affine = Subnetwork(low, width, 2 * high)

    def forward(self, u: Tensor, v: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        u = self.lower(u, v, e)
        gain, shift = self._gain_and_shift(u, e)
        return u, v * gain + shift

    def lower(self, u: Tensor, v: Tensor, e: Tensor) -> Tensor:
        """Return the LR branch of :meth:`forward` alone, for where the high bands are wanted no more."""
        change: Tensor = self.update(_surround(v * GAIN, e))
        return u + change

    def inverse(self, u: Tensor, v: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`forward`."""
        gain, shift = self._gain_and_shift(u, e)
        v = (v - shift) / gain
        return u - self.update(_surround(v * GAIN, e)), v

    def _gain_and_shift(self, u: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        exponent, shift = self.affine(_surround((u - 0.5) * GAIN, e)).chunk(2, dim=1)
        return torch.exp(self.clamp * torch.tanh(exponent / 2)), shift


def _surround(x: Tensor, e: Tensor) -> Tensor:
    """Put the encoding beside ``x`` and repeat the edges outwards, so that no convolution sees zeros beyond them."""
    x = torch.cat([x, e.expand(len(x), -1, -1, -1)], dim=1)
    for dim in (-2, -1):  # not torch's replicate padding, whose gradient torch.compile gets wrong in channels-last (2.13)
        edges = [x.narrow(dim, at, 1) for at in (0, x.shape[dim] - 1)]
        first, last = (torch.cat([edge] * Subnetwork.RADIUS, dim) for edge in edges)
        x = torch.cat([first, x, last], dim)
    return x
