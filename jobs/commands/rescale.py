"""`iarn rescale`, as it is typed."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from jobs.commands.options import QUALITY, SIZE, SOURCE, STORE, Device, JsonLines, SourceAccess, Weights, with_pool
from jobs.requests import RescaleJob
from pipeline.cluster.options import PoolOptions
from pipeline.core.records import FloorMetric, LrCodec, Settings, Tier, Verification
from pipeline.core.target import TargetSize
from pipeline.stores.base import Access


@with_pool
def rescale(
    source: Annotated[str, typer.Argument(help=f"Images, WebDataset tars or Parquet. {STORE} Or one such file.")],
    archive: Annotated[str, typer.Argument(help=f"Where the archive is written, or resumed. {STORE}")],
    pool: PoolOptions,
    scale: Annotated[
        str | None, typer.Option(help="2.5, or height x width as in 2x3; 1 or more.", rich_help_panel=SIZE)
    ] = None,
    max_side: Annotated[
        str | None, typer.Option(help="Longest side of an LR in pixels, as in 1024.", rich_help_panel=SIZE)
    ] = None,
    max_pixels: Annotated[
        str | None, typer.Option(help="Pixels of an LR at most, as in 500k or 1M.", rich_help_panel=SIZE)
    ] = None,
    size: Annotated[str | None, typer.Option(help="Width x height of every LR, as in 640x480.", rich_help_panel=SIZE)] = None,
    tier: Annotated[
        Tier | None,
        typer.Option(
            help="lean: LR alone; balanced (unless given), high: and a latent; exact, exact-pixels: and the source.",
            rich_help_panel=QUALITY,
        ),
    ] = None,
    floor: Annotated[
        float | None,
        typer.Option(
            help="PSNR in dB, as in 40, that every restore reaches; an entry has the latent it takes.", rich_help_panel=QUALITY
        ),
    ] = None,
    floor_metric: Annotated[
        FloorMetric, typer.Option(help="What the floor is of; psnr is over RGB.", rich_help_panel=QUALITY)
    ] = FloorMetric.PSNR,
    max_ratio: Annotated[
        float,
        typer.Option(
            help="If LR and latent take more than the source times this, its file is kept; inf: never. Not for exact tiers.",
            rich_help_panel=QUALITY,
        ),
    ] = 1.0,
    lr_codec: Annotated[
        LrCodec,
        typer.Option(
            help="webp, png, jxl: without loss; auto: AVIF where a latent stands beside the LR, else webp.",
            rich_help_panel=QUALITY,
        ),
    ] = LrCodec.AUTO,
    verify: Annotated[
        Verification,
        typer.Option(
            help="Of a lean archive, which entries are restored and measured: full, sample (1 in 20, drawn by key), none.",
            rich_help_panel=QUALITY,
        ),
    ] = Verification.FULL,
    effort: Annotated[
        int,
        typer.Option(
            help="Steps of descent for a better LR, of lean, floor and exact tiers; each costs about four LRs without.",
            rich_help_panel=QUALITY,
        ),
    ] = 0,
    keep_if_lossy: Annotated[
        bool,
        typer.Option(
            "--keep-if-lossy/--no-keep-if-lossy",
            help="Keep the file itself beside its LR where a restore would lack something of it.",
            rich_help_panel=QUALITY,
        ),
    ] = True,
    weights: Weights = None,
    pixel_limit: Annotated[
        int, typer.Option(help="Larger images are kept as originals.", rich_help_panel=SOURCE)
    ] = Settings.pixel_limit,
    image_column: Annotated[
        str | None, typer.Option(help="Image column of Parquet sources; found unless given.", rich_help_panel=SOURCE)
    ] = None,
    all_files: Annotated[
        bool,
        typer.Option(
            "--all-files",
            help="Loose files that are no images as well, as they are: all of a folder.",
            rich_help_panel=SOURCE,
        ),
    ] = False,
    sniff: Annotated[
        bool | None,
        typer.Option(
            "--sniff/--no-sniff",
            help="Find images by their first bytes where names do not tell; locally done unless told, on S3 a request each.",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    source_access: SourceAccess = Access.SIGNED,
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="Take in what the source has and the archive's plan lacks; without an archive one is begun.",
            rich_help_panel=SOURCE,
        ),
    ] = False,
    check_source: Annotated[
        bool | None,
        typer.Option(
            "--check-source/--no-check-source",
            help="List the source of an archive again, and tell what is new, gone or changed; local ones unless told.",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    anew: Annotated[
        bool,
        typer.Option(
            "--anew",
            help="Give up the plan of an archive in which nothing was written yet, for these settings.",
            rich_help_panel=SOURCE,
        ),
    ] = False,
    device: Device = "auto",
    json_lines: JsonLines = False,
) -> int:
    """Rescale a source into an archive of LRs and latents. The same command again resumes it."""
    settings = Settings(
        target=TargetSize.parse(scale=scale, max_side=max_side, max_pixels=max_pixels, size=size),
        tier=tier_for(tier, floor),
        floor=floor,
        floor_metric=floor_metric,
        max_ratio=None if max_ratio == math.inf else max_ratio,
        lr_codec=lr_codec,
        pixel_limit=pixel_limit,
        image_column=image_column,
        verify=verify,
        effort=effort,
        all_files=all_files,
        keep_if_lossy=keep_if_lossy,
    )
    job = RescaleJob(
        source=source,
        archive=archive,
        settings=settings,
        weights=weights,
        source_access=source_access,
        device=device,
        pool=pool,
        json_lines=json_lines or None,
        sniff=sniff,
        anew=anew,
        add=add,
        check_source=check_source,
    )
    from jobs.rescale import rescale

    return rescale(job)


def tier_for(tier: Tier | None, floor: float | None) -> Tier:
    """Return the tier that was asked for, by name or by a floor."""
    return tier or (Tier.BALANCED if floor is None else Tier.FLOOR)
