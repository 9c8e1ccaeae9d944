"""Archives put together by hand: a plan of three shards, entries of every kind, and their writing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.archives.archive import Archive
from pipeline.core.records import (
    Commit,
    Entry,
    EntryKind,
    ObjectInfo,
    OriginalCoding,
    Plan,
    PlanPart,
    Settings,
    ShardKind,
    ShardReport,
    SourceShard,
    Tier,
)
from pipeline.core.target import TargetSize
from pipeline.stores.store import Store

MODEL = b"weights" * 100
SHARDS = tuple(
    SourceShard(
        id=f"{index:09}-{name}",
        name=f"{name}.tar",
        kind=ShardKind.TAR,
        objects=(ObjectInfo(key=f"{name}.tar", size=5, etag=f'"{name}"'),),
    )
    for index, name in enumerate(("a", "b", "c"))
)
PLAN = Plan(
    source="s3://bucket/photos",
    settings=Settings(target=TargetSize(scale=(2.5, 2.0)), image_column="Bild"),
    model=hashlib.sha256(MODEL).hexdigest(),
    parts=(PlanPart(sha256="ab" * 32, shards=3, objects=3),),
)


def begin(store: Store, shards: Iterable[SourceShard] = SHARDS, *, model: bytes = MODEL, **other: Any) -> Archive:
    """Begin an archive of these shards under the settings of PLAN, or ``other`` ones."""
    values = {"source": PLAN.source, "settings": PLAN.settings, **other}
    return Archive.begin(store, model=model, shards=iter(shards), **values)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(key: str, *, size: int = 300, **other: Any) -> Entry:
    """Return an entry whose LR are ``size`` random bytes."""
    lr = random.Random(key).randbytes(size)
    values = {
        "key": key,
        "kind": EntryKind.RESCALED,
        "tier": Tier.BALANCED,
        "reason": None,
        "sha256": digest(key.encode()),
        "byte_size": 4 * size,
        "format": "JPEG",
        "mode": "RGB",
        "width": 30,
        "height": 20,
        "orientation": 6,
        "lr": lr,
        "lr_path": key.rpartition(".")[0] + ".webp",
        "lr_width": 12,
        "lr_height": 10,
        "lr_sha256": digest(lr),
        "psnr": 40.5,
        "ssim": 0.99,
        "sidecars": {"json": b"{}", "txt": b""},
        **other,
    }
    return Entry(**values)


def original(key: str, data: bytes | None) -> Entry:
    return Entry(
        key=key,
        kind=EntryKind.ORIGINAL,
        tier=Tier.LEAN,
        reason="cannot be decoded: it is empty",
        sha256=None if data is None else digest(data),
        byte_size=len(data or b""),
        original=data,
        original_coding=None if data is None else OriginalCoding.BYTES,
    )


ENTRIES = [
    entry(
        "1.jpg",
        latent=b"latent",
        alpha=b"alpha",
        icc=b"icc",
        exif=b"exif",
        xmp=b"<x/>",
        original=b"1.jpg",
        psnr=float("inf"),
        original_coding=OriginalCoding.BYTES,
        clean=True,
        psnr_y=50.0,
    ),
    original("2/ü.jpg", b"GIF89a"),
    original("3.jpg", None),
    entry("4.tar.jpg", size=0, sidecars={}),
]


def report(shard: SourceShard, entries: list[Entry]) -> ShardReport:
    count = sum(each.kind is EntryKind.ORIGINAL for each in entries)
    return ShardReport(shard_id=shard.id, entries=len(entries), originals=count, pixels=7, bytes_in=8, bytes_out=0)


def write(archive: Archive, entries: list[Entry], directory: Path, shard: SourceShard = SHARDS[0]) -> Commit:
    with archive.writer(shard, directory) as writer:
        for each in entries:
            writer.append(each)
        return writer.finish(report(shard, entries))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
