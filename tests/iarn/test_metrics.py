"""PSNR, SSIM, luma, the bicubic LR and low-texture blocks against small computations of their own in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from iarn.lattice import axes_for
from iarn.metrics import BlockErrors, bicubic_lr, block_errors, detail_bits, low_texture, luma, psnr, psnr_of, ssim, ssim_map
from pipeline.latents.coefficients import to_coefficients
from tests.support.networks import noise


def luma_of(x: torch.Tensor) -> np.ndarray:
    """BT.601 luma of (3, H, W), limited range, as MATLAB's rgb2ycbcr has it."""
    r, g, b = x.double().numpy()
    return (16 + 65.481 * r + 128.553 * g + 24.966 * b) / 255


def ssim_of(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM by its definition, window by window, of two planes in [0, 1]."""
    sides = [min(11, side) for side in x.shape]
    rows, columns = (np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / 4.5) for side in sides)
    weights = np.outer(rows / rows.sum(), columns / columns.sum())
    values = []
    for i in range(x.shape[0] - sides[0] + 1):
        for j in range(x.shape[1] - sides[1] + 1):
            a, b = (plane[i : i + sides[0], j : j + sides[1]] for plane in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            structure = (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
            values.append(structure * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2))
    return float(np.mean(values))


def bicubic_axis(length: int, out: int) -> np.ndarray:
    """The antialiased Catmull-Rom (a = -0.5) resize of one axis as a matrix, as Pillow does it."""
    ratio = length / out
    matrix = np.zeros((out, length))
    for row in range(out):
        distance = np.abs((np.arange(length) + 0.5 - (row + 0.5) * ratio) / ratio)
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        matrix[row] = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return matrix / matrix.sum(axis=1, keepdims=True)


def close_pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image and one near it, (1, 3, H, W)."""
    x = noise(1, 3, height, width)
    return x, (x + 0.1 * (noise(1, 3, height, width, seed=1) - 0.5)).clamp(0, 1)


def test_psnr_by_hand() -> None:
    """Protects every figure in decibels: 10 log10(1 / MSE) over all channels."""
    x, y = close_pair(13, 17)
    expected = 10 * math.log10(1 / np.mean((x.double().numpy() - y.double().numpy()) ** 2))
    assert psnr(x, y) == pytest.approx(expected, abs=1e-6)
    assert psnr_of(1e-4) == pytest.approx(40)
    assert psnr(x, x + 0.01) == pytest.approx(40, abs=1e-3)


def test_equal_images_have_infinite_psnr() -> None:
    """Protects perfect restores: no division by zero, and no made-up ceiling."""
    x = noise(1, 3, 4, 4)
    assert psnr(x, x) == math.inf
    assert psnr_of(0.0) == math.inf


def test_luma_is_the_limited_range_bt601() -> None:
    """Protects comparison with published PSNR-Y: black is 16, white 235, and the three weights are the standard's."""
    x = noise(2, 3, 5, 4)
    np.testing.assert_allclose(luma(x)[1, 0].numpy(), luma_of(x[1]), atol=1e-6)
    assert luma(x).shape == (2, 1, 5, 4)
    assert luma(torch.zeros(3, 1, 1)).item() * 255 == pytest.approx(16)
    assert luma(torch.ones(3, 1, 1)).item() * 255 == pytest.approx(235)


@pytest.mark.parametrize("size", [(11, 11), (12, 20), (5, 9), (1, 1), (1, 30), (10, 14)])
def test_ssim_by_its_definition(size: tuple[int, int]) -> None:
    """Protects every SSIM figure, also of pictures smaller than the window."""
    x, y = close_pair(*size)
    assert ssim(x, y) == pytest.approx(ssim_of(luma_of(x[0]), luma_of(y[0])), abs=2e-5)


def test_ssim_of_equal_and_of_opposite_images() -> None:
    """Protects SSIM's ends: one for equal images, flat ones included, and below zero for a negative."""
    x = noise(1, 3, 16, 16)
    assert ssim(x, x) == pytest.approx(1, abs=1e-5)
    assert ssim(torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.5)) == pytest.approx(1, abs=1e-5)
    assert ssim(x, 1 - x) < 0


def test_the_ssim_map_has_whole_windows_only() -> None:
    """Protects the measure in strips, which adds up windows: one value for each whole window."""
    x, y = close_pair(14, 25)
    assert ssim_map(x, y).shape == (1, 1, 4, 15)
    assert ssim_map(*close_pair(3, 25)).shape == (1, 1, 1, 15)


@pytest.mark.parametrize(("size", "lr_size"), [((12, 15), (6, 5)), ((13, 9), (5, 4)), ((16, 16), (4, 4)), ((9, 9), (9, 5))])
def test_the_bicubic_lr_by_its_matrix(size: tuple[int, int], lr_size: tuple[int, int]) -> None:
    """Protects LR PSNR: the reference is the antialiased a = -0.5 bicubic, edges repeated only where the lattice does so."""
    x = noise(1, 3, *size)
    axes = axes_for(size, lr_size)
    image = x[0].double().numpy()
    spans = [axis.span - axis.length for axis in axes]
    image = np.pad(image, ((0, 0), (0, spans[0]), (0, spans[1])), mode="edge")
    rows, columns = (bicubic_axis(axis.span, axis.lr) for axis in axes)
    expected = np.clip(rows @ image @ columns.T, 0, 1)
    np.testing.assert_allclose(bicubic_lr(x, axes)[0].numpy(), expected, atol=2e-6)


