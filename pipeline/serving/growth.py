"""What came to an archive since it was last looked at, told by listings alone.

One listing tells that the plan is still the one that was opened, and what was added to it; then those groups of commits are
listed that were not whole at the last look. Jobs take shards in the plan's order, so behind groups without a commit there is
nothing yet: of a finished archive the first listing is all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.archives.additions import PREFIX as ADDITIONS
from pipeline.archives.additions import read_additions
from pipeline.archives.archive import PLAN_KEY, Archive
from pipeline.archives.commits import GROUP_SHARDS, LISTERS, bit_of, group_of, groups, list_group, members_of
from pipeline.archives.errors import NotAnArchive
from pipeline.archives.plans import plan_digest
from pipeline.core.records import ObjectInfo
from pipeline.reading.errors import Replaced

Version = tuple[str, str, float | None]
"""An object as a listing tells it: its key, its ETag, and when it was modified."""


class Growth:
    """The shards of an archive that are done, as they become more; for one thread at a time.

    Memory is a bit for each shard. A look changes nothing: :meth:`take` says what need not be told again.
    """

    def __init__(self, archive: Archive) -> None:
        self._store, self._digest = archive.store, archive.digest
        self._begun, self._count = archive.begun_shards, archive.plan.shard_count
        self._plan: Version | None = None
        self._additions: list[Version] | None = None
        self._taken: dict[str, int] = {}

    def look(self) -> list[str]:
        """Return the ids of shards that are done and not taken, in the plan's order.

        Raises Replaced where the archive is another than the one that was opened, or made anew, NotAnArchive where it is gone,
        ArchiveError, StoreError.
        """
        listed = {info.key: _version(info) for info in self._store.list(PLAN_KEY.partition(".")[0])}
        if PLAN_KEY not in listed:
            raise NotAnArchive(self._store.uri)
        if listed[PLAN_KEY] != self._plan:  # which is created once and never changed
            if self._plan is not None or plan_digest(self._store.read(PLAN_KEY)) != self._digest:
                raise Replaced(self._store.uri)
            self._plan = listed[PLAN_KEY]
        additions = [version for key, version in listed.items() if key.startswith(ADDITIONS)]
        if additions != self._additions:
            added = read_additions(self._store, self._digest)
            self._count = self._begun + sum(part.shards for parts in added for part in parts)
            self._additions = additions
        return [shard_id for group in self._listed() for shard_id in group]

    def take(self, shard_ids: Sequence[str]) -> None:
        """Tell these shards no more."""
        for shard_id in shard_ids:
            group = group_of(shard_id)
            self._taken[group] = self._taken.get(group, 0) | bit_of(shard_id)

    def _listed(self) -> Iterator[list[str]]:
        """Yield what is new of each group, so many listed at once, as long as any of those has a commit."""
        waiting = [group for group in groups(self._count) if self._taken.get(group, 0) != self._whole(group)]
        with ThreadPoolExecutor(LISTERS) as threads:
            for start in range(0, len(waiting), LISTERS):
                some = waiting[start : start + LISTERS]
                found = list(threads.map(lambda group: list_group(self._store, group, self._count), some))
                for group, shard_ids in zip(some, found, strict=True):
                    taken = self._taken.get(group, 0)
                    if taken & ~members_of(shard_ids):
                        raise Replaced(self._store.uri)  # or on the way to it: what was done no longer is
                    yield [each for each in shard_ids if not bit_of(each) & taken]
                if not any(found):
                    return

    def _whole(self, group: str) -> int:
        return (1 << min(GROUP_SHARDS, self._count - int(group) * GROUP_SHARDS)) - 1


def _version(info: ObjectInfo) -> Version:
    return info.key, info.etag, info.modified
