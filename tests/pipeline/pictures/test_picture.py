"""Pixels at another size."""

from __future__ import annotations

import numpy as np

from pipeline.pictures.picture import resize


def test_resizing_is_antialiased_and_keeps_flat_areas() -> None:
    """Restoring at another size averages what it shrinks, and a flat picture stays what it is."""
    checker = np.indices((40, 60)).sum(0) % 2 * 255
    small = resize(checker.astype(np.uint8), (10, 15))
    assert small.shape == (10, 15)
    assert np.abs(small.astype(int) - 127).max() <= 4
    flat = np.full((31, 17, 3), 77, np.uint8)
    for size in ((1, 1), (10, 5), (62, 40)):
        resized = resize(flat, size)
        assert resized.shape == (*size, 3)
        assert (resized == 77).all()
