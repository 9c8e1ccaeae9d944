"""One invertible block.

    forward   u' = u + F(v, e);   v' = v * exp(s(u', e)) + G(u', e)
    inverse   v = (v' - G(u', e)) * exp(-s(u', e));   u = u' - F(v, e)
    s(u, e) = clamp * tanh(H(u, e) / 2), the bounded exponent that keeps stacked blocks from diverging

u is the LR branch, v the high bands, e the encoding. F and the pair (H, G), two halves of the output of one subnetwork,
end in convolutions that start at zero, so an untrained block is the identity. Source: Xiao et al., "Invertible Image
Rescaling", ECCV 2020, equations 3 to 5; there H and G are two subnetworks (docs/training.md compares).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

from iarn.encoding import PHASES, UNIFORM, Encoding
from iarn.side_by_side import side_by_side

GAIN = 16.0
"""Subnetworks see pixels, centred, times this and give changes divided by it: what the LR hides is a few 8-bit levels."""

ONEDNN_OUTPUTS = 16
"""Channels that a convolution on a CPU computes in the time of one."""

PART = (64, 256)
"""Rows and columns that a CPU computes at once: what lies between a subnetwork's convolutions then stays in its cache."""


Change = Callable[[Tensor, Tensor], Tensor]
"""How a branch takes a subnetwork's changes."""