def test_the_bicubic_lr_stays_in_range() -> None:
    """Protects LR PSNR on hard edges: overshoot is clipped, as in any stored picture."""
    x = torch.zeros(1, 3, 20, 20)
    x[..., 10:] = 1
    lr = bicubic_lr(x, axes_for((20, 20), (8, 8)))
    assert lr.min() == 0
    assert lr.max() == 1


def gradient(height: int = 48, width: int = 64) -> torch.Tensor:
    """Return a smooth picture (1, 3, height, width): planes of different slopes, in 8-bit levels from 40 to about 200."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    levels = [40 + rows + columns, 180 - 2 * rows + columns * 0.5, 90 + columns * 1.5 + rows * 0]
    return (torch.stack([level.expand(height, width) for level in levels])[None].round() / 255).float()


def distance_from_plane(block: np.ndarray) -> float:
    """RMS distance of a block in levels from its plane of least squares, which numpy fits."""
    rows, columns = np.mgrid[: block.shape[0], : block.shape[1]]
    design = np.stack([np.ones(block.size), rows.ravel(), columns.ravel()], axis=1)
    fitted = design @ np.linalg.lstsq(design, block.ravel(), rcond=None)[0]
    return float(np.sqrt(np.mean((block.ravel() - fitted) ** 2)))


def test_low_texture_by_its_definition() -> None:
    """Protects the smooth-area check: a block counts by its distance from a fitted plane, in its worst channel."""
    x = gradient(80, 112)
    textured = x + (noise(*x.shape) - 0.5) * torch.linspace(0, 0.06, 112)
    found = low_texture(textured)
    assert found.shape == (1, 5, 7)
    levels = textured[0].double().numpy() * 255
    for row, column in np.ndindex(5, 7):
        part = levels[:, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        assert bool(found[0, row, column]) == (max(distance_from_plane(channel) for channel in part) <= 2)
    assert 5 < int(found.sum()) < 30


def test_texture_in_one_channel_is_texture() -> None:
    """Protects the definition: every channel has to be smooth; exactly two levels from the plane still are."""
    chequered = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1) / 255
    for levels, counts in ((2, True), (2.1, False)):
        x = torch.full((3, 16, 16), 0.5)
        x[1] += levels * chequered
        assert bool(low_texture(x)) is counts


def test_a_blotch_is_found_where_it_is() -> None:
    """Protects against coloured blotches: a shift of one channel over part of a smooth block is measured in levels."""
    x = gradient()
    restored = x.clone()
    restored[0, 1, 16:32, 32:48] += 8 / 255  # a whole block greener
    restored[0, 2, 0:8, 0:16] -= 12 / 255  # half a block
    restored[0, 0, 40, 60] += 50 / 255  # one pixel
    errors = block_errors(x, restored)
    assert errors.blocks == 12
    assert errors.error == pytest.approx(8, abs=1e-4)
    assert errors.shift == pytest.approx(8, abs=1e-4)
    assert errors.pixel == pytest.approx(50, abs=1e-4)


def test_noise_is_an_error_but_no_shift() -> None:
    """Protects the difference of the two: errors that cancel out within a block do not change its colour."""
    x = torch.full((1, 3, 32, 32), 0.5)
    signs = (torch.arange(32) % 2 * 2 - 1) / 255
    errors = block_errors(x, x + 3 * signs)
    assert errors.error == pytest.approx(3, abs=1e-4)
    assert errors.shift == pytest.approx(0, abs=1e-4)


def test_blotches_on_texture_are_not_counted() -> None:
    """Protects the check's meaning: only low-texture blocks of the source count, and whole ones only."""
    x = gradient()
    x[..., :16, :16] = noise(3, 16, 16)
    restored = x.clone()
    restored[..., :16, :16] = 0
    assert block_errors(x, restored) == BlockErrors(blocks=11, error=0, shift=0, pixel=0)
    assert block_errors(x[..., :15], restored[..., :15]).blocks == 0
    larger = torch.nn.functional.pad(x, (0, 9, 0, 5), value=1.0)
    assert block_errors(larger, torch.nn.functional.pad(restored, (0, 9, 0, 5))).blocks == 11


def test_detail_bits_are_of_the_detail_layers_own_coefficients() -> None:
    """Protects weights trained for archives' bytes: colours and frequencies are those that a detail layer codes."""
    error = np.random.default_rng(0).integers(-60, 61, (24, 40, 3)).astype(np.int16)
    coefficients = to_coefficients(error)
    pixels = torch.from_numpy(error.astype(np.float32) / 255).permute(2, 0, 1)
    for step in (6.0, 20.0):
        bits = np.log2(1 + (coefficients / step) ** 2).mean()
        assert float(detail_bits(pixels[None], step)) == pytest.approx(bits, rel=1e-5)
    beside = torch.nn.functional.pad(pixels, (0, 7, 0, 3), value=1.0)
    assert detail_bits(beside[None], 6.0) == detail_bits(pixels[None], 6.0), "blocks that are not whole do not count"
