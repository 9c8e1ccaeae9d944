"""A region of a large entry against a whole image of that size, and a thumbnail against the whole restore.

    python -m benchmarks.region                                   # 50 megapixels, x2, balanced
    python -m benchmarks.region --megapixels 24 --scale 4 --tier lean

The large picture is made of the samples, side by side; the small one is a square cut out of its middle. Both are entries of one
archive, read before anything is timed. By turns, in one run: regions of the large entry at places drawn at random, once as the
first of an entry, and once where its LR is decoded already, as it is for a viewer's following tiles; the small entry whole; the
same with regions at multiples of 512 pixels, as viewers' tiles are. Then the large one, whole, and no larger than its LR.
*Decoded* are the bytes of the latent's tiles that a region touches, over its share of the latent by area.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.support.machine import described
from iarn.pretrained import shipped
from pipeline.archives.archive import Archive
from pipeline.core.records import Pixels, Settings, Size, Tier, Verification
from pipeline.core.target import TargetSize
from pipeline.engines.engine import Engine, choose_device
from pipeline.engines.restoring import restore_lr
from pipeline.entry_picture import OpenEntry, View, restore_entry
from pipeline.latents import latent
from pipeline.pictures.region import Region
from pipeline.planning.sources import find_source
from pipeline.reading.reader import ArchiveReader, EntryReader, open_archive
from pipeline.stores.store import open_store
from pipeline.works import RescaleWork

ROOT = Path(__file__).resolve().parent.parent
LARGE, SMALL = "large.png", "small.png"
TILE = 512
"""What aligned regions begin at multiples of: the tiles of viewers."""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure as the command line asks; print and return the figures."""
    options = parser().parse_args(arguments)
    print(described(platform.machine()))
    with tempfile.TemporaryDirectory() as folder:
        archive = open_archive(options.archive or rescaled(Path(folder), options), device=options.device)
        large, small = archive[LARGE], archive[SMALL]
        small.restore()  # loads the network, and warms it
        row = {**figures_of(large, options), **of_regions(archive, large, small, options), **of_thumbnails(large, options)}
    print(json.dumps(row))
    return row


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--megapixels", type=float, default=50, help="of the large picture")
    found.add_argument("--side", type=int, default=1024, help="of the region, in pixels")
    found.add_argument("--scale", default="2")
    found.add_argument("--tier", type=Tier, default=Tier.BALANCED)
    found.add_argument("--floor", type=float, default=40.0, help="dB, in the tier floor")
    found.add_argument("--regions", type=int, default=7)
    found.add_argument("--repeats", type=int, default=3, help="of the whole restore")
    found.add_argument("--device", default="auto")
    found.add_argument("--archive", help="of the two pictures; one is made unless it is given")
    found.add_argument("--source", type=Path, default=ROOT / "samples")
    return found


