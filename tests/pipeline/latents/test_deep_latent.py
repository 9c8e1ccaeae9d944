"""The detail layer of 16-bit pictures: as close as is asked for, the same on every machine, and no mixture of depths."""

from __future__ import annotations

import base64
import hashlib
import math

import numpy as np
import pytest

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Pixels
from pipeline.latents import latent
from pipeline.latents.coefficients import DEEP_LEVELS, FRACTION, LARGEST, to_coefficients, to_difference
from pipeline.pictures.depth import in_8_bits, in_16_bits
from tests.support.pictures import photo
from tests.support.richer import deep

STORED = (
    "ikRUTAQAAAAYAAAAFAAABAAAwAAAAGIVDQoMDwDRao5nr9iUu7wILyPSJ86KXebs7rXdbAq4cUkadB9C5tKJntJz6Xl3dzqSnhXOWB9Z3mpWKj"
    "5DOT4cOE/3Nd8xMTFqTan81LbLUMPlxZgP9Bq771U/FbSS2bL/Ack03vU="
)
"""A stream of 24 x 20 pixels, step 3 levels, of version 4."""

STORED_6 = (
    "ikRUTAYAAAAYAAAAFAAAAgAAwAAAAGJ++eLAuChmGAURAAcEDj/0L/JEmnJcSaXEj1Zi367gu2atZO3f/2bMToJcqDRwAqd3WBklqPbfDXzPy7ISp18g5gJ3"
    "HGP78RrBj3SBbaUXa7QSDbK2Uwb/Ff+aRAXMg9f7JlA0tZwc4BoA"
)
"""One of the same picture, of version 6."""


def decibels(image: Pixels, other: Pixels) -> float:
    """Return the PSNR over the full range."""
    squares = float(np.mean((image.astype(np.float64) - other) ** 2))
    return math.inf if squares == 0 else 10 * math.log10(65535**2 / squares)


def pair(height: int, width: int, *, seed: int = 0) -> tuple[Pixels, Pixels]:
    """Return a deep picture and a restore of it that is off by some levels."""
    image = deep(photo(height, width, seed=seed))
    rng = np.random.default_rng(seed)
    off = rng.integers(-1500, 1501, image.shape)
    return image, np.clip(image.astype(int) + off, 0, 65535).astype(np.uint16)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (40, 67)])
@pytest.mark.parametrize(("step", "least"), [(8, 76.0), (32, 64.0), (2 * FRACTION, 52.0)])
def test_a_finer_step_comes_closer_than_8_bits_can(size: tuple[int, int], step: int, least: float) -> None:
    """Protects depth: with the step the error falls far below what 8 bits can hold (59 dB), at any size."""
    image, restored = pair(*size)
    stream = latent.encode(image, restored, step=step)
    found = latent.apply(stream, restored)
    assert found.dtype == np.uint16
    assert decibels(image, found) >= least
    assert stream[4] == 6


def test_noise_of_the_whole_range_is_coded_at_the_finest_step() -> None:
    """Protects the coder's range: the largest coefficients that there can be are values that it takes."""
    image = np.where(np.random.default_rng(1).integers(0, 2, (32, 40, 3)) > 0, 65535, 0).astype(np.uint16)
    image[:8, :8] = 65535
    restored = np.zeros_like(image)
    found = latent.apply(latent.encode(image, restored, step=latent.FINEST_DEEP_STEP), restored)
    assert decibels(image, found) > 70


def test_a_floor_beyond_8_bits_is_reached() -> None:
    """Protects floors: 70 dB are found by the search, just above."""
    image, restored = pair(48, 64, seed=3)
    found = latent.encode_to_floor(image, restored, lambda each: decibels(image, each), 70.0, usual=41.5)
    assert found is not None
    assert 70.0 <= decibels(image, latent.apply(found[0], restored)) < 71.5
    assert np.array_equal(latent.apply(found[0], restored), found[1])


