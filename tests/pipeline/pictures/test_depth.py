"""8 and 16 bits a channel: rounding, ramps between levels, and sizes of deep pictures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.records import Pixels
from pipeline.pictures.depth import in_8_bits, in_16_bits
from pipeline.pictures.picture import bled, resize, resize_with_alpha
from tests.support.pictures import photo
from tests.support.richer import deep


def ramp(height: int, width: int) -> NDArray[np.uint16]:
    """Return a 16-bit picture that climbs by three 8-bit levels per 16 pixels, and other colours more slowly."""
    rows, columns = np.mgrid[:height, :width]
    slopes = (48, 20, 7)
    return np.stack([9000 + slope * columns + slope // 3 * rows for slope in slopes], axis=-1).astype(np.uint16)


def error(one: Pixels, other: Pixels) -> float:
    """Return the root of the mean squared difference, in levels of 16 bits."""
    return float(np.sqrt(np.mean((one.astype(np.float64) - other) ** 2)))


def test_every_value_is_rounded_to_the_nearest_level() -> None:
    """Protects LRs and 8-bit files of deep pictures: white stays white, and nothing is cut off."""
    values = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(in_8_bits(values), np.rint(values / 257))
    assert in_8_bits(values).dtype == np.uint8


def test_8_bits_stay_as_they_are() -> None:
    """Protects the usual picture from a copy."""
    pixels = photo(5, 6)
    assert in_8_bits(pixels) is pixels


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (40, 33)])
def test_an_lr_comes_back_from_16_bits(size: tuple[int, int]) -> None:
    """Protects what an LR says: no value is moved out of what rounds to it, or by a level in a clean one, in any texture."""
    for lr in (photo(*size, seed=2), np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)):
        assert np.array_equal(in_8_bits(in_16_bits(lr, clean=False)), lr)
        assert np.abs(in_16_bits(lr, clean=True) - lr.astype(int) * 257).max() <= 257


@pytest.mark.parametrize("clean", [True, False])
def test_steps_of_8_bits_become_the_ramp_that_they_were(clean: bool) -> None:
    """Protects smooth gradients: between its 8-bit levels a ramp goes on, and climbs all the way."""
    wanted = ramp(96, 160)
    steps = in_8_bits(wanted)
    found, flat = in_16_bits(steps, clean=clean), steps.astype(np.uint16) * 257
    inside = slice(24, -24), slice(24, -24)  # of the border, beyond which nothing goes on
    assert error(found[inside], wanted[inside]) < error(flat[inside], wanted[inside]) / 3
    inner = found[inside].astype(int)
    assert len(np.unique(inner[20, :, 0])) > 3 * len(np.unique(steps[44, 24:-24, 0]))
    assert (np.diff(inner, axis=1) >= -8).all()


def test_a_slope_goes_on_to_the_border() -> None:
    """Protects borders: near an end means reach as far on either side, so that no slope is bent there."""
    wanted = ramp(96, 160)
    steps = in_8_bits(wanted)
    found, flat = in_16_bits(steps, clean=True), steps.astype(np.uint16) * 257
    for border in ((slice(16),), (slice(-16, None),), (slice(None), slice(16)), (slice(None), slice(-16, None))):
        assert error(found[border], wanted[border]) < error(flat[border], wanted[border]) / 3


def test_what_is_not_smooth_stays() -> None:
    """Protects texture, which is no ramp: nearly all of it has the values of its levels."""
    lr = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert (in_16_bits(lr, clean=False) == lr.astype(np.uint16) * 257).mean() > 0.9


@pytest.mark.parametrize("size", [(31, 17), (20, 64), (1, 1), (70, 90)])
def test_deep_pictures_are_resized_as_8_bit_ones_are(size: tuple[int, int]) -> None:
    """Protects LRs and `--max-side` of deep pictures: smaller or larger, alone, with alpha or as a plane, but for rounding."""
    pixels, alpha = photo(63, 45), photo(63, 45, 4, seed=4)[..., 3]
    alpha = np.where(np.arange(45) < 20, 0, alpha).astype(np.uint8)
    fine, fine_alpha = pixels.astype(np.uint16) * 257, alpha.astype(np.uint16) * 257
    pairs = [(resize(pixels, size), resize(fine, size)), (resize(alpha, size), resize(fine_alpha, size))]
    pairs += zip(resize_with_alpha(pixels, alpha, size), resize_with_alpha(fine, fine_alpha, size), strict=True)
    pairs.append((bled(pixels, alpha, 3), bled(fine, fine_alpha, 3)))
    for usual, found in pairs:
        assert usual is not None
        assert found is not None
        assert (found.dtype, found.shape) == (np.uint16, usual.shape)
        assert np.abs(found - usual.astype(int) * 257).max() <= 2 * 257


def test_a_picture_is_reduced_before_it_is_rounded() -> None:
    """Protects LRs: what is below a level in the source counts in the mean of its pixels."""
    fine = deep(photo(40, 40))
    exact = resize(fine, (20, 20))
    assert np.array_equal(in_8_bits(exact), np.rint(exact / 257))
    assert not np.array_equal(in_8_bits(exact), resize(in_8_bits(fine), (20, 20)))
