"""Bytes against quality: archives at each scale and tier beside image codecs; writes docs/bytes.md, its plots and figures.

    python benchmarks/rate_distortion.py FOLDER samples               # FOLDER of images that the network was not trained on
    python benchmarks/rate_distortion.py samples --limit 2 --scales 2 --out build/bytes      # to try it

Archives are made by the pipeline itself, in this process; another process restores them to PNG files and measures those
against the sources, and verify restores and checks all of each archive. What is measured is remembered in --cache, so that a
run that was stopped goes on. Says on standard error where it is, and writes OUT/bytes.md last.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import math
import multiprocessing
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import imagecodecs
import matplotlib
import numpy as np
import PIL
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, features

from iarn.lattice import axes_for
from iarn.metrics import bicubic_lr, luma, psnr, ssim
from jobs.requests import RescaleJob
from jobs.rescale import open_archive, read_weights
from jobs.training.evaluate import name_of
from jobs.training.scales import parse_scales
from pipeline.core.errors import ImageError, PipelineError
from pipeline.core.records import Entry, LrCodec, Pixels, Settings, Size, TargetSize, Tier
from pipeline.engines.engine import Engine
from pipeline.entry_picture import renamed
from pipeline.pictures.decoding import decode, image_extensions
from pipeline.pictures.lr_codec import encode_lr
from pipeline.pictures.picture import Picture
from pipeline.rescale import RescaleWork
from pipeline.restore import RestoreOptions, RestoreWork
from pipeline.verify import VerifyWork

ROOT = Path(__file__).resolve().parent.parent
PIXEL_LIMIT = 512_000_000
EXACT_DB = 60.0
"""What an image that comes back exactly counts as in a mean, where no floor says what was asked for."""

FLOOR_SLACK = 1e-3
"""dB by which two sums of the same squares may differ."""

TUNED, DEFAULT, JXL, WEBP, JPEG = "AVIF", "AVIF, default tuning", "JPEG XL", "WebP", "JPEG"
AVIF_SPEED = 6
JXL_EFFORT = 7


@dataclass(frozen=True, kw_only=True)
class Point:
    """One image, or a folder of them, at one setting of a codec: bytes, PSNR in dB over RGB and of luma, SSIM."""

    setting: float
    bytes: int
    psnr: float
    psnr_y: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What one entry takes in bytes, and how close it came back, as the other process has it; ``told`` is the archive's dB."""

    lr: int
    latent: int
    beside: int
    original: int
    psnr: float
    psnr_y: float
    ssim: float
    told: float | None

    @property
    def bytes(self) -> int:
        """Every byte that stands for the image."""
        return self.lr + self.latent + self.beside + self.original


