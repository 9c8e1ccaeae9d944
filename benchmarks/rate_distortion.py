"""Bytes against quality: archives at each scale and tier beside image codecs; writes docs/bytes.md, its plots and figures.

    python -m benchmarks.rate_distortion FOLDER samples               # FOLDER of images that the network was not trained on
    python -m benchmarks.rate_distortion samples --limit 2 --scales 2 --out build/bytes      # to try it

Archives are made by the pipeline itself, in this process; another process restores them to PNG files and measures those
against the sources, and verify restores and checks all of each archive. What is measured is remembered in --cache, so that a
run that was stopped goes on. Says on standard error where it is, and writes OUT/bytes.md last.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.bytes_page.archives import PIXEL_LIMIT, Stored, archives, clean_lr_bytes, code_digest
from benchmarks.bytes_page.bench import Bench, Target, digest
from benchmarks.bytes_page.codecs import sweeps
from benchmarks.bytes_page.page import heading, section
from benchmarks.bytes_page.plot import plot
from benchmarks.bytes_page.rows import Folder, row
from benchmarks.support.page import place
from jobs.rescale import read_weights
from jobs.training.evaluate import name_of
from jobs.training.scales import parse_scales
from pipeline.core.errors import ImageError, PipelineError
from pipeline.core.records import LrCodec, Settings, Tier
from pipeline.core.target import TargetSize
from pipeline.decoders.decoding import decode, image_extensions
from pipeline.entry_picture import renamed
from pipeline.pictures.picture import Picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="images, each folder a section of the page")
    parser.add_argument("--scales", default="2,3,4", help="scales, commas between; 2x3 is height x width")
    parser.add_argument("--floors", default="38,40,42", help="floors in dB of PSNR-RGB, commas between")
    parser.add_argument("--limit", type=int, help="only the first so many images of each folder")
    parser.add_argument("--lr-codec", type=LrCodec, choices=list(LrCodec), help="the pipeline's own choice unless given")
    parser.add_argument("--weights", type=Path, help="weights file; the shipped one unless given")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of bytes.md, bytes.json and images/")
    parser.add_argument("--cache", type=Path, default=Path("build/rate-distortion"), help="what is measured is remembered here")
    options = parser.parse_args()
    for folder in options.folders:
        if not folder.is_dir():
            raise SystemExit(f"rate_distortion: {folder} is no folder; give folders of images.")
    try:
        write(prepare(options), options.folders, command(options))
    except PipelineError as error:
        raise SystemExit(f"rate_distortion: {error}") from None


def prepare(options: argparse.Namespace) -> Bench:
    floors = [float(floor) for floor in options.floors.split(",")]
    tiers = [Target(tier=tier) for tier in (Tier.LEAN, Tier.BALANCED, Tier.HIGH)]
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    return Bench(
        scales=[name_of(scale) for scale in parse_scales(options.scales)],
        targets=[*tiers, *(Target(tier=Tier.FLOOR, floor=floor) for floor in floors)],
        floors=floors,
        codec=options.lr_codec or Settings(target=TargetSize(scale=(2, 2))).lr_codec,
        weights=options.weights,
        device=options.device,
        limit=options.limit,
        out=options.out,
        cache=options.cache,
        begun=time.monotonic(),
    )


def command(options: argparse.Namespace) -> str:
    """Return the command of this run, places outside the current folder by words of their own."""
    words = ["python", "benchmarks/rate_distortion.py", *(place(folder, folder.resolve().name) for folder in options.folders)]
    for name in ("scales", "floors"):
        words += [f"--{name}", getattr(options, name)]
    words += ["--limit", str(options.limit)] if options.limit is not None else []
    words += ["--lr-codec", options.lr_codec.value] if options.lr_codec else []
    words += ["--weights", place(options.weights, "WEIGHTS")] if options.weights else []
    words += ["--out", place(options.out, "OUT")] if options.out != Path("docs") else []
    return shlex.join(words)


def write(bench: Bench, folders: Sequence[Path], made_by: str) -> None:
    """Measure everything, then write the plots, the figures and the page."""
    model = digest(read_weights(bench.weights))
    found = [measure_folder(bench, folder, model) for folder in folders]
    for folder in found:
        plot(bench.out / "images" / f"bytes-{folder.name}.png", folder)
    sections = [heading(bench, made_by, model), *(section(folder, bench.floors) for folder in found)]
    figures = as_json({"command": made_by, "weights": model, "folders": [folder.figures() for folder in found]})
    (bench.out / "bytes.json").write_text(figures, encoding="utf-8")
    (bench.out / "bytes.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    bench.say(f"{bench.out / 'bytes.md'} is written.")


def measure_folder(bench: Bench, folder: Path, model: str) -> Folder:
    """Sweep the codecs over one folder, make and restore its archives."""
    images = find_images(folder, bench.limit)
    name = folder.resolve().name
    files = [digest((folder / key).read_bytes()) for key in images]
    curves = sweeps(bench, name, images)
    rows = []
    for scale in bench.scales:
        plans = [[str(target), repr(bench.settings(scale, target))] for target in bench.targets]
        what = [plans, model, code_digest(), bench.device, list(images), files]
        made = bench.remembered(what, partial(archives, bench, folder, images, scale))
        lrs = sum(clean_lr_bytes(picture, bench.settings(scale, bench.targets[0])) for picture in images.values())
        for target in bench.targets:
            own = made[str(target)]
            entries = [Stored(**entry) for entry in own["entries"]]
            rows.append(row(scale, target, entries, curves, shards=own["shards"], clean_lr=lrs))
    return Folder(
        name=name,
        images=len(images),
        pixels=sum(picture.pixels[..., 0].size for picture in images.values()),
        source_bytes=sum((folder / key).stat().st_size for key in images),
        rows=rows,
        curves=curves,
    )


def find_images(folder: Path, limit: int | None) -> dict[str, Picture]:
    """Return the first ``limit`` images of a folder by file name; ends with a sentence where two would restore to one name."""
    found: dict[str, Picture] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower().removeprefix(".") not in image_extensions() or len(found) == limit:
            continue
        try:
            found[path.name] = decode(path.read_bytes(), pixel_limit=PIXEL_LIMIT)
        except ImageError as error:
            print(f"{path.name} is left out: {error}", file=sys.stderr)
    if not found:
        raise SystemExit(f"rate_distortion: {folder} has no image.")
    if len({renamed(name, "png") for name in found}) < len(found):
        raise SystemExit(f"rate_distortion: two images of {folder} differ in nothing but their extension; rename one.")
    return found


def as_json(value: object) -> str:
    """Return JSON with figures to six digits."""
    rounded = json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.6g}"))
    return json.dumps(rounded, indent=1, allow_nan=False) + "\n"


if __name__ == "__main__":
    main()
