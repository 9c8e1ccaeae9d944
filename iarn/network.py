"""The invertible arbitrary rescaling network.

    x (B, 3, H, W) -interpolate-> lattice (B, 3, nh, nw) -split-> u 3 + v 9 at n/2 -blocks-> ... -> y (B, 3, h, w), z
    restore: y, z or 0 -blocks^-1-> ... -merge-> lattice -recover-> x (B, 3, H, W)

A stage is a split, by two or by three, and its blocks. It belongs to its place, what was split before it, and is shared by all
strides that begin alike; its name is a letter for how many splits stand before it, and what it splits by:

    stride   2    3    4       6       8          12         16
    stages   A2   A3   A2 B2   A2 B3   A2 B2 C2   A2 B2 C3   A2 B2 C2 D2

Shapes: B batch; H, W the image; h, w its LR; n the lattice's stride, the product of its splits; e the encoding. After splits
whose product is m the LR branch u has 3 channels and v has 3 (m^2 - 1), at n h / m. Pixels are float32 in [0, 1].
Source: Pan et al., "Effective Invertible Arbitrary Image Rescaling", WACV 2023, with the resize made exactly invertible
by the lattice (:mod:`iarn.lattice`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from iarn.coupling import Coupling, Subnetwork
from iarn.encoding import PHASES, UNIFORM, Encoding, Place, encode, has_even_phases
from iarn.lattice import Axis, axes_for
from iarn.split import merge, split

PLACES = "ABCDEFGH"

DENSE = 1.75
"""Lattice points per source pixel above which a lattice is dense: up to x1.5, just above x3, x4 and x6, or lopsided."""

COMPILED_GRAPHS = 64
"""Variants of a block that may be compiled: branches with and without gradient, shapes, precisions, strides of memory."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What decides the shape of the weights: blocks per stage, width of their subnetworks, bound of the exponent.

    ``blocks`` are those of the stages that split by two, A2, B2, ...; ``thirds`` of those that split by three, A3, B3, ...,
    each the last of its stride. Weights from before there were such have none. ``light`` is how many blocks of A2 run on dense
    lattices, where little has to be hidden and each block costs most; all of them where it is 0. ``clean`` LRs, which hide
    nothing, are restored by weights of their own, as many again.
    """

    blocks: tuple[int, ...] = (4, 5)
    thirds: tuple[int, ...] = ()
    light: int = 0
    clean: bool = False
    width: int = 48
    clamp: float = 1.0

    def __post_init__(self) -> None:
        counts = (*self.blocks, *self.thirds)
        described = self.blocks and min(counts) >= 1 and self.width >= 1 and self.clamp > 0
        if not described or len(self.thirds) > len(self.blocks) + 1 or not 0 <= self.light <= self.blocks[0]:
            raise ValueError(
                f"{self} describes no network; give at least one block per stage, a width and a clamp above 0, stages by three "
                "for no more places than those by two reach, and no more light blocks than the first stage has."
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the lattices that the stages can split, rising, from 1 on."""
        twos = (1 << places for places in range(len(self.blocks) + 1))
        return tuple(sorted((*twos, *(3 << place for place in range(len(self.thirds))))))

    @property
    def max_scale(self) -> int:
        """The largest scale per axis that the stages reach."""
        return self.strides[-1]

    def stages(self, stride: int) -> tuple[str, ...]:
        """Return the names of the stages of one of the ``strides``, the first split first."""
        halvings = (stride & -stride).bit_length() - 1
        twos = tuple(f"{PLACES[place]}2" for place in range(halvings))
        return twos if stride == 1 << halvings else (*twos, f"{PLACES[halvings]}3")

    def path(self, axes: tuple[Axis, Axis]) -> tuple[tuple[str, int], ...]:
        """Return the stages between the lattice of ``axes`` and its LR, by name, and how many blocks of each run there."""
        dense = axes[0].points * axes[1].points > DENSE * axes[0].span * axes[1].span
        first = self.light if dense and self.light else self.blocks[0]
        counts = {"2": (first, *self.blocks[1:]), "3": self.thirds}
        return tuple((name, counts[name[1]][PLACES.index(name[0])]) for name in self.stages(axes[0].stride))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-accumulates per source pixel, one way: to the LR without a latent, and from it back to the image."""

    downscale: float
    restore: float

    @property
    def step(self) -> float:
        """Those of a step of effort (:mod:`iarn.effort`): a restore, the same again on the way back, as many for gradients."""
        return 3 * self.restore


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A split ``by`` two or three, and the blocks behind it, which see ``density`` positions per LR pixel and axis."""

    by: int
    density: int
    blocks: list[Coupling]

    @property
    def bands(self) -> int:
        """Channels of the high bands of the split."""
        return 3 * (self.by**2 - 1)


