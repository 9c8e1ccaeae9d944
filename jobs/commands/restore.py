"""`iarn restore`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import OUTPUT, SELECTION, SIZE, STORE, Archive, ArchiveAccess, Device, JsonLines, with_pool
from jobs.requests import RestoreJob
from pipeline.cluster.options import PoolOptions
from pipeline.core.errors import InvalidOption
from pipeline.core.options import OutputKind, RestoreOptions
from pipeline.pictures.region import Region
from pipeline.stores.base import Access


@with_pool
def restore(
    archive: Archive,
    destination: Annotated[str, typer.Argument(help=f"Where restored images go; nothing there is overwritten. {STORE}")],
    pool: PoolOptions,
    keys: Annotated[Path | None, typer.Option(help="A file of keys to restore, one a line.", rich_help_panel=SELECTION)] = None,
    glob: Annotated[
        str | None, typer.Option(help="Keys to restore, as in 'cats/*.jpg'; * crosses folders.", rich_help_panel=SELECTION)
    ] = None,
    shard: Annotated[
        list[str] | None, typer.Option(help="A shard's id; may be given again.", rich_help_panel=SELECTION)
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Divide the original size: 2 is half of it, 0.5 twice.", rich_help_panel=SIZE)
    ] = None,
    max_side: Annotated[
        int | None, typer.Option(help="Longest side of what is written, in pixels.", rich_help_panel=SIZE)
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="x,y,width,height: a part of the upright image, in its pixels.", rich_help_panel=SIZE)
    ] = None,
    lr: Annotated[
        bool,
        typer.Option("--lr", help="The stored LRs, bytes untouched, instead of restored images.", rich_help_panel=OUTPUT),
    ] = False,
    latent: Annotated[
        bool, typer.Option("--latent/--no-latent", help="Use the latent where there is one.", rich_help_panel=OUTPUT)
    ] = True,
    output: Annotated[str, typer.Option("--to", help="files, tar (WebDataset) or parquet.", rich_help_panel=OUTPUT)] = "files",
    image_format: Annotated[
        str, typer.Option("--format", help="source (each as it was), png, jpeg, webp or avif.", rich_help_panel=OUTPUT)
    ] = "source",
    quality: Annotated[int, typer.Option(help="Quality of lossy formats, 1 to 100.", rich_help_panel=OUTPUT)] = 95,
    archive_access: ArchiveAccess = Access.SIGNED,
    device: Device = "auto",
    json_lines: JsonLines = False,
) -> int:
    """Restore images from an archive: all, or a selection. The same command again resumes it."""
    if output not in list(OutputKind):
        raise InvalidOption("--to", output, f"give one of {', '.join(OutputKind)}.")
    if region is not None and lr:
        raise InvalidOption("--region", region, "give it without --lr; LRs are written as they are stored.")
    options = RestoreOptions(
        output=OutputKind(output),
        format=image_format,
        quality=quality,
        scale=scale,
        max_side=max_side,
        region=None if region is None else Region.parse(region, option="--region"),
        lr=lr,
        use_latent=latent,
        keys=read_keys(keys) if keys is not None else None,
        pattern=glob,
        shards=frozenset(shard) if shard else None,
    )
    job = RestoreJob(
        archive=archive,
        destination=destination,
        options=options,
        archive_access=archive_access,
        device=device,
        pool=pool,
        json_lines=json_lines or None,
    )
    from jobs.restore import restore

    return restore(job)


def read_keys(path: Path) -> frozenset[str]:
    """Read keys from a text file, one a line, or a JSON list; raises InvalidOption."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise InvalidOption("--keys", str(path), f"it cannot be read ({detail}).") from None
    try:
        listed = json.loads(text)
    except ValueError:
        listed = None
    lines = listed if isinstance(listed, list) else [line.strip("\r") for line in text.split("\n") if line.strip()]
    keys = frozenset(str(key) for key in lines)
    if not keys:
        raise InvalidOption("--keys", str(path), "it lists no key; give one a line.")
    return keys
