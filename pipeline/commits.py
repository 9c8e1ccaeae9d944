"""Which shards are done under which plan: one small object each, written last, created only if absent.

Resuming is the plan minus the commits: which shards are done is a listing, and nothing is remembered elsewhere. (Jobs also read
the commits, one small object a shard, for their totals and failures.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipeline.errors import AlreadyExists, DamagedObject, PlanConflict
from pipeline.plans import FORMAT_VERSION, decode_json, encode_json
from pipeline.records import Commit, Failure, ShardReport
from pipeline.store import Store

PREFIX = "commits/"
_SUFFIX = ".json"


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


def done(store: Store) -> set[str]:
    """Return the ids of the shards that are done in ``store``, from a listing alone.

    No plan is asked for: a store has one, created only if absent, and :func:`read_commit` refuses a commit of another.
    """
    return set(_ids(store))


def commits(store: Store, plan_digest: str) -> Iterator[Commit]:
    """Yield the commits of a plan in order of their shard ids, one read at a time; raises what :func:`read_commit` does."""
    for shard_id in _ids(store):
        yield read_commit(store, shard_id, plan_digest)


def encode_report(report: ShardReport) -> str:
    """Return a report as JSON text, for a shard's footer."""
    return encode_json(asdict(report)).decode("ascii").rstrip()


def decode_report(value: dict[str, Any]) -> ShardReport:
    """Return the report in JSON values; raises KeyError, TypeError or ValueError where it is none."""
    failures = (Failure(shard_id=str(f["shard_id"]), key=f["key"], reason=str(f["reason"])) for f in value["failures"])
    counts = {name: int(value[name]) for name in ("entries", "originals", "pixels", "bytes_in", "bytes_out")}
    return ShardReport(shard_id=str(value["shard_id"]), failures=tuple(failures), **counts)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _key(shard_id: str) -> str:
    return f"{PREFIX}{shard_id}{_SUFFIX}"


def _ids(store: Store) -> Iterator[str]:
    for info in store.list(PREFIX):
        if info.key.endswith(_SUFFIX) and "/" not in info.key[len(PREFIX) :]:
            yield info.key[len(PREFIX) : -len(_SUFFIX)]
