"""Measure a network over a folder of images and a list of scales, by the rules that published figures follow.

Images are cropped to a multiple of 12; the LR is round(H / s) x round(W / s) in 8 bits, the restore is without a latent and
rounded to 8 bits, and ceil(s) pixels are left out along each border. Source of the rules: the evaluation of Xiao et al.,
"Invertible Image Rescaling", ECCV 2020, and of its successors. Low-texture blocks (:mod:`iarn.metrics`) are of the whole
cropped image, its borders included.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from iarn.metrics import BlockErrors, bicubic_lr, block_errors, luma, psnr, ssim
from iarn.network import Cost, Rescaler
from pipeline.assets.shards import read_assets
from pipeline.core.errors import EmptySource, ImageError, InvalidOption
from pipeline.core.records import Pixels, Size
from pipeline.decoders.decoding import decode
from pipeline.engines.engine import Engine
from pipeline.pictures.depth import in_8_bits
from pipeline.pictures.picture import size_of
from pipeline.planning.sources import find_source

CROP = 12
PIXEL_LIMIT = 512_000_000

COST_SIDE = 4800
"""Side of the image whose cost is given: large, so that its border adds some 0.1 %, and no tile's halo."""


@dataclass(frozen=True, kw_only=True)
class Cycled:
    """PSNR in dB, against the source, after ``rounds`` times of rescaling and restoring, and how much less than after one.

    Each round begins with the 8-bit image that the one before restored.
    """

    rounds: int
    psnr_y: float
    psnr_rgb: float
    drop_y: float
    drop_rgb: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over the images of a folder at one scale: PSNR in dB, of luma, of RGB and of the LR; SSIM of luma.

    ``low_texture`` has the worst blocks of all images; ``cycled`` is None unless asked for; ``effort`` is that of the LRs.
    """

    scale: str
    images: int
    psnr_y: float
    psnr_rgb: float
    ssim: float
    lr_psnr: float
    low_texture: BlockErrors
    cycled: Cycled | None = None
    effort: int = 0


def load_images(uri: str) -> Iterator[tuple[str, Pixels]]:
    """Yield key and pixels, uint8, of every image of a source that decodes; raises EmptySource where there is none."""
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
            yield asset.key, in_8_bits(picture.pixels)
    if not count:
        raise EmptySource(uri)


def evaluate(
    engine: Engine, images: Iterable[Pixels], scales: Iterable[tuple[float, float]], *, cycles: int = 0, effort: int = 0
) -> list[Score]:
    """Return a score for each scale, over all ``images`` that are large enough (12 x 12 pixels up to scale 5).

    ``cycles`` above 0 measures that many rounds as well; LRs are made with ``effort`` steps of descent. Raises InvalidOption
    where no image is large enough, a scale is beyond the network's, or ``cycles`` or ``effort`` is negative.
    """
    cropped = [crop(image) for image in images]
    wanted = list(scales)
    largest = max(max(scale) for scale in wanted)
    if largest > engine.largest_scale:
        raise InvalidOption("--scales", f"{largest:g}", f"{engine.largest_scale} is the largest scale of this network.")
    if cycles < 0:
        raise InvalidOption("--cycles", str(cycles), "give the number of rounds, or 0 for none.")
    if effort < 0:
        raise InvalidOption("--effort", str(effort), "give a count of steps, or 0 for none.")
    smallest = max(CROP, 2 * math.ceil(largest) + 1)
    cropped = [image for image in cropped if min(image.shape[:2]) >= smallest]
    if not cropped:
        raise InvalidOption("images", "too small", f"give at least one of {smallest} x {smallest} pixels.")
    return [_score(engine, cropped, scale, cycles, effort) for scale in wanted]


def cost_at(network: Rescaler, scale: tuple[float, float]) -> Cost:
    """Return the cost per source pixel at (vertical, horizontal) ``scale``, of an image of 4800 x 4800 in one piece."""
    size = (COST_SIDE, COST_SIDE)
    return network.cost(size, lr_size_at(size, scale))


def crop(image: Pixels) -> Pixels:
    """Return the upper left part of (H, W, 3) whose sides are multiples of 12."""
    return image[: len(image) // CROP * CROP, : image.shape[1] // CROP * CROP]


def lr_size_at(size: Size, scale: tuple[float, float]) -> Size:
    """Return the LR's (height, width) by the rules of published figures: rounded, not rounded up as archives have it.

    Halves are rounded up, or a side of 276 at x8 would be beyond a network that reaches x8.
    """
    return max(1, math.floor(size[0] / scale[0] + 0.5)), max(1, math.floor(size[1] / scale[1] + 0.5))


def fidelity(image: Pixels, restored: Pixels, scale: tuple[float, float]) -> tuple[float, float, float]:
    """Return PSNR-Y and PSNR-RGB in dB and SSIM of two (H, W, 3) uint8 images, without ceil(scale) pixels along each border."""
    rows, columns = math.ceil(scale[0]), math.ceil(scale[1])
    x, y = (_tensor(pixels)[..., rows:-rows, columns:-columns] for pixels in (image, restored))
    return psnr(luma(x), luma(y)), psnr(x, y), ssim(x, y)


def name_of(scale: tuple[float, float]) -> str:
    """Return (vertical, horizontal) as it is written: 2.5, or 2x3 where they differ."""
    return f"{scale[0]:g}" if scale[0] == scale[1] else f"{scale[0]:g}x{scale[1]:g}"


def table(scores: Sequence[Score], costs: Sequence[Cost]) -> str:
    """Return a Markdown table of ``scores``, the cost at each of them beside; the worst block is in 8-bit levels."""
    headings = ["scale", "images", "PSNR-Y", "PSNR-RGB", "SSIM", "LR PSNR", "worst low-texture block", "MAC per source pixel"]
    effort = scores[0].effort if scores else 0
    headings += [f"MAC of each of {effort} steps of effort"] if effort else []
    rounds = scores[0].cycled.rounds if scores and scores[0].cycled else 0
    if rounds:
        headings += [f"PSNR-Y after {rounds}", f"PSNR-RGB after {rounds}", "drop (Y, RGB)"]
    lines = [headings, ["---"] * len(headings)]
    for score, cost in zip(scores, costs, strict=True):
        figures = [f"x{score.scale}", f"{score.images}", f"{score.psnr_y:.2f}", f"{score.psnr_rgb:.2f}"]
        figures += [f"{score.ssim:.4f}", f"{score.lr_psnr:.2f}"]
        figures += [f"{score.low_texture.error:.2f}" if score.low_texture.blocks else "none"]
        figures += [f"{cost.downscale / 1000:.1f} k / {cost.restore / 1000:.1f} k"]
        figures += [f"{cost.step / 1000:.1f} k"] if effort else []
        if score.cycled:
            cycled = score.cycled
            figures += [f"{cycled.psnr_y:.2f}", f"{cycled.psnr_rgb:.2f}", f"{cycled.drop_y:.2f}, {cycled.drop_rgb:.2f}"]
        lines.append(figures)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def worst(measured: Sequence[BlockErrors]) -> BlockErrors:
    """Return the worst of several images' errors, and the number of their blocks together."""
    return BlockErrors(
        blocks=sum(each.blocks for each in measured),
        error=max(each.error for each in measured),
        shift=max(each.shift for each in measured),
        pixel=max(each.pixel for each in measured),
    )


