"""Position-aware scale encoding: continuous, the same in parts, and the budget channel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iarn.encoding import PHASES, UNIFORM, Encoding, Place, budget_of, encode
from iarn.lattice import Axis, axes_for

STRIDES = (1, 2, 3, 4, 6)


def encoding(
    axes: tuple[Axis, Axis], density: int, window: tuple[int, int, int, int] | None = None, budget: float = 0.0
) -> Encoding:
    """Return the encoding of one picture, at the size of its window."""
    top, bottom, left, right = window or (0, axes[0].lr, 0, axes[1].lr)
    like = torch.zeros(1, 3, (bottom - top) * density, (right - left) * density)
    return encode([Place(axes=axes, budget=budget, window=window)], density, like)


@pytest.mark.parametrize(
    ("size", "lr", "density", "shape"),
    [
        ((20, 30), (10, 15), 1, (1, 1)),
        ((21, 7), (6, 2), 1, (1, 1)),
        ((20, 30), (8, 12), 2, (16, 24)),
        ((30, 30), (10, 12), 1, (10, 12)),
        ((30, 29), (10, 10), 1, (1, 1)),
        ((70, 90), (15, 18), 3, (45, 54)),
    ],
    ids=["twice", "four times and repeated lines", "2.5", "3 and 2.5", "three times and a repeated line", "4.7 and 5"],
)
def test_shape(size: tuple[int, int], lr: tuple[int, int], density: int, shape: tuple[int, int]) -> None:
    """Protects the blocks: phases at the size of what they stand beside, or but once where they are all the same."""
    found = encoding(axes_for(size, lr, STRIDES), density)
    assert found.phases.shape == (1, PHASES, *shape)
    assert found.uniform.shape == (1, UNIFORM)
    assert found.sides is None


@pytest.mark.parametrize("length", [1996, 1997, 1998, 1999, 2000])
def test_nothing_jumps_around_twice(length: int) -> None:
    """Protects scales at and near x2: neighbouring positions have nearly the same phase, where an offset changed its sign."""
    axes = Axis(length, 1000, 2), Axis(8, 4, 2)
    found = encoding(axes, 1)
    assert found.even == (length >= 1999)
    rows = found.phases[0, :2, :, 0].expand(2, 1000)
    assert float(rows.diff(dim=1).abs().max()) <= 2 * math.pi * (2000 - length) / 1000 + 1e-4


def test_twice_is_half_way_everywhere() -> None:
    """Protects the meaning of the phase: at exactly x2 every LR pixel stands half-way between two source pixels."""
    rows = encoding(axes_for((64, 64), (32, 32)), 1).phases[0, :2, :, 0]
    torch.testing.assert_close(rows, torch.tensor([[-1.0], [0.0]]), rtol=0, atol=1e-5)


def test_phases_repeat_with_the_source_grid() -> None:
    """Protects positions against their definition: cosine and sine of the distance to a source pixel's centre."""
    found = encoding(axes_for((25, 10), (10, 4)), 1).phases[0, :, :, 0]
    for row in range(10):
        position = (row + 0.5) * 2.5 - 0.5
        assert found[0, row] == pytest.approx(math.cos(2 * math.pi * position), abs=1e-5)
        assert found[1, row] == pytest.approx(math.sin(2 * math.pi * position), abs=1e-5)


def test_scales_and_budget_fill_their_channels() -> None:
    """Protects the order of the channels, which trained weights rely on: vertical scale, horizontal scale, budget."""
    found = encoding(axes_for((30, 40), (10, 20)), 1, budget=0.25).uniform
    torch.testing.assert_close(found, torch.tensor([[math.log2(3), 1.0, 0.25]]))


@given(st.tuples(st.integers(1, 80), st.integers(1, 80)), st.data())
def test_a_window_equals_the_cut_of_the_whole(size: tuple[int, int], data: st.DataObject) -> None:
    """Protects tiles: a tile tells its blocks the same as the whole picture would, also where phases are large."""
    lr = tuple(data.draw(st.integers(-(-length // 4), length)) for length in size)
    axes = axes_for(size, (lr[0], lr[1]), STRIDES)
    window = []
    for pixels in lr:
        start = data.draw(st.integers(0, pixels - 1))
        window += [start, data.draw(st.integers(start + 1, pixels))]
    top, bottom, left, right = window
    for density in (1, 2, 3):
        whole = encoding(axes, density).phases.expand(1, PHASES, lr[0] * density, lr[1] * density)
        cut = whole[..., top * density : bottom * density, left * density : right * density]
        found = encoding(axes, density, (top, bottom, left, right)).phases.expand_as(cut)
        assert torch.equal(found, cut)


def test_budget_of_a_dropped_latent_is_zero() -> None:
    """Protects weights trained later: 0 means that the latent will not be there."""
    assert budget_of(None) == 0


@given(st.floats(0.01, 511), st.floats(0.01, 511))
def test_a_finer_step_is_a_larger_budget(one: float, other: float) -> None:
    """Protects the meaning of the budget: it grows as the step falls, and stays above that of a dropped latent."""
    assert budget_of(min(one, other)) >= budget_of(max(one, other)) > 0


@pytest.mark.parametrize("step", [0.0, -1.0, 512.0, 1e9, math.nan, math.inf])
def test_steps_outside_the_range_are_refused(step: float) -> None:
    """Protects the budget's range: a step that would read as a dropped latent, or as none, is an error that names it."""
    with pytest.raises(ValueError, match="outside 0 to 512"):
        budget_of(step)
