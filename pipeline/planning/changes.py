"""What changed in a source since it was planned: objects that are new, gone, or other ones, by their keys and ETags.

    changes = SourceChanges(PlannedObjects(shards), listed, left_out)
    for shard in find_source(uri, Listing(planned=changes.is_planned, left_out=changes.leave_out)).shards:
        changes.add_new(shard)
    changes.add_gone(shards)

A listing and a plan may have ten million objects each: both are streams, and of each object in the plan two numbers are kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

import numpy as np

from pipeline.core.records import ObjectInfo, SourceShard
from pipeline.planning.left_out import LATE
from pipeline.planning.object_list import ObjectList
from pipeline.planning.sources import LeaveOut

CHANGES = "source-changes.jsonl"
"""The list in an archive: JSON lines of key, size in bytes, what, and why."""


class Change(StrEnum):
    """What an object of a source is that is not as its plan has it."""

    NEW = "new"
    LATE = "late sidecar"
    CHANGED = "changed"
    GONE = "gone"


WHY = {
    Change.NEW: "it is in no part of the plan; --add takes it in",
    Change.LATE: LATE,
    Change.CHANGED: "its ETag is another than the planned one; the archive has the earlier object, or none",
    Change.GONE: "the plan has it, and the source does not",
}


class PlannedObjects:
    """The objects of a plan by key and ETag, in 16 bytes and two bits each, and which of them a listing has.

    Numbers stand for keys: Python's own keyed hashes of 64 bits, which hold within one process. Beside ten million objects a
    new one is taken for one of them once in 10^12 times.
    """

    def __init__(self, shards: Iterable[SourceShard]) -> None:
        self._same, self._keys = array("q"), array("q")
        for shard in shards:
            for info in shard.objects:
                self._same.append(hash((info.key, info.etag)))
                self._keys.append(hash(info.key))
        for numbers in (self._same, self._keys):
            np.frombuffer(numbers, np.int64).sort()
        self._met_same, self._met_keys = (bytearray(len(self._keys) // 8 + 1) for _ in range(2))

    def meet(self, info: ObjectInfo) -> Change | None:
        """Return how an object of the listing stands to the plan: NEW, CHANGED, or None where it is the planned one."""
        if _mark(self._same, hash((info.key, info.etag)), self._met_same):
            return None
        return Change.CHANGED if _mark(self._keys, hash(info.key), self._met_keys) else Change.NEW

    def were_met(self) -> bool:
        """Return whether the listing had all objects of the plan, as far as it has been read."""
        return sum(int.from_bytes(met).bit_count() for met in (self._met_same, self._met_keys)) == len(self._keys)

    def was_met(self, info: ObjectInfo) -> bool:
        """Return whether the listing had an object of the plan, or another one of its key."""
        return _is_marked(self._same, hash((info.key, info.etag)), self._met_same) or _is_marked(
            self._keys, hash(info.key), self._met_keys
        )


def _mark(numbers: array[int], number: int, marks: bytearray) -> bool:
    """Mark a number among sorted ones; return whether it is there."""
    place = bisect_left(numbers, number)
    if place == len(numbers) or numbers[place] != number:
        return False
    marks[place >> 3] |= 1 << (place & 7)
    return True


def _is_marked(numbers: array[int], number: int, marks: bytearray) -> bool:
    place = bisect_left(numbers, number)
    return bool(marks[place >> 3] & 1 << (place & 7))


class SourceChanges:
    """Takes a listing of a source beside its plan; counts and lists what is not as planned.

    ``left_out`` is told of the objects that no plan would have.
    """

    def __init__(self, planned: PlannedObjects, listed: ObjectList, left_out: LeaveOut) -> None:
        self._planned, self._list, self._left_out = planned, listed, left_out
        self.counts: Counter[Change] = Counter()

    def is_planned(self, info: ObjectInfo) -> bool:
        """Return whether the plan has an object of this key; of another version that is listed."""
        change = self._planned.meet(info)
        if change is Change.CHANGED:
            self._add(info, change)
        return change is not Change.NEW

    def leave_out(self, info: ObjectInfo, why: str) -> None:
        """Take an object that the listing leaves out."""
        if why == LATE:
            self._add(info, Change.LATE)
        else:
            self._left_out(info, why)

    def add_new(self, shard: SourceShard) -> None:
        """List the objects of a shard that is not taken into the plan."""
        for info in shard.objects:
            self._add(info, Change.NEW)

    def add_gone(self, shards: Iterable[SourceShard], key: str | None = None) -> None:
        """List the objects of the plan's ``shards`` that the listing did not have; only the one of ``key`` where that is given.

        To be called at the listing's end.
        """
        if self._planned.were_met():
            return
        for shard in shards:
            for info in shard.objects:
                if key in (None, info.key) and not self._planned.was_met(info):
                    self._add(info, Change.GONE)

    def _add(self, info: ObjectInfo, change: Change) -> None:
        self.counts[change] += 1
        self._list.append(info, what=change, why=WHY[change])
