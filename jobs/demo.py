"""`make demo`: photographs there and back, with a table and a picture of what became of them.

Runs the very jobs of `iarn rescale` and `iarn restore`, for each scale in two tiers, on one local Ray. Everything is kept
below one folder; what an earlier run has done is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np

from iarn.metrics import psnr_of
from jobs.console import size
from jobs.reports import sheet
from jobs.rescale import RescaleJob, rescale
from jobs.restore import RestoreJob, restore
from pipeline.archives.archive import Archive
from pipeline.cluster import pool
from pipeline.core.errors import EmptySource, InvalidOption, PipelineError, UsageError
from pipeline.core.records import EntryKind, Pixels, Settings, TargetSize, Tier
from pipeline.engines.engine import measure
from pipeline.entry_picture import renamed
from pipeline.outputs.outputs import OutputKind
from pipeline.pictures import decoding, lr_codec
from pipeline.pictures.picture import resize
from pipeline.restore import RestoreOptions
from pipeline.stores.store import open_store

TIERS = (Tier.LEAN, Tier.BALANCED)
BICUBIC = "bicubic"
FORMAT = "png"
PIXEL_LIMIT = Settings.pixel_limit
TOLERANCE_DB = 0.01

CROPS = {
    "kitten": (456, 544),
    "budgie": (232, 684),
    "skyline": (208, 1080),
    "canyon": (792, 1312),
    "circuits": (740, 100),
    "colosseum": (240, 540),
    "mural": (0, 800),
    "spices": (200, 900),
}
"""Where on the sample photographs there is something to see: top, left. On others the picture shows the middle."""

SHOWN = ("budgie", "skyline", "canyon", "kitten")
"""What the picture shows, where it is among the photographs."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One photograph at one scale and tier; sizes in pixels and bytes, PSNR in dB over RGB, SSIM over luma."""

    scale: str
    tier: str
    key: str
    width: int
    height: int
    lr_width: int
    lr_height: int
    source_bytes: int
    lr_bytes: int
    latent_bytes: int
    psnr: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All photographs at one scale and tier: bytes are sums, figures means.

    Bytes are None for bicubic, of which nothing is stored; seconds for what an earlier run had begun.
    """

    scale: str
    tier: str
    source_bytes: int
    lr_bytes: int | None
    latent_bytes: int | None
    archive_bytes: int | None
    bits_per_pixel: float | None
    psnr: float
    ssim: float
    rescale_seconds: float | None
    restore_seconds: float | None


def demo(samples: Path, out: Path, *, scales: Sequence[str], device: str = "auto", picture: Path | None = None) -> int:
    """Rescale and restore ``samples`` at each scale in both tiers, print a table, draw ``picture``; return exit status 0 or 1.

    Raises what the jobs raise; PlanConflict where ``out`` is of an earlier run with another source or other weights.
    """
    photographs = _photographs(samples)
    targets = {scale: TargetSize.parse(scale=scale) for scale in scales}
    cases = list(product(scales, TIERS))
    rows: list[Row] = []
    summaries: list[Summary] = []
    status = 0
    say(f"{len(photographs)} photographs, {' and '.join(f'x{scale}' for scale in scales)}, {' and '.join(TIERS)}. Ray starts.")
    with pool.cluster(None):
        for number, (scale, tier) in enumerate(cases, start=1):
            folder, step = _folder(out, scale, tier), f"[{number}/{len(cases)}]"
            settings = Settings(target=targets[scale], tier=tier, max_ratio=None)  # shows every tier, also where none pays
            say(f"\n{step} iarn rescale {samples} {folder}/archive --scale {scale} --tier {tier} --max-ratio inf")
            there, seconds_there = _rescale(samples, folder, settings, device)
            say(f"{step} iarn restore {folder}/archive {folder}/restored --format {FORMAT}")
            back, seconds_back = _restore(folder, device)
            status = max(status, there, back)
            found, stored = _read(folder / "archive", scale, tier)
            rows += found
            summaries.append(_summary(found, stored, seconds_there, seconds_back))
    say("\nThe restored files are measured, and bicubic there and back beside them.")
    originals = {path.name: _pixels(path) for path in photographs}
    faults = [fault for row in rows if (fault := _fault(row, originals[row.key], _restored(out, row)))]
    for fault in faults:
        say(fault)
    bicubic = [_bicubic(row, originals[row.key]) for row in rows if row.tier == TIERS[0]]
    summaries += [_summary([row for row in bicubic if row.scale == scale]) for scale in scales]
    summaries.sort(key=lambda summary: scales.index(summary.scale))  # a scale's bicubic after its tiers
    picture = picture or out / "before-after.png"
    _draw([row for row in (*rows, *bicubic) if row.scale == scales[-1]], originals, out, picture)
    _report(out, summaries, rows, picture)
    return max(status, bool(faults))


def table(summaries: Sequence[Summary]) -> str:
    """Return the summaries as lines of text."""
    lines = [["scale", "tier", "source", "LR", "latent", "archive", "bits/pixel", "PSNR", "SSIM", "rescale", "restore"]]
    for each in summaries:
        counts = (each.source_bytes, each.lr_bytes, each.latent_bytes, each.archive_bytes)
        lines.append([f"x{each.scale}", each.tier, *("-" if count is None else size(count) for count in counts)])
        lines[-1].append("-" if each.bits_per_pixel is None else f"{each.bits_per_pixel:.2f}")
        lines[-1] += [f"{each.psnr:.2f} dB", f"{each.ssim:.4f}"]
        seconds = (each.rescale_seconds, each.restore_seconds)
        lines[-1] += ["-" if taken is None else f"{taken:.0f} s" for taken in seconds]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join((shown[0], "-" * len(shown[0]), *shown[1:]))


def say(text: str) -> None:
    """Tell a person what happens now, on standard error as the jobs do."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo as the command line asks; return the exit status, which is as that of `iarn`."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description=__doc__)
    parser.add_argument("--samples", type=Path, default=Path("samples"), help="folder of photographs")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where everything goes; an earlier run goes on")
    parser.add_argument("--only", help="names of photographs, commas between, as in budgie,mural")
    parser.add_argument("--scales", default="2,4", help="commas between")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--picture", type=Path, help="where the picture goes, .png or .webp; OUT/before-after.png unless given")
    options = parser.parse_args(arguments)
    try:
        samples = _copied(options.samples, options.only.split(","), options.out) if options.only else options.samples
        scales = options.scales.split(",")
        return demo(samples, options.out, scales=scales, device=options.device, picture=options.picture)
    except KeyboardInterrupt:
        say("Stopped. The same command resumes.")
        return 130
    except PipelineError as error:
        say(f"demo: {error}")
        return 2 if isinstance(error, UsageError) else 3


