"""Whole rescales and restores in this process, without Ray: little sources, a small network, and what came of them.

samples -> as_folder, as_tar, as_parquet -> rescale -> entries, restore, verify -> written
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from iarn.network import NetworkConfig
from jobs.requests import RescaleJob
from jobs.rescale import open_archive
from jobs.source_changes import Compared, compare
from pipeline import rescale as rescaling
from pipeline import restore as restoring
from pipeline.archives.archive import Archive
from pipeline.core.options import RestoreOptions
from pipeline.core.records import (
    Entry,
    Failure,
    FloorMetric,
    LrCodec,
    Plan,
    PlanPart,
    Settings,
    ShardReport,
    Tier,
    Verification,
)
from pipeline.core.target import TargetSize
from pipeline.engines import engine
from pipeline.engines.engine import Engine
from pipeline.outputs.outputs import OutputKind, loose_folders, named_outputs
from pipeline.outputs.twins import twins
from pipeline.rescale import RescaleWorker
from pipeline.restore import RestoreWorker
from pipeline.works import RescaleWork, RestoreWork, VerifyWork
from tests.support.networks import random_weights
from tests.support.pictures import photo, saved

Arrays = NDArray[np.uint8]

TINY = NetworkConfig(blocks=(1, 1), width=8)
"""Reaches scale 4 in milliseconds."""

HALF = TargetSize(scale=(2, 2))
STATE = ".iarn/"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image by its name in the source, and the other members of its sample by suffix."""

    key: str
    data: bytes
    sidecars: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def members(self) -> dict[str, bytes]:
        """The files of the sample by name."""
        folder, slash, base = self.key.rpartition("/")
        stem = folder + slash + base.partition(".")[0]
        return {self.key: self.data} | {f"{stem}.{suffix}": data for suffix, data in self.sidecars.items()}


@cache
def weights() -> bytes:
    """Return the weights file of a small network whose blocks do something."""
    return random_weights(TINY, seed=7)


def picture(height: int, width: int, format: str = "PNG", *, seed: int = 0, channels: int = 3, **options: Any) -> bytes:
    """Return a little photograph as a file."""
    return saved(photo(height, width, channels, seed), format, **options)


def samples(count: int = 5, *, folder: str = "") -> list[Sample]:
    """Return samples of different sizes and formats with a caption and a label each, their keys in sorted order."""
    forms = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
    extensions = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp"}
    return [
        Sample(
            key=f"{folder}{index:03d}.{extensions[forms[index % len(forms)]]}",
            data=picture(20 + 3 * index, 31 - index, forms[index % len(forms)], seed=index),
            sidecars={"txt": f"caption {index}".encode(), "cls.json": b'{"label": %d}' % index},
        )
        for index in range(count)
    ]


def noise(seed: int) -> bytes:
    """Return 300,000 bytes that no coding makes smaller, and that are no image."""
    return np.random.default_rng(seed).bytes(300_000)


def as_folder(folder: Path, samples: Iterable[Sample]) -> str:
    """Write samples as loose files; return the source's URI."""
    for sample in samples:
        for name, data in sample.members.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return str(folder)


