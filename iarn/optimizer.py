"""Muon for networks of convolutions.

A kernel's update is its momentum with all singular values brought to about one, so that every direction a convolution can
take is learned at the same pace. Biases and what modulates channels follow Adam, at the whole rate and without decay.
Against AdamW it saved most of the steps (docs/training.md).
Sources: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the size of a step, that of an
Adam step, is from Liu et al., "Muon is scalable for LLM training", 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

ADAM_SIZE = 0.2
"""Root mean square of an update with Adam, as seen in practice, in units of the rate; Muon's updates get the same."""


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for convolution kernels (outputs, inputs, height, width), Adam for all else."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        rate: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 1e-4,
    ) -> None:
        defaults = {"lr": rate, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return what ``closure`` gave, which may measure the loss anew."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            kernels: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim == 4:
                    kernels.setdefault(parameter.shape, []).append(parameter)
                else:
                    self._adam(parameter, parameter.grad, group)
            for alike in kernels.values():  # kernels of one shape at a time, as one batch of matrices
                self._muon(alike, group)
        return loss

    def _muon(self, kernels: list[nn.Parameter], group: dict[str, Any]) -> None:
        rows = kernels[0].shape[0]
        for kernel in kernels:
            if not self.state[kernel]:
                self.state[kernel]["momentum"] = torch.zeros_like(kernel)
        momenta = [self.state[kernel]["momentum"] for kernel in kernels]
        gradients = [kernel.grad for kernel in kernels if kernel.grad is not None]
        for momentum, gradient in zip(momenta, gradients, strict=True):
            momentum.lerp_(gradient, 1 - group["momentum"])
        ahead = [gradient.lerp(momentum, group["momentum"]) for gradient, momentum in zip(gradients, momenta, strict=True)]
        updates = orthogonalise(torch.stack([each.reshape(rows, -1) for each in ahead]))
        size = ADAM_SIZE * math.sqrt(max(updates.shape[1:]))
        for kernel, update in zip(kernels, updates, strict=True):
            kernel.mul_(1 - group["lr"] * group["weight_decay"])
            kernel.sub_(update.reshape(kernel.shape), alpha=group["lr"] * size)

    def _adam(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"steps": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["steps"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["steps"])
        root = (state["square"] / (1 - second ** state["steps"])).sqrt()
        parameter.sub_(mean / (root + 1e-8), alpha=group["lr"])


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return ``matrices`` (N, rows, columns) with every singular value between about 0.7 and 1.2, directions kept.

    Five Newton-Schulz steps with the quintic of Jordan et al.; matrices of zeros stay zeros.
    """
    x: Tensor = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-12)
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    for _ in range(5):
        gram: Tensor = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x if wide else x.mT
