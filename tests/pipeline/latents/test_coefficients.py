"""Differences and their coefficients: exact both ways, orthonormal, for any size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.latents.coefficients import FRACTION, LARGEST, block_grid, to_coefficients, to_difference


def difference(height: int, width: int, *, seed: int, most: int = 255) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.random.default_rng(seed).integers(-most, most + 1, (height, width, 3)).astype(np.int16)


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_difference_comes_back(height: int, width: int, seed: int) -> None:
    """Protects the law of the transform: without quantisation nothing is lost, at any size, odd and one pixel wide ones too."""
    wanted = difference(height, width, seed=seed)
    coefficients = to_coefficients(wanted)
    assert coefficients.shape == (3, 8, 8, *block_grid(height, width))
    found = to_difference(np.rint(coefficients * FRACTION).astype(np.int64), height, width)
    assert found.dtype == np.int16
    assert (found == wanted).all()


def test_the_transform_is_orthonormal() -> None:
    """Protects rate against distortion: a squared error of coefficients is the same squared error of pixels."""
    wanted = difference(64, 48, seed=1)
    energy = float((to_coefficients(wanted).astype(np.float64) ** 2).sum())
    assert abs(energy / float((wanted.astype(np.float64) ** 2).sum()) - 1) < 1e-5


def test_a_flat_difference_is_one_coefficient_a_block() -> None:
    """Protects the meaning of the axes: a grey difference is the first colour's lowest frequency alone."""
    coefficients = to_coefficients(np.full((16, 24, 3), 10, np.int16))
    assert np.allclose(coefficients[0, 0, 0], 10 * np.sqrt(3) * 8, atol=1e-3)
    rest = coefficients.copy()
    rest[0, 0, 0] = 0
    assert np.abs(rest).max() < 1e-3


def test_the_way_back_is_exact_at_its_bounds() -> None:
    """Protects decoding alike everywhere: whole numbers in float64 never round, not even with the largest coefficients."""
    rng = np.random.default_rng(2)
    coefficients = rng.integers(-LARGEST, LARGEST + 1, (3, 8, 8, 2, 3))
    dct = (
        np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(8) + 1) / 16)
        * np.where(np.arange(8) == 0, 0.125, 0.25)[:, None] ** 0.5
    )
    dct_whole = np.rint(dct * 2**13).astype(object)
    colour = np.array([[3**-0.5] * 3, [0.5**0.5, 0, -(0.5**0.5)], [6**-0.5, -((2 / 3) ** 0.5), 6**-0.5]])
    colour_whole = np.rint(colour * 2**13).astype(object)
    found = to_difference(coefficients, 16, 24)
    for n in range(2):
        for m in range(3):
            planes = [dct_whole.T @ coefficients[c, :, :, n, m].astype(object) @ dct_whole for c in range(3)]
            rounded = np.array([[[(int(v) + 2**12) // 2**13 for v in row] for row in plane] for plane in planes], dtype=object)
            pixels = np.einsum("cij,ck->ijk", rounded, colour_whole)
            wanted = np.array([(int(v) + 2**31) // 2**32 for v in pixels.ravel()]).reshape(8, 8, 3)
            assert (found[8 * n : 8 * n + 8, 8 * m : 8 * m + 8] == wanted.astype(np.int16)).all()
