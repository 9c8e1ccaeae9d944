"""What a whole job takes beside its network alone: an actor's work in this process, or `iarn rescale` and `restore` with Ray.

    python -m benchmarks.whole_job                                   # 200 images in tars, x2, lean, both ways, without Ray
    python -m benchmarks.whole_job --device cuda --threads 16        # on a GPU; Ray need not be installed
    python -m benchmarks.whole_job --source s3 --ray --tier balanced --verify full
    python -m benchmarks.whole_job --codecs                          # a core's seconds for decoding and encoding alone

The images are the eight samples, repeated under other names (``--side`` makes them smaller). *Bare* is the engine alone: the
calls that what is stored needs, one image after the other, decoded before. *Job* is everything from the first byte read to the
last commit, a window of shards at once as an actor has them, planning and loading the network apart. Jobs and passes of the
bare engine take turns, and their medians are divided: 1 is a job that costs no more than its network. *Cores* are the
processor's seconds over the clock's. Memory is the peak of the process, or with Ray of its largest actor.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from benchmarks.support.bucket import bucket
from benchmarks.support.machine import described
from iarn.pretrained import shipped
from pipeline.archives.archive import Archive
from pipeline.core.options import RestoreOptions
from pipeline.core.progress import BUSY, STAGES, UP
from pipeline.core.records import LrCodec, Pixels, Settings, Size, SourceShard, Tier, Verification
from pipeline.core.target import TargetSize
from pipeline.decoders import decoding
from pipeline.engines.engine import Engine, choose_device
from pipeline.engines.measure import measure as measure_quality
from pipeline.outputs.outputs import named_outputs
from pipeline.pictures import lr_codec, writing
from pipeline.pictures.picture import resize, size_of
from pipeline.planning.sources import find_source
from pipeline.rescale import RescaleWorker
from pipeline.restore import RestoreWorker
from pipeline.stores.store import open_store
from pipeline.tiers import clean_draft
from pipeline.works import RescaleWork, RestoreWork

ROOT = Path(__file__).resolve().parent.parent
BARE_SECONDS = 5.0
"""How long passes over the eight samples go on beside each job, one at least."""


@dataclass
class Run:
    """One whole job: its seconds, those of its stages over all threads, and what it took."""

    seconds: float
    stages: dict[str, float]
    busy: float
    cores: float | None = None
    peak: int | None = None


@dataclass
class Verb:
    """The runs of one direction, and MPix/s of passes of the bare engine."""

    pixels: int = 0
    runs: list[Run] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def row(self, name: str) -> dict[str, Any]:
        """Return medians as plain values."""
        seconds, bare = median(run.seconds for run in self.runs), median(self.bare)
        row: dict[str, Any] = {
            "verb": name,
            "mpix": round(self.pixels / 1e6, 1),
            "job_mpix_per_s": round(self.pixels / 1e6 / seconds, 3),
            "bare_mpix_per_s": round(bare, 3),
            "ratio": round(self.pixels / 1e6 / seconds / bare, 3),
            "busy_share": round(median(run.busy for run in self.runs), 3),
            "seconds_by_stage": {stage: round(median(run.stages[stage] for run in self.runs), 2) for stage in STAGES},
        }
        if all(run.cores is not None for run in self.runs):
            row["cores"] = round(median(run.cores or 0 for run in self.runs), 2)
        if peaks := [run.peak for run in self.runs if run.peak]:
            row["peak_mb"] = round(max(peaks) / 1e6)
        return row


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure as the command line asks; print and return a row for each direction."""
    options = parser().parse_args(arguments)
    device = choose_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(described(name), flush=True)
    if options.codecs:
        return [codecs(options)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = samples(options.side)
        source = write_source(folder / "source", files, options)
        base = str(folder)
        if options.source == "s3":
            base = stack.enter_context(bucket(folder / "source"))
            source = f"{base}/source"
        verbs = measure(options, source, base, list(files.values()))
        rows = [verb.row(name) for name, verb in verbs.items()]
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--images", type=int, default=200)
    found.add_argument("--side", type=int, help="longest side of the images in pixels; the samples' own 1600 unless given")
    found.add_argument("--shard-images", type=int, default=25, help="images of a tar")
    found.add_argument("--source", choices=("tar", "folder", "s3"), default="tar", help="s3 starts a SeaweedFS here")
    found.add_argument("--scale", default="2")
    found.add_argument("--tier", type=Tier, default=Tier.LEAN)
    found.add_argument("--verify", type=Verification, default=Verification.NONE)
    found.add_argument("--lr-codec", type=LrCodec, default=LrCodec.AUTO)
    found.add_argument("--only", choices=("rescale", "restore"))
    found.add_argument("--format", default="source", help="of restored images")
    found.add_argument("--device", default="auto")
    found.add_argument("--threads", type=int, default=2, help="that decode and as many that encode, for each shard under way")
    found.add_argument("--window", type=int, default=2, help="shards under way at once")
    found.add_argument("--repeat", type=int, default=3)
    found.add_argument("--ray", action="store_true", help="by `iarn` with one actor; threads are the command's own")
    found.add_argument("--weights", type=Path)
    found.add_argument("--codecs", action="store_true", help="measure nothing but decoding and encoding, on one core")
    return found


def samples(side: int | None) -> dict[str, bytes]:
    """Return the sample photographs by name, no longer than ``side``."""
    files = {path.name: path.read_bytes() for path in sorted((ROOT / "samples").glob("*.jpg"))}
    if side is None:
        return files
    for name, data in files.items():
        with Image.open(io.BytesIO(data)) as opened:
            opened.thumbnail((side, side), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            opened.save(buffer, "JPEG", quality=90)
        files[name] = buffer.getvalue()
    return files


def write_source(folder: Path, files: dict[str, bytes], options: argparse.Namespace) -> str:
    """Write the source: the files again and again, each time under other names, in tars or loose."""
    folder.mkdir()
    names = list(files)
    members = [(f"{number:06d}-{names[number % len(names)]}", names[number % len(names)]) for number in range(options.images)]
    for start in range(0, len(members), options.shard_images):
        if options.source == "folder":
            for name, sample in members[start : start + options.shard_images]:
                (folder / name).write_bytes(files[sample])
            continue
        with tarfile.open(folder / f"{start:06d}.tar", "w") as tar:
            for name, sample in members[start : start + options.shard_images]:
                member = tarfile.TarInfo(name)
                member.size = len(files[sample])
                tar.addfile(member, io.BytesIO(files[sample]))
    return str(folder)


def measure(options: argparse.Namespace, source: str, base: str, files: list[bytes]) -> dict[str, Verb]:
    """Run jobs and passes of the bare engine in turn."""
    settings = Settings(
        target=TargetSize.parse(scale=options.scale),
        tier=options.tier,
        verify=options.verify,
        lr_codec=options.lr_codec,
        max_ratio=None,
    )
    weights = options.weights.read_bytes() if options.weights else shipped()
    with ThreadPoolExecutor(1) as thread:
        engine = thread.submit(Engine, weights, choose_device(options.device)).result()
    bare = {name: calls(name, engine, settings, files) for name in ("rescale", "restore")}
    verbs = {name: Verb() for name in bare if options.only in (None, name)}
    for passing in bare.values():
        passes(passing)  # a warm-up
    for turn in range(options.repeat):
        archive = f"{base}/archive-{turn}"
        for name in bare:
            if name == "restore" and name not in verbs:
                continue  # a restore needs the archive, but not the other way round
            if name in verbs:
                verbs[name].bare += passes(bare[name])
            if name == "rescale":
                run, pixels = rescale(options, settings, weights, source, archive)
            else:
                run, pixels = restore(options, archive, f"{base}/restored-{turn}")
            if name in verbs:
                verbs[name].runs.append(run)
                verbs[name].pixels = pixels
    return verbs


def codecs(options: argparse.Namespace) -> dict[str, Any]:
    """Print and return a core's seconds per MPix of source images, medians over the samples, for all but the network."""
    found: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        for _ in range(options.repeat):
            begun = time.thread_time()
            result = work()
            found.setdefault(name, []).append((time.thread_time() - begun) / mpix)
        return result

    for data in samples(options.side).values():
        mpix = (decoding.pixel_count(data) or 0) / 1e6
        picture = timed("decode JPEG", lambda data=data: decoding.decode(data, pixel_limit=10**9))
        size = size_of(picture.pixels)
        lr_size = TargetSize.parse(scale=options.scale).resolve(size)
        lr = resize(picture.pixels, lr_size)
        for codec in (LrCodec.WEBP, LrCodec.JXL, LrCodec.PNG):
            timed(f"LR as {codec}", lambda lr=lr, c=codec: lr_codec.encode_lr(lr, codec=c, grey=False, alpha=None, icc=None))
        clean, _ = timed("clean LR as AVIF", lambda lr=lr: lr_codec.encode_clean_lr(lr, alpha=None, icc=None))
        timed("decode clean LR", lambda clean=clean: lr_codec.decode_lr(clean))
        for form in ("jpeg", "png"):
            timed(f"restored as {form}", lambda picture=picture, form=form: writing.encode(picture, format=form, quality=95))
        timed("measure", lambda picture=picture: measure_quality(picture.pixels, picture.pixels[::-1]))
    row = {name: round(median(seconds), 4) for name, seconds in found.items()}
    print(json.dumps(row), flush=True)
    return row


def calls(name: str, engine: Engine, settings: Settings, files: list[bytes]) -> Iterator[float]:
    """Yield MPix/s of one pass of the bare engine after the other, over all files."""
    pictures = [decoding.decode(data, pixel_limit=settings.pixel_limit) for data in files]
    inputs: list[tuple[Pixels, Size, Pixels | None]] = []
    for picture in pictures:
        size = size_of(picture.pixels)
        lr_size, lr = settings.target.resolve(size), None
        if settings.tier.keeps_latent:
            lr = clean_draft(picture, lr_size, engine.span(size, lr_size), settings.lr_codec).lr
        elif name == "restore":
            lr = engine.downscale(picture.pixels, lr_size)
        inputs.append((picture.pixels, lr_size, lr))
    while True:
        begun = time.perf_counter()
        for pixels, lr_size, lr in inputs:
            if lr is None:
                engine.downscale(pixels, lr_size)
            else:
                engine.restore(lr, size_of(pixels), clean=settings.tier.keeps_latent)
        yield sum(pixels.size // 3 for pixels, _, _ in inputs) / 1e6 / (time.perf_counter() - begun)


def passes(calls: Iterator[float]) -> list[float]:
    """Return MPix/s of passes for some seconds."""
    with ThreadPoolExecutor(1) as thread:  # which goes again: a pool of OpenMP's that stayed would slow the job's own
        return thread.submit(_passes, calls).result()


def _passes(calls: Iterator[float]) -> list[float]:
    begun, found = time.perf_counter(), []
    while not found or time.perf_counter() - begun < BARE_SECONDS:
        found.append(next(calls))
    return found


def rescale(options: argparse.Namespace, settings: Settings, weights: bytes, source: str, archive: str) -> tuple[Run, int]:
    """Rescale the source; return the run, and how many pixels it went through."""
    if options.ray:
        words = ["rescale", source, archive, "--scale", options.scale, "--tier", options.tier, "--verify", options.verify]
        words += ["--lr-codec", options.lr_codec, "--max-ratio", "inf"]
        return by_command([*words, *(["--weights", str(options.weights)] if options.weights else [])], options)
    found = find_source(source)
    begun = Archive.begin(
        open_store(archive, create=True), source=found.store.uri, settings=settings, model=weights, shards=found.shards
    )
    worker = RescaleWork(archive=begun.store.uri, device=options.device, threads=options.threads).start()
    return in_process(worker, begun.shards(), options.window)


def restore(options: argparse.Namespace, archive: str, destination: str) -> tuple[Run, int]:
    """Restore the whole archive; return the run, and how many pixels it went through."""
    if options.ray:
        return by_command(["restore", archive, destination, "--format", options.format], options)
    chosen = RestoreOptions(format=options.format)
    worker = RestoreWork(
        archive=archive, destination=destination, options=chosen, device=options.device, threads=options.threads
    ).start()
    return in_process(worker, named_outputs(worker.archive.shards()), options.window)


def in_process(worker: RescaleWorker | RestoreWorker, shards: Iterator[SourceShard], window: int) -> tuple[Run, int]:
    """Run shards as an actor does, a window at once."""
    before, clock, counted = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), worker.progress.counts()
    with ThreadPoolExecutor(window) as threads:
        reports = list(threads.map(worker.run, shards))
    seconds, after, counts = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_SELF), worker.progress.counts()
    for report in reports:
        if report.failures or report.originals:
            raise SystemExit(f"not as it should be: {report}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    run = Run(
        seconds=seconds,
        stages={stage: counts[stage] for stage in STAGES},
        busy=counts[BUSY] / (counts[UP] - counted[UP]),
        cores=spent / seconds,
        peak=after.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )
    return run, int(counts["pixels"])


def by_command(words: list[str], options: argparse.Namespace) -> tuple[Run, int]:
    """Run one `iarn` command of one actor; its seconds are those of the job, Ray's start and its end left out."""
    command = [sys.executable, "-m", "jobs.cli", *words, "--device", options.device, "--actors", "1", "--json"]
    command += ["--window", str(options.window)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        with watched(process.pid) as peak:
            lines = [json.loads(line) for line in process.stderr if line.startswith("{")]
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with status {process.returncode}: {lines[-3:]}")
    moments = {line["event"]: line["timestamp"] for line in reversed(lines)}
    begun, ended = (datetime.fromisoformat(moments[event]) for event in ("actor up", "end"))
    end = next(line for line in lines if line["event"] == "end")
    run = Run(
        seconds=(ended - begun).total_seconds(), stages=end["seconds_by_stage"], busy=end["busy_share"], peak=peak() or None
    )
    return run, int(end["pixels"])


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], int]]:
    """Give what tells the largest memory, in bytes, that an actor below a process has had."""
    import psutil

    from benchmarks.memory import SAMPLE_SECONDS, actors

    peaks, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            try:
                peaks.extend(actor.memory_info().rss for actor in actors(psutil.Process(pid)))
            except psutil.Error:
                continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: max(peaks)
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