@dataclass(frozen=True, kw_only=True)
class Target:
    """A tier, and the floor in dB of PSNR-RGB where it has one."""

    tier: Tier
    floor: float | None = None

    def __str__(self) -> str:
        return self.tier.value if self.floor is None else f"{self.tier.value} {self.floor:g}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One folder at one scale and target; bytes are totals, PSNR and SSIM means over the images.

    ``to_avif`` is the ratio of the bytes to AVIF's at one quality and the same mean PSNR-RGB, ``to_avif_each`` to AVIF's where
    each image just reaches the floor, ``to_lr_avif`` to a lossless LR and the first AVIF, ``to_own_lr_avif`` to the archive's
    own LRs and that AVIF; None where the sweep does not reach, or there is no floor or latent to compare.
    """

    scale: str
    target: str
    floor: float | None
    bytes: int
    lr: int
    latent: int
    rest: int
    psnr: float
    psnr_y: float
    ssim: float
    worst: float
    met: int | None
    lean: int
    kept: int
    told_error: float
    shards: int
    clean_lr: int
    to_avif: float | None
    to_avif_each: float | None
    to_lr_avif: float | None
    to_own_lr_avif: float | None


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What was measured of one folder: rows of archives, and each codec's points, image by image and as a whole."""

    name: str
    images: int
    pixels: int
    source_bytes: int
    rows: Sequence[Row]
    curves: Mapping[str, Sequence[Sequence[Point]]]

    def bpp(self, count: float) -> float:
        """Return bytes as bits per pixel of the sources."""
        return 8 * count / self.pixels


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was asked for, and where results go."""

    scales: Sequence[str]
    targets: Sequence[Target]
    floors: Sequence[float]
    codec: LrCodec
    weights: Path | None
    device: str
    limit: int | None
    out: Path
    cache: Path
    begun: float

    def say(self, text: str) -> None:
        """Tell a person what was done and how far the run is, in minutes."""
        print(f"[{(time.monotonic() - self.begun) / 60:6.1f} min] {text}", file=sys.stderr, flush=True)

    def settings(self, scale: str, target: Target) -> Settings:
        """Return the settings of one archive; nothing is kept as original for its size."""
        size = TargetSize.parse(scale=scale)
        return Settings(target=size, tier=target.tier, floor=target.floor, max_ratio=None, lr_codec=self.codec)

    def remembered(self, what: object, make: Callable[[], Any]) -> Any:
        """Return the JSON value of ``make``, or the one that it gave when ``what`` was made before."""
        path = self.cache / f"{digest(json.dumps(what, sort_keys=True).encode())}.json"
        if path.is_file():
            return json.loads(path.read_bytes())
        value = make()
        self.cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(value), encoding="utf-8")
        part.replace(path)
        return value


class Remembering:
    """An engine that runs its network once for the same pixels: of a scale's archives most ask for the same."""

    def __init__(self, engine: Engine, known: dict[object, Any]) -> None:
        self._engine, self._known = engine, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def downscale(self, pixels: Pixels, *sizes: Size, **options: Any) -> Any:
        """As the engine's."""
        return self._once("downscale", pixels, sizes, options)

    def restore(self, pixels: Pixels, *sizes: Size, **options: Any) -> Any:
        """As the engine's."""
        return self._once("restore", pixels, sizes, options)

    def _once(self, name: str, pixels: Pixels, sizes: tuple[Size, ...], options: dict[str, Any]) -> Any:
        key = (name, pixels.shape, digest(np.ascontiguousarray(pixels).tobytes()), sizes, tuple(sorted(options.items())))
        if key not in self._known:
            self._known[key] = getattr(self._engine, name)(pixels, *sizes, **options)
        return copy.deepcopy(self._known[key])


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
    return " ".join(shlex.quote(word) for word in words)


def place(path: Path, word: str) -> str:
    return word if path.is_absolute() or ".." in path.parts else str(path)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# Sources


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


def compare(image: Pixels, other: Pixels) -> tuple[float, float, float]:
    """Return PSNR-RGB and PSNR-Y in dB and SSIM of two (H, W, 3) uint8 images, borders included."""
    x, y = (torch.from_numpy(np.array(i)).permute(2, 0, 1)[None].float() / 255 for i in (image, other))
    return psnr(x, y), psnr(luma(x), luma(y)), ssim(x, y)


# Image codecs


def by_pillow(form: str, pixels: Pixels, setting: float, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=round(setting), **options)
    return buffer.getvalue()


def by_jxl(pixels: Pixels, setting: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(pixels, lossless=False, distance=setting, effort=JXL_EFFORT, numthreads=1))


