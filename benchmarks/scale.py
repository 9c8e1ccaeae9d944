"""What a job's own book-keeping costs from a thousand to a million shards: planning, resuming, comparing, driving, inspecting.

    python -m benchmarks.scale plan resume compare drive inspect --shards 1000 100000 1000000
    python -m benchmarks.scale actors --shards 2000 --actors 2 4 8      # real Ray actors on this machine

What is real: `jobs.rescale` from listing to summary, with the pool's driver. What is a stand-in: the store answers after set
times and makes up a source's listing and the commits' bytes from their numbers (it holds a bit for each commit); the engine is
none, a shard takes a set time; and but for `actors`, Ray is a list of due times in this process, so its own cost per call is
not in. `inspect` runs `iarn inspect` over real files in a local folder. Each line is a process of its own; memory is its peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import ray

from benchmarks.support.machine import processor
from benchmarks.support.simulated import (
    ARCHIVE,
    FAILING,
    IMAGES,
    SOURCE,
    SimulatedRay,
    SimulatedStore,
    SourceListing,
    commit_bytes,
    finish_but,
    report,
    shard_id,
)
from jobs import rescale, source_changes
from pipeline.archives import commits
from pipeline.archives.archive import Archive
from pipeline.archives.rollups import RollupWriter
from pipeline.cluster import pool
from pipeline.core.records import Settings, ShardReport, SourceShard
from pipeline.core.target import TargetSize
from pipeline.planning.sources import find_shards
from pipeline.stores.store import LocalStore

ROOT = Path(__file__).resolve().parents[1]
LEFT = 10
"""Shards that a resumed job finds undone."""

SETTINGS = Settings(target=TargetSize(scale=(4, 4)))
LOOSE = ("loose", "compare-loose")
MEASURES = ("plan", "loose", "resume", "lost", "compare", "compare-loose", "drive", "paced", "inspect", "actors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="+", choices=MEASURES, help="`loose`: of single images; `lost`: no rollups")
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--actors", type=int, nargs="+", default=[40])
    parser.add_argument("--rate", type=float, default=200.0, help="shards a second that `paced` is held to")
    parser.add_argument("--list-ms", type=float, default=20.0, help="a page of a listing")
    parser.add_argument("--get-ms", type=float, default=10.0)
    parser.add_argument("--put-ms", type=float, default=20.0)
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(row(options)))
        return
    print(machine(), f"list {options.list_ms:g} ms, get {options.get_ms:g} ms, put {options.put_ms:g} ms", sep="; ", flush=True)
    print("| measure | shards | actors | wall | CPU | CPU per shard | RSS | requests | per shard |", "|---" * 9 + "|", sep="\n")
    for measure in options.measures:
        for shards in options.shards:
            for actors in options.actors:
                print(line(options, measure, shards, actors), flush=True)


def line(options: argparse.Namespace, measure: str, shards: int, actors: int) -> str:
    """Measure in a fresh process; return a line of the table."""
    given = {"--rate": options.rate, "--list-ms": options.list_ms, "--get-ms": options.get_ms, "--put-ms": options.put_ms}
    command = [sys.executable, "-m", "benchmarks.scale", measure, "--row", "--shards", str(shards), "--actors", str(actors)]
    command += [str(part) for pair in given.items() for part in pair]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    asked = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found["requests"].items()))
    each = sum(found["requests"].values()) / shards
    cpu = f"{found['cpu']:.1f} s | {found['cpu'] / found['count'] * 1e6:,.0f} µs"
    return (
        f"| {measure} | {shards:,} | {actors} | {found['wall']:.1f} s | {cpu} | {found['rss']:,.0f} MB | {asked} | {each:.3g} |"
    )


def row(options: argparse.Namespace) -> dict[str, Any]:
    """Measure once, in this process."""
    shards, actors = options.shards[0], options.actors[0]
    latency = {"list": options.list_ms / 1e3, "get": options.get_ms / 1e3, "put": options.put_ms / 1e3}
    measure = options.measures[0]
    if measure == "inspect":
        return inspect(shards)
    if measure == "actors":
        return drive_actors(shards, actors)
    store = SimulatedStore(shards, loose=measure in LOOSE)
    if measure not in ("plan", "loose"):
        begin(store)
    if measure in ("resume", "lost"):
        finish_but(store, shards, LEFT, rollups=measure == "resume")
    with measured(store, latency) as found:
        if measure in ("plan", "loose"):
            assert begin(store).plan.shard_count == shards
        elif measure.startswith("compare"):
            with simulated(store, None):
                assert not source_changes.compare(job(1), Archive.open(store))[1].changes
        else:
            seconds = actors / options.rate if measure == "paced" else 0.0
            with simulated(store, SimulatedRay(actors, seconds, store)):
                assert rescale.rescale(job(actors)) == int(shards >= FAILING)
    return found | {"count": shards, "requests": dict(store.requests)}


def job(actors: int) -> rescale.RescaleJob:
    """Return a job with one shard at a time in each actor, so that rate and actors tell a shard's time."""
    options = pool.PoolOptions(actors=actors, gpus_per_actor=1, window=1)
    return rescale.RescaleJob(source=SOURCE, archive=ARCHIVE, settings=SETTINGS, device="cuda", pool=options, json_lines=True)


