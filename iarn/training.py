"""Training steps: what is sampled, what is minimised, and a state that resumes exactly.

Every step draws from a generator seeded by (seed, step), so a run continued from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from iarn.metrics import bicubic_lr, psnr
from iarn.network import NetworkConfig, Rescaler
from iarn.quantize import to_8bit


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training recipe; the defaults are those of the shipped weights.

    A patch spans ``lattice`` points per axis, so steps cost the same at every scale. The loss is Charbonnier's on the
    restored image plus ``lr_weight`` * d * (1 + d / ``lr_distance``), d the mean squared distance of the LR to the bicubic
    one: it hardly holds an LR above the PSNR that ``lr_distance`` stands for, and strongly one below. The rate rises over
    ``warmup`` steps and falls by a half cosine over the last ``decay`` share of ``steps``. The last ``float32_share`` of
    them never autocast, for what an LR hides is finer than bfloat16. ``smooth`` is the share of patches magnified eightfold,
    as skies and walls look; ``asymmetric`` that of steps with another scale per axis.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    steps: int = 6_000
    batch: int = 8
    lattice: int = 112
    seed: int = 0
    rate: float = 1e-3
    warmup: int = 200
    decay: float = 0.4
    float32_share: float = 1 / 12
    clip: float = 0.5
    lr_weight: float = 1.0
    lr_distance: float = 10**-3.85
    ema: float = 0.999
    smooth: float = 0.06
    asymmetric: float = 0.25

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.lattice < 8 * self.network.max_scale or not 0 < self.decay <= 1:
            raise ValueError(
                "Training needs steps and batch of at least 1, a decay in (0, 1] and a lattice of at least 8 points "
                f"per LR pixel at the largest scale ({8 * self.network.max_scale}); got {self}."
            )

    def rate_at(self, step: int) -> float:
        """Return the learning rate of ``step``, counted from 0."""
        start = self.steps * (1 - self.decay)
        fallen = max(0.0, (step - start) / (self.steps - start))
        return self.rate * min(1.0, (step + 1) / max(1, self.warmup)) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, fallen)))


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step measured: the loss, and PSNR in dB of restored images and of LRs."""

    step: int
    loss: float
    psnr: float
    lr_psnr: float


class Trainer:
    """A network, its moving average and its optimiser, advanced by :meth:`step`."""

    def __init__(self, config: TrainingConfig, device: torch.device, *, autocast: bool) -> None:
        self.config, self.device, self.autocast = config, device, autocast
        with torch.random.fork_rng(devices=[]):  # initialisation draws from torch's global generator
            torch.manual_seed(config.seed)
            network = Rescaler(config.network)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.rate, weight_decay=1e-4)
        self.done = 0

    def step(self, images: Sequence[Tensor]) -> StepReport:
        """Do one step over patches of ``images``, uint8 (3, H, W) each."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.done)
        size, lr_size = sample_sizes(config, generator)
        x = sample_patches(images, size, config, generator).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate_at(self.done)
        coarse = self.autocast and self.done < config.steps * (1 - config.float32_share)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=coarse):
            y, _ = self.network.downscale(x, lr_size)
            restored = self.network.restore(to_8bit(y), None, size)
        reference = bicubic_lr(x, self.network.axes(size, lr_size))
        distance = (y - reference).square().mean()
        charbonnier = torch.sqrt((restored - x).square() + 1e-6).mean()
        loss = charbonnier + config.lr_weight * distance * (1 + distance / config.lr_distance)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._follow()
        self.done += 1
        with torch.no_grad():
            return StepReport(step=self.done, loss=float(loss), psnr=psnr(restored, x), lr_psnr=psnr(y, reference))

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

    @torch.no_grad()
    def _follow(self) -> None:
        """Let the average follow the network, faster in the first steps so that it forgets the start."""
        keep = min(self.config.ema, (1 + self.done) / (10 + self.done))
        for mean, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(parameter, 1 - keep)


def sample_sizes(config: TrainingConfig, generator: torch.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Draw a patch size and its LR size, (height, width) each; scales log-uniform from 1 to the network's largest."""
    largest = config.network.max_scale
    first, second, asymmetric = torch.rand(3, generator=generator).tolist()
    scales = [largest**first] * 2
    if asymmetric < config.asymmetric:
        scales[1] = largest**second
    stride = 1 << max(1, (math.ceil(max(scales)) - 1).bit_length())
    lr = config.lattice // stride
    height, width = (max(lr + 1, min(lr * stride, round(lr * scale))) for scale in scales)
    return (height, width), (lr, lr)


def sample_patches(
    images: Sequence[Tensor], size: tuple[int, int], config: TrainingConfig, generator: torch.Generator
) -> Tensor:
    """Draw a batch of patches (B, 3, height, width) in [0, 1], flipped and turned at random."""
    patches = []
    for _ in range(config.batch):
        index, top, left, turn, smooth = torch.rand(5, generator=generator).tolist()
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