avif = partial(by_pillow, "AVIF", subsampling="4:4:4", speed=AVIF_SPEED, max_threads=1)
CODECS: dict[str, tuple[Callable[[Pixels, float], bytes], tuple[float, ...]]] = {
    TUNED: (partial(avif, advanced={"tune": "psnr"}), (10, 25, 40, 50, 60, 68, 76, 84, 90, 96)),
    DEFAULT: (avif, (20, 40, 60, 72, 82, 90, 96)),
    JXL: (by_jxl, (8, 4, 2, 1.2, 0.7, 0.4, 0.2, 0.1)),
    WEBP: (partial(by_pillow, "WEBP", method=6), (20, 50, 70, 82, 90, 95, 100)),
    JPEG: (partial(by_pillow, "JPEG", subsampling="4:4:4", optimize=True, progressive=True), (20, 50, 70, 80, 90, 95, 98)),
}
"""Each codec and its settings: qualities, for JPEG XL distances. Against a sweep in steps of 2, ten qualities of AVIF and
straight lines between them gave 0.5 % fewer bytes on average, 2.8 % at most (six images, 30 to 44 dB)."""


def sweep(codec: str, pixels: Pixels) -> list[dict[str, float]]:
    """Code and decode an image (H, W, 3) at each of a codec's settings; return the fields of points."""
    encode, settings = CODECS[codec]
    points = []
    for setting in settings:
        data = encode(pixels, setting)
        decoded = imagecodecs.jpegxl_decode(data, numthreads=1) if codec == JXL else np.array(Image.open(io.BytesIO(data)))
        rgb, y, similarity = compare(pixels, decoded)
        points.append({"setting": setting, "bytes": len(data), "psnr": rgb, "psnr_y": y, "ssim": similarity})
    return points


def sweeps(bench: Bench, name: str, images: Mapping[str, Picture]) -> dict[str, list[list[Point]]]:
    """Return each codec's points, image by image."""
    found: dict[str, list[list[Point]]] = {}
    library = (imagecodecs.__version__, PIL.__version__, features.version("avif"))
    for codec, (encode, settings) in CODECS.items():
        found[codec], options = [], repr(getattr(encode, "keywords", JXL_EFFORT))
        for picture in images.values():
            pixels = picture.pixels
            what = [codec, options, settings, library, pixels.shape, digest(pixels.tobytes())]
            found[codec].append([Point(**each) for each in bench.remembered(what, partial(sweep, codec, pixels))])
        bench.say(f"{name}: {codec} swept")
    return found


# Curves


def rising(points: Sequence[Point]) -> list[Point]:
    """Return points by rising bytes and PSNR, without those that a larger file falls below.

    Such points are luck: a JPEG at the very tables that its source was once coded with comes back nearly exactly.
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.bytes, point.psnr), reverse=True):
        if not kept or point.psnr < kept[-1].psnr:
            kept.append(point)
    return kept[::-1]


def bytes_at(points: Sequence[Point], wanted: float) -> tuple[float, bool]:
    """Return the bytes at a PSNR in dB, log(bytes) drawn straight between points, and whether the points reach that far."""
    curve = rising(points)
    psnrs = [point.psnr for point in curve]
    size = math.exp(np.interp(wanted, psnrs, [math.log(point.bytes) for point in curve]))
    return size, psnrs[0] <= wanted <= psnrs[-1]


def whole(images: Sequence[Sequence[Point]]) -> list[Point]:
    """Return the points of a folder, all its images at one setting: bytes are the sum, the rest means."""
    points = []
    for same in zip(*images, strict=True):
        means = {name: mean([getattr(point, name) for point in same]) for name in ("psnr", "psnr_y", "ssim")}
        points.append(Point(setting=same[0].setting, bytes=sum(point.bytes for point in same), **means))
    return points


def each_at(images: Sequence[Sequence[Point]], wanted: float) -> tuple[float, int]:
    """Return the bytes of a folder where each image has a PSNR in dB, and how many images do not reach it."""
    found = [bytes_at(points, wanted) for points in images]
    return sum(size for size, _ in found), sum(not reached for _, reached in found)


def mean(values: Sequence[float], exact: float = EXACT_DB) -> float:
    """Return the mean, infinite ones counted as ``exact``."""
    return sum(exact if math.isinf(value) else value for value in values) / len(values)


def avif_at(curves: Mapping[str, Sequence[Sequence[Point]]], wanted: float) -> float | None:
    """Return AVIF's bytes for a folder at a mean PSNR in dB, by the better of its tunings; None where none reaches it."""
    found = [bytes_at(whole(curves[codec]), wanted) for codec in (TUNED, DEFAULT)]
    return min((size for size, reached in found if reached), default=None)