def begin(store: SimulatedStore) -> Archive:
    """Plan the source, as a job does that finds no archive."""
    with simulated(store, None):
        return rescale.open_archive(job(1))


@contextmanager
def simulated(store: SimulatedStore, cluster: SimulatedRay | None) -> Iterator[None]:
    """Have jobs find the simulated store, and the pool the simulated Ray."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("jobs.rescale.open_store", return_value=store))
        for user in ("jobs.rescale", "jobs.source_changes"):
            find = mock.patch(f"{user}.find_source", side_effect=lambda _, listing: find_shards(SourceListing(store), listing))
            stack.enter_context(find)
        for name, module in list(sys.modules.items()):
            if cluster is not None and name.startswith("pipeline.") and getattr(module, "ray", None) is ray:
                stack.enter_context(mock.patch.object(module, "ray", cluster))
        yield


@contextmanager
def measured(store: SimulatedStore, latency: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Measure this process; from here on the store takes its time."""
    store.latency, store.requests = latency, Counter()
    found: dict[str, Any] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "rss": peak}


def machine() -> str:
    """Return what this ran on."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    versions = f"Python {platform.python_version()}, Ray {ray.__version__}"
    return f"{os.cpu_count()} CPUs ({processor()}), {versions}, load {load}"


@dataclass
class Counts:
    """Running totals of a stand-in worker."""

    assets: int = 0
    queued: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, float]:
        return {"assets": self.assets}


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Work for real actors: a shard is a pause."""

    seconds: float
    device: str = "cpu"
    halvings: int = 0

    def start(self) -> IdleWorker:
        return IdleWorker(self.seconds)


class IdleWorker:
    """Pauses for each shard, and reports what a rescale would."""

    def __init__(self, seconds: float) -> None:
        self.progress = Counts()
        self._seconds = seconds

    def run(self, shard: SourceShard) -> ShardReport:
        time.sleep(self._seconds)
        self.progress.assets += IMAGES
        return report(int(shard.id[:9]))


def drive_actors(shards: int, actors: int) -> dict[str, Any]:
    """Run shards through real actors that do nothing, a quarter of a CPU each by name; CPU is the driver's."""
    os.environ |= {"RAY_memory_monitor_refresh_ms": "0", "PYTHONPATH": str(ROOT)}
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="error", log_to_driver=False)
    source = find_shards(SourceListing(SimulatedStore(shards))).shards
    options = pool.PoolOptions(actors=actors, cpus_per_actor=0.25)
    begun = [0.0, 0.0]
    for count, _ in enumerate(pool.run(Idle(seconds=0.005), source, options)):
        if count == shards // 10:  # actors are up
            begun = [time.perf_counter(), psutil.Process().cpu_times().user + psutil.Process().cpu_times().system]
    wall = time.perf_counter() - begun[0]
    times = psutil.Process().cpu_times()
    cpu = times.user + times.system - begun[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ray.shutdown()
    return {"wall": wall, "cpu": cpu, "rss": peak, "count": shards - shards // 10, "requests": {}}


def inspect(shards: int) -> dict[str, Any]:
    """Run `iarn inspect` over an archive of as many real commits in a local folder."""
    with tempfile.TemporaryDirectory(prefix="iarn-scale-") as name:
        store = LocalStore(Path(name))
        source = find_shards(SourceListing(SimulatedStore(shards))).shards
        archive = Archive.begin(store, source=SOURCE, settings=SETTINGS, model=b"weights", shards=source)
        with RollupWriter(store, archive.digest) as rollups:
            for index in range(shards):
                path = Path(name, commits.PREFIX, commits.group_of(shard_id(index)), f"{shard_id(index)}.json")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(commit_bytes(index, archive.digest))
                rollups.add(report(index))
        command = [sys.executable, "-c", "from jobs.cli import main; main()", "inspect", name, "--json"]
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
        wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert json.loads(done.stdout)["entries"] == IMAGES * shards
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"wall": wall, "cpu": cpu, "rss": after.ru_maxrss / 1024, "count": shards, "requests": {}}


if __name__ == "__main__":
    main()
