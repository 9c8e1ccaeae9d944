"""An image codec's bytes over its quality: the curve through points, and what a folder takes at one PSNR."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

EXACT_DB = 60.0
"""What an image that comes back exactly counts as in a mean, where no floor says what was asked for."""

TUNED, DEFAULT, JXL, WEBP, JPEG = "AVIF", "AVIF, default tuning", "JPEG XL", "WebP", "JPEG"
"""The names of the codecs' curves."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One image, or a folder of them, at one setting of a codec: bytes, PSNR in dB over RGB and of luma, SSIM."""

    setting: float
    bytes: int
    psnr: float
    psnr_y: float
    ssim: float


def rising(points: Sequence[Point]) -> list[Point]:
    """Return points by rising bytes and PSNR, without those that a larger file falls below.

    Such points are luck: a JPEG at the very tables that its source was once coded with comes back nearly exactly.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bytes, point.psnr), reverse=True):
        if not kept or point.psnr < kept[-1].psnr:
            kept.append(point)
    return kept[::-1]


def bytes_at(points: Sequence[Point], wanted: float) -> tuple[float, bool]:
    """Return the bytes at a PSNR in dB, log(bytes) drawn straight between points, and whether the points reach that far."""
    curve = rising(points)
    psnrs = [point.psnr for point in curve]
    size = math.exp(np.interp(wanted, psnrs, [math.log(point.bytes) for point in curve]))
    return size, psnrs[0] <= wanted <= psnrs[-1]


def whole(images: Sequence[Sequence[Point]]) -> list[Point]:
    """Return the points of a folder, all its images at one setting: bytes are the sum, the rest means."""
    points = []
    for same in zip(*images, strict=True):
        means = {name: mean([getattr(point, name) for point in same]) for name in ("psnr", "psnr_y", "ssim")}
        points.append(Point(setting=same[0].setting, bytes=sum(point.bytes for point in same), **means))
    return points


def each_at(images: Sequence[Sequence[Point]], wanted: float) -> tuple[float, int]:
    """Return the bytes of a folder where each image has a PSNR in dB, and how many images do not reach it."""
    found = [bytes_at(points, wanted) for points in images]
    return sum(size for size, _ in found), sum(not reached for _, reached in found)


def mean(values: Sequence[float], exact: float = EXACT_DB) -> float:
    """Return the mean, infinite ones counted as ``exact``."""
    return sum(exact if math.isinf(value) else value for value in values) / len(values)


def avif_at(curves: Mapping[str, Sequence[Sequence[Point]]], wanted: float) -> float | None:
    """Return AVIF's bytes for a folder at a mean PSNR in dB, by the better of its tunings; None where none reaches it."""
    found = [bytes_at(whole(curves[codec]), wanted) for codec in (TUNED, DEFAULT)]
    return min((size for size, reached in found if reached), default=None)


def avif_each_at(curves: Mapping[str, Sequence[Sequence[Point]]], wanted: float) -> float:
    """Return AVIF's bytes where each image has a PSNR in dB by the better of its tunings, or comes as near as it can."""
    total = 0.0
    for tuned, default in zip(curves[TUNED], curves[DEFAULT], strict=True):
        (size, _), (other, reached) = bytes_at(tuned, wanted), bytes_at(default, wanted)
        total += min(size, other) if reached else size
    return total