class Rescaler(nn.Module):
    """One network for every scale from 1 to ``config.max_scale`` per axis, symmetric or not."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(_blocks(2 << place, count, config) for place, count in enumerate(config.blocks))
        self.thirds = nn.ModuleList(_blocks(3 << place, count, config) for place, count in enumerate(config.thirds))
        self.clean = Rescaler(replace(config, clean=False)) if config.clean else None

    def downscale(self, x: Tensor, lr_size: tuple[int, int], *, budget: float = 0.0) -> tuple[Tensor, Tensor]:
        """Rescale ``x`` (B, 3, H, W) to ``lr_size`` (height, width): the LR, not yet rounded or clipped, and the latent.

        Both float32; y is (B, 3, h, w), z (B, 3 n^2 - 3, h, w), without channels at scale 1. Raises ValueError where the LR
        is larger than the image or smaller than a ``max_scale``-th of it.
        """
        axes = self.axes((x.shape[-2], x.shape[-1]), lr_size)
        return self.analyse(_lattice(x, axes), [Place(axes=axes, budget=budget)])

    def downscale_lr(self, x: Tensor, lr_size: tuple[int, int], *, budget: float = 0.0) -> Tensor:
        """Return the LR of :meth:`downscale` alone, at less cost."""
        axes = self.axes((x.shape[-2], x.shape[-1]), lr_size)
        return self.analyse_lr(_lattice(x, axes), [Place(axes=axes, budget=budget)])

    def restore(self, y: Tensor, z: Tensor | None, size: tuple[int, int], *, budget: float = 0.0) -> Tensor:
        """Bring the image back at ``size`` (height, width) from its LR ``y`` and its latent, or without one (None).

        Returns float32 (B, 3, H, W), not rounded or clipped. Raises ValueError as :meth:`downscale` does.
        """
        axes = self.axes(size, (y.shape[-2], y.shape[-1]))
        return axes[1].recover(axes[0].recover(self.synthesise(y, z, [Place(axes=axes, budget=budget)]), -2), -1)

    def axes(self, size: tuple[int, int], lr_size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Return both axes of the lattice, of the least stride; ValueError where the scale is beyond the network's reach."""
        return axes_for(size, lr_size, self.config.strides)

    def analyse(self, lattice: Tensor, places: Sequence[Place]) -> tuple[Tensor, Tensor]:
        """Lattices, or parts of them → LR and latent.

        ``places`` tells of each picture of the batch where it stands, or of all at once; all are of one path (``config.path``).
        """
        u, v, last, e = self._until_last(lattice, places)
        return last(u, v, e) if last and e else (u, v)

    def analyse_lr(self, lattice: Tensor, places: Sequence[Place]) -> Tensor:
        """Return the LR of :meth:`analyse` alone, at less cost: nobody asks for the last block's high bands."""
        u, v, last, e = self._until_last(lattice, places)
        return last.lower(u, v, e) if last and e else u

    def synthesise(self, y: Tensor, z: Tensor | None, places: Sequence[Place]) -> Tensor:
        """LR and latent, or parts of them → lattice; ``places`` as of :meth:`analyse`, all of clean LRs or none."""
        if self.clean is not None and z is None and places[0].clean:
            return self.clean.synthesise(y, z, places)
        stages, channels = self._stages(places), 3 * (places[0].axes[0].stride ** 2 - 1)
        u, v = y, y.new_zeros(len(y), channels, *y.shape[-2:]) if z is None else z
        if v.shape[1:] != (channels, *y.shape[-2:]):
            raise ValueError(
                f"Latent of shape {tuple(v.shape)} does not fit LR {tuple(y.shape)}: {channels} channels at its size expected; "
                "give the size the image was downscaled from."
            )
        v = v.contiguous(memory_format=torch.channels_last)
        for stage in reversed(stages):
            e = encode(places, stage.density, u)
            for block in reversed(stage.blocks):
                u, v = block.inverse(u, v, e)
            v, high = v[:, : -stage.bands], v[:, -stage.bands :]
            u, v = merge(u, high, stage.by), pixel_shuffle(v, stage.by) if v.shape[1] else v
        return u

    def _until_last(self, lattice: Tensor, places: Sequence[Place]) -> tuple[Tensor, Tensor, Coupling | None, Encoding | None]:
        """Return both branches before the very last block, that block and its encoding (None at scale 1)."""
        u, v, e = lattice, lattice[:, :0], None
        stages = self._stages(places)
        for stage in stages:
            u, high = split(u, stage.by)
            v = torch.cat([pixel_unshuffle(v, stage.by), high], dim=1) if v.shape[1] else high
            e = encode(places, stage.density, u)
            for block in stage.blocks[:-1] if stage is stages[-1] else stage.blocks:
                u, v = block(u, v, e)
        return u, v, stages[-1].blocks[-1] if stages else None, e

    def cost(self, size: tuple[int, int], lr_size: tuple[int, int]) -> Cost:
        """Return the multiply-accumulates per source pixel at ``size`` with an LR of ``lr_size``, both (height, width).

        They are of :meth:`analyse_lr` and :meth:`synthesise` with the resampling to and from the lattice, exact for an image in
        one piece: each convolution at every position it gives, those in the repeated edges included; each resampled sample
        at every tap of its band (not the zeros beside them, which are multiplied too). Sums of the wavelet and what blocks do
        pointwise are left out (below 0.1 % at width 48).
        Raises ValueError as :meth:`downscale` does.
        """
        axes = self.axes(size, lr_size)
        down, back = _resampling(axes)
        stages = self._stages([Place(axes=axes)])
        for stage in stages:
            area = (lr_size[0] * stage.density, lr_size[1] * stage.density)
            same = UNIFORM + (PHASES if has_even_phases(axes, stage.density) else 0)
            convolved = sum(_convolved(part, area, same) for block in stage.blocks for part in (block.update, block.affine))
            down, back = down + convolved, back + convolved
        if stages:
            down -= _convolved(stages[-1].blocks[-1].affine, lr_size, same)
        pixels = size[0] * size[1]
        return Cost(downscale=down / pixels, restore=back / pixels)

    def compile_blocks(self) -> None:
        """Have torch compile each block, a graph for each way, shape and precision it is used at."""
        torch._dynamo.config.recompile_limit = COMPILED_GRAPHS
        for block in (each for each in self.modules() if isinstance(each, Coupling)):
            block.compile(dynamic=False)
            block.inverse = torch.compile(block.inverse, dynamic=False)  # type: ignore[method-assign]
            block.lower = torch.compile(block.lower, dynamic=False)  # type: ignore[method-assign]

    def halo(self, axes: tuple[Axis, Axis]) -> int:
        """LR pixels around a part of the LR or the lattice of ``axes`` that its result depends on."""
        return math.ceil(sum(Coupling.RADIUS * len(stage.blocks) / stage.density for stage in self._stages([Place(axes=axes)])))

    def blocks_of(self, name: str) -> nn.ModuleList:
        """Return the blocks of a stage by its name (``config.stages``)."""
        stages = self.stages if name[1] == "2" else self.thirds
        return cast(nn.ModuleList, stages[PLACES.index(name[0])])

    def _stages(self, places: Sequence[Place]) -> list[_Stage]:
        first, *others = {self.config.path(place.axes) for place in places}
        if others:
            raise ValueError(f"Pictures of paths {first}, {others} cannot share a batch; make one of each path.")
        stages, density = [], places[0].axes[0].stride
        for name, count in first:
            by = int(name[1])
            density //= by
            blocks = cast(Iterable[Coupling], self.blocks_of(name)[:count])
            stages.append(_Stage(by=by, density=density, blocks=list(blocks)))
        return stages