def avif_each_at(curves: Mapping[str, Sequence[Sequence[Point]]], wanted: float) -> float:
    """Return AVIF's bytes where each image has a PSNR in dB by the better of its tunings, or comes as near as it can."""
    total = 0.0
    for tuned, default in zip(curves[TUNED], curves[DEFAULT], strict=True):
        (size, _), (other, reached) = bytes_at(tuned, wanted), bytes_at(default, wanted)
        total += min(size, other) if reached else size
    return total


# Archives


def stored(entry: Entry, quality: Sequence[float]) -> Stored:
    """Return the bytes of an entry's parts, its sidecars and the figures of its row aside."""
    beside = sum(len(part or b"") for part in (entry.alpha, entry.icc, entry.exif, entry.xmp))
    sizes = {name: len(getattr(entry, name) or b"") for name in ("lr", "latent", "original")}
    return Stored(**sizes, beside=beside, psnr=quality[0], psnr_y=quality[1], ssim=quality[2], told=entry.psnr)


def clean_lr_bytes(picture: Picture, settings: Settings) -> int:
    """Return the bytes of a lossless bicubic LR, as a user would keep it: every level, in the settings' codec.

    Where those leave the codec open, the smaller of WebP and JPEG XL.
    """
    size = (picture.pixels.shape[0], picture.pixels.shape[1])
    x = torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)[None].float() / 255
    lr = bicubic_lr(x, axes_for(size, settings.target.resolve(size)))[0].mul(255).round().to(torch.uint8).permute(1, 2, 0)
    codecs = (LrCodec.WEBP, LrCodec.JXL) if settings.lr_codec is LrCodec.AUTO else (settings.lr_codec,)
    return min(len(encode_lr(lr.numpy(), codec=codec, grey=picture.grey, alpha=None, icc=None)[0]) for codec in codecs)


