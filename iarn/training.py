"""Training steps: what is sampled, what is minimised, and a state that resumes exactly.

Every step draws from a generator seeded by (seed, step), so a run continued from a checkpoint sees what it would have seen,
and workers that share a batch each take their own part of the same draw.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn.functional import interpolate

from iarn.encoding import CLEAN_STEP, budget_of
from iarn.metrics import bicubic_lr, psnr
from iarn.network import NetworkConfig, Rescaler
from iarn.optimizer import Muon
from iarn.quantize import to_8bit, to_levels, to_step

FINEST_STEP, COARSEST_STEP = 1.0, 64.0
"""Quantisation steps of a kept latent, in 8-bit levels, between which training draws log-uniformly."""

KEPT_CHARBONNIER = 1e-3
"""Where Charbonnier's loss turns from square to absolute while the latent is kept, whose bits are priced in absolute error."""

COARSEST_PRECISION = 4
"""Levels between the values of a clean LR, at most, that training draws: a coarser one costs fewer bytes."""

CLEAN_LR_WEIGHT = 50.0
"""Weight of the LR's squared distance where the latent is kept: then the LR has nothing to hide."""

LR_WEIGHT_SCALE = 4
"""The scale at which the LR's squared distance has the weight of the recipe; elsewhere by the pixels an LR pixel stands for."""

Size = tuple[int, int]


