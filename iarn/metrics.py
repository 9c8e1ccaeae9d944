"""PSNR, SSIM and about the bits of what is missed, defined once.

Images are float tensors in [0, 1], (..., 3, H, W). Luma is the limited-range BT.601 Y that super-resolution papers report:
(16 + 65.481 R + 128.553 G + 24.966 B) / 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from iarn.lattice import Axis

SSIM_WINDOW = 11
"""Side of the Gaussian window; pictures smaller than it are compared by one window as large as they are."""

BLOCK = 16
"""Side of the blocks in which smooth areas are looked for."""

DETAIL_BLOCK = 8
"""Side of the blocks of a detail layer's DCT."""

LOW_TEXTURE = 2.0
"""RMS distance from a plane, in 8-bit levels, up to which a block is low-texture."""

_ROUNDING = 1e-3  # of float32 pixels, in levels, so that a block of just two levels counts


@dataclass(frozen=True, kw_only=True)
class BlockErrors:
    """The worst over ``blocks`` low-texture blocks, in 8-bit levels; zeros where there is none.

    ``error`` is the mean absolute error of a block, ``shift`` the absolute value of its mean signed error (how far a block
    changed colour), each of its worst channel; ``pixel`` is the largest error of one pixel and channel.
    """

    blocks: int
    error: float
    shift: float
    pixel: float


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


def low_texture(x: Tensor) -> Tensor:
    """Return which whole 16 x 16 blocks of ``x`` (..., C, H, W) in [0, 1] are low-texture: bool (..., H // 16, W // 16).

    They are where, in every channel, the RMS distance from the channel's best-fitting plane is at most 2 levels of 255.
    """
    levels = _blocks(x)
    offset = torch.arange(BLOCK, dtype=levels.dtype, device=x.device) - (BLOCK - 1) / 2
    spread = BLOCK * offset.square().sum()
    levels = levels - levels.mean(dim=(-2, -1), keepdim=True)  # orthogonal to both slopes, as they are to each other
    for direction in (offset[:, None], offset):
        levels = levels - direction * (levels * direction).sum(dim=(-2, -1), keepdim=True) / spread
    rms = levels.square().mean(dim=(-2, -1)).sqrt()
    return (rms <= LOW_TEXTURE + _ROUNDING).all(dim=-3)


def block_errors(x: Tensor, restored: Tensor) -> BlockErrors:
    """Return how far ``restored`` is from ``x``, both (..., C, H, W) in [0, 1], on the low-texture blocks of ``x``."""
    difference = _blocks(restored - x).movedim(-5, -1)[low_texture(x)]  # (blocks, 16, 16, C)
    if not len(difference):
        return BlockErrors(blocks=0, error=0.0, shift=0.0, pixel=0.0)
    return BlockErrors(
        blocks=len(difference),
        error=float(difference.abs().mean(dim=(1, 2)).max()),
        shift=float(difference.mean(dim=(1, 2)).abs().max()),
        pixel=float(difference.abs().max()),
    )


def detail_bits(error: Tensor, step: float) -> Tensor:
    """Return about the bits a sample that a detail layer of ``step`` 8-bit levels takes for ``error`` (B, 3, H, W), in [-1, 1].

    Of coefficients c, an orthonormal 8 x 8 DCT of three orthonormal colours, log2(1 + (c / step)^2): far below a step the
    squared error that is left, which is what a coarse quantiser does with most; far above it the bits of a magnitude.
    """
    height, width = (side // DETAIL_BLOCK * DETAIL_BLOCK for side in error.shape[-2:])
    levels = error[..., :height, :width].float() * 255
    root = math.sqrt
    colours = [[root(1 / 3)] * 3, [root(1 / 2), 0, -root(1 / 2)], [root(1 / 6), -root(2 / 3), root(1 / 6)]]
    x = torch.einsum("kc,bchw->bkhw", levels.new_tensor(colours), levels)
    x = x.reshape(*x.shape[:2], height // DETAIL_BLOCK, DETAIL_BLOCK, width // DETAIL_BLOCK, DETAIL_BLOCK)
    frequency = torch.arange(DETAIL_BLOCK, dtype=torch.float32, device=error.device)
    dct = torch.cos(torch.pi / DETAIL_BLOCK * frequency[:, None] * (frequency + 0.5)) * root(2 / DETAIL_BLOCK)
    dct[0] /= root(2)
    x = torch.einsum("fi,bcnimj,gj->bcnfmg", dct, x, dct)
    return torch.log2(1 + (x / step).square()).mean()


def _blocks(x: Tensor) -> Tensor:
    """Cut (..., C, H, W) in [0, 1] to (..., C, H // 16, W // 16, 16, 16) in 8-bit levels; what is left over is left out."""
    rows, columns = (side // BLOCK for side in x.shape[-2:])
    x = x[..., : rows * BLOCK, : columns * BLOCK].double() * 255
    return x.reshape(*x.shape[:-2], rows, BLOCK, columns, BLOCK).transpose(-3, -2)