def archives(bench: Bench, folder: Path, images: Mapping[str, Picture], scale: str) -> dict[str, dict[str, Any]]:
    """Make an archive for each target and have another process restore it: entries in the order of ``images``, and sizes."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "source")
        source.mkdir()
        for name in images:
            shutil.copyfile(folder / name, source / name)
        entries: dict[str, dict[str, Entry]] = {}
        known: dict[object, Any] = {}
        for target in map(str, bench.targets):
            entries[target], size = rescale(bench, source, Path(scratch, target), scale, target, known)
            found[target] = {"shards": size}
            bench.say(f"{folder.resolve().name} x{scale} {target}: archive made")
        known.clear()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
            qualities = other.submit(restored, scratch, list(entries), bench.device).result()
        for target, own in entries.items():
            found[target]["entries"] = [asdict(stored(own[name], qualities[target][name])) for name in images]
    bench.say(f"{folder.resolve().name} x{scale}: restored by another process and measured")
    return found


def rescale(
    bench: Bench, source: Path, archive: Path, scale: str, target: str, known: dict[object, Any]
) -> tuple[dict[str, Entry], int]:
    """Make one archive; return its entries by key and the bytes of its shard objects."""
    (wanted,) = (each for each in bench.targets if str(each) == target)
    job = RescaleJob(source=str(source), archive=str(archive), settings=bench.settings(scale, wanted), weights=bench.weights)
    opened = open_archive(job)
    worker = RescaleWork(archive=opened.store.uri, device=bench.device, threads=1).start()
    worker.engine = cast(Engine, Remembering(worker.engine, known))
    reports = [worker.run(shard) for shard in opened.shards()]
    if failures := [failure for report in reports for failure in report.failures]:
        raise SystemExit(f"rate_distortion: {failures[0].key} was not rescaled: {failures[0].reason}")
    entries = {entry.key: entry for shard in opened.shards() for entry in opened.entries(shard.id)}
    return entries, sum(report.bytes_out for report in reports)


def restored(scratch: str, targets: Sequence[str], device: str) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Restore archives below ``scratch`` to PNG files and compare those with its ``source``; runs in a process of its own."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    known: dict[object, Any] = {}
    for target in targets:
        work = RestoreWork(
            archive=str(Path(scratch, target)),
            destination=str(Path(scratch, "restored", target)),
            options=RestoreOptions(format="png"),
            device=device,
            threads=1,
        )
        worker = work.start()
        if worker.engine is not None:
            worker.engine = cast(Engine, Remembering(worker.engine, known))
        for shard in worker.archive.shards():
            if failures := worker.run(shard).failures:
                raise SystemExit(f"rate_distortion: {failures[0].key} was not restored: {failures[0].reason}")
        verified(work.archive, device, known)
        found[target] = {}
        for path in sorted(Path(scratch, "source").iterdir()):
            written = Path(work.destination, renamed(path.name, "png"))
            written = written if written.exists() else Path(work.destination, path.name)  # kept as the file that it was
            pair = (decode(each.read_bytes(), pixel_limit=PIXEL_LIMIT).pixels for each in (path, written))
            found[target][path.name] = compare(*pair)
        shutil.rmtree(work.destination)
    return found


def verified(archive: str, device: str, known: dict[object, Any]) -> None:
    """Check an archive as `iarn verify --sample 1` does, or end with what it finds."""
    worker = VerifyWork(archive=archive, sample=1, device=device, threads=1).start()
    worker.engine = cast(Engine, Remembering(worker.engine, known))
    for shard in worker.archive.shards():
        report = worker.run(shard)
        if report.failures:
            raise SystemExit(f"rate_distortion: verify says of {report.failures[0].key}: {report.failures[0].reason}")
        if report.compared < report.entries - report.originals:
            raise SystemExit(f"rate_distortion: verify compared {report.compared} of {report.entries} entries")


def code_digest() -> str:
    """Return a digest of the program that makes archives and restores them."""
    files = sorted(path for layer in ("iarn", "pipeline") for path in (ROOT / layer).glob("*.py"))
    return digest(b"".join(path.name.encode() + path.read_bytes() for path in files))


# From figures to rows


def row(
    scale: str,
    target: Target,
    entries: Sequence[Stored],
    curves: Mapping[str, Sequence[Sequence[Point]]],
    *,
    shards: int,
    clean_lr: int,
) -> Row:
    """Sum up one archive, and compare it with AVIF."""
    floor = target.floor
    size, lr, latent = (sum(getattr(entry, part) for entry in entries) for part in ("bytes", "lr", "latent"))
    level = mean([entry.psnr for entry in entries], EXACT_DB if floor is None else floor)
    avif_size = avif_at(curves, level)
    measured = [abs(entry.psnr - entry.told) for entry in entries if entry.told is not None and entry.psnr != entry.told]
    return Row(
        scale=scale,
        target=str(target),
        floor=floor,
        bytes=size,
        lr=lr,
        latent=latent,
        rest=sum(entry.beside + entry.original for entry in entries),
        psnr=level,
        psnr_y=mean([entry.psnr_y for entry in entries], EXACT_DB if floor is None else floor),
        ssim=mean([entry.ssim for entry in entries]),
        worst=min(EXACT_DB, *(entry.psnr for entry in entries)),
        met=None if floor is None else sum(entry.psnr >= floor - FLOOR_SLACK for entry in entries),
        lean=sum(not entry.latent and not entry.original for entry in entries),
        kept=sum(entry.original > 0 for entry in entries),
        told_error=max(measured, default=0.0),
        shards=shards,
        clean_lr=clean_lr,
        to_avif=None if avif_size is None else size / avif_size,
        to_avif_each=None if floor is None else size / avif_each_at(curves, floor),
        to_lr_avif=None if avif_size is None else size / (clean_lr + avif_size),
        to_own_lr_avif=None if avif_size is None or not latent else size / (lr + avif_size),
    )


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


# The page


def write(bench: Bench, folders: Sequence[Path], made_by: str) -> None:
    """Measure everything, then write the plots, the figures and the page."""
    model = digest(read_weights(bench.weights))
    found = [measure_folder(bench, folder, model) for folder in folders]
    for folder in found:
        plot(bench.out / "images" / f"bytes-{folder.name}.png", folder)
    sections = [heading(bench, made_by, model), *(section(folder, bench.floors) for folder in found)]
    figures = [
        {**asdict(folder), "curves": {name: whole_figures(images) for name, images in folder.curves.items()}}
        for folder in found
    ]
    (bench.out / "bytes.json").write_text(as_json({"command": made_by, "weights": model, "folders": figures}), encoding="utf-8")
    (bench.out / "bytes.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    bench.say(f"{bench.out / 'bytes.md'} is written.")


def whole_figures(images: Sequence[Sequence[Point]]) -> list[dict[str, float]]:
    return [asdict(point) for point in whole(images)]


def as_json(value: object) -> str:
    """Return JSON with figures to six digits."""
    rounded = json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.6g}"))
    return json.dumps(rounded, indent=1, allow_nan=False) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows))


def heading(bench: Bench, made_by: str, model: str) -> str:
    return f"""# Bytes