def rescaled(folder: Path, options: argparse.Namespace) -> str:
    """Return the URI of an archive of the large picture and the small one."""
    (folder / "source").mkdir()
    large = side_by_side(options.source, options.megapixels)
    top, left = ((length - options.side) // 2 for length in large.shape[:2])
    for name, pixels in ((LARGE, large), (SMALL, large[top : top + options.side, left : left + options.side])):
        Image.fromarray(pixels).save(folder / "source" / name, compress_level=1)
    verify = Verification.NONE if options.tier is Tier.LEAN else Verification.FULL
    floor = options.floor if options.tier is Tier.FLOOR else None
    target = TargetSize.parse(scale=options.scale)
    settings = Settings(target=target, tier=options.tier, floor=floor, verify=verify, max_ratio=None)
    found, store = find_source(str(folder / "source")), open_store(str(folder / "archive"), create=True)
    archive = Archive.begin(store, source=found.store.uri, settings=settings, model=shipped(), shards=found.shards)
    worker = RescaleWork(archive=store.uri, device=options.device).start()
    for shard in archive.shards():
        worker.run(shard)
    return store.uri


def side_by_side(source: Path, megapixels: float) -> Pixels:
    """Return the pictures of a folder beside and below each other, 3 by 2 in shape, until there are so many pixels."""
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(source.glob("*.jpg"))]
    height = min(len(picture) for picture in pictures)
    row = np.concatenate([picture[:height] for picture in pictures], axis=1)
    wanted_height, wanted_width = shape_of(megapixels)
    shifted = [np.roll(row, number * 997, axis=1) for number in range(-(-wanted_height // height))]  # no row like another
    across = [np.concatenate([each] * -(-wanted_width // row.shape[1]), axis=1) for each in shifted]
    return np.ascontiguousarray(np.concatenate(across)[:wanted_height, :wanted_width])


def shape_of(megapixels: float) -> Size:
    """Return the height and width of a large picture."""
    return round(math.sqrt(megapixels * 1e6 / 1.5)), round(math.sqrt(megapixels * 1e6 * 1.5))


def figures_of(large: EntryReader, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the large entry is."""
    return {
        "megapixels": round(math.prod(sized(large)) / 1e6, 1),
        "lr_megapixels": round(math.prod(large.lr_size or (0, 0)) / 1e6, 1),
        "tier": str(options.tier),
        "scale": options.scale,
        "lr_decode_s": round(seconds(large.lr), 3),
    }


def of_regions(archive: ArchiveReader, large: EntryReader, small: EntryReader, options: argparse.Namespace) -> dict[str, Any]:
    """Return what regions of the large entry take, at any place and aligned, and the small entry as a whole, by turns."""
    generator, side, (height, width) = random.Random(0), options.side, sized(large)
    engine = Engine(archive.archive.model_bytes(), choose_device(options.device))
    share = len(large.record.latent or b"") * side * side / (height * width)

    def restored(opened: OpenEntry, region: Region | None = None) -> None:
        view = View(size_for=lambda size: size, region=region)
        network = partial(restore_lr, engine)
        restore_entry(opened, network, view, span=engine.span, pixel_limit=archive.plan.settings.pixel_limit)

    row: dict[str, Any] = {}
    following = OpenEntry(lambda: (large.record, None))
    restored(following, Region(0, 0, side, side))
    for name, step in (("", 1), ("aligned_", TILE)):
        first, then, images, decoded = [], [], [], []
        for _ in range(options.regions):
            y, x = (generator.randrange((length - side) // step + 1) * step for length in (height, width))
            region = Region(x, y, side, side)
            first.append(seconds(lambda region=region: restored(OpenEntry(lambda: (large.record, None)), region)))  # type: ignore[misc]
            with Decoded() as tiles:
                then.append(seconds(lambda region=region: restored(following, region)))  # type: ignore[misc]
            decoded.append(tiles.bytes)
            images.append(seconds(lambda: restored(OpenEntry(lambda: (small.record, None)))))
        row |= {
            f"{name}region_s": round(median(then), 3),
            f"{name}image_s": round(median(images), 3),
            f"{name}region_over_image": round(median(one / other for one, other in zip(then, images, strict=True)), 2),
            f"{name}first_over_image": round(median(one / other for one, other in zip(first, images, strict=True)), 2),
            f"{name}latent_decoded_over_share": round(sum(decoded) / len(decoded) / share, 2) if share else None,
        }
    return row


def of_thumbnails(large: EntryReader, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the whole restore takes, and the entry no larger than its LR, by turns."""
    side = max(large.lr_size or (0, 0))
    pairs = [(seconds(large.restore), seconds(lambda: large.restore(max_side=side))) for _ in range(options.repeats)]
    wholes, thumbnails = zip(*pairs, strict=True)
    ratio = median(whole / thumbnail for whole, thumbnail in pairs)
    return {
        "whole_s": round(median(wholes), 2),
        "thumbnail_s": round(median(thumbnails), 3),
        "whole_over_thumbnail": round(ratio),
    }


class Decoded:
    """Counts the bytes of latents' tiles that are decoded while it is entered."""

    def __enter__(self) -> Decoded:
        self.bytes, self._own, turn = 0, latent._decode_tile, Lock()

        def counted(payload: bytes, *told: Any) -> Any:
            with turn:
                self.bytes += len(payload)
            return self._own(payload, *told)

        latent._decode_tile = counted
        return self

    def __exit__(self, *_: object) -> None:
        latent._decode_tile = self._own


def sized(entry: EntryReader) -> Size:
    """Return the size of an entry that has one."""
    assert entry.size is not None
    return entry.size


def seconds(work: Callable[[], Any]) -> float:
    """Return how long some work takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
