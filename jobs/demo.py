"""`make demo`: photographs there and back, with a table, a picture and a page of what became of them.

Runs the very jobs of `iarn rescale`, `iarn restore` and `iarn report` on one local Ray: all photographs at each scale in two
tiers, or with ``--quick`` all at x4 with a latent and two without. Everything is kept below one folder; what an earlier run has
done is not done again. What it prints is for people, also into a file.
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

from jobs.console import size
from jobs.demo_figures import BICUBIC, Row, Summary, bicubic_of, fault_in, pixels_of, rows_of, summary_of, table, there_and_back
from jobs.reports import archive_report, sheet
from jobs.requests import ReportJob, RescaleJob, RestoreJob
from jobs.rescale import rescale
from jobs.restore import restore
from pipeline.archives.archive import Archive
from pipeline.cluster import pool
from pipeline.cluster.options import PoolOptions
from pipeline.core.errors import EmptySource, InvalidOption, PipelineError, UsageError
from pipeline.core.options import RestoreOptions
from pipeline.core.records import Pixels, Settings, Tier
from pipeline.core.target import TargetSize
from pipeline.decoders import decoding
from pipeline.entry_picture import renamed
from pipeline.pictures import lr_codec
from pipeline.stores.store import open_store

TIERS = (Tier.LEAN, Tier.BALANCED)
FORMAT = "png"
QUICK_SCALE = "4"
QUICK_LEAN = 2
"""Photographs that a quick demo rescales without a latent as well."""
WORST = 3
"""Photographs that the page shows closely."""
POOL = PoolOptions(actors=1)
"""A folder of photographs is one shard, which is one actor's."""

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
class Case:
    """A folder of photographs that goes there and back at one scale in one tier."""

    source: Path
    scale: str
    tier: Tier

    @property
    def settings(self) -> Settings:
        """What the rescale is asked for: every tier is shown, also where it does not pay. Raises InvalidOption."""
        return Settings(target=TargetSize.parse(scale=self.scale), tier=self.tier, max_ratio=None)


def demo(cases: Sequence[Case], out: Path, *, device: str = "auto", picture: Path | None = None) -> int:
    """Rescale and restore each case, print tables, draw ``picture``, write a page; return the exit status 0 or 1.

    Raises what the jobs raise; PlanConflict where ``out`` is of an earlier run with another source or other weights.
    """
    settings = [case.settings for case in cases]  # refuses a senseless scale before anything starts
    begun = time.monotonic()
    rows: list[Row] = []
    summaries: list[Summary] = []
    status = 0
    say("Ray starts on this machine.")
    with pool.cluster(None):
        for number, (case, own) in enumerate(zip(cases, settings, strict=True), start=1):
            folder, step = _folder(out, case.scale, case.tier), f"[{number}/{len(cases)}]"
            options = f"--scale {case.scale} --tier {case.tier} --max-ratio inf"
            say(f"\n{step} iarn rescale {case.source} {folder}/archive {options}")
            there, seconds = _rescale(case, folder, own, device)
            found, stored = rows_of(folder / "archive", case.scale, case.tier)
            summary = summary_of(found, stored, seconds)
            print(f"\n{table([summary])}", flush=True)  # what restores will be like was measured on the way
            say(f"\n{step} iarn restore {folder}/archive {folder}/restored --format {FORMAT}")
            back, seconds = _restore(folder, device)
            status = max(status, there, back)
            rows += found
            summaries.append(replace(summary, restore_seconds=seconds))
    say("\nThe restored files are measured, and bicubic there and back beside them.")
    originals = {path.name: pixels_of(path) for case in cases for path in _photographs(case.source)}
    faults = [fault for row in rows if (fault := fault_in(row, originals[row.key], _restored(out, row)))]
    for fault in faults:
        say(fault)
    bicubic = [bicubic_of(row, originals[row.key]) for row in rows if row.tier == Tier.LEAN]
    scales = list(dict.fromkeys(case.scale for case in cases))
    summaries += [summary_of([row for row in bicubic if row.scale == scale]) for scale in scales]
    summaries.sort(key=lambda summary: scales.index(summary.scale))  # a scale's bicubic after its tiers
    _tell(out, summaries, rows, time.monotonic() - begun)
    say("\nNow pictures to look at.")
    last = [row for row in (*rows, *bicubic) if row.scale == scales[-1]]
    _draw(last, originals, out, picture := picture or out / "before-after.png")
    archive = _folder(out, scales[-1], Tier.BALANCED) / "archive"
    (page,) = archive_report.write(ReportJob(archive=str(archive), out=out / "report.html", worst=WORST, device=device))
    print(f"Before and after: {picture}\nAll figures, and where it is worst: {page}")
    return max(status, bool(faults))