What archives take, against what image codecs take at the same quality. Everything on this page was measured in one run of

```sh
{made_by}
```

(folders elsewhere by their last name alone) with the weights `{model[:16]}…`, Pillow {PIL.__version__} (libavif
{features.version("avif")}) and imagecodecs {imagecodecs.__version__}; [bytes.json](bytes.json) has the figures.

**Archives** were made as `iarn rescale --lr-codec {bench.codec.value} --max-ratio inf` makes them, so that no entry is
kept as its source for its size alone. Their bytes are all that an entry stores for its image: LR, latent, alpha, original,
ICC, EXIF and XMP. Another process restored them to PNG files as `iarn restore --format png` does, from the stored bytes
alone, and measured those against the sources: PSNR over RGB, PSNR of the limited-range BT.601 luma, SSIM of the luma, on
whole images, means over them; then it checked all of each archive as `iarn verify --sample 1` does, which found nothing
wrong. An image that comes back exactly counts as its floor in a mean, or as {EXACT_DB:g} dB where
there is none. *Bpp*: bits per source pixel, the folder's bytes over its pixels.

**Codecs** coded the whole image, at several qualities each, with log(bytes) drawn straight between them: AVIF 4:4:4 at speed
{AVIF_SPEED}, tuned for PSNR ("{TUNED}") and as it comes; JPEG XL at effort {JXL_EFFORT}; WebP at method 6, which halves its
colour planes (it knows 4:2:0 alone), so that on coloured detail it has a ceiling; JPEG 4:4:4, progressive, tables optimised.

- **x AVIF**: our bytes over AVIF's, at one quality for all images and the same mean PSNR-RGB; the better of its two tunings.
- **x AVIF, each**: the same where every image just reaches the floor by a quality of its own.
- **x (LR + AVIF)**: our bytes over what one would keep otherwise, a lossless bicubic LR and that first AVIF. The lossless LR
  is coded as the archive's lossless ones; with `auto`, by the smaller of WebP and JPEG XL.
- **x (own LR + AVIF)**: the same with the archive's own LRs, which are coarser: `auto` codes them as AVIF, the others round
  their values. Only where there is a latent.

