"""`iarn inspect`: what is in an archive, or all that is known of one entry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.console import Totals, size
from pipeline.archives.archive import Archive
from pipeline.archives.errors import NothingSelected
from pipeline.archives.rollups import survey
from pipeline.core.records import Commit, Entry, SourceShard
from pipeline.stores.store import Access, open_store

PARTS = ("lr", "latent", "alpha", "original")


def inspect(uri: str, key: str | None, *, entries: bool, shards: bool, as_json: bool, access: Access = Access.SIGNED) -> int:
    """Print an archive's plan and state, its shards or entries, or one entry; raises NothingSelected for an unknown key."""
    archive = Archive.open(open_store(uri, access=access))
    if key is not None:
        found = [{"shard": shard_id, **describe(entry)} for shard_id, entry in archive.find((key,))]
        if not found:
            raise NothingSelected(archive.store.uri, f"the key {key}")
        for described in found:
            _show(described, as_json)
    elif entries:
        for shard_id, entry in _entries(archive):
            described = describe(entry)
            print(json.dumps({"shard": shard_id, **described}) if as_json else _line(described))
    elif shards:
        for shard, commit in _states(archive):
            state = f"{commit.report.entries} entries, {size(commit.byte_size)}" if commit else "not done"
            row = {"shard": shard.id, "name": shard.name, "kind": shard.kind, "state": state}
            print(json.dumps(row) if as_json else f"{shard.id}  {shard.kind}  {shard.name}  {state}")
    else:
        _show(summarise(archive), as_json)
    return 0


def describe(entry: Entry) -> dict[str, Any]:
    """Return an entry's figures as plain values, its parts by their bytes."""
    return {
        "key": entry.key,
        "kind": entry.kind,
        "stored": entry.stored,
        "tier": entry.tier,
        "reason": entry.reason,
        "source": {
            "format": entry.format,
            "mode": entry.mode,
            "width": entry.width,
            "height": entry.height,
            "orientation": entry.orientation,
            "bits": entry.bits,
            "frames": entry.frames,
            "bytes": entry.byte_size,
            "sha256": entry.sha256,
        },
        "lr": {"width": entry.lr_width, "height": entry.lr_height, "path": entry.lr_path, "sha256": entry.lr_sha256},
        "bytes": {part: len(getattr(entry, part) or b"") for part in PARTS},
        "metadata": {name: len(getattr(entry, name) or b"") for name in ("icc", "exif", "xmp")},
        "parts": [{"name": part.name, "bytes": len(part.data)} for part in entry.parts],
        "lost": list(entry.lost),
        "sidecars": {name: len(data) for name, data in entry.sidecars.items()},
        "clean": entry.clean,
        "original_coding": entry.original_coding,
        "psnr": _decibels(entry.psnr),
        "psnr_y": _decibels(entry.psnr_y),
        "ssim": None if entry.ssim is None else round(entry.ssim, 5),
    }


def summarise(archive: Archive) -> dict[str, Any]:
    """Return an archive's plan and how far it is done, from its rollups and the commits that none stands for."""
    plan, settings = archive.plan, archive.plan.settings
    totals = Totals()
    for group in survey(archive.store, archive.digest, plan.shard_count):
        totals.include(group.done.report, group.done.shards)
    return {
        "archive": archive.store.uri,
        "plan": archive.digest,
        "source": plan.source,
        "target": str(settings.target),
        "tier": settings.tier if settings.floor is None else f"{settings.tier} of {settings.floor:g} ({settings.floor_metric})",
        "max_ratio": settings.max_ratio,
        "lr_codec": settings.lr_codec,
        "verify": settings.verify,
        "effort": settings.effort,
        "keep_if_lossy": settings.keep_if_lossy,
        "model": plan.model,
        "shards": plan.shard_count,
        "additions": len(archive.additions),
        "shards_done": totals.shards,
        "entries": totals.entries,
        "originals": totals.originals,
        "kept_beside_lrs": totals.whole,
        "lost": dict(totals.lost.most_common()),
        "failures": totals.failed,
        "pixels": totals.pixels,
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
    }


def _states(archive: Archive) -> Iterator[tuple[SourceShard, Commit | None]]:
    """Yield the shards of the plan with their commits, which come in the same order."""
    every = archive.commits()
    commit = next(every, None)
    for shard in archive.shards():
        if commit is not None and commit.shard_id == shard.id:
            yield shard, commit
            commit = next(every, None)
        else:
            yield shard, None


def _entries(archive: Archive) -> Iterator[tuple[str, Entry]]:
    """Yield every entry of the shards that are done, with its shard's id."""
    for shard in archive.shards_done():
        yield from ((shard.id, entry) for entry in archive.entries(shard.id))


def _decibels(value: float | None) -> float | str | None:
    if value is None:
        return None
    return "identical pixels" if value == float("inf") else round(value, 3)


def _line(row: dict[str, Any]) -> str:
    source, lr = row["source"], row["lr"]
    if row["kind"] == "original":
        return f"{row['key']}  original  {size(source['bytes'])}  {row['reason'] or ''}"
    sizes = f"{source['width']}x{source['height']} → {lr['width']}x{lr['height']}"
    figures = {"identical pixels": "identical pixels", None: "not measured"}.get(row["psnr"]) or f"{row['psnr']:.2f} dB"
    return f"{row['key']}  {row['tier']}  {sizes}  {size(source['bytes'])} → {size(sum(row['bytes'].values()))}  {figures}"


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner} {shown}" for inner, shown in value.items() if shown is not None) or "-"
        table.add_row(name, "-" if value is None else str(value))
    Console(highlight=False, soft_wrap=True).print(table)
