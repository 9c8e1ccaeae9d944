"""Reports of many shards added up, so that totals of millions cost few requests; a cache of the commits and never their equal.

    rollups/<group>-<part of its SHA-256>.json

A rollup holds the sums of the reports of some shards of one group. It counts only while it is whole, is of this plan, and each
of its commits still stands as it was, told by the ETags of the listing that says which shards are done; else those commits are
read. So one that is lost, stale or damaged costs time. Drivers write them as they go.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from pipeline.archives.commits import (
    GROUP_SHARDS,
    LISTERS,
    READERS,
    bit_of,
    decode_report,
    group_of,
    groups,
    list_group,
    members_of,
    read_commit,
)
from pipeline.archives.plans import FORMAT_VERSION, decode_json, encode_json
from pipeline.core.errors import ArchiveError, StoreError
from pipeline.core.overlap import ahead
from pipeline.core.records import ShardReport
from pipeline.core.tally import Tally, summed
from pipeline.stores.store import Store

PREFIX = "rollups/"

LEAST_SHARDS = 32
"""Fewer commits than these are read as fast as a rollup of them would be."""

MOST_LISTED = 10_000
"""A group with more failures and notes is not rolled up: what holds them would be no small object."""

OPEN_GROUPS = 8
"""Groups whose shards are under way, in a driver's memory; the earliest is written when there are more."""


@dataclass(frozen=True, kw_only=True)
class Rollup:
    """The reports of some shards of one group, added up to one named by the group; ``members`` has a bit for each shard."""

    group: str
    members: int
    report: ShardReport

    @property
    def shards(self) -> int:
        """How many shards it is of."""
        return self.members.bit_count()


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is done of one group: all of it, and that part which no standing rollup told."""

    done: Rollup
    read: Rollup


def survey(store: Store, plan_digest: str, count: int) -> Iterator[Survey]:
    """Yield what is done of each group of a plan of ``count`` shards, in order, with memory for some groups.

    Commits that no rollup stands for are read: raises what :func:`read_commit` does.
    """
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for info in store.list(PREFIX):
        keys[info.key.removeprefix(PREFIX).partition("-")[0]].append(info.key)
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(LISTERS) as listers:
        surveyor = _Surveyor(store, plan_digest, count, readers)
        yield from ahead(listers, lambda group: surveyor.group(group, keys.get(group, ())), groups(count), limit=2 * LISTERS)


class _Surveyor:
    def __init__(self, store: Store, plan_digest: str, count: int, readers: Executor) -> None:
        self._store, self._plan, self._count, self._readers = store, plan_digest, count, readers

    def group(self, group: str, keys: Iterable[str]) -> Survey:
        etags = list_group(self._store, group, self._count)
        every = left = members_of(etags)
        known = []
        if etags:
            for rollup in sorted(self._standing(keys, etags), key=lambda each: -each.shards):
                if rollup.members & ~left == 0:  # two drivers at once may each have written of some shard
                    left ^= rollup.members
                    known.append(rollup.report)
        unread = [shard_id for shard_id in etags if bit_of(shard_id) & left] if left else []
        reports = list(self._readers.map(lambda each: read_commit(self._store, each, self._plan).report, unread))
        read = Rollup(group=group, members=left, report=summed(group, reports))
        return Survey(done=replace(read, members=every, report=summed(group, [*known, read.report])), read=read)

    def _standing(self, keys: Iterable[str], etags: dict[str, str]) -> Iterator[Rollup]:
        """Yield the rollups whose commits all stand as they were."""
        for key in keys:
            with suppress(StoreError, ArchiveError, KeyError, TypeError, ValueError):  # then its commits are read
                data = self._store.read(key)
                value = decode_json(data, key)
                report, members = decode_report(value["report"]), int(value["members"], 16)
                if key != _key(report.shard_id, data) or value["plan"] != self._plan:
                    continue
                if value["commits"] == _listing_digest(etags, members):
                    yield Rollup(group=report.shard_id, members=members, report=report)


@dataclass
class _Group:
    """What a driver has heard of one group."""

    members: int = 0
    tally: Tally = field(default_factory=Tally)

    @property
    def listed(self) -> int:
        """How many failures and notes there are."""
        return len(self.tally.failures) + len(self.tally.notes)


class RollupWriter:
    """Collects the reports that a driver hears of, and writes them group by group; nothing of a job depends on it."""

    def __init__(self, store: Store, plan_digest: str) -> None:
        self._store, self._plan = store, plan_digest
        self._open: dict[str, _Group] = {}

    def add(self, report: ShardReport) -> None:
        """Take the report of a shard that has been committed."""
        self._add(group_of(report.shard_id), bit_of(report.shard_id), report)

    def add_read(self, rollup: Rollup) -> None:
        """Take reports that had to be read commit by commit."""
        if rollup.members:
            self._add(rollup.group, rollup.members, rollup.report)

    def _add(self, group: str, members: int, report: ShardReport) -> None:
        begun = self._open.setdefault(group, _Group())
        begun.members |= members
        begun.tally.include(report)
        if begun.members.bit_count() == GROUP_SHARDS or begun.listed > MOST_LISTED:
            self._write(group)
        if len(self._open) > OPEN_GROUPS:
            self._write(min(self._open))

    def close(self) -> None:
        """Write what is left."""
        for group in list(self._open):
            self._write(group)

    def __enter__(self) -> RollupWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, group: str) -> None:
        found = self._open.pop(group)
        if found.members.bit_count() < LEAST_SHARDS or found.listed > MOST_LISTED:
            return
        with suppress(StoreError):  # the job is well without it; what keeps it from being written will be told by a commit
            value = {
                "format_version": FORMAT_VERSION,
                "plan": self._plan,
                "members": f"{found.members:x}",
                "commits": _listing_digest(list_group(self._store, group), found.members),
                "report": asdict(found.tally.report(group)),
            }
            data = encode_json(value)
            self._store.create(_key(group, data), data)


def _key(group: str, data: bytes) -> str:
    return f"{PREFIX}{group}-{hashlib.sha256(data).hexdigest()[:32]}.json"


def _listing_digest(etags: dict[str, str], members: int) -> str:
    """Return the SHA-256 over ids and ETags of the commits of ``members``, which changes with any of them."""
    lines = (f"{shard_id} {etag}\n" for shard_id, etag in etags.items() if bit_of(shard_id) & members)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
