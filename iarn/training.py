"""Training steps: what is minimised, and a state that resumes exactly.

Every step draws from a generator seeded by (seed, step), so a run continued from a checkpoint sees what it would have seen,
and workers that share a batch each take their own part of the same draw.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from iarn.encoding import CLEAN_STEP, budget_of
from iarn.metrics import bicubic_lr, detail_bits, psnr
from iarn.network import Rescaler
from iarn.optimizer import Muon
from iarn.quantize import to_8bit, to_levels, to_step
from iarn.recipe import TrainingConfig
from iarn.sampling import AS_CODED, Use, sample_patches, sample_sizes, sample_use

KEPT_CHARBONNIER = 1e-3
"""Where Charbonnier's loss turns from square to absolute while the latent is kept, whose bits are priced in absolute error."""

CLEAN_LR_WEIGHT = 50.0
"""Weight of the LR's squared distance where the latent is kept: then the LR has nothing to hide."""

DETAIL_WEIGHT = 0.05
"""Weight of the bits of a detail layer, so that steps for them are about as long as others."""

LR_WEIGHT_SCALE = 4
"""The scale at which the LR's squared distance has the weight of the recipe; elsewhere by the pixels an LR pixel stands for."""


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
    ``code_lr`` gives LRs (B, 3, h, w) as they come back from files; a recipe with ``coded`` steps needs it.
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
        code_lr: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if config.batch % workers:
            raise ValueError(f"A batch of {config.batch} cannot be shared evenly by {workers} workers; give a multiple.")
        self.config, self.device, self.autocast = config, device, autocast
        if config.coded and code_lr is None:
            raise ValueError("A recipe with coded LRs was given without code_lr; give what codes them.")
        self._worker, self._workers = worker, workers
        self._code_lr = code_lr or to_8bit
        with torch.random.fork_rng(devices=[]):  # initialisation draws from torch's global generator
            torch.manual_seed(config.seed)
            network = Rescaler(config.network)  # on the CPU, so that every device starts alike
        if config.only:
            network.requires_grad_(False)
            for part in filter(None, (network, network.clean)):
                for name in config.only:
                    part.blocks_of(name).requires_grad_(True)
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
        resize at scales that stages of their own are for, before it has learned. Weights for clean LRs begin as the others.

        Raises ValueError where it is built otherwise.
        """
        given, wanted = network.config, self.config.network
        grown = replace(given, blocks=wanted.blocks, thirds=wanted.thirds, light=wanted.light, clean=wanted.clean)
        fits = grown == wanted and given.clean <= wanted.clean
        for few, many in ((given.blocks, wanted.blocks), (given.thirds, wanted.thirds)):
            fits &= len(few) <= len(many) and all(own <= asked for own, asked in zip(few, many, strict=False))
        if not fits:
            raise ValueError(f"The weights are of {given}, the recipe asks for {wanted}; only blocks and stages can be added.")
        state = network.state_dict()
        if wanted.clean and not given.clean:
            state |= {f"clean.{name}": tensor for name, tensor in state.items()}
        for own in (self.network, self.average):
            own.load_state_dict(state, strict=False)

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
                y = self._code_lr(reference) if levels == AS_CODED else to_levels(reference, levels)
                restored = self.network.restore(y, None, size, budget=budget_of(CLEAN_STEP))
            elif use is Use.KEPT:
                y, z = self.network.downscale(x, lr_size, budget=budget_of(levels))
                restored = self.network.restore(to_8bit(y), to_step(z, levels), size, budget=budget_of(levels))
            else:
                y = self.network.downscale_lr(x, lr_size)
                restored = self.network.restore(to_8bit(y), None, size)
        rounding = KEPT_CHARBONNIER if use is Use.KEPT else config.charbonnier
        if use is Use.CLEAN and config.detail_step:
            loss = DETAIL_WEIGHT * detail_bits(restored - x, config.detail_step)
        else:
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