Below 1 the archive is smaller."""


def section(folder: Folder, floors: Sequence[float]) -> str:
    """Return all of one folder: what it holds, findings, the plot and both tables."""
    overhead = max(row.shards / row.bytes for row in folder.rows) - 1
    told = max(row.told_error for row in folder.rows)
    spikes = sum(len(rising(points)) < len(points) for points in folder.curves[JPEG])
    jpeg = f"""

Images that come back far better as a JPEG of one quality than as larger ones: {spikes}. They were JPEG files before, at those
very tables; such points are not in JPEG's curve."""
    return f"""## {folder.name}

{folder.images} images, {folder.pixels / 1e6:.1f} megapixels, in files of {folder.bpp(folder.source_bytes):.2f} bpp.
The archives' shard files, which also hold keys and digests, took up to {100 * overhead:.1f} % more than the bytes below. No
restore was further than {told:.4f} dB from the PSNR that its archive tells.{jpeg if spikes else ""}

{findings(folder)}

![Bits per pixel against PSNR and SSIM on {folder.name}](images/bytes-{folder.name}.png)

{table([*ROW_HEADINGS, *RATIO_HEADINGS], [row_cells(folder, each) for each in folder.rows])}

*Floor met*: images of {folder.images} that reach the floor. *Lean*: entries that are an LR alone. *Kept*: those that are the
source. *Other*: alpha, metadata and sources.

### Codecs on {folder.name}

{table(CODEC_HEADINGS, codec_rows(folder, floors))}

*Each image*: every image just reaches that PSNR; images that no quality tried takes there count with the nearest, and are
counted beside. *One quality*: the same for all images, at that mean PSNR; PSNR-Y and SSIM are of this one."""


ROW_HEADINGS = (
    "scale",
    "tier",
    "bpp",
    "LR",
    "latent",
    "other",
    "PSNR-RGB",
    "worst",
    "PSNR-Y",
    "SSIM",
    "floor met",
    "lean",
    "kept",
)
RATIO_HEADINGS = ("x AVIF", "x AVIF, each", "x (LR + AVIF)", "x (own LR + AVIF)")
CODEC_HEADINGS = ("PSNR-RGB", "codec", "bpp, each image", "not reached", "bpp, one quality", "PSNR-Y", "SSIM")


def row_cells(folder: Folder, row: Row) -> list[str]:
    cells = [f"x{row.scale}", row.target]
    cells += [f"{folder.bpp(size):.3f}" for size in (row.bytes, row.lr, row.latent, row.rest)]
    cells += [f"{row.psnr:.2f}", f"{row.worst:.2f}", f"{row.psnr_y:.2f}", f"{row.ssim:.4f}"]
    cells += ["" if row.met is None else f"{row.met}", f"{row.lean}", f"{row.kept}"]
    cells += ["not reached" if row.to_avif is None else f"**{row.to_avif:.2f}**"]
    cells += ["" if row.to_avif_each is None else f"{row.to_avif_each:.2f}"]
    cells += ["not reached" if row.to_lr_avif is None else f"**{row.to_lr_avif:.2f}**"]
    return [*cells, "" if row.to_own_lr_avif is None else f"{row.to_own_lr_avif:.2f}"]


def codec_rows(folder: Folder, floors: Sequence[float]) -> list[list[str]]:
    rows = []
    for floor in floors:
        for codec, images in folder.curves.items():
            each, missed = each_at(images, floor)
            total = whole(images)
            one, reached = bytes_at(total, floor)
            curve = rising(total)
            levels = [point.psnr for point in curve]
            y, similarity = (np.interp(floor, levels, [getattr(p, name) for p in curve]) for name in ("psnr_y", "ssim"))
            mean_cells = [f"{folder.bpp(one):.3f}", f"{y:.2f}", f"{similarity:.4f}"] if reached else ["not reached", "", ""]
            rows.append([f"{floor:g}", codec, f"{folder.bpp(each):.3f}", f"{missed}", *mean_cells])
    return rows


