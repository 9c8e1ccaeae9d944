"""The rows of docs/bytes.md: one archive of a folder summed up, and compared with AVIF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bytes_page.archives import Stored
from benchmarks.bytes_page.bench import Target
from benchmarks.bytes_page.curves import EXACT_DB, Point, avif_at, avif_each_at, mean, whole

FLOOR_SLACK = 1e-3
"""dB by which two sums of the same squares may differ."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One folder at one scale and target; bytes are totals, PSNR and SSIM means over the images.

    ``to_avif`` is the ratio of the bytes to AVIF's at one quality and the same mean PSNR-RGB, ``to_avif_each`` to AVIF's where
    each image just reaches the floor, ``to_lr_avif`` to a lossless LR and the first AVIF, ``to_own_lr_avif`` to the archive's
    own LRs and that AVIF; None where the sweep does not reach, or there is no floor or latent to compare.
    """

    scale: str
    target: str
    floor: float | None
    bytes: int
    lr: int
    latent: int
    rest: int
    psnr: float
    psnr_y: float
    ssim: float
    worst: float
    met: int | None
    lean: int
    kept: int
    told_error: float
    shards: int
    clean_lr: int
    to_avif: float | None
    to_avif_each: float | None
    to_lr_avif: float | None
    to_own_lr_avif: float | None


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What was measured of one folder: rows of archives, and each codec's points, image by image and as a whole."""

    name: str
    images: int
    pixels: int
    source_bytes: int
    rows: Sequence[Row]
    curves: Mapping[str, Sequence[Sequence[Point]]]

    def bpp(self, count: float) -> float:
        """Return bytes as bits per pixel of the sources."""
        return 8 * count / self.pixels

    def figures(self) -> dict[str, Any]:
        """Return all of it as plain values, the codecs' points of the folder as a whole."""
        curves = {codec: [asdict(point) for point in whole(images)] for codec, images in self.curves.items()}
        return asdict(self) | {"curves": curves}


def row(
    scale: str,
    target: Target,
    entries: Sequence[Stored],
    curves: Mapping[str, Sequence[Sequence[Point]]],
    *,
    shards: int,
    clean_lr: int,
) -> Row:
    """Sum up one archive, and compare it with AVIF."""
    floor = target.floor
    size, lr, latent = (sum(getattr(entry, part) for entry in entries) for part in ("bytes", "lr", "latent"))
    level = mean([entry.psnr for entry in entries], EXACT_DB if floor is None else floor)
    avif_size = avif_at(curves, level)
    measured = [abs(entry.psnr - entry.told) for entry in entries if entry.told is not None and entry.psnr != entry.told]
    return Row(
        scale=scale,
        target=str(target),
        floor=floor,
        bytes=size,
        lr=lr,
        latent=latent,
        rest=sum(entry.beside + entry.original for entry in entries),
        psnr=level,
        psnr_y=mean([entry.psnr_y for entry in entries], EXACT_DB if floor is None else floor),
        ssim=mean([entry.ssim for entry in entries]),
        worst=min(EXACT_DB, *(entry.psnr for entry in entries)),
        met=None if floor is None else sum(entry.psnr >= floor - FLOOR_SLACK for entry in entries),
        lean=sum(not entry.latent and not entry.original for entry in entries),
        kept=sum(entry.original > 0 for entry in entries),
        told_error=max(measured, default=0.0),
        shards=shards,
        clean_lr=clean_lr,
        to_avif=None if avif_size is None else size / avif_size,
        to_avif_each=None if floor is None else size / avif_each_at(curves, floor),
        to_lr_avif=None if avif_size is None else size / (clean_lr + avif_size),
        to_own_lr_avif=None if avif_size is None or not latent else size / (lr + avif_size),
    )
