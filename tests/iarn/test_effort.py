"""A descent: the best of what was told, never worse than the start, and held to the bicubic LR."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iarn.effort import LUMA, RATE, SLACK, Descent, missed
from tests.support.networks import noise

START = noise(3, 9, 7)
REFERENCE = (START * 255 + 3 * noise(3, 9, 7, seed=1)).clamp(0, 255).to(torch.uint8)
ERRORS = st.tuples(st.integers(0, 9), st.integers(0, 9 * 85_710))


def distance(lr: torch.Tensor) -> float:
    """Return the mean squared distance to the bicubic LR."""
    return float((lr.double() - REFERENCE).square().mean())


def follow(errors: list[tuple[int, int]], gradient: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Tell a descent these errors; return its best LR and those that it asked for."""
    descent, asked = Descent(START, REFERENCE, steps=len(errors) - 1, scale=2.0), []
    for number, pair in enumerate(errors, start=1):
        assert (descent.last, descent.over) == (number == len(errors), False)
        asked.append(descent.lr)
        descent.tell(pair, gradient)
    assert descent.over
    return descent.best, asked


@given(st.lists(ERRORS, min_size=1, max_size=7), st.integers(0, 3))
def test_the_best_is_kept_and_none_that_is_worse(errors: list[tuple[int, int]], seed: int) -> None:
    """Protects whoever gives time: an LR is stored only where RGB and luma come back at least as well as without effort."""
    best, asked = follow(errors, noise(3, 9, 7, seed=seed) - 0.5)
    first = errors[0]
    allowed = [number for number, pair in enumerate(errors) if pair[0] <= first[0] and pair[1] <= first[1]]
    norm = sum(weight**2 for weight in LUMA)
    least = min(allowed, key=lambda number: errors[number][0] + errors[number][1] / norm)
    assert torch.equal(best, asked[least])
    for lr in asked:
        assert distance(lr) <= distance(asked[0]) * 10 ** (SLACK / 10)


def test_steps_go_down_the_gradient_and_grow_shorter() -> None:
    """Protects the rate: steps are against the gradient, as long where it is small, and shorter one after the other."""
    start, signs = noise(3, 12, 60), (noise(3, 12, 60, seed=2) - 0.5).sign()
    descent = Descent(start, (start * 255).to(torch.uint8), steps=4, scale=2.0)
    gradient = signs * torch.tensor([1.0, 1000.0]).repeat_interleave(30)
    lengths = []
    for _ in range(4):
        descent._bound = 10**9  # not held
        before = descent._y
        descent.tell((1, 1), gradient)
        step = (descent._y - before) * 255
        assert (step * signs <= 0).all()
        apart = torch.cat([step[..., :25], step[..., 35:]], dim=-1)
        torch.testing.assert_close(apart.abs(), apart.abs().mean().expand_as(apart), rtol=1e-3, atol=0)
        lengths.append(float(apart.abs().mean()))
    assert lengths[0] == pytest.approx(RATE, rel=1e-3)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.2 * lengths[0]


@pytest.mark.parametrize("gradient", [torch.full((3, 9, 7), math.nan), torch.full((3, 9, 7), math.inf), torch.zeros(3, 9, 7)])
def test_a_gradient_that_says_nothing_moves_nothing(gradient: torch.Tensor) -> None:
    """Protects a job on a GPU in half precision, where gradients can overflow: the forward pass's LR is left."""
    best, asked = follow([(5, 5)] * 4, gradient)
    assert all(torch.equal(lr, best) for lr in asked)


def test_an_lr_that_is_the_bicubic_one_stays() -> None:
    """Protects flat pictures, whose LR may not move at all, from a search without end."""
    exact = REFERENCE / 255
    descent = Descent(exact, REFERENCE, steps=2, scale=3.0)
    for error in (9, 1, 1):
        descent.tell((error, error), noise(3, 9, 7, seed=3) * 1e9)
    assert torch.equal(descent.best, REFERENCE)


def test_what_is_missed_by_hand() -> None:
    """Protects the measure: two sums of squares in 8 bits, and the gradient of both by what was restored."""
    x = torch.tensor([0.2, 0.4, 1.0])[:, None, None]
    restored = torch.tensor([0.2 + 2.3 / 255, 0.4 - 1.2 / 255, 1.2])[:, None, None]  # the last one is clipped
    sums, gradient = missed(x, restored)
    luma = LUMA[0] * 2 - LUMA[1] * 1
    assert sums.tolist() == [4 + 1, luma**2]
    unit = torch.tensor(LUMA) / math.sqrt(sum(weight**2 for weight in LUMA))
    d = torch.tensor([2.3, -1.2, 0.0])
    torch.testing.assert_close(gradient[:, 0, 0], d + unit * (unit * d).sum(), rtol=0, atol=1e-4)
