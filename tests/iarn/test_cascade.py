"""Scales beyond a network's reach: steps that lead there, and what an LR's pixels span over all of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iarn.cascade import cascade, spanned
from iarn.lattice import POWERS_OF_TWO, axes_for

sides = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
STRIDES = (POWERS_OF_TWO[:2], POWERS_OF_TWO[:3], (1, 2, 3, 4, 6, 8), (1, 2, 3, 4, 6, 8, 12))


@given(sides, st.tuples(st.floats(1, 200), st.floats(1, 200)), st.sampled_from(STRIDES))
def test_steps_lead_from_the_lr_to_the_image(
    size: tuple[int, int], scales: tuple[float, float], strides: tuple[int, ...]
) -> None:
    """Protects restores at any scale: no step is beyond the reach, and all but the first are large."""
    lr_size = (max(1, int(size[0] / scales[0])), max(1, int(size[1] / scales[1])))
    steps = cascade(size, lr_size, strides[-1])
    assert steps[-1] == size
    before = lr_size
    for step in steps:
        axes_for(step, before, strides)  # raises where it is beyond
        before = step
    for step, after in pairwise(steps):
        assert any(-(-length // strides[-1]) == side for side, length in zip(step, after, strict=True))
    if all(length <= strides[-1] * lr for length, lr in zip(size, lr_size, strict=True)):
        assert steps == (size,)
        axes = axes_for(size, lr_size, strides)
        assert spanned(size, lr_size, strides) == (axes[0].span, axes[1].span)


@given(sides, st.tuples(st.integers(1, 60), st.integers(1, 60)), st.sampled_from(STRIDES))
def test_spans_are_of_the_image_and_a_few_lines(size: tuple[int, int], lr: tuple[int, int], strides: tuple[int, ...]) -> None:
    """Protects clean LRs: their pixels stand where the steps put them, over the image and less than a pixel of an LR more."""
    lr_size = (min(lr[0], size[0]), min(lr[1], size[1]))
    for span, length, count in zip(spanned(size, lr_size, strides), size, lr_size, strict=True):
        assert length <= span
        assert (span - length) * count < span + length


def test_what_leads_nowhere_is_refused() -> None:
    """Protects against steps without end: an LR that is empty or larger than its image, or a network that only copies."""
    for size, lr_size, reach in (((9, 9), (0, 3), 4), ((9, 9), (3, 10), 4), ((9, 9), (3, 3), 1)):
        with pytest.raises(ValueError, match="no steps"):
            cascade(size, lr_size, reach)
