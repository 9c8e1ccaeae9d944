"""`iarn restore`: write an archive's images, or its LRs, to files, tars or Parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from jobs.console import Reporter, list_failures
from jobs.reports.report import write_report
from jobs.requests import RestoreJob
from jobs.rescale import resume
from pipeline.archives.archive import Archive
from pipeline.archives.commits import ShardSet
from pipeline.archives.entries import holder_test
from pipeline.archives.errors import NothingSelected, NothingWritten
from pipeline.archives.rollups import RollupWriter, survey
from pipeline.cluster import pool
from pipeline.core.errors import InvalidOption
from pipeline.core.options import OutputKind, RestoreOptions
from pipeline.core.records import ShardReport, SourceShard
from pipeline.outputs.changed_names import list_changed_names
from pipeline.outputs.outputs import loose_folders, named_outputs, restore_state
from pipeline.outputs.twins import twins
from pipeline.stores.store import open_store
from pipeline.works import RestoreWork


def restore(job: RestoreJob) -> int:
    """Restore a selection of an archive; return the exit status 0 or 1.

    Raises UsageError, StoreError, ArchiveError, EngineError or PoolError where the job itself cannot run.
    """
    archive = Archive.open(open_store(job.archive, access=job.archive_access))
    destination = open_store(job.destination, create=True)
    if destination.uri == archive.store.uri:
        raise InvalidOption("destination", job.destination, "it is the archive itself; give a folder of its own.")
    digest = job.options.digest(archive.digest)
    state = restore_state(destination.uri, digest)
    count = archive.plan.shard_count
    committed = archive.done()
    wanted = _count_wanted(archive, committed, job.options)
    if not committed:
        raise NothingWritten(archive.store.uri)
    reporter = Reporter("restore", wanted, json_lines=job.json_lines)
    work = RestoreWork(
        archive=archive.store.uri,
        archive_access=job.archive_access,
        destination=destination.uri,
        options=job.options,
        device=job.device,
        threads=job.threads,
        twins=twins(archive.shards, archive.added_shards()) if job.options.output is OutputKind.FILES else {},
    )
    with RollupWriter(state, digest) as rollups:
        finished = resume(reporter, rollups, survey(state, digest, count))
        folders = loose_folders(archive.shards()) if job.options.output is OutputKind.FILES else {}
        named = named_outputs(archive.shards(), archive.begun_shards if archive.additions else None, folders)
        there = (shard for shard in named if shard.id in committed and shard.id not in finished)
        left = filter(_selects(job.options), there)
        with reporter.running():
            if len(finished) < wanted:
                for result in pool.run(work, left, job.pool, reporter.snapshot, reporter.notice):
                    reporter.done(result)
                    if isinstance(result, ShardReport) and not result.failures:  # one with failures is not committed
                        rollups.add(result)
    totals = reporter.totals
    if not totals.entries and not totals.failed:
        raise NothingSelected(archive.store.uri, _selection(job.options))
    absent = count - len(committed)
    missing: dict[str, int | str] = {"shards_not_in_archive": absent} if absent else {}
    if finished:
        missing["shards_written_by_an_earlier_run"] = f"{len(finished)}; without {state.uri} they would be written again"
    if unfound := _keys_not_found(archive, job.options):
        missing["keys_not_found"] = f"{len(unfound)}: {', '.join(unfound[:10])}{', …' if len(unfound) > 10 else ''}"
    changed, listed_in = list_changed_names(state, destination)
    if changed:
        missing |= {"names_changed": changed, "names_listed_in": listed_in}
    reporter.summary(destination=destination.uri, **list_failures(state, totals), **missing)
    settings = {"archive": archive.store.uri, **asdict(job.options), "keys": job.options.keys and len(job.options.keys)}
    settings["shards"] = job.options.shards and sorted(job.options.shards)
    write_report(state, reporter, digest=digest, settings=settings, shards=wanted, names_changed=changed)
    return 1 if totals.failed or unfound else 0


def _count_wanted(archive: Archive, committed: ShardSet, options: RestoreOptions) -> int:
    """Return how many shards there are to restore; raises InvalidOption where one that was named is not in the plan."""
    if options.shards is None and options.keys is None:
        return len(committed)
    unknown, count, selects = set(options.shards or ()), 0, _selects(options)
    for shard in archive.shards():
        unknown.discard(shard.id)
        count += shard.id in committed and selects(shard)
    if unknown:
        advice = f"`iarn inspect {archive.store.uri} --shards` lists the shards."
        raise InvalidOption("--shard", ", ".join(sorted(unknown)), advice)
    return count


def _keys_not_found(archive: Archive, options: RestoreOptions) -> list[str]:
    """Return the keys asked for that no entry has; of how many were restored that cannot be told, for tars share keys."""
    if options.keys is None:
        return []
    return sorted(options.keys - {entry.key for _, entry in archive.find(options.keys, parts=())})


def _selects(options: RestoreOptions) -> Callable[[SourceShard], bool]:
    """Return a test of whether a shard can hold what is selected."""
    may_hold = holder_test(options.keys)
    return lambda shard: (options.shards is None or shard.id in options.shards) and may_hold(shard)


def _selection(options: RestoreOptions) -> str:
    parts = [f"the glob {options.pattern}"] if options.pattern is not None else []
    parts += [f"{len(options.keys)} keys"] if options.keys is not None else []
    parts += [f"shards {', '.join(sorted(options.shards))}"] if options.shards is not None else []
    return " and ".join(parts) or "anything"