def _photographs(folder: Path) -> list[Path]:
    """Return the images of a folder, not of those below it."""
    if not folder.is_dir():
        raise InvalidOption("--samples", str(folder), "it is no folder.")
    endings = decoding.image_extensions()
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower().removeprefix(".") in endings]
    if not found:
        raise EmptySource(str(folder))
    return found


def _copied(samples: Path, names: Sequence[str], out: Path) -> Path:
    """Copy the photographs of these names to a folder of their own, which is then the source."""
    chosen = [path for path in _photographs(samples) if path.stem in names]
    unknown = set(names) - {path.stem for path in chosen}
    if unknown:
        raise InvalidOption("--only", ",".join(sorted(unknown)), f"{samples} has no photograph of that name.")
    folder = out / "source"
    folder.mkdir(parents=True, exist_ok=True)
    for path in chosen:
        if not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)
    return folder


def _folder(out: Path, scale: str, tier: str) -> Path:
    return out / f"x{scale}-{tier}"


def _rescale(samples: Path, folder: Path, settings: Settings, device: str) -> tuple[int, float | None]:
    """Return the exit status, and the seconds unless an earlier run had begun it."""
    fresh, begun = not (folder / "archive").exists(), time.monotonic()
    status = rescale(RescaleJob(source=str(samples), archive=str(folder / "archive"), settings=settings, device=device))
    return status, time.monotonic() - begun if fresh else None


def _restore(folder: Path, device: str) -> tuple[int, float | None]:
    """Return the exit status, and the seconds unless an earlier run had begun it."""
    archive, destination = folder / "archive", folder / "restored"
    fresh, begun = not destination.exists(), time.monotonic()
    options = RestoreOptions(output=OutputKind.FILES, format=FORMAT)
    status = restore(RestoreJob(archive=str(archive), destination=str(destination), options=options, device=device))
    return status, time.monotonic() - begun if fresh else None


def _read(folder: Path, scale: str, tier: Tier) -> tuple[list[Row], int]:
    """Return a row for each rescaled entry of an archive, and the bytes of its shards."""
    archive = Archive.open(open_store(str(folder)))
    rows = [
        Row(
            scale=scale,
            tier=tier,
            key=entry.key,
            width=entry.width or 0,
            height=entry.height or 0,
            lr_width=entry.lr_width or 0,
            lr_height=entry.lr_height or 0,
            source_bytes=entry.byte_size,
            lr_bytes=len(entry.lr or b""),
            latent_bytes=len(entry.latent or b""),
            psnr=entry.psnr or 0.0,
            ssim=entry.ssim or 0.0,
        )
        for _, entry in archive.find("*", parts=("lr", "latent"))
        if entry.kind is EntryKind.RESCALED
    ]
    if not rows:
        raise EmptySource(f"{archive.plan.source} (images that can be rescaled)")
    return rows, sum(commit.byte_size for commit in archive.commits())


