"""Rounding to what is stored, with gradients that pass straight through."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iarn.quantize import straight_through, to_8bit, to_step


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_8bit_is_what_a_picture_holds(values: list[float]) -> None:
    """Protects the LR in training against the LR in an archive: 256 levels, clipped, the nearest one."""
    x = torch.tensor(values)
    levels = to_8bit(x) * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert levels.round().min() >= 0
    assert levels.round().max() <= 255
    assert float((levels - x.clamp(0, 1) * 255).abs().max()) <= 0.5 + 1e-4


def test_every_level_stays() -> None:
    """Protects stored LRs: a picture that has been rounded is not changed by rounding again."""
    levels = torch.arange(256) / 255
    assert torch.equal((to_8bit(levels) * 255).round(), torch.arange(256).float())


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20), st.floats(0.25, 64))
def test_steps_are_counted_in_8bit_levels(values: list[float], step: float) -> None:
    """Protects the latent: multiples of the step, none further from its value than half of one."""
    z = torch.tensor(values)
    found = to_step(z, step)
    counts = found * 255 / step
    torch.testing.assert_close(counts, counts.round(), rtol=1e-5, atol=1e-3)
    assert float((found - z).abs().max()) <= step / 255 / 2 + 1e-5


@pytest.mark.parametrize("rounding", [to_8bit, lambda z: to_step(z, 8.0), lambda z: straight_through(z, z.sign())])
def test_gradients_pass_straight_through(rounding: object) -> None:
    """Protects training: rounding has the gradient of the identity, also where values are clipped."""
    x = torch.tensor([-0.5, 0.0, 0.3, 0.501, 1.0, 1.7], requires_grad=True)
    weights = torch.arange(6.0)
    (rounding(x) * weights).sum().backward()  # type: ignore[operator]
    assert torch.equal(x.grad, weights)
