"""PSNR, SSIM, luma and the bicubic LR against small computations of their own in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from iarn.lattice import axes_for
from iarn.metrics import bicubic_lr, luma, psnr, psnr_of, ssim, ssim_map
from tests.networks import noise


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
