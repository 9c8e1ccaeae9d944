"""Codecs by themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pictures import codecs


@given(height=st.integers(1, 33), width=st.integers(1, 33), channels=st.integers(1, 4), seed=st.integers(0, 9))
@settings(max_examples=100)
def test_jpeg_xl_is_exact_and_the_same_every_time(height: int, width: int, channels: int, seed: int) -> None:
    """Lossless JPEG XL gives the same values for 1 to 4 channels of any size, and the same bytes for the same values."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    data = codecs.encode_jxl_lossless(pixels)
    np.testing.assert_array_equal(codecs.decode_jxl(data).reshape(pixels.shape), pixels)
    assert codecs.encode_jxl_lossless(pixels) == data
