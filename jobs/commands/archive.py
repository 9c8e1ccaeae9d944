"""`iarn inspect`, `iarn report` and `iarn verify`, as they are typed: what an archive holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import OUTPUT, SELECTION, Archive, ArchiveAccess, Device, Json, JsonLines, SourceAccess, with_pool
from jobs.requests import ReportJob, VerifyJob
from pipeline.cluster.options import PoolOptions
from pipeline.stores.base import Access


def inspect(
    archive: Archive,
    key: Annotated[str | None, typer.Argument(help="One entry; without it the archive as a whole.")] = None,
    entries: Annotated[bool, typer.Option("--entries", help="List every entry.", rich_help_panel=SELECTION)] = False,
    shards: Annotated[bool, typer.Option("--shards", help="List every shard.", rich_help_panel=SELECTION)] = False,
    archive_access: ArchiveAccess = Access.SIGNED,
    as_json: Json = False,
) -> int:
    """Show what is in an archive, or all that is known of one entry."""
    from jobs.inspect import inspect

    return inspect(archive, key, entries=entries, shards=shards, as_json=as_json, access=archive_access)


def report(
    archive: Archive,
    out: Annotated[
        Path, typer.Option(help="The page, one file; an older report is replaced.", rich_help_panel=OUTPUT)
    ] = ReportJob.out,
    figures: Annotated[
        bool, typer.Option("--json", help="The figures as well, as JSON beside the page.", rich_help_panel=OUTPUT)
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option(help="Look at the entries of so many shards alone; the page says so.", rich_help_panel=SELECTION),
    ] = None,
    worst: Annotated[
        int, typer.Option(help="Entries shown, those restored worst.", rich_help_panel=SELECTION)
    ] = ReportJob.worst,
    archive_access: ArchiveAccess = Access.SIGNED,
    source_access: SourceAccess = Access.SIGNED,
    device: Device = "auto",
) -> int:
    """Write a page on an archive: bytes, quality, the worst entries to look at, what was kept and failed, times."""
    job = ReportJob(
        archive=archive,
        out=out,
        as_json=figures,
        sample=sample,
        worst=worst,
        archive_access=archive_access,
        source_access=source_access,
        device=device,
    )
    from jobs.reports.archive_report import report

    return report(job)


@with_pool
def verify(
    archive: Archive,
    pool: PoolOptions,
    sample: Annotated[
        float,
        typer.Option(help="Share of entries to restore and compare with their stored figures.", rich_help_panel=SELECTION),
    ] = VerifyJob.sample,
    seed: Annotated[int, typer.Option(help="Which entries the sample takes.", rich_help_panel=SELECTION)] = VerifyJob.seed,
    archive_access: ArchiveAccess = Access.SIGNED,
    source_access: SourceAccess = Access.SIGNED,
    device: Device = "auto",
    json_lines: JsonLines = False,
) -> int:
    """Check every digest of an archive, and the restore of a sample against the figures stored with it."""
    job = VerifyJob(
        archive=archive,
        sample=sample,
        seed=seed,
        archive_access=archive_access,
        source_access=source_access,
        device=device,
        pool=pool,
        json_lines=json_lines or None,
    )
    from jobs.verify import verify

    return verify(job)
