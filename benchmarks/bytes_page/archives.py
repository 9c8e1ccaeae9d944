"""Archives made by the pipeline itself in this process, restored, measured and verified by another."""

from __future__ import annotations

import copy
import multiprocessing
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.bytes_page.bench import Bench, digest
from benchmarks.bytes_page.codecs import compare
from benchmarks.support.bicubic import reference_lr
from iarn.lattice import axes_for
from jobs.requests import RescaleJob
from jobs.rescale import open_archive
from pipeline.core.options import RestoreOptions
from pipeline.core.records import Entry, LrCodec, Pixels, Settings, Size
from pipeline.decoders.decoding import decode
from pipeline.engines.engine import Engine
from pipeline.entry_picture import renamed
from pipeline.pictures.lr_codec import encode_lr
from pipeline.pictures.picture import Picture, size_of
from pipeline.works import RescaleWork, RestoreWork, VerifyWork

ROOT = Path(__file__).resolve().parents[2]
PIXEL_LIMIT = 512_000_000


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
    worker = VerifyWork(archive=archive, sample=1, device=device).start()
    worker.engine = cast(Engine, Remembering(worker.engine, known))
    for shard in worker.archive.shards():
        report = worker.run(shard)
        if report.failures:
            raise SystemExit(f"rate_distortion: verify says of {report.failures[0].key}: {report.failures[0].reason}")
        if report.compared < report.entries - report.originals:
            raise SystemExit(f"rate_distortion: verify compared {report.compared} of {report.entries} entries")


def code_digest() -> str:
    """Return a digest of the program that makes archives and restores them."""
    files = sorted(path for layer in ("iarn", "pipeline") for path in (ROOT / layer).rglob("*.py"))
    return digest(b"".join(path.relative_to(ROOT).as_posix().encode() + path.read_bytes() for path in files))


def stored(entry: Entry, quality: Sequence[float]) -> Stored:
    """Return the bytes of an entry's parts, its sidecars and the figures of its row aside."""
    beside = sum(len(part or b"") for part in (entry.alpha, entry.icc, entry.exif, entry.xmp))
    sizes = {name: len(getattr(entry, name) or b"") for name in ("lr", "latent", "original")}
    return Stored(**sizes, beside=beside, psnr=quality[0], psnr_y=quality[1], ssim=quality[2], told=entry.psnr)


def clean_lr_bytes(picture: Picture, settings: Settings) -> int:
    """Return the bytes of a lossless bicubic LR, as a user would keep it: every level, in the settings' codec.

    Where those leave the codec open, the smaller of WebP and JPEG XL.
    """
    size = size_of(picture.pixels)
    lr = reference_lr(picture.pixels, axes_for(size, settings.target.resolve(size)))
    codecs = (LrCodec.WEBP, LrCodec.JXL) if settings.lr_codec is LrCodec.AUTO else (settings.lr_codec,)
    return min(len(encode_lr(lr, codec=codec, grey=picture.grey, alpha=None, icc=None)[0]) for codec in codecs)


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
