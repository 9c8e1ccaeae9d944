"""What the demo measures: a row for each photograph, a summary for each scale and tier, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from iarn.metrics import psnr_of
from jobs.console import size
from pipeline.archives.archive import Archive
from pipeline.core.errors import EmptySource
from pipeline.core.records import EntryKind, Pixels, Settings, Tier
from pipeline.decoders.decoding import decode
from pipeline.engines.measure import measure
from pipeline.pictures.depth import in_8_bits
from pipeline.pictures.picture import resize
from pipeline.stores.store import open_store

BICUBIC = "bicubic"
TOLERANCE_DB = 0.01


@dataclass(frozen=True, kw_only=True)
class Row:
    """One photograph at one scale and tier; sizes in pixels and bytes, PSNR in dB over RGB, SSIM over luma."""

    scale: str
    tier: str
    key: str
    width: int
    height: int
    lr_width: int
    lr_height: int
    source_bytes: int
    lr_bytes: int
    latent_bytes: int
    psnr: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All photographs at one scale and tier: bytes are sums, figures means.

    Bytes are None for bicubic, of which nothing is stored; seconds for what an earlier run had begun.
    """

    scale: str
    tier: str
    images: int
    source_bytes: int
    lr_bytes: int | None
    latent_bytes: int | None
    archive_bytes: int | None
    bits_per_pixel: float | None
    psnr: float
    ssim: float
    rescale_seconds: float | None
    restore_seconds: float | None


def rows_of(folder: Path, scale: str, tier: Tier) -> tuple[list[Row], int]:
    """Return a row for each rescaled entry of an archive, and the bytes of its shards."""
    archive = Archive.open(open_store(str(folder)))
    rows = [
        Row(
            scale=scale,
            tier=tier,
            key=entry.key,
            width=entry.width or 0,
            height=entry.height or 0,
            lr_width=entry.lr_width or 0,
            lr_height=entry.lr_height or 0,
            source_bytes=entry.byte_size,
            lr_bytes=len(entry.lr or b""),
            latent_bytes=len(entry.latent or b""),
            psnr=entry.psnr or 0.0,
            ssim=entry.ssim or 0.0,
        )
        for _, entry in archive.find("*", parts=("lr", "latent"))
        if entry.kind is EntryKind.RESCALED
    ]
    if not rows:
        raise EmptySource(f"{archive.plan.source} (images that can be rescaled)")
    return rows, sum(commit.byte_size for commit in archive.commits())


def summary_of(rows: Sequence[Row], stored: int | None = None, rescale_seconds: float | None = None) -> Summary:
    """Sum up the rows of one scale and tier; ``stored`` bytes are None for bicubic."""
    return Summary(
        scale=rows[0].scale,
        tier=rows[0].tier,
        images=len(rows),
        source_bytes=sum(row.source_bytes for row in rows),
        lr_bytes=None if stored is None else sum(row.lr_bytes for row in rows),
        latent_bytes=None if stored is None else sum(row.latent_bytes for row in rows),
        archive_bytes=stored,
        bits_per_pixel=None if stored is None else 8 * stored / sum(row.width * row.height for row in rows),
        psnr=fmean(row.psnr for row in rows),
        ssim=fmean(row.ssim for row in rows),
        rescale_seconds=rescale_seconds,
        restore_seconds=None,
    )


def fault_in(row: Row, original: Pixels, restored: Pixels) -> str | None:
    """Measure a restored file again, and say so where it is not what the archive says."""
    squares = np.square(original.astype(np.int32) - restored).sum(dtype=np.int64)
    found = psnr_of(float(squares) / original.size / 255**2)
    if abs(found - row.psnr) < TOLERANCE_DB:
        return None
    return f"{row.key} x{row.scale} {row.tier}: the restored file has {found:.2f} dB, the archive says {row.psnr:.2f} dB."


def bicubic_of(row: Row, original: Pixels) -> Row:
    """Return what bicubic there and back makes of a row's photograph at its LR size, 8-bit in between."""
    found = measure(original, there_and_back(original, row))
    return replace(row, tier=BICUBIC, latent_bytes=0, psnr=found.psnr, ssim=found.ssim)


def there_and_back(original: Pixels, row: Row) -> Pixels:
    """Return a photograph that bicubic made as small as a row's LR, and large again."""
    return resize(resize(original, (row.lr_height, row.lr_width)), (row.height, row.width))


def pixels_of(path: Path) -> Pixels:
    """Return the pixels of an image file, uint8."""
    return in_8_bits(decode(path.read_bytes(), pixel_limit=Settings.pixel_limit).pixels)


def table(summaries: Sequence[Summary]) -> str:
    """Return the summaries as lines of text."""
    lines = [
        ["scale", "tier", "images", "source", "LR", "latent", "archive", "bits/pixel", "PSNR", "SSIM", "rescale", "restore"]
    ]
    for each in summaries:
        counts = (each.source_bytes, each.lr_bytes, each.latent_bytes, each.archive_bytes)
        lines.append(
            [f"x{each.scale}", each.tier, str(each.images), *("-" if count is None else size(count) for count in counts)]
        )
        lines[-1].append("-" if each.bits_per_pixel is None else f"{each.bits_per_pixel:.2f}")
        lines[-1] += [f"{each.psnr:.2f} dB", f"{each.ssim:.4f}"]
        seconds = (each.rescale_seconds, each.restore_seconds)
        lines[-1] += ["-" if taken is None else f"{taken:.0f} s" for taken in seconds]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join((shown[0], "-" * len(shown[0]), *shown[1:]))
