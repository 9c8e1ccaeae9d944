"""Which shards are done under which plan: one small object each, written last, created only if absent.

    commits/<first six digits of the id>/<shard id>.json

Resuming is the plan minus the commits: which shards are done is a listing, and nothing is remembered elsewhere. Commits lie in
groups of a thousand, a page of an S3 listing, so that groups are listed side by side and none is more than a moment's memory.
(Totals and failures are in the commits as well; rollups.py spares reading each.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from pipeline.archives.plans import FORMAT_VERSION, decode_json, encode_json
from pipeline.core.errors import AlreadyExists, DamagedObject, PlanConflict
from pipeline.core.overlap import ahead
from pipeline.core.records import Commit, Failure, ShardReport
from pipeline.stores.store import Store

PREFIX = "commits/"

GROUP_SHARDS = 1000
"""Shards of a group: the last three of the nine digits that an id begins with."""

LISTERS = 16
"""Groups listed at once."""

READERS = 32
"""Small objects read at once."""

_DIGITS, _GROUP_DIGITS = 9, 6
_NAME = re.compile(r"(\d{9}-[^/]+)\.json")


def create_commit(store: Store, commit: Commit) -> Commit:
    """Write a commit, or accept the one that is there if it is of the same plan and the same shard bytes; return what stands.

    Of two writers one creates it; the other gets that one's. Raises PlanConflict where the shard was committed under another
    plan, AlreadyExists where under this plan but with other bytes, DamagedObject where what is there cannot be read.
    """
    try:
        store.create(_key(commit.shard_id), encode_json({"format_version": FORMAT_VERSION, **commit.to_json()}))
    except AlreadyExists:
        standing = read_commit(store, commit.shard_id, commit.plan)
        if standing.sha256 != commit.sha256:
            raise
        return standing
    return commit


def read_commit(store: Store, shard_id: str, plan_digest: str) -> Commit:
    """Return the commit of a shard under a plan.

    Raises NotFound where the shard is not done, PlanConflict where it is under another plan, DamagedObject, UnsupportedFormat.
    """
    key = _key(shard_id)
    uri = f"{store.uri}/{key}"
    value = decode_json(store.read(key), uri)
    try:
        commit = Commit(
            shard_id=str(value["shard_id"]),
            plan=str(value["plan"]),
            sha256=str(value["sha256"]),
            byte_size=int(value["byte_size"]),
            report=decode_report(value["report"]),
            begun=_seconds(value.get("begun")),
            ended=_seconds(value.get("ended")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedObject(uri, f"no commit can be read from it: {type(error).__name__} {error}") from None
    if commit.shard_id != shard_id:
        raise DamagedObject(uri, f"it is the commit of shard {commit.shard_id}")
    if commit.plan != plan_digest:
        raise PlanConflict(uri, (f"plan {commit.plan[:16]}…, not {plan_digest[:16]}…",))
    return commit


class ShardSet:
    """Shards by their ids, in one bit of memory each: an id begins with its shard's number in the plan."""

    def __init__(self) -> None:
        self._members: dict[str, int] = {}

    def add_group(self, group: str, members: int) -> None:
        """Add shards of one group; bit n of ``members`` stands for its n-th."""
        self._members[group] = self._members.get(group, 0) | members

    def __contains__(self, shard_id: str) -> bool:
        return bool(self._members.get(group_of(shard_id), 0) & bit_of(shard_id))

    def __len__(self) -> int:
        return sum(members.bit_count() for members in self._members.values())


def group_of(shard_id: str) -> str:
    """Return the group of a shard: the first six of its nine digits."""
    return shard_id[:_GROUP_DIGITS]


def bit_of(shard_id: str) -> int:
    """Return an integer with the one bit that stands for a shard in its group."""
    return 1 << int(shard_id[_GROUP_DIGITS:_DIGITS])


def groups(count: int) -> Iterator[str]:
    """Yield the groups of a plan of ``count`` shards, in order."""
    return (f"{number:0{_GROUP_DIGITS}d}" for number in range(-(-count // GROUP_SHARDS)))


def list_group(store: Store, group: str, count: int | None = None) -> dict[str, str]:
    """Return the ETags of the commits of one group by their shards' ids, in order.

    Of a plan of ``count`` shards those of later shards are left out: another job may have added to the plan since.
    """
    prefix = f"{PREFIX}{group}/"
    named = ((_NAME.fullmatch(info.key, len(prefix)), info.etag) for info in store.list(prefix))
    last = GROUP_SHARDS * 10**_GROUP_DIGITS if count is None else count
    return {name[1]: etag for name, etag in named if name and group_of(name[1]) == group and int(name[1][:_DIGITS]) < last}


def members_of(shard_ids: Iterable[str]) -> int:
    """Return the bits of shards of one group."""
    return sum({bit_of(shard_id) for shard_id in shard_ids})


def done(store: Store, count: int) -> ShardSet:
    """Return the shards that are done in ``store`` of a plan of ``count``, from listings alone.

    No plan is asked for: a store has one, created only if absent, and :func:`read_commit` refuses a commit of another.
    """
    found = ShardSet()
    with ThreadPoolExecutor(LISTERS) as threads:
        for group, etags in ahead(
            threads, lambda group: (group, list_group(store, group, count)), groups(count), limit=4 * LISTERS
        ):
            found.add_group(group, members_of(etags))
    return found


def commits(store: Store, plan_digest: str, count: int) -> Iterator[Commit]:
    """Yield the commits of a plan of ``count`` shards in order, each of them read; raises what :func:`read_commit` does."""
    with ThreadPoolExecutor(READERS) as threads:
        ids = (shard_id for group in groups(count) for shard_id in list_group(store, group, count))
        yield from ahead(threads, lambda shard_id: read_commit(store, shard_id, plan_digest), ids, limit=4 * READERS)


def first_begun(store: Store, plan_digest: str) -> float | None:
    """Return when the first shard that is done was begun, in seconds since 1970; None where no commit of the group tells."""
    first = next(iter(list_group(store, next(groups(1)))), None)
    return None if first is None else read_commit(store, first, plan_digest).begun


def encode_report(report: ShardReport) -> str:
    """Return a report as JSON text, for a shard's footer."""
    return encode_json(asdict(report)).decode("ascii").rstrip()


def decode_report(value: dict[str, Any]) -> ShardReport:
    """Return the report in JSON values; raises KeyError, TypeError or ValueError where it is none."""
    failures, notes = (
        tuple(
            Failure(shard_id=str(f["shard_id"]), key=f["key"], reason=str(f["reason"]))
            for f in (value[name] if name == "failures" else value.get(name, ()))
        )
        for name in ("failures", "notes")
    )
    counts = {name: int(value[name]) for name in ("entries", "originals", "pixels", "bytes_in", "bytes_out")}
    kept = {str(name): int(count) for name, count in value.get("kept", {}).items()}
    lost = {str(name): int(count) for name, count in value.get("lost", {}).items()}
    counts["whole"] = int(value.get("whole", 0))
    return ShardReport(shard_id=str(value["shard_id"]), failures=failures, notes=notes, kept=kept, lost=lost, **counts)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _key(shard_id: str) -> str:
    return f"{PREFIX}{group_of(shard_id)}/{shard_id}.json"