class Subnetwork(nn.Module):
    """Three 3 x 3 convolutions with leaky ReLU between; takes RADIUS pixels more on each side than it gives.

    The encoding stands beside the pixels, and the scales and the budget also multiply the channels of the first convolution: so
    one set of weights can do one thing with a latent and another without.
    """

    RADIUS = 3

    def __init__(self, inputs: int, width: int, outputs: int, *, centre: float) -> None:
        super().__init__()
        self.centre = centre
        self.first = nn.Conv2d(inputs + PHASES + UNIFORM, width, 3)
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

    def told(self, e: Encoding) -> Callable[[Tensor], Tensor]:
        """Return the first convolution as it is where ``e`` is told; what that tells of all positions is in its bias."""
        strength = 1 + self.modulation(e.uniform)
        same = torch.cat([e.phases[..., 0, 0], e.uniform], dim=1) if e.even else e.uniform
        count = same.shape[1]
        weight, weight_of_same = self.first.weight[:, :-count], self.first.weight[:, -count:].sum((2, 3))
        offset = strength * nn.functional.linear(same, weight_of_same, self.first.bias)
        if len(offset) == 1:
            return partial(conv2d, weight=weight * strength[0, :, None, None, None], bias=offset[0])
        strength, offset = strength[..., None, None], offset[..., None, None]
        return lambda x: torch.addcmul(offset, conv2d(x, weight), strength)

    def forward(self, x: Tensor, first: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the changes (B, outputs, h - 6, w - 6) for ``x`` and the convolution of :meth:`told`.

        ``x`` is (B, inputs, h, w), with 4 phases beside where those are not the same everywhere.
        """
        x = leaky_relu(first(x), 0.2, inplace=True)
        x = leaky_relu(self.middle(x), 0.2, inplace=True)
        if not _used_on_a_cpu(x) or x.dtype is not torch.float32:
            return cast(Tensor, self.last(x).float() / GAIN)
        weight, bias = self.last.weight / GAIN, cast(Tensor, self.last.bias) / GAIN
        return _by_rows(x, weight, bias) if 3 * len(weight) <= ONEDNN_OUTPUTS else conv2d(x, weight, bias)


class Coupling(nn.Module):
    """An invertible block over an LR branch of ``low`` and high bands of ``high`` channels."""

    RADIUS = 2 * Subnetwork.RADIUS
    """Pixels each side that one output pixel of the block, or of its inverse, depends on."""

    def __init__(self, low: int, high: int, width: int, clamp: float) -> None:
        super().__init__()
        self.clamp = clamp
        self.update = Subnetwork(high, width, low, centre=0.0)
        self.affine = Subnetwork(low, width, 2 * high, centre=0.5)

    def forward(self, u: Tensor, v: Tensor, e: Encoding) -> tuple[Tensor, Tensor]:
        u = self.lower(u, v, e)
        return u, _changed(v, self._scale, self.affine, u, e)

    def lower(self, u: Tensor, v: Tensor, e: Encoding) -> Tensor:
        """Return the LR branch of :meth:`forward` alone, for where the high bands are wanted no more."""
        return _changed(u, torch.add, self.update, v, e)

    def inverse(self, u: Tensor, v: Tensor, e: Encoding) -> tuple[Tensor, Tensor]:
        """Undo :meth:`forward`."""
        v = _changed(v, self._unscale, self.affine, u, e)
        return _changed(u, torch.sub, self.update, v, e), v

    def _scale(self, v: Tensor, changes: Tensor) -> Tensor:
        gain, shift = self._gain_and_shift(changes)
        return v * gain + shift

    def _unscale(self, v: Tensor, changes: Tensor) -> Tensor:
        gain, shift = self._gain_and_shift(changes)
        return (v - shift) / gain

    def _gain_and_shift(self, changes: Tensor) -> tuple[Tensor, Tensor]:
        exponent, shift = changes.chunk(2, dim=1)
        return torch.exp(self.clamp * torch.tanh(exponent / 2)), shift


def _changed(x: Tensor, change: Change, subnetwork: Subnetwork, seen: Tensor, e: Encoding) -> Tensor:
    """Return ``change(x, changes)``, the changes being the subnetwork's for ``seen``; on a CPU, unless it trains, in parts."""
    if torch.is_grad_enabled() and (x.requires_grad or seen.requires_grad) and not _learns(subnetwork):
        return cast(Tensor, _Recomputed.apply(x, seen, change, subnetwork, e))  # type: ignore[no-untyped-call]
    first = subnetwork.told(e)
    height, width = x.shape[-2:]
    if not _used_on_a_cpu(x):
        return change(x, subnetwork(_surround(seen, e, subnetwork.centre, (slice(0, height), slice(0, width))), first))
    result = torch.empty_like(x)

    def compute(part: tuple[slice, slice]) -> None:
        result[..., *part] = change(x[..., *part], subnetwork(_surround(seen, e, subnetwork.centre, part), first))

    side_by_side(compute, _parts(height, width))
    return result


class _Recomputed(torch.autograd.Function):
    """:func:`_changed` of a network that does not learn, for gradients of what it was given.

    What lies between a subnetwork's convolutions is not kept for the way back but computed again, on a CPU in parts, each by
    one thread. So gradients take the memory of the branches alone, and are the same on any number of threads.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: Tensor, change: Change, subnetwork: Subnetwork, e: Encoding) -> Tensor:
        ctx.save_for_backward(x, seen)
        ctx.change, ctx.subnetwork, ctx.e = change, subnetwork, e
        kind = x.device.type
        ctx.autocast = partial(torch.autocast, kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))
        return _changed(x, change, subnetwork, seen, e)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, seen = ctx.saved_tensors
        whole = (slice(0, x.shape[-2]), slice(0, x.shape[-1]))
        parts = _parts(*x.shape[-2:]) if x.device.type == "cpu" else [whole]
        found = [(x, seen)] * len(parts)
        with ctx.autocast():
            first = ctx.subnetwork.told(ctx.e)

        def compute(number: int) -> None:
            part, around = parts[number], _around(parts[number])
            inner = tuple(slice(at.start - wide.start, at.stop - wide.start) for at, wide in zip(part, around, strict=True))
            own, near = (each.detach().requires_grad_() for each in (x[..., *part], seen[..., *around]))
            with torch.enable_grad(), ctx.autocast():
                surround = _surround(near, _cut_out(ctx.e, around), ctx.subnetwork.centre, (inner[0], inner[1]))
                result = ctx.change(own, ctx.subnetwork(surround, first))
            by_own, by_near = torch.autograd.grad(result, (own, near), gradients[0][..., *part])
            found[number] = by_own, by_near

        side_by_side(compute, range(len(parts)))
        by_x, by_seen = torch.empty_like(x), torch.zeros_like(seen)
        for part, (by_own, by_near) in zip(parts, found, strict=True):  # in this order: whoever was first, sums are the same
            by_x[..., *part] = by_own
            by_seen[..., *_around(part)] += by_near
        return by_x, by_seen, None, None, None


def _around(part: tuple[slice, slice]) -> tuple[slice, slice]:
    """Return ``part`` and RADIUS more around it, which may end beyond the picture."""
    rows, columns = (slice(max(0, at.start - Subnetwork.RADIUS), at.stop + Subnetwork.RADIUS) for at in part)
    return rows, columns


def _learns(subnetwork: Subnetwork) -> bool:
    """Whether gradients may be wanted of the subnetwork's weights."""
    return subnetwork.training or subnetwork.first.weight.requires_grad


def _cut_out(e: Encoding, part: tuple[slice, slice]) -> Encoding:
    """Return what ``part`` of the pictures is told."""
    phases = e.phases if e.even else e.phases[..., *part]
    if e.sides is None:
        return replace(e, phases=phases)
    down, across = ((side - at.start).clamp(min=1) for side, at in zip(e.sides, part, strict=True))
    return replace(e, phases=phases, sides=(down, across))


def _used_on_a_cpu(x: Tensor) -> bool:
    """Whether ``x`` is on a CPU and nobody trains: parts and rows are faster there, and gradients and GPUs want the whole."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def _by_rows(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a 3 x 3 convolution as the sum of those by the three rows of its weights, which are computed as one."""
    outputs, height = len(weight), x.shape[-2] - 2
    rows = conv2d(x, weight.permute(2, 0, 1, 3).flatten(0, 1)[:, :, None])
    upper, middle, lower = (rows[:, row * outputs : (row + 1) * outputs, row : row + height] for row in range(3))
    return (upper + middle).add_(lower).add_(bias[:, None, None])


def _parts(height: int, width: int) -> list[tuple[slice, slice]]:
    """Cut an area into few parts of about one size, of PART at most, in an even number unless it is tiny.

    So two threads end at once. A picture keeps no more threads busy than it has parts.
    """
    rows, columns = (-(-length // most) for length, most in zip((height, width), PART, strict=True))
    rows += rows % 2 if height >= PART[0] // 2 else 0
    return list(product(_cut(height, rows), _cut(width, columns)))


def _cut(length: int, count: int) -> list[slice]:
    return [slice(length * i // count, length * (i + 1) // count) for i in range(count)]


def _surround(x: Tensor, e: Encoding, centre: float, part: tuple[slice, slice]) -> Tensor:
    """Return ``part`` of ``x`` as a subnetwork sees it: phases beside it, RADIUS more around it, and edges repeated outwards.

    So no convolution sees zeros beyond them.
    """
    radius = Subnetwork.RADIUS
    if e.sides is not None:
        return _gather(_beside(x, e, centre, (slice(None), slice(None))), e.sides, part)
    around = _beside(x, e, centre, (slice(max(0, at.start - radius), at.stop + radius) for at in part))
    for dim, at in zip((-2, -1), part, strict=True):
        # not torch's replicate padding, whose gradient torch.compile gets wrong in channels-last (2.13)
        before, after = max(0, radius - at.start), max(0, at.stop + radius - x.shape[dim])
        edges = [around.narrow(dim, 0, 1)] * before, [around.narrow(dim, -1, 1)] * after
        if before or after:
            around = torch.cat([*edges[0], around, *edges[1]], dim)
    return around


def _beside(x: Tensor, e: Encoding, centre: float, part: Iterable[slice]) -> Tensor:
    """Return ``part`` of the pixels, centred, with the phases beside them where they are not the same everywhere."""
    rows, columns = part
    pixels = (x[..., rows, columns] - centre) * GAIN
    return pixels if e.even else torch.cat([pixels, e.phases[..., rows, columns].expand(len(x), -1, -1, -1)], dim=1)


def _gather(x: Tensor, sides: tuple[Tensor, Tensor], part: tuple[slice, slice]) -> Tensor:
    """Return ``part`` of pictures that are filled up, RADIUS more around it, as if each ended at its ``sides``."""
    radius, places = Subnetwork.RADIUS, []
    for side, at in zip(sides, part, strict=True):
        position = torch.arange(at.start - radius, at.stop + radius, device=x.device)
        places.append(position.clamp(min=0).minimum(side[:, None] - 1))
    picture = torch.arange(len(x), device=x.device)[:, None, None]
    around = x.permute(0, 2, 3, 1)[picture, places[0][:, :, None], places[1][:, None, :]]
    return around.permute(0, 3, 1, 2)
