"""Small networks whose blocks do something, for tests that need no training."""

from __future__ import annotations

import torch

from iarn.network import NetworkConfig, Rescaler
from iarn.weights import pack

torch.set_num_threads(1)  # the pictures are small; more threads cost more than they give

SMALL = NetworkConfig(blocks=(1, 2), width=8)
THIRDS = NetworkConfig(blocks=(2, 2, 1), thirds=(2, 1), light=1, width=8)
"""With stages that split by three (strides 1, 2, 3, 4, 6 and 8), and fewer blocks on dense lattices."""


def draw(module: torch.nn.Module, seed: int = 0, spread: float = 0.05) -> None:
    """Redraw every parameter from a normal distribution: as they begin, blocks are the identity and would hide faults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, spread, generator=generator)


def random_network(config: NetworkConfig = SMALL, seed: int = 0) -> Rescaler:
    """Return a network with random weights."""
    network = Rescaler(config).eval().requires_grad_(False)
    draw(network, seed)
    return network


def random_weights(config: NetworkConfig = SMALL, seed: int = 0) -> bytes:
    """Return a weights file of :func:`random_network`."""
    return pack(random_network(config, seed), {"made": "for a test"})


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return uniform noise in [0, 1), the hardest picture to bring back."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
