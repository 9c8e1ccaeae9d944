"""Rollups: totals of many commits for few requests, and a loss, a change or damage of one costs nothing but those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.archives import rollups
from pipeline.archives.commits import ShardSet, create_commit
from pipeline.archives.plans import decode_json
from pipeline.archives.rollups import RollupWriter, survey
from pipeline.core.errors import PlanConflict, StoreUnavailable
from pipeline.core.records import Commit, Failure, ObjectInfo, ShardReport
from pipeline.core.tally import summed
from pipeline.stores.store import LocalStore

PLAN = "ab" * 32
COUNT = 1200
DONE = [index for index in (*range(150), *range(1000, 1050)) if index % 50 != 49]
"""Most of the first shards of two groups."""


def report(index: int, *, size: int = 7) -> ShardReport:
    """Return the report of one shard; every hundredth has a failure."""
    shard_id = f"{index:09d}-x"
    failures = (Failure(shard_id=shard_id, key="ä.jpg", reason="cut off"),) if index % 100 == 0 else ()
    return ShardReport(
        shard_id=shard_id, entries=3, originals=1, pixels=2**40, bytes_in=index, bytes_out=size, failures=failures
    )


def commit(store: LocalStore, index: int, *, size: int = 7) -> ShardReport:
    """Commit a shard; return its report."""
    found = report(index, size=size)
    path = Path(store.uri, "commits", found.shard_id[:6])
    if not path.is_dir():
        create_commit(store, Commit(shard_id=found.shard_id, plan=PLAN, sha256="cd" * 32, byte_size=size, report=found))
        return found
    template = b'{"byte_size":%d,"format_version":3,"plan":"%s","report":%s,"sha256":"","shard_id":"%s"}'
    values = (size, PLAN.encode(), rollups.encode_json(rollups.asdict(found)), found.shard_id.encode())
    (path / f"{found.shard_id}.json").write_bytes(template % values)  # without a wait for the disk
    return found


class Asked(LocalStore):
    """Counts what is read, by the folder it is in."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: Counter[str] = Counter()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.asked["list"] += 1
        return super().list(prefix)

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        self.asked[key.partition("/")[0]] += 1
        return super().read(key, start, stop, etag)


@pytest.fixture
def store(tmp_path: Path) -> Asked:
    """A store with commits of two groups, and rollups of those."""
    store = Asked(tmp_path)
    with RollupWriter(store, PLAN) as writer:
        for index in DONE:
            writer.add(commit(store, index))
    store.asked.clear()
    return store


def totals(store: LocalStore) -> tuple[ShardSet, ShardReport]:
    """Return which shards are done, and the sums of their reports."""
    found = list(survey(store, PLAN, COUNT))
    done = ShardSet()
    for each in found:
        done.add_group(each.done.group, each.done.members)
    assert len(done) == sum(each.done.shards for each in found)
    return done, summed("all", (each.done.report for each in found))


def expected(*without: int, **other: int) -> ShardReport:
    """Return the sums that reading every commit would give."""
    return summed("all", (report(index, **other) for index in DONE if index not in without))


def the_rollups(store: LocalStore) -> list[Path]:
    return sorted(Path(store.uri, "rollups").iterdir())


def test_totals_cost_few_requests(store: Asked) -> None:
    """Protects resuming and inspecting a million shards: a listing and a rollup for each thousand, and no commit is read."""
    done, found = totals(store)
    assert found == expected()
    assert len(found.failures) == 3
    assert [index for index in range(COUNT) if f"{index:09d}-x" in done] == DONE
    assert store.asked == {"list": 3, "rollups": 2}


def test_rollups_that_are_gone_cost_time_alone(store: Asked) -> None:
    """Protects the truth, which is in the commits: without rollups every one of them is read."""
    for path in the_rollups(store):
        path.unlink()
    assert totals(store)[1] == expected()
    assert store.asked["commits"] == len(DONE)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.99])
