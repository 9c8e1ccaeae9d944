"""The entries that are restored worst, to look at: source, LR, restored and difference, where they differ most."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.assets import shards
from pipeline.core.errors import PipelineError, ShardError, StoreError
from pipeline.core.records import Pixels, SourceShard
from pipeline.decoders import decoding
from pipeline.pictures import writing
from pipeline.pictures.depth import in_8_bits
from pipeline.pictures.picture import Picture, resize
from pipeline.reading.reader import ArchiveReader, EntryReader
from pipeline.stores.store import Access, open_store

SIDE = 192
"""Pixels of a close-up's sides at most."""

GAIN = 8
"""How many times larger than they are differences are shown."""

BLOCK = 16
MOST_PIXELS = 64_000_000
"""Larger images are not restored for a report."""

THUMBNAIL = 112
BUDGET = 3_000_000
QUALITIES = (90, 75, 50)
"""Of AVIF, tried until all pictures together take no more bytes than the budget."""

SMALL_PROFILE = 4096


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a close-up: what it is, in a word and in a sentence, and its pixels."""

    name: str
    alt: str
    pixels: Pixels
    lossless: bool = False


@dataclass(frozen=True, kw_only=True)
class Closeup:
    """One entry to look at: its figures, its panels, the whole in small with where they are, or why something is missing.

    ``box`` is (left, top, width, height) in shares of the whole.
    """

    figures: Mapping[str, Any]
    panels: tuple[Panel, ...] = ()
    whole: Panel | None = None
    box: tuple[float, float, float, float] = (0, 0, 1, 1)
    note: str | None = None
    profile: bytes | None = None


def closeups(
    archive: ArchiveReader, worst: Sequence[Mapping[str, Any]], source_access: Access = Access.SIGNED
) -> list[Closeup]:
    """Return a close-up of each entry that ``worst`` tells by ``key`` and ``shard``; sources are read where they still are."""
    wanted: dict[str, set[str]] = {}
    for figures in worst:
        wanted.setdefault(figures["shard"], set()).add(figures["key"])
    sources: dict[tuple[str, str], bytes] = {}
    for shard in archive.archive.shards() if wanted else ():
        if shard.id in wanted:
            found = _sources(archive, shard, wanted[shard.id], source_access)
            sources.update({(shard.id, key): data for key, data in found.items()})
    return [_closeup(archive, figures, sources.get((figures["shard"], figures["key"]))) for figures in worst]


def data_uris(found: Sequence[Closeup]) -> dict[int, str]:
    """Return every panel of close-ups as a data URI, by the panel's ``id``, within the budget of bytes."""
    panels = [(panel, each.profile) for each in found for panel in (*each.panels, each.whole) if panel is not None]
    files: dict[int, bytes] = {}
    extensions: dict[int, str] = {}
    for quality in QUALITIES:
        for panel, profile in panels:
            lossless = panel.lossless and quality == QUALITIES[0]
            files[id(panel)] = _file(panel.pixels, profile, "PNG" if lossless else "AVIF", quality)
            extensions[id(panel)] = "png" if lossless else "avif"
        if sum(map(len, files.values())) <= BUDGET:
            break
    return {key: f"data:image/{extensions[key]};base64,{base64.b64encode(data).decode()}" for key, data in files.items()}


def _sources(archive: ArchiveReader, shard: SourceShard, keys: set[str], access: Access) -> dict[str, bytes]:
    """Return the source's files of some keys of a shard, those that can still be read."""
    found: dict[str, bytes] = {}
    try:
        store, settings = open_store(archive.plan.source, access=access), archive.plan.settings
        for asset in shards.read_assets(store, shard, image_column=settings.image_column, all_files=settings.all_files):
            if asset.key in keys and asset.data is not None:
                found[asset.key] = asset.data
                if len(found) == len(keys):
                    break
    except (StoreError, ShardError):
        return found  # gone or changed: an archive outlives its source
    return found


