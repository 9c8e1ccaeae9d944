"""Preemptive channel splitting: the contract, and what its bands mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor

from iarn.split import merge, split
from tests.support.invertible_contract import InvertibleContract
from tests.support.networks import noise

by_two_and_three = pytest.mark.parametrize("by", [2, 3])


@dataclass
class Split:
    """A split as a block: one picture to a small one and its high bands."""

    channels: int
    by: int

    def inputs(self, height: int, width: int) -> list[tuple[int, int, int]]:
        return [(self.channels, self.by * height, self.by * width)]

    def outputs(self, height: int, width: int) -> list[tuple[int, int, int]]:
        return [(self.channels, height, width), ((self.by**2 - 1) * self.channels, height, width)]

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return split(*parts, by=self.by)

    def inverse(self, *parts: Tensor) -> tuple[Tensor, ...]:
        return (merge(*parts, by=self.by),)


class TestSplit(InvertibleContract):
    """The contract, over channels and what is split by."""

    tolerance = 1e-6

    @pytest.fixture(params=list(product([1, 3, 4], [2, 3])), ids=lambda param: f"{param[0]} channels by {param[1]}")
    def block(self, request: pytest.FixtureRequest) -> Split:
        channels, by = request.param
        return Split(channels, by)


@by_two_and_three
def test_the_low_band_is_the_mean_of_each_cell(by: int) -> None:
    """Protects the LR of an untrained network: a picture in the range of its input, each cell its mean."""
    x = noise(2, 3, 6, 12)
    low, _ = split(x, by)
    torch.testing.assert_close(low, torch.nn.functional.avg_pool2d(x, by))
    assert low.min() >= 0
    assert low.max() <= 1


@by_two_and_three
def test_a_flat_picture_has_no_high_bands(by: int) -> None:
    """Protects the bands' meaning: what the LR carries wholly leaves nothing for the latent."""
    low, high = split(torch.full((1, 3, 6, 6), 0.25), by)
    assert torch.equal(low, torch.full((1, 3, 6 // by, 6 // by), 0.25))
    assert not high.any()


@by_two_and_three
def test_high_bands_are_orthonormal(by: int) -> None:
    """Protects the latent's step: an error in the high bands is as large in the picture, no more and no less."""
    error = noise(1, 3 * (by**2 - 1), 4, 5) - 0.5
    found = merge(torch.zeros(1, 3, 4, 5), error, by)
    assert float(found.square().sum()) == pytest.approx(float(error.square().sum()), rel=1e-5)


def test_a_split_by_three_is_the_cosine_transform() -> None:
    """Protects the order of the bands of a split by three, which trained weights rely on: waves down, then waves across."""
    wave = [[math.cos(math.pi * (2 * sample + 1) * order / 6) for sample in range(3)] for order in range(3)]
    basis = torch.tensor(wave, dtype=torch.float32)
    basis /= basis.norm(dim=1, keepdim=True)
    for down, across in list(product(range(3), range(3)))[1:]:
        cell = torch.outer(basis[down], basis[across]).expand(1, 3, 3, 3)
        low, high = split(cell, 3)
        expected = torch.zeros(8, 3)
        expected[3 * down + across - 1] = 1
        torch.testing.assert_close(low, torch.zeros(1, 3, 1, 1))
        torch.testing.assert_close(high.reshape(8, 3), expected)


def test_each_high_band_sees_its_own_direction() -> None:
    """Protects the order of the bands, which trained weights rely on: across, down, diagonal, each for all channels."""
    x = torch.zeros(1, 3, 2, 2)
    x[0, 0] = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    x[0, 1] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    x[0, 2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    _, high = split(x)
    assert high.flatten().tolist() == [2, 0, 0, 0, 2, 0, 0, 0, 2]
