"""`iarn rescale`: plan a source, or resume an archive, and run what is left of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iarn import pretrained
from jobs.console import Reporter, list_failures
from jobs.reports.report import write_report
from jobs.requests import RescaleJob
from jobs.source_changes import Compared, compare_as_asked, key_below, listing_of
from pipeline.archives.archive import Archive
from pipeline.archives.commits import ShardSet, first_begun
from pipeline.archives.errors import NotAnArchive
from pipeline.archives.rollups import RollupWriter, Survey, survey
from pipeline.cluster import pool
from pipeline.core.errors import InvalidOption, InvalidWeights, NotFound, PipelineError, PlanConflict
from pipeline.core.records import ShardReport, SourceShard
from pipeline.planning.left_out import LEFT_OUT, left_out_of
from pipeline.planning.object_list import ObjectList
from pipeline.planning.sources import find_source
from pipeline.stores.spool import spool
from pipeline.stores.store import open_store
from pipeline.works import RescaleWork

MOST_EXTENSIONS = 50
"""Extensions of files left out that a summary counts."""


def rescale(job: RescaleJob) -> int:
    """Rescale a source into an archive, or finish one that was begun; return the exit status 0 or 1.

    Raises UsageError, StoreError, EngineError or PoolError where the job itself cannot run.
    """
    archive, compared = standing_archive(job), None
    if archive is None:
        archive = begin_archive(job)
    else:
        archive, compared = compare_as_asked(job, archive)
    count = archive.plan.shard_count
    reporter = Reporter("rescale", count, json_lines=job.json_lines)
    work = RescaleWork(archive=archive.store.uri, source_access=job.source_access, device=job.device, threads=job.threads)
    with RollupWriter(archive.store, archive.digest) as rollups:
        done = resume(reporter, rollups, survey(archive.store, archive.digest, count))
        left = (shard for shard in archive.shards() if shard.id not in done)
        with reporter.running():
            if len(done) < count:
                for result in pool.run(work, left, job.pool, reporter.snapshot, reporter.notice):
                    reporter.done(result)
                    if isinstance(result, ShardReport):
                        rollups.add(result)
    return finish(reporter, archive, compared)


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
    return standing_archive(job) or begin_archive(job)


def standing_archive(job: RescaleJob) -> Archive | None:
    """Return the archive that is there, None where there is none; raises PlanConflict where it has not the job's settings."""
    model = read_weights(job.weights)
    digest = hashlib.sha256(model).hexdigest()
    try:
        archive = Archive.open(open_store(job.archive))
    except (NotAnArchive, NotFound):
        return None
    plan = archive.plan
    differences = list(plan.settings.differences(job.settings))
    if not _same_source(archive, job):
        differences.append(f"source {plan.source}, not {job.source}")
    if plan.model != digest:
        differences.append(f"weights {plan.model[:16]}…, not {digest[:16]}…")
    if not differences:
        return archive
    empty = not any(next(iter(archive.store.list(part)), None) for part in ("commits/", "shards/"))
    if empty and job.anew:
        archive.give_up()
        return None
    advice = "Nothing is in it yet: --anew begins it with these." if empty else ""
    raise PlanConflict(archive.store.uri, tuple(differences), advice)


def begin_archive(job: RescaleJob) -> Archive:
    """Plan the source into a new archive, with a list of what is no part of the plan."""
    settings, model = job.settings, read_weights(job.weights)
    with (
        spool() as directory,
        ObjectList(directory / LEFT_OUT) as left_out,
        listing_of(job, lambda info, why: left_out.append(info, why=why)) as listing,
    ):
        found = find_source(job.source, listing)
        store = open_store(job.archive, create=True)  # not made before there is something to put into it
        if store.uri == found.store.uri:
            raise InvalidOption("archive", job.archive, "it is the folder of the source; give one of its own.")

        def shards() -> Iterator[SourceShard]:
            yield from found.shards
            left_out.put(store, LEFT_OUT)  # before the plan, so that where there is one the list is whole

        return Archive.begin(store, source=found.store.uri, settings=settings, model=model, shards=shards())


def finish(reporter: Reporter, archive: Archive, compared: Compared | None = None) -> int:
    """Print the summary, write the list of failures into the archive, and return the exit status.

    Of an archive that stood before the job it is told which plan it is of, and what comparing it with its source has found.
    """
    plan, store = archive.plan, archive.store
    more: dict[str, Any] = {"archive": store.uri}
    told: dict[str, Any] = {"plan": _described(archive)}
    if compared is not None:
        more |= {"plan": _sentence(told["plan"]), **compared.summary()}
    told["source"] = None if compared is None else asdict(compared)
    left_out = left_out_of(store)
    by_extension = dict(left_out.most_common(MOST_EXTENSIONS))
    if left_out:
        more |= {"left_out": left_out.total(), "left_out_by_extension": by_extension}
        more["left_out_listed_in"] = f"{store.uri}/{LEFT_OUT}"
    reporter.summary(**more, **list_failures(store, reporter.totals))
    settings = {"source": plan.source, "model": plan.model, **asdict(plan.settings)}
    told["left_out"] = {"files": left_out.total(), "by_extension": by_extension}
    write_report(store, reporter, digest=archive.digest, settings=settings, shards=plan.shard_count, **told)
    return 1 if reporter.totals.failed or (compared is not None and compared.changes) else 0


def _described(archive: Archive) -> dict[str, Any]:
    """Return what a plan is: when its first shard was begun, from what source, how many shards, and how many were added."""
    begun = None
    with suppress(PipelineError):  # told for people; the job is as it is without
        begun = first_begun(archive.store, archive.digest)
    return {
        "begun": None if begun is None else datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "source": archive.plan.source,
        "shards": archive.plan.shard_count,
        "additions": len(archive.additions),
        "shards_added": archive.plan.shard_count - archive.begun_shards,
    }


def _sentence(plan: Mapping[str, Any]) -> str:
    begun = f"begun {plan['begun']} " if plan["begun"] else ""
    added = f", {plan['shards_added']} of them added since" if plan["additions"] else ""
    return f"{begun}from {plan['source']}: {plan['shards']} shards{added}"


def _same_source(archive: Archive, job: RescaleJob) -> bool:
    """Whether a job's source is what was planned, or a file of it to be added; a single file has its folder as source."""
    source = archive.plan.source
    key = key_below(source, job.source)
    if not key or (job.add and "/" not in key and open_store(source).exists(key)):
        return key is not None
    return archive.begun_shards == 1 and any(key == each.key for shard in archive.shards() for each in shard.objects)


def read_weights(path: Path | None) -> bytes:
    """Return the bytes of a weights file, the shipped one for None; raises InvalidWeights."""
    if path is None:
        return pretrained.shipped()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidWeights(str(path), error.strerror or "it cannot be read") from None
    from pipeline.engines.engine import check_weights  # loads PyTorch, which a driver else has no need of

    check_weights(data, str(path))
    return data