def _closeup(archive: ArchiveReader, figures: Mapping[str, Any], source: bytes | None) -> Closeup:
    if figures["width"] * figures["height"] > MOST_PIXELS:
        return Closeup(figures=figures, note=f"It is not shown: it has more than {MOST_PIXELS // 10**6} megapixels.")
    try:
        entry = archive.entry(figures["key"], shard=figures["shard"])
        lr, restored = entry.lr()[..., :3], in_8_bits(entry.picture().pixels)
        before, note = _before(archive, entry, source)
    except PipelineError as error:
        return Closeup(figures=figures, note=str(error))
    top, left, height, width = _where(before, restored)
    rows, columns = slice(top, top + height), slice(left, left + width)
    what = f"{width} by {height} pixels of {entry.key}"
    small = _enlarged(lr, restored, rows, columns)
    panels = [
        Panel(name="LR", alt=f"The small picture: the same part of {entry.key}", pixels=small, lossless=True),
        Panel(name="restored", alt=f"Restored: {what}", pixels=restored[rows, columns]),
    ]
    if before is not None:
        panels.insert(0, Panel(name="before", alt=f"Before: {what}, where it is restored worst", pixels=before[rows, columns]))
        difference = _difference(before[rows, columns], restored[rows, columns])
        panels.append(
            Panel(
                name=f"difference \N{MULTIPLICATION SIGN} {GAIN}", alt=f"Difference of the two, {GAIN} times", pixels=difference
            )
        )
    full_height, full_width = restored.shape[:2]
    part = THUMBNAIL / max(full_height, full_width)
    whole = resize(lr, (max(1, round(full_height * part)), max(1, round(full_width * part)))) if part < 1 else lr
    profile = entry.record.icc
    return Closeup(
        figures=figures,
        panels=tuple(panels),
        whole=Panel(name="whole", alt=f"{entry.key} as a whole, the part shown marked", pixels=whole),
        box=(left / full_width, top / full_height, width / full_width, height / full_height),
        note=note,
        profile=profile if profile is not None and len(profile) <= SMALL_PROFILE else None,
    )


def _before(archive: ArchiveReader, entry: EntryReader, source: bytes | None) -> tuple[Pixels | None, str | None]:
    """Return the source's pixels, uint8, or why they cannot be shown."""
    data = entry.original() or source
    if data is None:
        return None, "Its source can no longer be read."
    if hashlib.sha256(data).hexdigest() != entry.record.sha256:
        return None, "Its source is not the one any more that was rescaled."
    return in_8_bits(decoding.decode(data, pixel_limit=archive.plan.settings.pixel_limit).pixels), None


def _where(before: Pixels | None, restored: Pixels) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part with the largest error; the middle where that is not known."""
    full_height, full_width = restored.shape[:2]
    height, width = min(SIDE, full_height), min(SIDE, full_width)
    if before is None:
        return (full_height - height) // 2, (full_width - width) // 2, height, width
    sums = np.zeros((-(-full_height // BLOCK), -(-full_width // BLOCK)))
    columns = np.arange(0, full_width, BLOCK)
    for number, top in enumerate(range(0, full_height, BLOCK)):  # in strips, so that memory does not grow with the image
        strip = before[top : top + BLOCK].astype(np.int32) - restored[top : top + BLOCK]
        sums[number] = np.add.reduceat(np.square(strip).sum(axis=(0, 2)), columns)
    table = np.pad(sums.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    down, across = min(len(sums), -(-height // BLOCK)), min(sums.shape[1], -(-width // BLOCK))
    windows = table[down:, across:] - table[:-down, across:] - table[down:, :-across] + table[:-down, :-across]
    row, column = np.unravel_index(int(windows.argmax()), windows.shape)
    return min(int(row) * BLOCK, full_height - height), min(int(column) * BLOCK, full_width - width), height, width


def _enlarged(lr: Pixels, restored: Pixels, rows: slice, columns: slice) -> Pixels:
    """Return a part of the LR as large as the restored one, each of its pixels a rectangle."""
    down = (np.arange(rows.start, rows.stop) + 0.5) * lr.shape[0] / restored.shape[0]
    across = (np.arange(columns.start, columns.stop) + 0.5) * lr.shape[1] / restored.shape[1]
    enlarged: Pixels = lr[down.astype(int)][:, across.astype(int)]
    return enlarged


def _difference(before: Pixels, restored: Pixels) -> Pixels:
    largest = np.abs(before.astype(np.int16) - restored).max(axis=2)
    grey: Pixels = np.minimum(GAIN * largest, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _file(pixels: Pixels, profile: bytes | None, form: str, quality: int) -> bytes:
    picture = Picture(
        pixels=pixels, alpha=None, grey=False, orientation=1, mode="RGB", format=form, icc=profile, exif=None, xmp=None
    )
    return writing.encode(picture, format=form, quality=quality)
