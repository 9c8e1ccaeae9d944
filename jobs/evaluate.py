"""Measure a network over a folder of images and a list of scales, by the rules that published figures follow.

Images are cropped to a multiple of 12; the LR is round(H / s) x round(W / s) in 8 bits, the restore is without a latent and
rounded to 8 bits, and ceil(s) pixels are left out along each border. Source of the rules: the evaluation of Xiao et al.,
"Invertible Image Rescaling", ECCV 2020, and of its successors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from iarn.lattice import axes_for
from iarn.metrics import bicubic_lr, luma, psnr, ssim
from pipeline.engine import Engine
from pipeline.errors import EmptySource, ImageError, InvalidOption
from pipeline.image import decode
from pipeline.records import Pixels
from pipeline.shards import read_assets
from pipeline.sources import find_source

CROP = 12
PIXEL_LIMIT = 512_000_000


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over the images of a folder at one scale: PSNR in dB, of luma, of RGB and of the LR; SSIM of luma."""

    scale: str
    images: int
    psnr_y: float
    psnr_rgb: float
    ssim: float
    lr_psnr: float


def parse_scales(text: str) -> tuple[tuple[float, float], ...]:
    """Parse ``1.5,2,2x3`` to (vertical, horizontal) pairs; raises InvalidOption."""
    scales = []
    for part in text.split(","):
        try:
            values = [float(value) for value in part.split("x")]
        except ValueError:
            values = []
        if not 1 <= len(values) <= 2 or not all(math.isfinite(value) and value >= 1 for value in values):
            raise InvalidOption("--scales", text, "give numbers from 1, as in 1.5,2,2x3 (height x width).")
        scales.append((values[0], values[-1]))
    return tuple(scales)


def load_images(uri: str) -> Iterator[tuple[str, Pixels]]:
    """Yield key and pixels of every image of a source that decodes as 8-bit; raises EmptySource where there is none."""
    found = find_source(uri)
    count = 0
    for shard in found.shards:
        for asset in read_assets(found.store, shard, image_column=None):
            if asset.data is None:
                continue
            try:
                picture = decode(asset.data, pixel_limit=PIXEL_LIMIT)
            except ImageError:
                continue
            count += 1
            yield asset.key, picture.pixels
    if not count:
        raise EmptySource(uri)


def evaluate(engine: Engine, images: Iterable[Pixels], scales: Iterable[tuple[float, float]]) -> list[Score]:
    """Return a score for each scale, over all ``images`` that are large enough (12 x 12 pixels up to scale 5).

    Raises InvalidOption where none is, or a scale is beyond the network's.
    """
    cropped = [image[: len(image) // CROP * CROP, : image.shape[1] // CROP * CROP] for image in images]
    wanted = list(scales)
    largest = max(max(scale) for scale in wanted)
    if largest > engine.largest_scale:
        raise InvalidOption("--scales", f"{largest:g}", f"{engine.largest_scale} is the largest scale of this network.")
    smallest = max(CROP, 2 * math.ceil(largest) + 1)
    cropped = [image for image in cropped if min(image.shape[:2]) >= smallest]
    if not cropped:
        raise InvalidOption("images", "too small", f"give at least one of {smallest} x {smallest} pixels.")
    return [_score(engine, cropped, scale) for scale in wanted]


def _score(engine: Engine, images: list[Pixels], scale: tuple[float, float]) -> Score:
    rows = np.array([_measure(engine, image, scale) for image in images])
    means = [float(mean) for mean in rows.mean(axis=0)]
    name = f"{scale[0]:g}" if scale[0] == scale[1] else f"{scale[0]:g}x{scale[1]:g}"
    return Score(scale=name, images=len(images), psnr_y=means[0], psnr_rgb=means[1], ssim=means[2], lr_psnr=means[3])


def _measure(engine: Engine, image: Pixels, scale: tuple[float, float]) -> tuple[float, float, float, float]:
    size = (image.shape[0], image.shape[1])
    lr_size = (max(1, round(size[0] / scale[0])), max(1, round(size[1] / scale[1])))
    lr = engine.downscale(image, lr_size)
    x, y, restored = (_tensor(pixels) for pixels in (image, lr, engine.restore(lr, size)))
    reference = bicubic_lr(x, axes_for(size, lr_size)).mul(255).round() / 255
    rows, columns = math.ceil(scale[0]), math.ceil(scale[1])
    inner = (..., slice(rows, -rows), slice(columns, -columns))
    x, restored = x[inner], restored[inner]
    return psnr(luma(x), luma(restored)), psnr(x, restored), ssim(x, restored), psnr(y, reference)


def _tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255
