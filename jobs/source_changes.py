"""The source of a job beside the plan of its archive: what changed since is told, and what is new is added where asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.console import listing
from jobs.requests import RescaleJob
from pipeline.archives.additions import PREFIX
from pipeline.archives.archive import Archive
from pipeline.core.errors import AlreadyExists, InvalidOption, NotFound, StoreError, UsageError
from pipeline.core.records import SourceShard
from pipeline.planning.changes import CHANGES, Change, PlannedObjects, SourceChanges
from pipeline.planning.left_out import LEFT_OUT
from pipeline.planning.object_list import ObjectList
from pipeline.planning.sources import LeaveOut, Listing, find_source
from pipeline.stores.spool import spool
from pipeline.stores.store import is_local, open_store, split_uri


@dataclass
class Compared:
    """What comparing a source with a plan has found; ``changes`` are those that the archive does not have now.

    ``why_not`` says why they were not compared.
    """

    listed_in: str
    why_not: str | None = None
    changes: Mapping[Change, int] = field(default_factory=dict)
    adds: bool = False
    shards_added: int = 0
    objects_added: int = 0

    def summary(self) -> dict[str, Any]:
        """Return it as a job's summary tells it."""
        if self.why_not is not None:
            return {"source_not_compared": self.why_not}
        told: dict[str, Any] = {}
        if self.adds:
            told |= {"objects_added": self.objects_added, "shards_added": self.shards_added}
        told["source_changes"] = dict(self.changes)
        if self.changes:
            told["source_changes_listed_in"] = self.listed_in
        if Change.NEW in self.changes:
            told["new_objects"] = "--add takes them in"
        return told


@contextmanager
def listing_of(job: RescaleJob, left_out: LeaveOut) -> Iterator[Listing]:
    """Give what the source of a job is listed for, which is shown meanwhile; ``left_out`` is told what is no part of a plan."""
    settings = job.settings
    with listing("rescale", job.source, json_lines=job.json_lines) as watch:
        yield Listing(
            sniff=job.sniff,
            image_column=settings.image_column,
            all_files=settings.all_files,
            access=job.source_access,
            left_out=left_out,
            watch=watch,
        )


def compare_as_asked(job: RescaleJob, archive: Archive) -> tuple[Archive, Compared]:
    """Do what :func:`compare` does where the job asks for it, and in local folders unless it says no.

    Where it was not asked for, a source that cannot be listed does not keep the job from its work.
    """
    asked, listed_in = job.add or job.check_source, f"{archive.store.uri}/{CHANGES}"
    if not asked and (asked is not None or not is_local(archive.plan.source)):
        return archive, Compared(listed_in=listed_in, why_not="--check-source lists it again")
    try:
        return compare(job, archive)
    except (StoreError, UsageError) as error:
        if asked:
            raise
        return archive, Compared(listed_in=listed_in, why_not=str(error))


def compare(job: RescaleJob, archive: Archive) -> tuple[Archive, Compared]:
    """List the source of a job again, and return the archive, with what is new where that is to be added, and what was found.

    Of two jobs that add at once one comes first; the other compares again, with what then stands. Raises what listing does.
    """
    while True:
        try:
            return _compare(job, archive)
        except AlreadyExists as error:
            if f"/{PREFIX}" not in error.uri:
                raise
            archive = Archive.open(archive.store)


def key_below(source: str, uri: str) -> str | None:
    """Return the key of what a URI names in the store ``source``: empty for the source itself, None where it is elsewhere."""
    try:
        parent, key = split_uri(uri)
        asked = f"{parent.rstrip('/')}/{key}"
    except InvalidOption:  # a bucket or the root folder
        asked = open_store(uri).uri
    if asked == source:
        return ""
    folder = f"{source.rstrip('/')}/"
    return asked.removeprefix(folder) if asked.startswith(folder) else None


def _compare(job: RescaleJob, archive: Archive) -> tuple[Archive, Compared]:
    store, key = archive.store, key_below(archive.plan.source, job.source)
    compared = Compared(listed_in=f"{store.uri}/{CHANGES}", adds=job.add)
    with spool() as directory, ObjectList(directory / LEFT_OUT) as left_out, ObjectList(directory / CHANGES) as listed:
        planned = PlannedObjects(archive.shards())
        changes = SourceChanges(planned, listed, lambda info, why: left_out.append(info, why=why))

        def to_add() -> Iterator[SourceShard]:
            with listing_of(job, changes.leave_out) as listed_for:
                for shard in _listed(job, archive, key, changes, listed_for):
                    if not job.add:
                        changes.add_new(shard)
                        continue
                    compared.shards_added += 1
                    compared.objects_added += len(shard.objects)
                    yield shard
            changes.add_gone(archive.shards(), key or None)
            compared.changes = dict(changes.counts)
            listed.put(store, CHANGES)  # before what is added is part of the plan: where it is, the lists are whole
            if not key:
                left_out.put(store, LEFT_OUT)

        shards = to_add()
        if job.add:
            return archive.add(shards), compared
        deque(shards, maxlen=0)
        return archive, compared


def _listed(
    job: RescaleJob, archive: Archive, key: str | None, changes: SourceChanges, listed_for: Listing
) -> Iterator[SourceShard]:
    """Return the shards of what the plan lacks; a source that is gone has none, but nothing can be added from there."""
    plan = archive.plan
    folder = f"{plan.source.rstrip('/')}/"
    listed_for = replace(
        listed_for,
        planned=changes.is_planned,
        first=plan.shard_count,
        own=f"{archive.store.uri.removeprefix(folder)}/" if archive.store.uri.startswith(folder) else "",
    )
    try:
        if key and changes.is_planned(open_store(plan.source, access=job.source_access).stat(key)):
            return iter(())
        found = find_source(job.source, listed_for)
    except NotFound:
        if job.add:
            raise
        return iter(())
    if found.store.uri != plan.source:
        raise InvalidOption("source", job.source, f"it is no file of {plan.source}, of which the archive is; give that.")
    return found.shards