def tar_of(members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def as_tar(folder: Path, samples: Iterable[Sample], name: str = "photos.tar") -> str:
    """Write samples as one WebDataset tar in ``folder``; return the source's URI."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(tar_of(member for sample in samples for member in sample.members.items()))
    return str(folder)


def table_of(samples: Sequence[Sample]) -> pa.Table:
    """Return samples as a table: the Hugging Face struct, a second binary column, text, a list and a date."""
    return pa.table(
        {
            "id": pa.array([sample.key for sample in samples]),
            "image": pa.array(
                [{"bytes": sample.data, "path": sample.key} for sample in samples],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "txt": pa.array([sample.sidecars.get("txt") for sample in samples], pa.binary()),
            "score": pa.array([index / 4 for index in range(len(samples))], pa.float32()),
            "tags": pa.array([["a", str(index)] for index in range(len(samples))], pa.list_(pa.string())),
            "day": pa.array([index * 1000 for index in range(len(samples))], pa.date32()),
        }
    )


def as_parquet(folder: Path, samples: Sequence[Sample], name: str = "photos.parquet") -> str:
    """Write samples as one Parquet file in ``folder``; return the source's URI."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(samples), folder / name)
    return str(folder)


SOURCES: Mapping[str, Callable[..., str]] = {"files": as_folder, "tar": as_tar, "parquet": as_parquet}
every_source = pytest.mark.parametrize("kind", SOURCES)
every_output = pytest.mark.parametrize("output", list(OutputKind))


@dataclass(frozen=True, kw_only=True)
class Rescaled:
    """An archive and the reports of its shards, in the plan's order."""

    archive: Archive
    reports: list[ShardReport]

    @property
    def uri(self) -> str:
        """Where the archive is."""
        return self.archive.store.uri

    @property
    def entries(self) -> list[Entry]:
        """Every entry, in the plan's order."""
        return [entry for shard in self.archive.shards() for entry in self.archive.entries(shard.id)]

    @property
    def failures(self) -> list[Failure]:
        """Every failure."""
        return [failure for report in self.reports for failure in report.failures]


def job(
    source: str,
    archive: Path,
    *,
    target: TargetSize = HALF,
    tier: Tier = Tier.BALANCED,
    floor: float | None = None,
    floor_metric: FloorMetric = FloorMetric.PSNR,
    max_ratio: float | None = None,
    codec: LrCodec = LrCodec.AUTO,
    pixel_limit: int = 1_000_000,
    image_column: str | None = None,
    verify: Verification = Verification.FULL,
    all_files: bool = False,
    effort: int = 0,
    keep_if_lossy: bool = True,
    **asked: Any,
) -> RescaleJob:
    """Return a job of a small network; entries may be of any size. What else is ``asked`` are fields of a job."""
    if tier is Tier.FLOOR and floor is None:
        floor = 44.0  # more than the tiny network reaches by itself
    settings = Settings(
        target=target,
        tier=tier,
        floor=floor,
        floor_metric=floor_metric,
        max_ratio=max_ratio,
        lr_codec=codec,
        pixel_limit=pixel_limit,
        image_column=image_column,
        verify=verify,
        all_files=all_files,
        effort=effort,
        keep_if_lossy=keep_if_lossy,
    )
    model = archive.parent / "tiny.safetensors"
    if not model.exists():
        model.write_bytes(weights())
    return RescaleJob(source=source, archive=str(archive), settings=settings, weights=model, **asked)


def begin(source: str, archive: Path, **settings: Any) -> Archive:
    """Plan a source, or take up the archive that is there, as ``iarn rescale`` does; ``settings`` are those of :func:`job`."""
    return open_archive(job(source, archive, **settings))


def add(source: str, archive: Path, **settings: Any) -> tuple[Rescaled, Compared]:
    """Add what is new in a source to its archive, as ``iarn rescale --add`` does, and rescale what is left."""
    wanted = job(source, archive, add=True, **settings)
    standing, compared = compare(wanted, open_archive(wanted))
    return rescale_left(standing), compared


def plan_of(settings: Settings) -> Plan:
    """Return a plan of one part that has these settings."""
    part = PlanPart(sha256="ab" * 32, shards=3, objects=3)
    return Plan(source="s3://bucket/photos", settings=settings, model="cd" * 32, parts=(part,))


def rescaler(archive: Archive) -> RescaleWorker:
    """Return a worker for an archive, on the CPU."""
    return RescaleWork(archive=archive.store.uri, device="cpu").start()


def rescale(source: str, archive: Path, **settings: Any) -> Rescaled:
    """Rescale a source, all its shards one by one; ``settings`` are those of :func:`begin`."""
    return rescale_left(begin(source, archive, **settings))


def rescale_left(archive: Archive) -> Rescaled:
    """Rescale what is left of an archive, and return it with the reports of all its shards."""
    worker = rescaler(archive)
    return Rescaled(archive=archive, reports=[worker.run(shard) for shard in archive.shards()])


def batch_on_the_cpu(monkeypatch: pytest.MonkeyPatch, pixels: int = engine.BATCH_PIXELS) -> None:
    """Have workers give the engine batches of so many pixels, as they do on a GPU."""
    monkeypatch.setattr(engine, "BATCH_PIXELS", pixels)
    for module in (rescaling, restoring):
        monkeypatch.setattr(module, "Engine", lambda *given, **_: Engine(*given, batched=True, tile_points=512))


def restorer(archive: Rescaled, destination: Path | str, **options: Any) -> RestoreWorker:
    """Return a worker that restores to a folder or a bucket, on the CPU; ``options`` are those of RestoreOptions."""
    work = RestoreWork(archive=archive.uri, destination=str(destination), options=RestoreOptions(**options), device="cpu")
    return replace(work, twins=twins(archive.archive.shards, archive.archive.added_shards())).start()


def restore(archive: Rescaled, destination: Path | str, **options: Any) -> list[ShardReport]:
    """Restore every shard that is done and asked for; return their reports."""
    worker = restorer(archive, destination, **options)
    committed, shards = archive.archive.done(), worker.options.shards
    folders = loose_folders(archive.archive.shards()) if worker.options.output is OutputKind.FILES else {}
    named = named_outputs(archive.archive.shards(), archive.archive.begun_shards, folders)
    return [worker.run(shard) for shard in named if shard.id in committed and (not shards or shard.id in shards)]


def verify(archive: Rescaled, *, sample: float = 1.0) -> list[ShardReport]:
    """Check every shard that is done."""
    worker = VerifyWork(archive=archive.uri, sample=sample, device="cpu").start()
    return [worker.run(shard) for shard in archive.archive.shards_done()]


def by_key(result: Rescaled) -> dict[str, Entry]:
    """Return the entries of an archive by key; no key comes twice."""
    entries = result.entries
    found = {entry.key: entry for entry in entries}
    assert len(found) == len(entries)
    return found


def back(result: Rescaled, folder: Path, **options: Any) -> dict[str, bytes]:
    """Restore without a failure; return the files, by their last name."""
    assert not failures(restore(result, folder, **options))
    return {name.rpartition("/")[2]: data for name, data in written(folder).items()}


def outside(folder: Path) -> dict[str, bytes]:
    """Return every file beside a destination."""
    return {name: data for name, data in written(folder.parent).items() if not name.startswith(f"{folder.name}/")}


def failures(reports: Iterable[ShardReport]) -> list[Failure]:
    """Return the failures in reports."""
    return [failure for report in reports for failure in report.failures]


def written(folder: Path) -> dict[str, bytes]:
    """Return every file below a destination by its name, without what a restore remembers there and when shards were done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    found = {name: path.read_bytes() for name, path in names.items() if not name.startswith(STATE)}
    return {name: timeless(data) if name.startswith("commits/") else data for name, data in found.items()}


def timeless(commit: bytes) -> bytes:
    """Return a commit's bytes without its times, which are no part of what it says."""
    return re.sub(rb'"(begun|ended)":[^,}]*,', b"", commit)


def members_of(tar: bytes) -> list[tuple[str, bytes]]:
    """Return the files of a tar, in order."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        files = [(each.name, opened.extractfile(each)) for each in opened]
        return [(name, file.read()) for name, file in files if file is not None]


def shown(data: bytes, mode: str = "RGB") -> Arrays:
    """Return the pixels of a file as its bytes have them, EXIF orientation not applied."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert(mode))


def psnr(one: Arrays, other: Arrays) -> float:
    """Return the PSNR of two 8-bit arrays in dB."""
    return float(10 * np.log10(255**2 / max(np.square(one.astype(float) - other).mean(), 1e-10)))


def sentence(text: str) -> str:
    """Return ``text`` if it is one clear line for people: no traceback, no vendor's class, no address in memory."""
    assert text.strip() == text, text
    assert 10 < len(text) < 600, text
    assert not any(word in text for word in ("\n", "Traceback", " at 0x", "Errno", "botocore", "pyarrow", "PIL.")), text
    return text


def three_tars(folder: Path) -> str:
    """Make an archive of three tars of four assets, one of which is damaged, in ``folder``; return its URI."""
    for part in "abc":
        assets = samples(4, folder=f"{part}/")
        if part == "b":
            assets[1] = Sample(key="b/001.jpg", data=b"no picture", sidecars={"txt": b"caption"})
        as_tar(folder / "source", assets, f"{part}.tar")
    return rescale(str(folder / "source"), folder / "archive").uri