def _blocks(split: int, count: int, config: NetworkConfig) -> nn.ModuleList:
    """Return the blocks of a stage behind which ``split`` is the product of all splits."""
    return nn.ModuleList(Coupling(3, 3 * (split**2 - 1), config.width, config.clamp) for _ in range(count))


def _lattice(x: Tensor, axes: tuple[Axis, Axis]) -> Tensor:
    return axes[1].interpolate(axes[0].interpolate(x, -2), -1)


def _resampling(axes: tuple[Axis, Axis]) -> tuple[int, int]:
    """Return the multiply-accumulates of the way to the lattice and back, in three channels; aligned axes need none."""
    height, width = axes
    inwards = [_taps(axis, axis.source_range(0, 1)) for axis in axes]
    outwards = [_taps(axis, axis.point_range(0, 1)) for axis in axes]
    down = height.points * (inwards[0] * width.length + inwards[1] * width.points)
    back = height.length * (outwards[0] * width.points + outwards[1] * width.length)
    return 3 * down, 3 * back


def _taps(axis: Axis, band: tuple[int, int]) -> int:
    return 0 if axis.aligned else band[1] - band[0]


def _convolved(subnetwork: Subnetwork, area: tuple[int, int], same: int) -> int:
    """Return the multiply-accumulates of a subnetwork's convolutions where it gives ``area`` (height, width).

    ``same`` of the first one's inputs are the same everywhere, and in its bias.
    """
    height, width = (side + 2 * subnetwork.RADIUS for side in area)
    total = 0
    for convolution in (part for part in subnetwork.modules() if isinstance(part, nn.Conv2d)):
        height, width = height - convolution.kernel_size[0] + 1, width - convolution.kernel_size[1] + 1
        seen = convolution.weight.shape[1] - (same if convolution is subnetwork.first else 0)
        total += seen * convolution.weight[:, 0].numel() * height * width
    return total
