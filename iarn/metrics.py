"""PSNR and SSIM, defined once.

Images are float tensors in [0, 1], (..., 3, H, W). Luma is the limited-range BT.601 Y that super-resolution papers report:
(16 + 65.481 R + 128.553 G + 24.966 B) / 255.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from iarn.lattice import Axis

SSIM_WINDOW = 11
"""Side of the Gaussian window; pictures smaller than it are compared by one window as large as they are."""


def luma(x: Tensor) -> Tensor:
    """Return the luma (..., 1, H, W) of RGB ``x``, in [16/255, 235/255]."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=x.dtype, device=x.device)[:, None, None] / 255
    return (x * weights).sum(dim=-3, keepdim=True) + 16 / 255


def psnr_of(mse: float) -> float:
    """Return the PSNR in dB for a mean squared error of pixels in [0, 1]; infinite where the error is zero."""
    return math.inf if mse <= 0 else -10 * math.log10(mse)


def psnr(x: Tensor, y: Tensor) -> float:
    """Return the PSNR in dB between ``x`` and ``y``, over all channels; give :func:`luma` of both for PSNR-Y."""
    return psnr_of(float((x - y).double().square().mean()))


def ssim(x: Tensor, y: Tensor) -> float:
    """Return the mean SSIM of the luma of ``x`` and ``y``, whole windows only.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004, with
    its Gaussian window (11 x 11, sigma 1.5), K1 = 0.01, K2 = 0.03.
    """
    return float(ssim_map(x, y).double().mean())


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Return the SSIM at each whole window: (B, 1, H - 10, W - 10) for images of at least 11 x 11."""
    x, y = (luma(i).reshape(-1, 1, *i.shape[-2:]) for i in (x, y))
    mean_x, mean_y, xx, yy, xy = (_blurred(moment) for moment in (x, y, x * x, y * y, x * y))
    c1, c2 = 0.01**2, 0.03**2
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x.square() + yy - mean_y.square()
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x.square() + mean_y.square() + c1) * (variances + c2))


def _blurred(x: Tensor) -> Tensor:
    """Weigh every whole window of ``x``, as sums of shifted copies: a convolution of one channel unfolds its input first."""
    for dim in (-2, -1):
        weights = _gaussian(min(SSIM_WINDOW, x.shape[dim])).tolist()
        length = x.shape[dim] - len(weights) + 1
        total = x.narrow(dim, 0, length) * weights[0]
        for offset, weight in enumerate(weights[1:], start=1):
            total.add_(x.narrow(dim, offset, length), alpha=weight)
        x = total
    return x


def _gaussian(window: int) -> Tensor:
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * 1.5**2))
    return weights / weights.sum()


def bicubic_lr(x: Tensor, axes: tuple[Axis, Axis]) -> Tensor:
    """Return the antialiased bicubic LR (a = -0.5) that a network's LR is compared with, clipped to [0, 1].

    Where the lattice repeats last lines (``Axis.aligned``) so does this, to stand on the same grid.
    """
    missing = [axis.span - axis.length for axis in axes]
    if any(missing):
        x = pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
    return interpolate(x, size=(axes[0].lr, axes[1].lr), mode="bicubic", antialias=True).clamp(0, 1)