def _score(engine: Engine, images: list[Pixels], scale: tuple[float, float], cycles: int, effort: int) -> Score:
    measured = [_measure(engine, image, scale, cycles, effort) for image in images]
    psnr_y, psnr_rgb, similarity, lr_psnr, last_y, last_rgb = (
        np.array([figures for figures, _ in measured]).mean(axis=0).tolist()
    )
    again = Cycled(
        rounds=cycles, psnr_y=last_y, psnr_rgb=last_rgb, drop_y=_less(psnr_y, last_y), drop_rgb=_less(psnr_rgb, last_rgb)
    )
    return Score(
        scale=name_of(scale),
        images=len(images),
        psnr_y=psnr_y,
        psnr_rgb=psnr_rgb,
        ssim=similarity,
        lr_psnr=lr_psnr,
        low_texture=worst([blocks for _, blocks in measured]),
        cycled=again if cycles else None,
        effort=effort,
    )


def _measure(
    engine: Engine, image: Pixels, scale: tuple[float, float], cycles: int, effort: int
) -> tuple[tuple[float, float, float, float, float, float], BlockErrors]:
    """Return PSNR-Y, PSNR-RGB, SSIM, LR PSNR, PSNR-Y and PSNR-RGB after the last round, and the low-texture blocks' errors."""
    size = size_of(image)
    lr_size = lr_size_at(size, scale)
    lr = engine.downscale(image, lr_size, effort=effort)
    restored = again = engine.restore(lr, size)
    for _ in range(cycles - 1):
        again = engine.restore(engine.downscale(again, lr_size, effort=effort), size)
    x, y = _tensor(image), _tensor(lr)
    reference = bicubic_lr(x, engine.axes(size, lr_size)).mul(255).round() / 255
    first = fidelity(image, restored, scale)
    last = fidelity(image, again, scale) if cycles > 1 else first
    return (*first, psnr(y, reference), last[0], last[1]), block_errors(x, _tensor(restored))


def _less(first: float, last: float) -> float:
    """Return ``first - last``, and no difference of two infinities."""
    return 0.0 if first == last else first - last


def _tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255
