"""Peak memory: of a job over ever more images, of one very large image, and of the network alone.

    python -m benchmarks.memory jobs --images 1000 10000     # driver and actor of whole jobs, tiny images, a tiny network
    python -m benchmarks.memory large --side 10000           # one process, one image, the shipped network
    python -m benchmarks.memory engine --points 2048 4096    # one tile of these sizes, at x1.5, 2, 3 and 4

Prints resident memory (RSS) peaks in MB, sampled five times a second, and the machine.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.support.machine import described
from iarn.network import NetworkConfig, Rescaler
from iarn.pretrained import shipped
from iarn.weights import pack
from pipeline.engines.engine import Engine
from pipeline.engines.tiles import TILE_POINTS

SAMPLE_SECONDS = 0.2

Figures = tuple[int, int, float]
"""Memory at rest and at most, in bytes, and the seconds it took."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    jobs = commands.add_parser("jobs")
    jobs.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    large = commands.add_parser("large")
    large.add_argument("--side", type=int, default=10_000)
    large.add_argument("--scale", default="2")
    large.add_argument("--tiers", nargs="+", default=["balanced"], help="floor is one of 40 dB")
    engine = commands.add_parser("engine")
    engine.add_argument("--points", type=int, nargs="+", default=[TILE_POINTS])
    engine.add_argument("--scales", type=float, nargs="+", default=[1.5, 2, 3, 4])
    arguments = parser.parse_args()
    print(described(platform.machine()))
    if arguments.command == "jobs":
        for count in arguments.images:
            peaks, seconds = job(count)
            parts = ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in sorted(peaks.items()))
            print(f"{count} images: {parts}; {seconds:.0f} s", flush=True)
    elif arguments.command == "large":
        measure_large(arguments.side, arguments.scale, arguments.tiers)
    else:
        for points, scale in product(arguments.points, arguments.scales):
            measure_engine(points, scale)


def job(count: int) -> tuple[dict[str, int], float]:
    """Rescale ``count`` tiny images by the command line; return the peak RSS of the driver and of its actors."""
    with tempfile.TemporaryDirectory() as folder:
        source, weights = Path(folder, "source"), Path(folder, "tiny.safetensors")
        weights.write_bytes(pack(Rescaler(NetworkConfig(blocks=(1, 1), width=8)), {}))
        draw = np.random.default_rng(0)
        for index in range(count):
            path = source / f"{index // 1000:03d}" / f"{index:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
            path.write_bytes(buffer.getvalue())
        command = [sys.executable, "-m", "jobs.cli", "rescale", str(source), f"{folder}/archive", "--scale", "2"]
        begun = time.monotonic()
        with subprocess.Popen([*command, "--weights", str(weights)], stderr=subprocess.DEVNULL) as process:
            peaks: dict[str, int] = {}
            driver = psutil.Process(process.pid)
            while process.poll() is None:
                for member, name in [(driver, "driver"), *((child, "actor") for child in actors(driver))]:
                    try:
                        peaks[name] = max(peaks.get(name, 0), member.memory_info().rss)
                    except psutil.Error:
                        continue
                time.sleep(SAMPLE_SECONDS)
        if process.returncode:
            raise SystemExit(f"the job ended with status {process.returncode}")
        return peaks, time.monotonic() - begun


def actors(driver: psutil.Process) -> list[psutil.Process]:
    """Return the Ray workers below ``driver`` that run our actor."""
    found = []
    for child in driver.children(recursive=True):
        try:
            if "_Actor" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def measure_large(side: int, scale: str, tiers: Sequence[str]) -> None:
    """Rescale and restore one image of ``side`` squared pixels in each tier, each way in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "source").mkdir()
        in_a_process(_draw, folder, side)
        for tier, step in product(tiers, (_rescale, _restore)):
            baseline, peak, seconds = in_a_process(step, folder, scale, tier)
            own = side * side * 3
            beyond = f"{(peak - own) / 1e6:.0f} MB beyond the image's own {own / 1e6:.0f} MB"
            told = f"{peak / 1e6:.0f} MB, {beyond} (idle {baseline / 1e6:.0f} MB); {seconds:.0f} s"
            print(f"{tier}, {step.__name__[1:]}: {told}", flush=True)


def measure_engine(points: int, scale: float) -> None:
    """Downscale and restore one image that is just a tile of ``points``, each in a process of its own."""
    peaks = []
    for way in ("downscale", "restore"):
        baseline, peak, _ = in_a_process(_engine, way, points, scale)
        peaks.append(f"{way} {(peak - baseline) / 1e6:.0f} MB")
    print(f"x{scale:g}, a tile of {points} points: {', '.join(peaks)} beyond the process at rest and its pixels", flush=True)


def in_a_process(step: Callable[..., Figures], *arguments: Any) -> Figures:
    """Return what ``step`` returns, called in a new process of its own; raises what it raises."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(step, *arguments).result()


class _Peak:
    """The highest RSS of this process while the block runs."""

    def __enter__(self) -> _Peak:
        self.process = psutil.Process()
        self.baseline = self.peak = self.process.memory_info().rss
        self.begun, self._ended = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.seconds = time.monotonic() - self.begun


def _engine(way: str, points: int, scale: float) -> Figures:
    lr = points >> max(1, math.ceil(math.log2(scale)))
    image = np.full((int(lr * scale), int(lr * scale), 3), 99, np.uint8)
    small = np.full((lr, lr, 3), 99, np.uint8)
    engine = Engine(shipped(), torch.device("cpu"), tile_points=points)
    engine.restore(engine.downscale(image[:64, :64], (32, 32)), (64, 64))
    with _Peak() as peak:
        _ = engine.downscale(image, (lr, lr)) if way == "downscale" else engine.restore(small, image.shape[:2])
    return peak.baseline, peak.peak, peak.seconds


def _draw(folder: str, side: int) -> Figures:
    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
    small.resize((side, side), Image.Resampling.BICUBIC).save(f"{folder}/source/large.jpg", quality=90)
    return 0, 0, 0.0


def _rescale(folder: str, scale: str, tier: str) -> Figures:
    from jobs.requests import RescaleJob
    from jobs.rescale import open_archive
    from pipeline.core.records import Settings, Tier
    from pipeline.core.target import TargetSize
    from pipeline.works import RescaleWork

    shipped()
    target, floor = TargetSize.parse(scale=scale), 40.0 if tier == Tier.FLOOR else None
    settings = Settings(target=target, tier=Tier(tier), floor=floor, max_ratio=None)
    archive = open_archive(RescaleJob(source=f"{folder}/source", archive=f"{folder}/archive-{tier}", settings=settings))
    worker = RescaleWork(archive=archive.store.uri).start()
    with _Peak() as peak:
        for shard in archive.shards():
            report = worker.run(shard)
            if report.failures or report.originals:
                raise SystemExit(f"not rescaled: {report}")
    return peak.baseline, peak.peak, peak.seconds


def _restore(folder: str, scale: str, tier: str) -> Figures:  # noqa: ARG001
    from pipeline.core.options import RestoreOptions
    from pipeline.stores.store import open_store
    from pipeline.works import RestoreWork

    destination = open_store(f"{folder}/restored-{tier}", create=True).uri
    worker = RestoreWork(archive=f"{folder}/archive-{tier}", destination=destination, options=RestoreOptions()).start()
    with _Peak() as peak:
        for shard in worker.archive.shards():
            report = worker.run(shard)
            if report.failures:
                raise SystemExit(f"not restored: {report}")
    return peak.baseline, peak.peak, peak.seconds


if __name__ == "__main__":
    main()
