"""How close two images are: PSNR over RGB and of the luma, SSIM of the luma, in strips on any device."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from iarn.metrics import luma, psnr_of, ssim_map
from pipeline.core.records import FloorMetric, Pixels, Quality
from pipeline.pictures.depth import peak

CPU = torch.device("cpu")

STRIP_PIXELS = 1_000_000
LEAST_STRIP_ROWS = 16
SSIM_OVERLAP = 10


def measure(image: Pixels, restored: Pixels, *, device: torch.device = CPU) -> Quality:
    """Return how close two (H, W, 3) images are, uint8 or uint16, in the whole range of either.

    Computed on ``device``, a GPU's beside the engine, in strips, so that memory does not grow with the image.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    with nullcontext() if stream is None else torch.cuda.stream(stream):
        (squares, luma_squares, similarity), windows = _sums(image, restored, device)
    return Quality(psnr=psnr_of(squares / image.size), psnr_y=psnr_of(3 * luma_squares / image.size), ssim=similarity / windows)


def _sums(image: Pixels, restored: Pixels, device: torch.device) -> tuple[list[float], int]:
    """Return the sums of squares, over RGB and over luma, and of SSIM, and over how many windows that is."""
    height, windows = len(image), 0
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # fetched once: each time waits for all that is before it
    rows = max(LEAST_STRIP_ROWS, STRIP_PIXELS // image.shape[1])
    for start in range(0, max(1, height - SSIM_OVERLAP), rows):
        stop = height if start + rows + SSIM_OVERLAP >= height else start + rows + SSIM_OVERLAP
        x, y = (_strip(each, start, stop, device) for each in (image, restored))
        own = x.shape[1] if stop == height else rows
        similarities = ssim_map(x[None], y[None])
        energies = [_energy(x[:, :own] - y[:, :own]), _energy(luma(x[:, :own]) - luma(y[:, :own]))]
        sums += torch.stack([*energies, similarities.sum(dtype=torch.float64)])
        windows += similarities.numel()
        if stop == height:
            break
    return sums.tolist(), windows


def score(image: Pixels, restored: Pixels, metric: FloorMetric) -> float:
    """Return the one value of :func:`measure` that ``metric`` names; the PSNRs take far less time than SSIM."""
    if metric is FloorMetric.SSIM:
        return measure(image, restored).ssim
    squares = 0.0
    rows = max(LEAST_STRIP_ROWS, STRIP_PIXELS // image.shape[1])
    for start in range(0, len(image), rows):
        x, y = (_strip(each, start, start + rows, CPU) for each in (image, restored))
        squares += float(3 * _energy(luma(x) - luma(y)) if metric is FloorMetric.PSNR_Y else _energy(x - y))
    return psnr_of(squares / image.size)


def _strip(image: Pixels, start: int, stop: int, device: torch.device) -> Tensor:
    strip = torch.from_numpy(np.array(image[start:stop])).to(device)
    return strip.permute(2, 0, 1).to(torch.float32) / peak(image)


def _energy(x: Tensor) -> Tensor:
    return x.square().sum(dtype=torch.float64)
