"""Muon: updates whose directions all count the same, Adam for vectors, and a state that can be saved."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from iarn.optimizer import ADAM_SIZE, Muon, orthogonalise
from tests.support.networks import noise


@pytest.mark.parametrize("shape", [(3, 5, 40), (2, 40, 5), (1, 16, 16), (4, 1, 9)])
def test_singular_values_become_about_one(shape: tuple[int, int, int]) -> None:
    """Protects the update: whatever the gradient's spectrum, wide or tall, all its directions come out alike."""
    given = (noise(*shape) - 0.5) * 1e-3
    found = orthogonalise(given)
    assert found.shape == given.shape
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    aligned = left.mT @ found @ right.mT
    assert float((aligned - torch.diag_embed(aligned.diagonal(dim1=1, dim2=2))).abs().max()) < 0.05


def test_no_gradient_is_no_update() -> None:
    """Protects networks part of which a step does not touch: zeros stay zeros, and a parameter without gradient stays."""
    assert torch.equal(orthogonalise(torch.zeros(2, 3, 9)), torch.zeros(2, 3, 9))
    layer = nn.Conv2d(2, 3, 3)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    Muon(layer.parameters(), rate=0.1).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_a_step_has_the_size_of_adams() -> None:
    """Protects the rate: the root mean square of a kernel's first update is about 0.2 of it, however small the gradient."""
    layer = nn.Conv2d(16, 16, 3)
    before = layer.weight.detach().clone()
    layer.weight.grad = (noise(16, 16, 3, 3) - 0.5) * 1e-6
    Muon([layer.weight], rate=0.01, weight_decay=0.0).step()
    change = (layer.weight.detach() - before).square().mean().sqrt()
    assert float(change) == pytest.approx(0.01 * ADAM_SIZE, rel=0.2)


def test_vectors_follow_adam() -> None:
    """Protects biases: their updates are those of torch's Adam."""
    ours, theirs = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(5))
    one, other = Muon([ours], rate=0.01), torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.95))
    for seed in range(4):
        for parameter, optimizer in ((ours, one), (theirs, other)):
            parameter.grad = noise(5, seed=seed) - 0.5
            optimizer.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_it_learns_what_a_convolution_does() -> None:
    """Protects the optimiser as a whole: a layer finds another's weights from what it does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wanted, found = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    optimizer = Muon(found.parameters(), rate=0.05)

    def loss(seed: int) -> Tensor:
        x = noise(8, 3, 9, 9, seed=seed)
        return (wanted(x).detach() - found(x)).square().mean()

    first = float(loss(0).detach())
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 200)
        optimizer.zero_grad()
        loss(step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss(0).detach()) < 1e-3 * first


def test_its_state_goes_on_exactly() -> None:
    """Protects resumed runs: an optimiser loaded from a state does what the saved one would have done."""
    layers = [nn.Conv2d(2, 2, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    one, other = (Muon(layer.parameters(), rate=0.01) for layer in layers)

    def step(layer: nn.Conv2d, optimizer: Muon, seed: int) -> None:
        optimizer.zero_grad()
        layer(noise(1, 2, 6, 6, seed=seed)).square().sum().backward()
        optimizer.step()

    step(layers[0], one, 1)
    layers[1].load_state_dict(layers[0].state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for layer, optimizer in zip(layers, (one, other), strict=True):
        step(layer, optimizer, 2)
    for left, right in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert torch.equal(left, right)