def every_case(samples: Path, scales: Sequence[str]) -> list[Case]:
    """Return all photographs at each scale in both tiers."""
    return [Case(source=samples, scale=scale, tier=tier) for scale, tier in product(scales, TIERS)]


def quick_cases(samples: Path, out: Path) -> list[Case]:
    """Return all photographs with a latent, and a few of them, copied to a folder of their own, without."""
    stems = [path.stem for path in _photographs(samples)]
    few = [*(stem for stem in SHOWN if stem in stems), *(stem for stem in stems if stem not in SHOWN)][:QUICK_LEAN]
    return [
        Case(source=samples, scale=QUICK_SCALE, tier=Tier.BALANCED),
        Case(source=_copied(samples, few, out), scale=QUICK_SCALE, tier=Tier.LEAN),
    ]


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
    parser.add_argument("--quick", action="store_true", help="x4 alone: all photographs with a latent, two without")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--picture", type=Path, help="where the picture goes, .png or .webp; OUT/before-after.png unless given")
    options = parser.parse_args(arguments)
    try:
        samples = _copied(options.samples, options.only.split(","), options.out) if options.only else options.samples
        _photographs(samples)
        cases = quick_cases(samples, options.out) if options.quick else every_case(samples, options.scales.split(","))
        return demo(cases, options.out, device=options.device, picture=options.picture)
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
    """Return where a case keeps its archive and what is restored from it."""
    return out / f"x{scale}-{tier}"


def _rescale(case: Case, folder: Path, settings: Settings, device: str) -> tuple[int, float | None]:
    """Return the exit status, and the seconds unless an earlier run had begun it."""
    fresh, begun = not (folder / "archive").exists(), time.monotonic()
    job = RescaleJob(
        source=str(case.source),
        archive=str(folder / "archive"),
        settings=settings,
        device=device,
        pool=POOL,
        json_lines=False,
    )
    status = rescale(job)
    return status, time.monotonic() - begun if fresh else None


def _restore(folder: Path, device: str) -> tuple[int, float | None]:
    """Return the exit status, and the seconds unless an earlier run had begun it."""
    archive, destination = folder / "archive", folder / "restored"
    fresh, begun = not destination.exists(), time.monotonic()
    options = RestoreOptions(format=FORMAT)
    job = RestoreJob(
        archive=str(archive), destination=str(destination), options=options, device=device, pool=POOL, json_lines=False
    )
    status = restore(job)
    return status, time.monotonic() - begun if fresh else None


def _restored(out: Path, row: Row) -> Pixels:
    return pixels_of(_folder(out, row.scale, row.tier) / "restored" / renamed(row.key, FORMAT))


def _draw(rows: Sequence[Row], originals: dict[str, Pixels], out: Path, picture: Path) -> None:
    """Draw the sheet of one scale: the photographs of SHOWN, or the first ones where none of those is there."""
    keys = [row.key for row in rows if row.tier == BICUBIC]
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
            (sheet.crop(there_and_back(originals[key], lean), place), f"{bicubic.psnr:.1f} dB"),
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


def _tell(out: Path, summaries: Sequence[Summary], rows: Sequence[Row], seconds: float) -> None:
    """Print the table, and write it with a row for each photograph."""
    models = next(out.glob("*/archive/model"))
    model = sum(path.stat().st_size for path in models.iterdir())
    results = {"model_bytes": model, "summary": [asdict(each) for each in summaries], "images": [asdict(row) for row in rows]}
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(summaries)}\n")
    print(f"Bytes are sums, figures means over the photographs. An archive also holds its network, once: {size(model)}.")
    print(f"Seconds are whole, with the start of the actors; all of it took {seconds:.0f} s.")
    print(f"Each photograph by itself: {out / 'results.json'}; restored: {out}/x*/restored", flush=True)


if __name__ == "__main__":
    sys.exit(main())