def _summary(rows: Sequence[Row], stored: int | None = None, there: float | None = None, back: float | None = None) -> Summary:
    """Sum up the rows of one scale and tier; ``stored`` bytes are None for bicubic."""
    return Summary(
        scale=rows[0].scale,
        tier=rows[0].tier,
        source_bytes=sum(row.source_bytes for row in rows),
        lr_bytes=None if stored is None else sum(row.lr_bytes for row in rows),
        latent_bytes=None if stored is None else sum(row.latent_bytes for row in rows),
        archive_bytes=stored,
        bits_per_pixel=None if stored is None else 8 * stored / sum(row.width * row.height for row in rows),
        psnr=fmean(row.psnr for row in rows),
        ssim=fmean(row.ssim for row in rows),
        rescale_seconds=there,
        restore_seconds=back,
    )


def _fault(row: Row, original: Pixels, restored: Pixels) -> str | None:
    """Measure a restored file again, and say so where it is not what the archive says."""
    squares = np.square(original.astype(np.int32) - restored).sum(dtype=np.int64)
    found = psnr_of(float(squares) / original.size / 255**2)
    if abs(found - row.psnr) < TOLERANCE_DB:
        return None
    return f"{row.key} x{row.scale} {row.tier}: the restored file has {found:.2f} dB, the archive says {row.psnr:.2f} dB."


def _bicubic(row: Row, original: Pixels) -> Row:
    """Return what bicubic there and back makes of a row's photograph at its LR size, 8-bit in between."""
    found = measure(original, _there_and_back(original, row))
    return replace(row, tier=BICUBIC, latent_bytes=0, psnr=found.psnr, ssim=found.ssim)


def _there_and_back(original: Pixels, row: Row) -> Pixels:
    return resize(resize(original, (row.lr_height, row.lr_width)), (row.height, row.width))


def _pixels(path: Path) -> Pixels:
    return decoding.decode(path.read_bytes(), pixel_limit=PIXEL_LIMIT).pixels


def _restored(out: Path, row: Row) -> Pixels:
    return _pixels(_folder(out, row.scale, row.tier) / "restored" / renamed(row.key, FORMAT))


def _draw(rows: Sequence[Row], originals: dict[str, Pixels], out: Path, picture: Path) -> None:
    """Draw the sheet of one scale: the photographs of SHOWN, or the first ones where none of those is there."""
    keys = list(dict.fromkeys(row.key for row in rows))
    stems = {Path(key).stem: key for key in keys}
    chosen = [stems[stem] for stem in SHOWN if stem in stems] or keys[: len(SHOWN)]
    lines = []
    for key in chosen:
        lean, balanced, bicubic = (next(row for row in rows if (row.key, row.tier) == (key, own)) for own in (*TIERS, BICUBIC))
        archive = Archive.open(open_store(str(_folder(out, lean.scale, lean.tier) / "archive")))
        _, entry = next(archive.find((key,), parts=("lr",)))
        assert entry.lr is not None
        place, ratio = _place(lean), lean.width / lean.lr_width
        parts = (
            (sheet.crop(originals[key], place), f"{key}, {size(lean.source_bytes)}"),
            (
                sheet.crop(lr_codec.decode_lr(entry.lr)[0], place, ratio),
                f"{lean.lr_width} x {lean.lr_height}, {size(lean.lr_bytes)}",
            ),
            (sheet.crop(_there_and_back(originals[key], lean), place), f"{bicubic.psnr:.1f} dB"),
            (sheet.crop(_restored(out, lean), place), f"{lean.psnr:.1f} dB"),
            (sheet.crop(_restored(out, balanced), place), f"{balanced.psnr:.1f} dB, latent {size(balanced.latent_bytes)}"),
        )
        lines.append([sheet.Panel(pixels=pixels, caption=caption) for pixels, caption in parts])
    headings = ("source", f"LR, x{rows[0].scale}", "bicubic there and back", "restored, lean", "restored, balanced")
    drawn = sheet.draw("Crops pixel for pixel. Sizes and decibels are of the whole photographs.", headings, lines)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(sheet.as_file(drawn, picture.suffix.removeprefix(".")))


def _place(row: Row) -> tuple[int, int]:
    """Return where a photograph is cropped: as CROPS says where that is inside, else in the middle, at full LR pixels."""
    room = (max(0, row.height - sheet.CROP), max(0, row.width - sheet.CROP))
    top, left = CROPS.get(Path(row.key).stem, (room[0] + 1, 0))
    return (top, left) if top <= room[0] and left <= room[1] else (room[0] // 24 * 12, room[1] // 24 * 12)


def _report(out: Path, summaries: Sequence[Summary], rows: Sequence[Row], picture: Path) -> None:
    """Print the table, and write it with a row for each photograph."""
    models = next(out.glob("*/archive/model"))
    model = sum(path.stat().st_size for path in models.iterdir())
    results = {"model_bytes": model, "summary": [asdict(each) for each in summaries], "images": [asdict(row) for row in rows]}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(summaries)}\n")
    print(f"Bytes are sums, figures means over the photographs. An archive also holds its network, once: {size(model)}.")
    print(f"Seconds are whole, with the start of the actors. Each photograph by itself: {out / 'results.json'}")
    print(f"To look at: {picture}, and the pictures in {out}/x*/restored")


if __name__ == "__main__":
    sys.exit(main())