def test_damaged_rollups_cost_time_alone(store: Asked, place: float) -> None:
    """Protects totals from a flipped bit anywhere in a rollup, one that still reads as numbers included."""
    first = the_rollups(store)[0]
    data = bytearray(first.read_bytes())
    data[int(place * len(data))] ^= 1
    first.write_bytes(data)
    assert totals(store)[1] == expected()
    assert store.asked["commits"] == 147


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"format_version":3,"report":7,"members":[]}'])
def test_junk_is_no_rollup(store: Asked, data: bytes) -> None:
    """Protects against a traceback where something else lies among the rollups."""
    first = the_rollups(store)[0]
    first.write_bytes(data)
    (first.parent / "junk").write_bytes(data)
    (first.parent / "000000-junk.json").write_bytes(data)
    assert totals(store)[1] == expected()


def test_a_commit_that_is_gone_or_another_is_seen(store: Asked, tmp_path: Path) -> None:
    """Protects exactly once: a shard whose commit an operator removed is not done, one redone counts as it is now."""
    (tmp_path / "commits/000000/000000003-x.json").unlink()
    done, found = totals(store)
    assert found == expected(3)
    assert "000000003-x" not in done
    assert store.asked["commits"] == 146
    commit(store, 3, size=1000)
    found = totals(store)[1]
    assert found.bytes_out == expected().bytes_out - 7 + 1000


def test_a_rollup_of_another_plan_does_not_count(store: Asked) -> None:
    """Protects against totals of another plan: its commits are refused, and no rollup hides that."""
    with pytest.raises(PlanConflict):
        list(survey(store, "ef" * 32, COUNT))


def test_what_was_read_is_rolled_up_the_next_time(store: Asked) -> None:
    """Protects the resume after a crash, which had no time to roll up: the next driver does, and each commit counts once."""
    the_rollups(store)[0].unlink()
    with RollupWriter(store, PLAN) as writer:
        for each in survey(store, PLAN, COUNT):
            writer.add_read(each.read)
        for index in (49, 99):
            writer.add(commit(store, index))
    store.asked.clear()
    assert totals(store)[1].entries == 3 * (len(DONE) + 2)
    assert store.asked["commits"] == 0


def test_two_drivers_at_once_count_no_shard_twice(store: Asked) -> None:
    """Protects totals where two jobs rolled up some of the same shards."""
    with RollupWriter(store, PLAN) as writer:
        for index in (*range(49), *range(1000, 1030)):
            writer.add(report(index))
    assert len(the_rollups(store)) == 3
    assert totals(store)[1] == expected()


def test_a_store_that_takes_no_rollup_stops_no_job(tmp_path: Path) -> None:
    """Protects jobs from their cache, and small archives from objects that spare nothing."""

    class Refusing(LocalStore):
        def create(self, key: str, data: bytes | Path) -> None:  # noqa: ARG002
            raise StoreUnavailable(key, "no")

    with RollupWriter(Refusing(tmp_path), PLAN) as writer:
        for index in range(100):
            writer.add(report(index))
    with RollupWriter(LocalStore(tmp_path), PLAN) as writer:
        for index in range(rollups.LEAST_SHARDS - 1):
            writer.add(report(index))
    assert not (tmp_path / "rollups").exists()


@pytest.mark.parametrize("what", ["failures", "notes"])
def test_a_group_with_much_to_list_is_not_rolled_up(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects drivers from objects of megabytes, where each entry failed or was written in another format."""
    monkeypatch.setattr(rollups, "MOST_LISTED", 30)
    listed = (Failure(shard_id="x", key="a.gif", reason="written as PNG"),)
    with RollupWriter(LocalStore(tmp_path), PLAN) as writer:
        for index in range(100):
            writer.add(replace(report(index), **{"failures": (), what: listed}))
    assert not (tmp_path / "rollups").exists()


def test_a_driver_holds_some_groups(tmp_path: Path) -> None:
    """Protects a driver's memory: of the groups that shards come from the earliest are written as it goes."""
    store = LocalStore(tmp_path)
    writer = RollupWriter(store, PLAN)
    for group in range(12):
        for index in range(40):
            writer.add(commit(store, 1000 * group + index))
        assert len(writer._open) <= rollups.OPEN_GROUPS
    assert len(the_rollups(store)) == 12 - rollups.OPEN_GROUPS
    value = decode_json(the_rollups(store)[0].read_bytes(), "rollup")
    assert int(value["members"], 16) == 2**40 - 1
