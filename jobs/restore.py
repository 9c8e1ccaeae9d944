"""`iarn restore`: write an archive's images, or its LRs, to files, tars or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jobs.console import Reporter, list_failures
from jobs.report import write_report
from pipeline import pool
from pipeline.archive import Archive
from pipeline.commits import commits, done
from pipeline.errors import InvalidOption, NothingSelected
from pipeline.names import safe_key
from pipeline.records import ShardKind, SourceShard
from pipeline.restore import RestoreOptions, RestoreWork, restore_state
from pipeline.store import open_store


@dataclass(frozen=True, kw_only=True)
class RestoreJob:
    """What one ``iarn restore`` was asked for."""

    archive: str
    destination: str
    options: RestoreOptions
    device: str = "auto"
    threads: int = 2
    pool: pool.PoolOptions = field(default_factory=pool.PoolOptions)
    json_lines: bool = False


def restore(job: RestoreJob) -> int:
    """Restore a selection of an archive; return the exit status 0 or 1.

    Raises UsageError, StoreError, ArchiveError, EngineError or PoolError where the job itself cannot run.
    """
    archive = Archive.open(open_store(job.archive))
    destination = open_store(job.destination, create=True)
    digest = job.options.digest(archive.digest)
    state = restore_state(destination.uri, digest)
    committed = done(archive.store)
    chosen = [shard for shard in archive.plan.shards if shard.id in committed and _may_hold(shard, job.options)]
    unknown = (job.options.shards or frozenset()) - {shard.id for shard in archive.plan.shards}
    if unknown:
        raise InvalidOption("--shard", ", ".join(sorted(unknown)), f"`iarn inspect {job.archive} --shards` lists the shards.")
    reporter = Reporter("restore", len(chosen), json_lines=job.json_lines)
    finished = set()
    for commit in commits(state, digest):
        finished.add(commit.shard_id)
        reporter.resume(commit.report)
    left: Iterator[SourceShard] = (shard for shard in chosen if shard.id not in finished)
    work = RestoreWork(
        archive=archive.store.uri, destination=destination.uri, options=job.options, device=job.device, threads=job.threads
    )
    with reporter.running():
        if any(shard.id not in finished for shard in chosen):
            for result in pool.run(work, left, job.pool, reporter.snapshot, reporter.notice):
                reporter.done(result)
    totals = reporter.totals
    if not totals.entries and not totals.failures:
        raise NothingSelected(archive.store.uri, _selection(job.options))
    absent = len(archive.plan.shards) - len(committed)
    missing: dict[str, int | str] = {"shards_not_in_archive": absent} if absent else {}
    if finished:
        missing["shards_written_by_an_earlier_run"] = f"{len(finished)}; without {state.uri} they would be written again"
    if unfound := _keys_not_found(archive, job.options, totals.entries):
        missing["keys_not_found"] = f"{len(unfound)}: {', '.join(unfound[:10])}{', …' if len(unfound) > 10 else ''}"
    reporter.summary(destination=destination.uri, **list_failures(state, totals.failures), **missing)
    settings = {"archive": archive.store.uri, **asdict(job.options), "keys": job.options.keys and len(job.options.keys)}
    settings["shards"] = job.options.shards and sorted(job.options.shards)
    write_report(state, reporter, digest=digest, settings=settings, shards=len(chosen))
    return 1 if totals.failures or unfound else 0


def _keys_not_found(archive: Archive, options: RestoreOptions, entries: int) -> list[str]:
    """Return the keys asked for that no entry has; looks again only where fewer entries than keys were found."""
    if options.keys is None or entries >= len(options.keys):
        return []
    return sorted(options.keys - {entry.key for _, entry in archive.find(options.keys, parts=())})


def read_keys(path: Path) -> frozenset[str]:
    """Read keys from a text file, one a line, or a JSON list; raises InvalidOption."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise InvalidOption("--keys", str(path), f"it cannot be read ({detail}).") from None
    try:
        listed = json.loads(text)
    except ValueError:
        listed = None
    lines = listed if isinstance(listed, list) else [line.strip("\r") for line in text.split("\n") if line.strip()]
    keys = frozenset(str(key) for key in lines)
    if not keys:
        raise InvalidOption("--keys", str(path), "it lists no key; give one a line.")
    return keys


def _may_hold(shard: SourceShard, options: RestoreOptions) -> bool:
    """Whether a shard can hold what is selected; for loose files the plan itself tells."""
    if options.shards is not None and shard.id not in options.shards:
        return False
    if options.keys is None or shard.kind is not ShardKind.FILES:
        return True
    return any(safe_key(obj.key)[0] in options.keys for obj in shard.objects)


def _selection(options: RestoreOptions) -> str:
    parts = [f"the glob {options.pattern}"] if options.pattern is not None else []
    parts += [f"{len(options.keys)} keys"] if options.keys is not None else []
    parts += [f"shards {', '.join(sorted(options.shards))}"] if options.shards is not None else []
    return " and ".join(parts) or "anything"
