"""Turning pixels by EXIF, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pictures.orientation import as_stored, orientation_of, upright
from tests.support import pictures
from tests.support.pictures import ORIENTATIONS


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_turns_and_turns_back(orientation: int) -> None:
    """Turning upright and back is nothing at all, for planes and for colours."""
    for stored in (pictures.photo(5, 8, 1), pictures.photo(5, 8)):
        shown = upright(stored, orientation)
        assert shown.shape[:2] == ((8, 5) if orientation >= 5 else (5, 8))
        np.testing.assert_array_equal(as_stored(shown, orientation), stored)
        assert np.shares_memory(shown, stored)


@given(noise=st.binary(max_size=80), head=st.sampled_from([b"", b"Exif\0\0", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0"]))
@settings(max_examples=100)
def test_damaged_exif_means_upright(noise: bytes, head: bytes) -> None:
    """EXIF that cannot be read turns nothing and stops nothing."""
    assert orientation_of(head + noise) in ORIENTATIONS
    assert orientation_of(None) == 1
    assert orientation_of(pictures.exif(9)) == 1
