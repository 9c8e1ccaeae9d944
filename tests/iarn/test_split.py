"""Preemptive channel splitting: the contract, and what its bands mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iarn.split import merge, split
from tests.support.invertible_contract import InvertibleContract
from tests.support.networks import noise


class Split:
    """The wavelet as a block: one picture to two bands of half its size."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def inputs(self, height: int, width: int) -> list[tuple[int, int, int]]:
        return [(self.channels, 2 * height, 2 * width)]

    def outputs(self, height: int, width: int) -> list[tuple[int, int, int]]:
        return [(self.channels, height, width), (3 * self.channels, height, width)]

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return split(*parts)

    def inverse(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return (merge(*parts),)


class TestSplit(InvertibleContract):
    """The contract, over channels."""

    tolerance = 1e-6

    @pytest.fixture(params=[1, 3, 4], ids=lambda channels: f"{channels} channels")
    def block(self, request: pytest.FixtureRequest) -> Split:
        return Split(request.param)


def test_the_low_band_is_the_mean_of_each_cell() -> None:
    """Protects the LR of an untrained network: a picture in the range of its input, each cell its mean."""
    x = noise(2, 3, 6, 8)
    low, _ = split(x)
    torch.testing.assert_close(low, torch.nn.functional.avg_pool2d(x, 2))
    assert low.min() >= 0
    assert low.max() <= 1


def test_a_flat_picture_has_no_high_bands() -> None:
    """Protects the bands' meaning: what the LR carries wholly leaves nothing for the latent."""
    low, high = split(torch.full((1, 3, 4, 4), 0.25))
    assert torch.equal(low, torch.full((1, 3, 2, 2), 0.25))
    assert not high.any()


def test_high_bands_are_orthonormal() -> None:
    """Protects the latent's step: an error in the high bands is as large in the picture, no more and no less."""
    error = noise(1, 9, 4, 5) - 0.5
    assert float(merge(torch.zeros(1, 3, 4, 5), error).square().sum()) == pytest.approx(float(error.square().sum()), rel=1e-5)


def test_each_high_band_sees_its_own_direction() -> None:
    """Protects the order of the bands, which trained weights rely on: across, down, diagonal, each for all channels."""
    x = torch.zeros(1, 3, 2, 2)
    x[0, 0] = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    x[0, 1] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    x[0, 2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    _, high = split(x)
    assert high.flatten().tolist() == [2, 0, 0, 0, 2, 0, 0, 0, 2]
