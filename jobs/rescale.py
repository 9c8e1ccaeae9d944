"""`iarn rescale`: plan a source, or resume an archive, and run what is left of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iarn import weights
from jobs.console import Reporter, list_failures
from jobs.reports.report import write_report
from jobs.requests import RescaleJob
from pipeline.archives.archive import PLAN_KEY, Archive
from pipeline.archives.commits import ShardSet
from pipeline.archives.errors import NotAnArchive
from pipeline.archives.rollups import RollupWriter, Survey, survey
from pipeline.cluster import pool
from pipeline.core.errors import InvalidOption, InvalidWeights, NotFound, PlanConflict
from pipeline.core.records import Settings, ShardReport, SourceShard
from pipeline.core.spool import spool
from pipeline.engines.engine import check_weights, largest_scale
from pipeline.planning.left_out import LEFT_OUT, LeftOutList, left_out_of
from pipeline.planning.sources import Listing, find_source
from pipeline.rescale import RescaleWork
from pipeline.stores.store import open_store, split_uri

MOST_EXTENSIONS = 50
"""Extensions of files left out that a summary counts."""


def rescale(job: RescaleJob) -> int:
    """Rescale a source into an archive, or finish one that was begun; return the exit status 0 or 1.

    Raises UsageError, StoreError, EngineError or PoolError where the job itself cannot run.
    """
    archive = open_archive(job)
    count = archive.plan.shard_count
    reporter = Reporter("rescale", count, json_lines=job.json_lines)
    work = RescaleWork(archive=archive.store.uri, device=job.device, threads=job.threads)
    with RollupWriter(archive.store, archive.digest) as rollups:
        done = resume(reporter, rollups, survey(archive.store, archive.digest, count))
        left = (shard for shard in archive.shards() if shard.id not in done)
        with reporter.running():
            if len(done) < count:
                for result in pool.run(work, left, job.pool, reporter.snapshot, reporter.notice):
                    reporter.done(result)
                    if isinstance(result, ShardReport):
                        rollups.add(result)
    return finish(reporter, archive)


def resume(reporter: Reporter, rollups: RollupWriter, surveyed: Iterable[Survey]) -> ShardSet:
    """Count what earlier runs have done, and have it rolled up where it was not; return which shards it is."""
    done = ShardSet()
    for group in surveyed:
        done.add_group(group.done.group, group.done.members)
        reporter.resume(group.done.report, group.done.shards)
        rollups.add_read(group.read)
    return done


def open_archive(job: RescaleJob) -> Archive:
    """Return the archive of a job: the one that is there, if it has the job's settings, or a new one with its plan."""
    model = read_weights(job.weights)
    digest = hashlib.sha256(model).hexdigest()
    try:
        archive = Archive.open(open_store(job.archive))
    except (NotAnArchive, NotFound):  # nothing is made there before there is something to put into it
        return _begin(job, model)
    plan = archive.plan
    differences = list(plan.settings.differences(job.settings))
    if not _same_source(archive, job.source):
        differences.append(f"source {plan.source}, not {job.source}")
    if plan.model != digest:
        differences.append(f"weights {plan.model[:16]}…, not {digest[:16]}…")
    if not differences:
        return archive
    empty = not any(next(iter(archive.store.list(part)), None) for part in ("commits/", "shards/"))
    if empty and job.anew:
        archive.store.delete(PLAN_KEY)
        return _begin(job, model)
    advice = "Nothing is in it yet: --anew begins it with these." if empty else ""
    raise PlanConflict(archive.store.uri, tuple(differences), advice)


def _begin(job: RescaleJob, model: bytes) -> Archive:
    """Plan the source into a new archive, with a list of what is no part of the plan."""
    _check_scale(job.settings, model)
    with spool() as directory, LeftOutList(directory / LEFT_OUT) as left_out:
        settings = job.settings
        listing = Listing(
            sniff=job.sniff, image_column=settings.image_column, all_files=settings.all_files, left_out=left_out.add
        )
        found = find_source(job.source, listing)
        store = open_store(job.archive, create=True)
        if store.uri == found.store.uri:
            raise InvalidOption("archive", job.archive, "it is the folder of the source; give one of its own.")

        def shards() -> Iterator[SourceShard]:
            yield from found.shards
            left_out.put(store)  # before the plan, so that where there is one the list is whole

        return Archive.begin(store, source=found.store.uri, settings=job.settings, model=model, shards=shards())


def _check_scale(settings: Settings, model: bytes) -> None:
    """Refuse a scale that the network reaches for no image, rather than keep every one as an original."""
    wanted, limit = settings.target.scale, largest_scale(model)
    if wanted is not None and max(wanted) > limit:
        text = "x".join(f"{factor:g}" for factor in dict.fromkeys(wanted))
        raise InvalidOption("--scale", text, f"{limit} is the largest scale per axis of this network.")


def finish(reporter: Reporter, archive: Archive) -> int:
    """Print the summary, write the list of failures into the archive, and return the exit status."""
    more: dict[str, Any] = {"archive": archive.store.uri}
    left_out = left_out_of(archive.store)
    by_extension = dict(left_out.most_common(MOST_EXTENSIONS))
    if left_out:
        more |= {"left_out": left_out.total(), "left_out_by_extension": by_extension}
        more["left_out_listed_in"] = f"{archive.store.uri}/{LEFT_OUT}"
    reporter.summary(**more, **list_failures(archive.store, reporter.totals))
    plan = archive.plan
    settings = {"source": plan.source, "model": plan.model, **asdict(plan.settings)}
    told = {"left_out": {"files": left_out.total(), "by_extension": by_extension}}
    write_report(archive.store, reporter, digest=archive.digest, settings=settings, shards=plan.shard_count, **told)
    return 1 if reporter.totals.failed else 0


def _same_source(archive: Archive, uri: str) -> bool:
    """Whether ``uri`` is what was planned, told without listing it again; a single file has its folder as source."""
    try:
        parent, key = split_uri(uri)
        asked = f"{parent.rstrip('/')}/{key}"
    except InvalidOption:  # a bucket or the root folder
        asked = open_store(uri).uri
    source = archive.plan.source
    if asked == source or archive.plan.shard_count > 1:
        return asked == source
    return any(asked == f"{source}/{each.key}" for shard in archive.shards() for each in shard.objects)


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
