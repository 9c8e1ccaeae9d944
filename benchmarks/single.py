"""One asset out of an archive: how long it takes, and what is read for it, in a local folder and on S3.

    python -m benchmarks.single                       # an archive of about 1 GB in four shards; starts a SeaweedFS
    python -m benchmarks.single --stores local --megabytes 100 --device cuda

The archive is made of the eight samples: rescaled once, their entries are written again and again under other keys, by the
archive's own writer. Then a reader is opened and keys drawn at random are asked for, one after the other, the network loaded
and warm. *Find* is from the key to the entry, *restore* from there to pixels. What is read is counted at the store: footers
apart from all else, which is divided by the entry's own bytes.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.support.bucket import bucket
from benchmarks.support.machine import described
from iarn.pretrained import shipped
from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.core.records import Entry, ObjectInfo, Settings, ShardKind, SourceShard, Tier, Verification
from pipeline.core.tally import Tally
from pipeline.core.target import TargetSize
from pipeline.planning.sources import find_source
from pipeline.reading.reader import ArchiveReader, open_archive
from pipeline.stores.store import Store, open_store
from pipeline.works import RescaleWork

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("lr", "latent", "alpha", "original", "icc", "exif", "xmp")


@dataclass
class Reads:
    """What a store was asked for: requests and bytes, those of footers apart."""

    footers: dict[str, int]
    requests: int = 0
    footer_bytes: int = 0
    other_bytes: int = 0
    _seen: list[tuple[str, int, int]] = field(default_factory=list)

    def watch(self, store: Store) -> None:
        """Count every read of a store from now on; a file opened there reads through it."""
        read = store.read

        def counted(key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
            data = read(key, start, stop, etag)
            self.requests += 1
            if start + len(data) > self.footers.get(key, sys.maxsize):
                self.footer_bytes += len(data)
            else:
                self.other_bytes += len(data)
            return data

        store.read = counted  # type: ignore[method-assign]

    def reset(self) -> None:
        """Count from 0."""
        self.requests = self.footer_bytes = self.other_bytes = 0


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure as the command line asks; print and return a row for each store."""
    options = parser().parse_args(arguments)
    print(described(platform.machine()))
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        entries = rescaled(Path(folder), options)
        for name in options.stores:
            base = folder if name == "local" else stack.enter_context(bucket())
            footers = write_archive(f"{base}/large", entries, options)
            rows.append({"store": name, **measure(f"{base}/large", footers, options)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--stores", nargs="+", choices=("local", "s3"), default=["local", "s3"])
    found.add_argument("--megabytes", type=float, default=1000, help="of the archive")
    found.add_argument("--shards", type=int, default=4)
    found.add_argument("--scale", default="2")
    found.add_argument("--tier", type=Tier, default=Tier.LEAN)
    found.add_argument("--assets", type=int, default=12, help="asked for, one after the other")
    found.add_argument("--device", default="auto")
    found.add_argument("--weights", type=Path)
    found.add_argument("--source", type=Path, default=ROOT / "samples")
    return found


def rescaled(folder: Path, options: argparse.Namespace) -> list[Entry]:
    """Return the entries of the samples."""
    verify = Verification.NONE if options.tier is Tier.LEAN else Verification.FULL
    settings = Settings(target=TargetSize.parse(scale=options.scale), tier=options.tier, verify=verify, max_ratio=None)
    found, store = find_source(str(options.source)), open_store(str(folder / "small"), create=True)
    archive = Archive.begin(store, source=found.store.uri, settings=settings, model=model(options), shards=found.shards)
    worker = RescaleWork(archive=store.uri, device=options.device).start()
    for shard in archive.shards():
        worker.run(shard)
    return [entry for shard in archive.shards() for entry in archive.entries(shard.id) if entry.lr is not None]


def model(options: argparse.Namespace) -> bytes:
    """Return the weights file that was asked for."""
    data: bytes = options.weights.read_bytes() if options.weights else shipped()
    return data


def stored_bytes(entry: Entry) -> int:
    """Return the bytes of an entry's parts."""
    return sum(len(getattr(entry, part) or b"") for part in PARTS) + sum(map(len, entry.sidecars.values()))


def write_archive(uri: str, entries: list[Entry], options: argparse.Namespace) -> dict[str, int]:
    """Write the large archive; return where the footer of each shard's object begins."""
    ids = [f"{number:09d}-large" for number in range(options.shards)]
    objects = (ObjectInfo(key="large.tar", size=1, etag="0"),)
    shards = [SourceShard(id=each, name=f"{each}.tar", kind=ShardKind.TAR, objects=objects) for each in ids]
    settings = Settings(target=TargetSize.parse(scale=options.scale), tier=options.tier, max_ratio=None)
    store = open_store(uri, create=True)
    archive = Archive.begin(store, source="nowhere", settings=settings, model=model(options), shards=shards)
    footers = {}
    for shard in shards:
        tally, size, number = Tally(), 0, 0
        with tempfile.TemporaryDirectory() as directory, archive.writer(shard, Path(directory)) as writer:
            while size < options.megabytes * 1e6 / options.shards:
                entry = replace(entries[number % len(entries)], key=f"{shard.id[:9]}/{number:06d}.jpg")
                writer.append(entry)
                tally.add(original=False, pixels=0, bytes_in=entry.byte_size)
                size, number = size + stored_bytes(entry), number + 1
            create_commit(store, writer.finish(tally.report(shard.id)))
        key = f"shards/{shard.id}.parquet"
        length = store.stat(key).size
        footers[key] = length - 8 - int.from_bytes(store.read(key, length - 8, length - 4), "little")
    return footers


def measure(uri: str, footers: dict[str, int], options: argparse.Namespace) -> dict[str, Any]:
    """Ask for assets one after the other; return medians."""
    begun = time.perf_counter()
    archive = open_archive(uri, device=options.device)
    reads = Reads(footers)
    reads.watch(archive.archive.store)
    keys = list(archive.keys(limit=None))
    opened, opening_bytes = time.perf_counter() - begun, reads.footer_bytes + reads.other_bytes
    random.Random(0).shuffle(keys)
    first, *wanted = keys[: options.assets + 1]
    archive[first].restore()  # loads the network, and warms it
    found = [one(archive, key, reads) for key in wanted]
    size = sum(archive.archive.store.stat(key).size for key in footers)
    medians = {name: round(median(row[name] for row in found), 4) for name in found[0]}
    return {
        "archive_mb": round(size / 1e6),
        "entries": len(keys),
        "open_s": round(opened, 3),
        "open_mb": round(opening_bytes / 1e6, 3),
        "assets": len(found),
        **medians,
        "most_read_over_entry": round(max(row["read_over_entry"] for row in found), 3),
    }


def one(archive: ArchiveReader, key: str, reads: Reads) -> dict[str, float]:
    """Restore one asset and return what it took."""
    reads.reset()
    begun = time.perf_counter()
    entry = archive[key]
    found = time.perf_counter()
    pixels = entry.restore()
    ended = time.perf_counter()
    own = stored_bytes(entry.record)
    mpix = pixels.shape[0] * pixels.shape[1] / 1e6
    return {
        "mpix": mpix,
        "find_s": found - begun,
        "restore_s": ended - found,
        "s_per_mpix": (ended - begun) / mpix,
        "requests": reads.requests,
        "entry_kb": own / 1e3,
        "footer_kb": reads.footer_bytes / 1e3,
        "read_over_entry": reads.other_bytes / own,
    }


if __name__ == "__main__":
    main()
