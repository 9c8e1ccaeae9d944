"""Archives of many little entries, written without rescaling each: what reports are tried on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.core.records import (
    Commit,
    Entry,
    EntryKind,
    Failure,
    ObjectInfo,
    Settings,
    ShardKind,
    ShardReport,
    SourceShard,
    Tier,
)
from pipeline.core.target import TargetSize
from pipeline.stores.store import open_store
from tests.support.workshop import Sample, as_folder, picture, rescale, weights

BEGUN = 1_790_000_000.0


def many(folder: Path, *, shards: int, entries: int, side: int = 48) -> Archive:
    """Write an archive of ``shards`` times ``entries`` entries: one rescaled picture under many keys, with figures of its own.

    Every 50th entry is an original; every 200th a failure too. Two shards are under way at any time.
    """
    source = as_folder(folder / "one", [Sample(key="one.png", data=picture(side, side + 16, "PNG", seed=5))])
    (entry,) = rescale(source, folder / "rescaled").entries
    plan_shards = tuple(
        SourceShard(
            id=f"{n:09d}-part",
            name=f"part-{n}.tar",
            kind=ShardKind.TAR,
            objects=(ObjectInfo(key=f"part-{n}.tar", size=1, etag="a"),),
        )
        for n in range(shards)
    )
    archive = Archive.begin(
        open_store(str(folder / "archive"), create=True),
        source=str(folder / "gone"),
        settings=Settings(target=TargetSize(scale=(2, 2)), tier=Tier.BALANCED),
        model=weights(),
        shards=plan_shards,
    )
    rng = random.Random(1)
    for number, shard in enumerate(plan_shards):
        rows = [_entry(entry, f"{number:03d}/{n:05d}.png", n, rng) for n in range(entries)]
        commit = write_shard(archive, shard, rows, folder)
        create_commit(archive.store, replace(commit, begun=BEGUN + 10 * number, ended=BEGUN + 10 * number + 20 + rng.random()))
    return archive


def write_shard(archive: Archive, shard: SourceShard, rows: list[Entry], folder: Path) -> Commit:
    """Write entries as the shard's object; return its commit, which is not written."""
    broken = [row for row in rows if row.reason and row.reason.startswith("cannot be decoded")]
    report = ShardReport(
        shard_id=shard.id,
        entries=len(rows),
        originals=sum(row.kind is EntryKind.ORIGINAL for row in rows),
        pixels=sum((row.width or 0) * (row.height or 0) for row in rows),
        bytes_in=sum(row.byte_size for row in rows),
        bytes_out=0,
        failures=tuple(Failure(shard_id=shard.id, key=row.key, reason=row.reason or "") for row in broken),
    )
    with archive.writer(shard, folder) as writer:
        for row in rows:
            writer.append(row)
        return writer.finish(report)


def _entry(entry: Entry, key: str, number: int, rng: random.Random) -> Entry:
    if number % 50 == 49:
        reason = (
            "cannot be decoded: truncated"
            if number % 200 == 199
            else f"not rescaled: its LR takes {number} bytes, the source 9"
        )
        return Entry(
            key=key, kind=EntryKind.ORIGINAL, tier=Tier.BALANCED, reason=reason, sha256=None, byte_size=999, original=bytes(999)
        )
    psnr = rng.gauss(40, 2.2)
    return replace(entry, key=key, psnr=psnr, psnr_y=psnr + 1.5, ssim=min(1.0, 0.985 + (psnr - 40) / 400))