def findings(folder: Folder) -> str:
    """Return what the figures say of wins and losses, floors met, and the best scale for each floor."""
    at_floors = [row for row in folder.rows if row.floor is not None]
    missed = [
        f"{name(row)} ({folder.images - (row.met or 0)}, worst {row.worst:.2f} dB)"
        for row in at_floors
        if row.met != folder.images
    ]
    lines = [
        "- Floors: " + (f"missed at {', '.join(missed)}." if missed else "every image reaches every floor.")
        if at_floors
        else ""
    ]
    others = {
        "to_avif": "AVIF at the same mean PSNR",
        "to_lr_avif": "a lossless LR and that AVIF",
        "to_own_lr_avif": "its own LR and that AVIF",
    }
    for ratio, title in others.items():
        known = [(row, round(getattr(row, ratio), 2)) for row in folder.rows if getattr(row, ratio) is not None]
        for verb, chosen in (
            ("More", [pair for pair in known if pair[1] > 1]),
            ("No more", [pair for pair in known if pair[1] <= 1]),
        ):
            listed = ", ".join(f"{name(row)} ({value:.2f})" for row, value in chosen)
            lines.append(f"- {verb} bytes than {title}: {listed or 'nowhere'}.")
    for floor in dict.fromkeys(row.floor for row in at_floors):
        best = min((row for row in at_floors if row.floor == floor), key=lambda row: row.bytes)
        ratio = "beyond the sweep of AVIF" if best.to_avif is None else f"{best.to_avif:.2f} x AVIF"
        lines.append(f"- Fewest bytes at a floor of {floor:g} dB: x{best.scale}, {folder.bpp(best.bytes):.3f} bpp, {ratio}.")
    return "\n".join(line for line in lines if line)


def name(row: Row) -> str:
    return f"x{row.scale} {row.target}"


def plot(path: Path, folder: Folder) -> None:
    """Draw bits per pixel against PSNR-RGB, PSNR-Y and SSIM, archives and codecs, as one PNG."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9, 9.5), layout="constrained")
        panels = figure.subplot_mosaic([["psnr", "psnr"], ["psnr_y", "ssim"]], height_ratios=(3, 2))
        titles = {"psnr": f"{folder.name}: mean PSNR-RGB, dB", "psnr_y": "mean PSNR-Y, dB", "ssim": "mean SSIM"}
        for value, title in titles.items():
            draw(panels[value], folder, value)
            panels[value].set_ylabel(title)
            panels[value].set_xlabel("bits per source pixel")
            panels[value].grid(alpha=0.3)
        panels["psnr"].legend()
        figure.savefig(path, dpi=110, metadata={"Software": None})


def draw(panel: Axes, folder: Folder, value: str) -> None:
    """Draw one panel: codecs dashed, as far as archives go; each scale's archives joined, those without a latent alone."""
    furthest = 1.15 * max(row.bytes for row in folder.rows)

    def line(points: Sequence[Row | Point]) -> tuple[list[float], list[float]]:
        return [folder.bpp(point.bytes) for point in points], [getattr(point, value) for point in points]

    for codec, images in folder.curves.items():
        panel.plot(*line([point for point in rising(whole(images)) if point.bytes <= furthest]), "--", linewidth=1, label=codec)
    for index, scale in enumerate(dict.fromkeys(row.scale for row in folder.rows), start=len(folder.curves)):
        own = sorted((row for row in folder.rows if row.scale == scale), key=lambda row: row.bytes)
        lean = [row for row in own if row.target == Tier.LEAN.value]
        others = [row for row in own if row.target != Tier.LEAN.value]
        panel.plot(*line(others), "o-", color=f"C{index}", markersize=4, label=f"iarn x{scale}")
        panel.plot(*line(lean), "*", color=f"C{index}", markersize=9, label=f"iarn x{scale}, lean")


if __name__ == "__main__":
    main()
