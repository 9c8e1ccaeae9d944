"""`iarn rescale`: plan a source, or resume an archive, and run what is left of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from iarn import weights
from jobs.console import Reporter, failure_lines
from pipeline import pool
from pipeline.archive import Archive
from pipeline.commits import commits
from pipeline.engine import check_weights
from pipeline.errors import InvalidWeights, NotAnArchive, PlanConflict
from pipeline.records import Failure, Plan, Settings
from pipeline.rescale import RescaleWork
from pipeline.sources import find_source
from pipeline.store import open_store

FAILURES = "failures.jsonl"


@dataclass(frozen=True, kw_only=True)
class RescaleJob:
    """What one ``iarn rescale`` was asked for; ``weights`` None takes those that ship with the package."""

    source: str
    archive: str
    settings: Settings
    weights: Path | None = None
    device: str = "auto"
    threads: int = 2
    pool: pool.PoolOptions = field(default_factory=pool.PoolOptions)
    json_lines: bool = False


def rescale(job: RescaleJob) -> int:
    """Rescale a source into an archive, or finish one that was begun; return the exit status 0 or 1.

    Raises UsageError, StoreError, EngineError or PoolError where the job itself cannot run.
    """
    archive = open_archive(job)
    reporter = Reporter("rescale", len(archive.plan.shards), json_lines=job.json_lines)
    done = set()
    for commit in commits(archive.store, archive.digest):
        done.add(commit.shard_id)
        reporter.resume(commit.report)
    left = (shard for shard in archive.plan.shards if shard.id not in done)
    work = RescaleWork(archive=archive.store.uri, device=job.device, threads=job.threads)
    with reporter.running():
        if len(done) < len(archive.plan.shards):
            for result in pool.run(work, left, job.pool, reporter.snapshot):
                reporter.done(result)
    return finish(reporter, archive, reporter.totals.failures)


def open_archive(job: RescaleJob) -> Archive:
    """Return the archive of a job: the one that is there, if it has the job's settings, or a new one with its plan."""
    model = read_weights(job.weights)
    store = open_store(job.archive, create=True)
    digest = hashlib.sha256(model).hexdigest()
    try:
        archive = Archive.open(store)
    except NotAnArchive:
        found = find_source(job.source)
        plan = Plan(source=found.store.uri, settings=job.settings, model=digest, shards=found.shards)
        return Archive.begin(store, plan, model)
    plan = archive.plan
    differences = list(plan.settings.differences(job.settings))
    if not _same_source(plan, job.source):
        differences.append(f"source {plan.source}, not {job.source}")
    if plan.model != digest:
        differences.append(f"weights {plan.model[:16]}…, not {digest[:16]}…")
    if differences:
        raise PlanConflict(store.uri, tuple(differences))
    return archive


def finish(reporter: Reporter, archive: Archive, failures: Iterable[Failure]) -> int:
    """Print the summary, write the list of failures into the archive, and return the exit status."""
    listed = list(failures)
    if listed:
        archive.store.replace(FAILURES, failure_lines(listed))
        reporter.summary(archive=archive.store.uri, failures_listed_in=f"{archive.store.uri}/{FAILURES}")
        return 1
    reporter.summary(archive=archive.store.uri)
    return 0


def _same_source(plan: Plan, uri: str) -> bool:
    """Whether ``uri`` is what was planned, told without listing it again; a single file has its folder as source."""
    asked = open_store(uri).uri
    single = [obj.key for shard in plan.shards for obj in shard.objects] if len(plan.shards) == 1 else []
    return asked == plan.source or any(asked == f"{plan.source}/{key}" for key in single)


def read_weights(path: Path | None) -> bytes:
    """Return the bytes of a weights file, the shipped one for None; raises InvalidWeights."""
    if path is None:
        return weights.shipped()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidWeights(str(path), error.strerror or "it cannot be read") from None
    check_weights(data, str(path))
    return data
