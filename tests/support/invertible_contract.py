"""What every invertible block has to keep: it comes back, from either side, whatever its size and weights."""

from __future__ import annotations

from typing import Protocol

import pytest
import torch
from torch import Tensor

SIZES = ((1, 1), (1, 7), (5, 1), (2, 2), (3, 5), (16, 16), (17, 33))


class Invertible(Protocol):
    """A block under test beside the shapes (without batch) of what goes in and what comes out at an output size."""

    def inputs(self, height: int, width: int) -> list[tuple[int, int, int]]: ...

    def outputs(self, height: int, width: int) -> list[tuple[int, int, int]]: ...

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]: ...

    def inverse(self, *parts: Tensor) -> tuple[Tensor, ...]: ...


class InvertibleContract:
    """Inherit and give the fixture ``block``; ``tolerance`` is of float32 values around 1."""

    tolerance = 1e-5

    @pytest.fixture
    def block(self) -> Invertible:
        raise NotImplementedError

    @pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
    @pytest.mark.parametrize("batch", [1, 3])
    def test_inverse_undoes_forward(self, block: Invertible, size: tuple[int, int], batch: int) -> None:
        """Protects the way back: what the block did to a picture can be undone."""
        given = _draw(block.inputs(*size), batch)
        changed = block.forward(*given)
        assert [tuple(part.shape[1:]) for part in changed] == block.outputs(*size)
        _assert_equal(block.inverse(*changed), given, self.tolerance)

    @pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
    @pytest.mark.parametrize("batch", [1, 3])
    def test_forward_undoes_inverse(self, block: Invertible, size: tuple[int, int], batch: int) -> None:
        """Protects restoring without a latent: any LR and latent are those of some picture, not only the ones seen."""
        given = _draw(block.outputs(*size), batch)
        restored = block.inverse(*given)
        assert [tuple(part.shape[1:]) for part in restored] == block.inputs(*size)
        _assert_equal(block.forward(*restored), given, self.tolerance)

    def test_pictures_of_a_batch_do_not_touch(self, block: Invertible) -> None:
        """Protects batches: a picture comes out the same whatever stands beside it."""
        given = _draw(block.inputs(6, 5), 3)
        together = block.forward(*given)
        for index in range(3):
            alone = block.forward(*(part[index : index + 1] for part in given))
            _assert_equal(alone, [part[index : index + 1] for part in together], self.tolerance)

    def test_gradients_reach_every_input(self, block: Invertible) -> None:
        """Protects training: neither way cuts the gradient, and none is infinite."""
        for way, shapes in ((block.forward, block.inputs(4, 3)), (block.inverse, block.outputs(4, 3))):
            given = [part.requires_grad_() for part in _draw(shapes, 2)]
            torch.stack([part.square().sum() for part in way(*given)]).sum().backward()
            assert all(part.grad is not None and part.grad.isfinite().all() and part.grad.any() for part in given)


def _draw(shapes: list[tuple[int, int, int]], batch: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(shapes) + batch)
    return [torch.rand(batch, *shape, generator=generator) for shape in shapes]


def _assert_equal(found: tuple[Tensor, ...], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
