"""Invertible blocks: the contract over their parameters, and what keeps stacked ones from diverging."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from iarn.coupling import PART, Coupling
from iarn.encoding import PHASES, UNIFORM, Encoding
from tests.support.invertible_contract import InvertibleContract
from tests.support.networks import draw, noise


def encoding(height: int, width: int) -> Encoding:
    """Return an encoding of noise."""
    return Encoding(phases=noise(1, PHASES, height, width, seed=7) * 2 - 1, uniform=noise(1, UNIFORM, seed=8) * 2 - 1)


@dataclass
class UnderTest:
    """A coupling with its encoding held fixed, as the network gives it."""

    coupling: Coupling
    low: int
    high: int

    def inputs(self, height: int, width: int) -> list[tuple[int, int, int]]:
        return [(self.low, height, width), (self.high, height, width)]

    outputs = inputs

    def encoding(self, like: Tensor) -> Encoding:
        return encoding(*like.shape[-2:])

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        u, v = parts
        return self.coupling(u, v, self.encoding(u))

    def inverse(self, *parts: Tensor) -> tuple[Tensor, ...]:
        u, v = parts
        return self.coupling.inverse(u, v, self.encoding(u))


class TestCoupling(InvertibleContract):
    """The contract, over channels, widths, bounds and weights."""

    @pytest.fixture(
        params=[(3, 9, 8, 1.0, 0), (3, 45, 8, 1.0, 1), (3, 9, 1, 0.5, 2), (1, 2, 16, 2.0, 3)],
        ids=["first stage", "second stage", "one channel wide", "loose bound"],
    )
    def block(self, request: pytest.FixtureRequest) -> UnderTest:
        low, high, width, clamp, seed = request.param
        coupling = Coupling(low, high, width, clamp)
        draw(coupling, seed)
        return UnderTest(coupling, low, high)


def test_an_untrained_block_changes_nothing() -> None:
    """Protects the start of training: an untrained network is a plain wavelet resize."""
    coupling = Coupling(3, 9, 8, 1.0)
    u, v, e = noise(2, 3, 5, 6), noise(2, 9, 5, 6, seed=1), encoding(5, 6)
    for one, other in zip(coupling(u, v, e), (u, v), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("clamp", [0.5, 2.0])
def test_the_gain_is_bounded(clamp: float) -> None:
    """Protects against divergence: whatever its subnetwork says, one block scales the high bands by e^clamp at most."""
    coupling = Coupling(3, 9, 8, clamp)
    gain, _ = coupling._gain_and_shift(1e6 * (noise(1, 18, 9, 9) - 0.5))
    assert float(gain.log().abs().max()) <= clamp + 1e-5


def test_edges_are_repeated_and_not_zero() -> None:
    """Protects the border: a flat picture stays flat up to its edge (zeros beyond it made coloured lines)."""
    coupling = Coupling(3, 9, 8, 1.0)
    draw(coupling)
    flat = torch.full((1, 3, 9, 9), 0.5), torch.full((1, 9, 9, 9), 0.1)
    for part in coupling(*flat, Encoding(phases=torch.full((1, PHASES, 9, 9), 0.3), uniform=torch.full((1, UNIFORM), 0.3))):
        torch.testing.assert_close(part, part[..., 4:5, 4:5].expand_as(part), rtol=1e-5, atol=1e-6)


def test_an_output_depends_on_no_more_than_the_radius() -> None:
    """Protects tiles: a change reaches RADIUS pixels and no further, through the block and through its inverse."""
    coupling = Coupling(3, 9, 8, 1.0)
    draw(coupling)
    side = 4 * Coupling.RADIUS + 1
    middle, reach = side // 2, Coupling.RADIUS
    u, v = noise(1, 3, side, side), noise(1, 9, side, side, seed=1)
    e = encoding(side, side)
    for way in (coupling, coupling.inverse):
        before = torch.cat(way(u, v, e), 1)
        touched_u, touched_v = u.clone(), v.clone()
        touched_u[..., middle, middle] += 1
        touched_v[..., middle, middle] += 1
        changed = (torch.cat(way(touched_u, touched_v, e), 1) - before).abs().amax((0, 1)) > 1e-6
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        assert (rows - middle).abs().max() <= reach
        assert (columns - middle).abs().max() <= reach


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_what_is_trained_is_what_is_used(way: str) -> None:
    """Protects figures: in parts and by rows, as a CPU computes without gradients, a block is the one that was trained."""
    coupling, height, width = Coupling(3, 9, 8, 1.0), PART[0] + 3, PART[1] + 5
    draw(coupling, seed=3)
    u, v, e = noise(1, 3, height, width), noise(1, 9, height, width, seed=1), encoding(height, width)
    trained = getattr(coupling, way)(u, v, e)
    with torch.no_grad():
        used = getattr(coupling, way)(u, v, e)
    for one, other in zip(trained, used, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sides", [None, (9, 11)], ids=["whole", "filled up"])
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_gradients_of_a_network_that_does_not_learn_are_those_of_one_that_does(way: str, sides: tuple[int, int] | None) -> None:
    """Protects effort: computed again part by part, a gradient is what autograd gives that keeps everything in between."""
    coupling, height, width = Coupling(3, 9, 8, 1.0), PART[0] + 3, PART[1] + 5
    draw(coupling, seed=3)
    e = encoding(height, width)
    if sides is not None:
        e = replace(e, sides=(torch.tensor([height - sides[0]]), torch.tensor([width - sides[1]])))
    towards = [noise(1, 3, height, width, seed=4), noise(1, 9, height, width, seed=5)]
    for part in towards if sides is not None else ():
        part[..., height - sides[0] :, :], part[..., width - sides[1] :] = 0, 0  # nobody asks for what is filling
    found = []
    for learns in (True, False):
        coupling.train(learns).requires_grad_(learns)
        parts = [noise(1, 3, height, width).requires_grad_(), noise(1, 9, height, width, seed=1).requires_grad_()]
        found.append(torch.autograd.grad(getattr(coupling, way)(*parts, e), parts, towards))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
