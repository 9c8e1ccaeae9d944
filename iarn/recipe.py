"""A training recipe: what a run minimises, draws and learns, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from iarn.network import NetworkConfig


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
    steps that restore from the bicubic LR, as where a detail layer follows, and ``coded`` the share of those whose LR is coded
    as archives code it; the others round its values. Where ``detail_step`` is not 0, in 8-bit levels, steps with a clean LR
    minimise about the bits of a detail layer quantised by it (:func:`iarn.metrics.detail_bits`) instead of Charbonnier's loss.
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
    coded: float = 0.0
    detail_step: float = 0.0
    strides: tuple[int, ...] = ()
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.lattice < 8 * self.network.max_scale or not 0 < self.decay <= 1:
            raise ValueError(
                "Training needs steps and batch of at least 1, a decay in (0, 1] and a lattice of at least 8 points "
                f"per LR pixel at the largest scale ({8 * self.network.max_scale}); "
                f"got {self._named('steps', 'batch', 'decay', 'lattice')}."
            )
        shares = ("float32_share", "ema", "smooth", "asymmetric", "whole", "kept", "clean", "coded")
        wrong = [name for name in shares if not 0 <= getattr(self, name) <= 1]
        others = ("warmup", "rate", "lr_weight", "charbonnier", "detail_step")
        wrong += [name for name in others if getattr(self, name) < 0]
        if wrong or self.clip <= 0 or self.asymmetric + self.whole > 1 or self.kept + self.clean > 1:
            raise ValueError(
                f"A recipe's shares ({', '.join(shares)}) lie in 0 to 1, asymmetric and whole, and kept and clean, together "
                f"too; warmup, rate, lr_weight, charbonnier and detail_step are not negative, and clip is above 0; "
                f"got {self._named(*shares, *others, 'clip')}."
            )
        there, drawn = self.network.strides[1:], self.strides or self.network.strides[1:]
        known = {name for stride in there for name in self.network.stages(stride)}
        idle = [stride for stride in drawn if self.only and set(self.only).isdisjoint(self.network.stages(stride))]
        if not set(drawn) <= set(there) or not set(self.only) <= known or idle:
            raise ValueError(
                f"A recipe's strides are some of {there}, and only names some of the stages {sorted(known)}, one at least of "
                f"each stride that is drawn; got {self._named('strides', 'only')}."
            )

    def _named(self, *names: str) -> str:
        """Return settings by their names, for people."""
        return ", ".join(f"{name} {getattr(self, name)}" for name in names)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of ``step``, counted from 0."""
        start = self.steps * (1 - self.decay)
        fallen = max(0.0, (step - start) / (self.steps - start))
        return self.rate * min(1.0, (step + 1) / max(1, self.warmup)) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, fallen)))
