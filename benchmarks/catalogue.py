"""What opening and listing a large archive takes: an archive of so many little entries, made for it, and a shelf of a service.

python -m benchmarks.catalogue [--entries 100000] [--per-shard 1000] [--json out.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from jobs.rescale import read_weights
from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.core.records import Entry, EntryKind, ObjectInfo, Settings, ShardKind, ShardReport, SourceShard, Tier
from pipeline.core.target import TargetSize
from pipeline.reading.catalogue import Filter
from pipeline.serving.shelf import Shelf
from pipeline.stores.store import open_store

LR_BYTES = 3000


def make(folder: Path, *, entries: int, per_shard: int) -> str:
    """Write an archive whose LRs are noise; return its URI."""
    names = [f"{number:09d}-part" for number in range(-(-entries // per_shard))]
    shards = [
        SourceShard(id=name, name=name, kind=ShardKind.TAR, objects=(ObjectInfo(key=f"{name}.tar", size=1, etag="x"),))
        for name in names
    ]
    settings = Settings(target=TargetSize(scale=(2, 2)), tier=Tier.LEAN)
    store = open_store(str(folder / "archive"), create=True)
    archive = Archive.begin(store, source=str(folder), settings=settings, model=read_weights(None), shards=iter(shards))
    rng = random.Random(1)
    for number, shard in enumerate(archive.shards()):
        count = min(per_shard, entries - number * per_shard)
        with archive.writer(shard, folder) as writer:
            for index in range(count):
                writer.append(_entry(f"photos/{number:04d}/{index:06d}.jpg", rng))
            report = ShardReport(shard_id=shard.id, entries=count, originals=0, pixels=1, bytes_in=1, bytes_out=0)
            create_commit(archive.store, writer.finish(report))
    return archive.store.uri


def _entry(key: str, rng: random.Random) -> Entry:
    lr = rng.randbytes(LR_BYTES)
    digest = hashlib.sha256(lr).hexdigest()
    given: dict[str, Any] = {"kind": EntryKind.RESCALED, "tier": Tier.LEAN, "reason": None, "sha256": digest, "byte_size": 9999}
    given |= {
        "format": "JPEG",
        "mode": "RGB",
        "width": 640,
        "height": 480,
        "orientation": 1,
        "lr": lr,
        "lr_path": f"{key}.webp",
    }
    given |= {"lr_width": 320, "lr_height": 240, "lr_sha256": digest, "clean": False, "psnr": rng.uniform(25, 45)}
    return Entry(key=key, **given, psnr_y=40.0, ssim=0.9)


def measure(uri: str) -> dict[str, float]:
    """Return seconds, and the growth of this process's largest memory in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures: dict[str, float] = {}

    def timed(name: str, began: float) -> None:
        figures[name] = round(time.monotonic() - began, 4)

    began = time.monotonic()
    with closing(Shelf("large", uri)) as shelf:
        timed("open", began)
        began = time.monotonic()
        shelf.lr(shelf.place("photos/0001/000000.jpg"))
        timed("first_lr", began)
        shelf.catalogue.begin()
        began = time.monotonic()
        assert shelf.catalogue.ready(3600)
        timed("list_all", began)
        for name, wanted in (("first_page", Filter()), ("first_filtered_page", Filter(contains="00/0004", psnr_min=30))):
            began = time.monotonic()
            found = shelf.list(wanted, after="", limit=100, seconds=1)
            timed(name, began)
            assert found["total"] > 0
        began, pages, after = time.monotonic(), 0, ""
        while after is not None and pages < 100:
            after, pages = shelf.list(Filter(), after=after, limit=100, seconds=1)["next"], pages + 1
        figures["following_page"] = round((time.monotonic() - began) / pages, 5)
    figures["memory_mb"] = round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)
    return figures


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--per-shard", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="iarn-bench-") as folder:
        uri = make(Path(folder), entries=asked.entries, per_shard=asked.per_shard)
        figures = {"entries": asked.entries, **measure(uri)}
    print(json.dumps(figures, indent=2))
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