class Use(StrEnum):
    """What is stored beside an LR: nothing, so that it hides what it can; the latent; or a detail layer."""

    LEAN = "lean"
    KEPT = "kept"
    CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training recipe; the defaults are those of the shipped weights.

    A patch spans ``lattice`` points per axis, so steps cost the same at every scale. The loss is Charbonnier's on the
    restored image (square below ``charbonnier``, absolute above) plus, for each patch, w * d * (1 + d / d0), d the mean
    squared distance of its LR to the bicubic one, d0 that of ``lr_psnr`` dB, and w ``lr_weight`` at x4 and otherwise in
    proportion to the pixels that an LR pixel stands for: an LR is hardly held above that PSNR, and strongly below.

    ``strides`` are the lattices to train at (``NetworkConfig.strides``), one drawn for each step and then a scale that needs
    it; one named twice is drawn twice as often. Without any, scales are drawn from 1 to the largest. ``only`` names the stages
    that learn (A3; ``NetworkConfig.stages``), the others stay as they are; without any, all learn.

    The rate rises over ``warmup`` steps and falls by a half cosine over the last ``decay`` share of ``steps``. The last
    ``float32_share`` of them never autocast, for what an LR hides is finer than bfloat16. ``smooth`` is the share of patches
    magnified eightfold, as skies and walls look; ``asymmetric`` that of steps with another scale per axis; ``whole`` that of
    steps at exactly 2, 3, ... (at a stride the lattice is the image itself, which other scales never show); ``kept`` that of
    steps whose latent is quantised and kept, the network being told by the budget, and pays for its bits; ``clean`` that of
    steps that restore from the bicubic LR, as where a detail layer follows.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    steps: int = 50_000
    batch: int = 4
    lattice: int = 112
    seed: int = 0
    rate: float = 2e-3
    warmup: int = 100
    decay: float = 0.7
    float32_share: float = 0.05
    clip: float = 0.5
    lr_weight: float = 0.6
    lr_psnr: float = 38.5
    charbonnier: float = 0.01
    ema: float = 0.999
    smooth: float = 0.06
    asymmetric: float = 0.2
    whole: float = 0.3
    kept: float = 0.04
    clean: float = 0.1
    strides: tuple[int, ...] = ()
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.lattice < 8 * self.network.max_scale or not 0 < self.decay <= 1:
            raise ValueError(
                "Training needs steps and batch of at least 1, a decay in (0, 1] and a lattice of at least 8 points "
                f"per LR pixel at the largest scale ({8 * self.network.max_scale}); got {self}."
            )
        shares = ("float32_share", "ema", "smooth", "asymmetric", "whole", "kept", "clean")
        wrong = [name for name in shares if not 0 <= getattr(self, name) <= 1]
        wrong += [name for name in ("warmup", "rate", "lr_weight", "charbonnier") if getattr(self, name) < 0]
        if wrong or self.clip <= 0 or self.asymmetric + self.whole > 1 or self.kept + self.clean > 1:
            raise ValueError(
                f"A recipe's shares ({', '.join(shares)}) lie in 0 to 1, asymmetric and whole, and kept and clean, together "
                f"too; warmup, rate, lr_weight and charbonnier are not negative, and clip is above 0; got {self}."
            )
        there, drawn = self.network.strides[1:], self.strides or self.network.strides[1:]
        known = {name for stride in there for name in self.network.stages(stride)}
        idle = [stride for stride in drawn if self.only and set(self.only).isdisjoint(self.network.stages(stride))]
        if not set(drawn) <= set(there) or not set(self.only) <= known or idle:
            raise ValueError(
                f"A recipe's strides are some of {there}, and only names some of the stages {sorted(known)}, one at least of "
                f"each stride that is drawn; got {self}."
            )

    def rate_at(self, step: int) -> float:
        """Return the learning rate of ``step``, counted from 0."""
        start = self.steps * (1 - self.decay)
        fallen = max(0.0, (step - start) / (self.steps - start))
        return self.rate * min(1.0, (step + 1) / max(1, self.warmup)) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, fallen)))


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step measured: the loss, PSNR in dB of restored images and of LRs, and what the step was for."""

    step: int
    loss: float
    psnr: float
    lr_psnr: float
    use: Use


def computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16; a CPU that does not emulates it, at several times float32's cost."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # the only words that torch has for it
    return any(getattr(torch.cpu, name, bool)() for name in names)


class Trainer:
    """A network, its moving average and its optimiser, advanced by :meth:`step`.

    ``worker`` of ``workers`` trains on its part of each batch; torch.distributed has to be set up where there are several.
    """

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        *,
        autocast: bool,
        compiled: bool = False,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        if config.batch % workers:
            raise ValueError(f"A batch of {config.batch} cannot be shared evenly by {workers} workers; give a multiple.")
        self.config, self.device, self.autocast = config, device, autocast
        self._worker, self._workers = worker, workers
        with torch.random.fork_rng(devices=[]):  # initialisation draws from torch's global generator
            torch.manual_seed(config.seed)
            network = Rescaler(config.network)  # on the CPU, so that every device starts alike
        if config.only:
            network.requires_grad_(False)
            for name in config.only:
                network.blocks_of(name).requires_grad_(True)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = Muon(self.network.parameters(), rate=config.rate)
        self.done = 0
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # steps outside autocast are meant to be float32
        if compiled:  # by block, whose shapes depend on the lattice's stride alone: a graph for each, and for each precision
            self.network.compile_blocks()

    def start_from(self, network: Rescaler) -> None:
        """Take the weights of ``network``, which may have fewer blocks and stages: what it lacks is the identity, or a plain
        resize at scales that stages of their own are for, before it has learned.

        Raises ValueError where it is built otherwise.
        """
        given, wanted = network.config, self.config.network
        fits = replace(given, blocks=wanted.blocks, thirds=wanted.thirds, light=wanted.light) == wanted
        for few, many in ((given.blocks, wanted.blocks), (given.thirds, wanted.thirds)):
            fits &= len(few) <= len(many) and all(own <= asked for own, asked in zip(few, many, strict=False))
        if not fits:
            raise ValueError(f"The weights are of {given}, the recipe asks for {wanted}; only blocks and stages can be added.")
        for own in (self.network, self.average):
            own.load_state_dict(network.state_dict(), strict=False)

    def step(self, images: Sequence[Tensor]) -> StepReport:
        """Do one step over patches of ``images``, uint8 (3, H, W) each, on any device."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.done)
        size, lr_size = sample_sizes(config, generator)
        use, levels = sample_use(config, generator)
        x = sample_patches(images, size, config, generator, part=(self._worker, self._workers)).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate_at(self.done)
        reference = bicubic_lr(x, self.network.axes(size, lr_size))
        loss, restored, y = self._loss(x, reference, use, levels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._workers > 1:
            self._share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._follow()
        self.done += 1
        with torch.no_grad():
            return StepReport(step=self.done, loss=float(loss), psnr=psnr(restored, x), lr_psnr=psnr(y, reference), use=use)

    def _loss(self, x: Tensor, reference: Tensor, use: Use, levels: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, the restored patches and their LRs, for patches whose bicubic LR is ``reference``."""
        config, size, lr_size = self.config, (x.shape[-2], x.shape[-1]), (reference.shape[-2], reference.shape[-1])
        coarse = self.autocast and self.done < config.steps * (1 - config.float32_share)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=coarse):
            if use is Use.CLEAN:
                y = to_levels(reference, levels)
                restored = self.network.restore(y, None, size, budget=budget_of(CLEAN_STEP))
            elif use is Use.KEPT:
                y, z = self.network.downscale(x, lr_size, budget=budget_of(levels))
                restored = self.network.restore(to_8bit(y), to_step(z, levels), size, budget=budget_of(levels))
            else:
                y = self.network.downscale_lr(x, lr_size)
                restored = self.network.restore(to_8bit(y), None, size)
        rounding = KEPT_CHARBONNIER if use is Use.KEPT else config.charbonnier
        loss = torch.sqrt((restored - x).square() + rounding**2).mean()
        distance = (y - reference).square().mean(dim=(1, 2, 3))
        if use is Use.LEAN:
            weight = config.lr_weight * x.shape[-2:].numel() / reference.shape[-2:].numel() / LR_WEIGHT_SCALE**2
            loss = loss + weight * (distance * (1 + distance / 10 ** (-config.lr_psnr / 10))).mean()
        elif use is Use.KEPT:
            bits = estimated_bits(z, levels) / x.numel()
            loss = loss + CLEAN_LR_WEIGHT * distance.mean() + bit_price(levels) * bits
        return loss, restored, y

    def state_dict(self) -> dict[str, Any]:
        """Return all that :meth:`load_state_dict` needs to go on exactly."""
        return {
            "done": self.done,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.done = state["done"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _share_gradients(self) -> None:
        """Give every worker the mean gradient of all, in one exchange."""
        gradients = [each.grad for each in self.network.parameters() if each.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self._workers
        for gradient, mean in zip(gradients, torch.split(flat, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the average follow the network, faster in the first steps so that it forgets the start."""
        keep = min(self.config.ema, (1 + self.done) / (10 + self.done))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - keep)


def estimated_bits(z: Tensor, step: float) -> Tensor:
    """Return about the bits of latent ``z`` in steps of ``step`` 8-bit levels: 2 log2(1 + |z| / step), zero for zero."""
    return 2 * torch.log2(1 + z.abs() * (255 / step)).sum()


def bit_price(step: float) -> float:
    """Return how much mean absolute error one bit per sample has to save to be worth its place beside a latent of ``step``.

    At high rates the squared error of steps D is D^2 / 12 and halves twice with each bit, d(D^2 / 12) / d bits =
    2 ln 2 D^2 / 12; the mean absolute error, 0.8 of its root for errors of normal distribution, changes by 0.16 D.
    """
    return 0.8 * math.log(2) * (step / 255) / math.sqrt(12)


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