def test_steps_mean_the_same_at_either_depth() -> None:
    """Protects tiers: a step leaves as many decibels, for about as many bytes, whether a picture has 8 bits or 16."""
    usual, off = photo(64, 96, seed=5), photo(64, 96, seed=6)
    restored = np.clip(usual.astype(int) + off // 16 - 8, 0, 255).astype(np.uint8)
    fine, fine_restored = (each.astype(np.uint16) * 257 for each in (usual, restored))
    streams = latent.encode(usual, restored, step=4 * FRACTION), latent.encode(fine, fine_restored, step=4 * FRACTION)
    assert abs(len(streams[0]) / len(streams[1]) - 1) < 0.02
    both = latent.apply(streams[0], restored), in_8_bits(latent.apply(streams[1], fine_restored))
    assert np.abs(both[0].astype(int) - both[1]).max() <= 1


def test_depths_are_not_mixed() -> None:
    """Protects against nonsense: neither a restore of the other depth nor a reader of 8 bits takes a latent for its own."""
    image, restored = pair(20, 24)
    stream = latent.encode(image, restored, step=15 * FRACTION)
    with pytest.raises(ValueError, match="another depth"):
        latent.apply(stream, in_8_bits(restored))
    flat = latent.encode(in_8_bits(image), in_8_bits(restored), step=15 * FRACTION)
    assert (flat[4], stream[4]) == (5, 6)
    with pytest.raises(ValueError, match="another depth"):
        latent.apply(flat, in_16_bits(in_8_bits(restored), clean=True))
    with pytest.raises(ValueError, match="one shape and depth"):
        latent.encode(image, in_8_bits(restored), step=15 * FRACTION)
    with pytest.raises(DamagedLatent):
        latent.apply(stream[:-1], restored)


def test_every_difference_comes_back() -> None:
    """Protects the way back: unquantised, differences of the whole range come back within what its matrices round."""
    wanted = np.random.default_rng(2).integers(-65535, 65536, (17, 30, 3)).astype(np.int32)
    coefficients = np.rint(to_coefficients(wanted, levels=DEEP_LEVELS) * FRACTION).astype(np.int64)
    assert np.abs(coefficients).max() <= LARGEST
    found = to_difference(coefficients, 17, 30, levels=DEEP_LEVELS)
    assert found.dtype == np.int32
    assert np.abs(found - wanted).max() <= 24


def test_the_way_back_is_in_whole_numbers() -> None:
    """Protects every machine's pixels: the largest coefficients give what integers of any size give."""
    rng = np.random.default_rng(4)
    coefficients = rng.choice([-LARGEST, LARGEST], (3, 8, 8, 2, 2)).astype(np.int64)
    dct = np.array(
        [[np.cos(np.pi * f * (2 * p + 1) / 16) * (0.5 if f else np.sqrt(0.125)) for p in range(8)] for f in range(8)]
    )
    colour = np.array(
        [[1 / np.sqrt(3)] * 3, [np.sqrt(0.5), 0, -np.sqrt(0.5)], [np.sqrt(1 / 6), -np.sqrt(2 / 3), np.sqrt(1 / 6)]]
    )
    dct, colour = (np.rint(each * 8192).astype(np.int64).astype(object) for each in (dct, colour))
    wanted = np.empty((16, 16, 3), object)
    for n, m in np.ndindex(2, 2):
        planes = [(dct.T @ each.astype(object) @ dct + 4096) // 8192 for each in coefficients[..., n, m]]
        mixed = np.stack(planes, axis=-1) @ colour
        levels = ((mixed + 4096) // 8192 * 257 + 8192 * 32) // (8192 * 64)
        wanted[8 * n : 8 * n + 8, 8 * m : 8 * m + 8] = np.clip(levels, -(2**14) * 257, 2**14 * 257)
    assert np.array_equal(to_difference(coefficients, 16, 16, levels=DEEP_LEVELS), wanted.astype(np.int64))


def pattern() -> Pixels:
    """Return a restore that is made of whole numbers alone."""
    return (np.arange(24 * 20 * 3).reshape(24, 20, 3) * 97 % 60000).astype(np.uint16)


def test_a_stored_latent_gives_the_same_pixels() -> None:
    """Protects archives of 16-bit pictures: what a stream stands for does not change, on any machine."""
    for stream, digest in (
        (STORED, "ed2c2186f52cba25908a7b5c5a285005338a905f6424f239fa62d13e9b3afaf6"),
        (STORED_6, "f434c2a715beaff07bf593c503468d553450ee00c972fd434d398b45ede6b10e"),
    ):
        found = latent.apply(base64.b64decode(stream), pattern())
        assert hashlib.sha256(found.astype("<u2").tobytes()).hexdigest() == digest
