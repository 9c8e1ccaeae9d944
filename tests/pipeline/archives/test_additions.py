"""Additions to a plan: one longer plan for whoever reads it, nothing twice, and nothing lost by kills, races or damage."""

from __future__ import annotations

import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archives import additions, parts
from pipeline.archives.archive import FORMAT_VERSION, Archive
from pipeline.archives.commits import create_commit
from pipeline.archives.errors import ChecksumMismatch
from pipeline.archives.rollups import RollupWriter, survey
from pipeline.core.errors import AlreadyExists, DamagedObject, InvalidOption
from pipeline.core.records import Commit, ObjectInfo, ShardKind, ShardReport, SourceShard
from pipeline.stores.store import LocalStore, Store, open_store
from tests.support.archives import ENTRIES, SHARDS, begin, write


def tars(first: int, count: int) -> Iterator[SourceShard]:
    """Yield source shards, numbered from ``first`` on."""
    for number in range(first, first + count):
        key = f"{number}.tar"
        objects = (ObjectInfo(key=key, size=number, etag=f"e{number}"),)
        yield SourceShard(id=f"{number:09d}-{number}", name=key, kind=ShardKind.TAR, objects=objects)


def files(store: Store) -> dict[str, bytes]:
    """Return every object of a store."""
    return {info.key: store.read(info.key) for info in store.list()}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store for an archive, local and on S3."""
    if request.param == "s3":
        return open_store(f"{request.getfixturevalue('s3_bucket')}/archive")
    return open_store(str(tmp_path / "archive"), create=True)


def test_a_plan_grows_and_stays_the_same_archive(anywhere: Store) -> None:
    """Protects one archive, one digest: what was added follows in the plan's order, and nothing that stood is written again."""
    begun = begin(anywhere)
    before = files(anywhere)
    longer = begun.add(tars(3, 2)).add(tars(5, 1))
    for found in (longer, Archive.open(anywhere), pickle.loads(pickle.dumps(longer))):
        assert list(found.shards()) == [*SHARDS, *tars(3, 3)]
        assert list(found.added_shards()) == list(tars(3, 3))
        assert (found.digest, found.plan.shard_count, found.begun_shards) == (begun.digest, 6, 3)
        assert [len(each) for each in found.additions] == [1, 1]
    after = files(anywhere)
    assert before.items() <= after.items()
    added = after.keys() - before.keys()
    assert {key for key in added if key.endswith(".json")} == {f"plan/additions/00000{number}.json" for number in (1, 2)}
    told, (part,) = json.loads(after["plan/additions/000001.json"]), longer.additions[0]
    assert told == {"format_version": FORMAT_VERSION, "plan": begun.digest, "parts": [asdict(part)]}
    assert begin(anywhere).plan == longer.plan, "the same beginning again takes up the longer plan"


@pytest.mark.slow
@given(st.lists(st.integers(0, 30), max_size=5), st.integers(3, 10))
@settings(max_examples=20)
def test_any_additions_are_one_longer_plan(tmp_path_factory: pytest.TempPathFactory, counts: list[int], size: int) -> None:
    """Protects the order and the numbers of shards, over the borders of additions and of their parts."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_SHARDS", size)
        archive = begin(store)
        for count in counts:
            archive = archive.add(tars(archive.plan.shard_count, count))
    found = Archive.open(store)
    assert list(found.shards()) == [*SHARDS, *tars(3, sum(counts))]
    assert len(found.additions) == sum(count > 0 for count in counts)


def test_nothing_to_add_writes_nothing(store: LocalStore, archive: Archive) -> None:
    """Protects archives from empty additions: a night without new files leaves no trace."""
    before = files(store)
    assert archive.add(iter(())) is archive
    assert files(store) == before


def test_shards_that_do_not_follow_are_refused(store: LocalStore, archive: Archive) -> None:
    """Protects numbers, by which shards are done: an addition begins where the plan ends."""
    for first in (2, 4):
        with pytest.raises(ValueError, match="stands where number 3 belongs"):
            archive.add(tars(first, 2))
    assert Archive.open(store).additions == ()


def test_what_dies_before_its_object_has_added_nothing(tmp_path: Path) -> None:
    """Protects the crash between the parts and the object that names them: the plan is as it was, and the same goes again."""

    class Dying(LocalStore):
        def create(self, key: str, data: bytes | Path) -> None:
            if key.startswith(additions.PREFIX):
                raise KeyboardInterrupt
            super().create(key, data)

    begin(LocalStore(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        Archive.open(Dying(tmp_path)).add(tars(3, 2))
    store = LocalStore(tmp_path)
    left = files(store)
    assert list(Archive.open(store).shards()) == list(SHARDS)
    assert list(Archive.open(store).add(tars(3, 2)).shards()) == [*SHARDS, *tars(3, 2)]
    assert files(store).keys() - left.keys() == {"plan/additions/000001.json"}, "its parts were taken up"


def test_of_two_additions_at_once_one_is_made(anywhere: Store) -> None:
    """Protects against two longer plans of one archive: the second is refused, and goes on behind the first."""
    begin(anywhere)
    start = threading.Barrier(4)
    refused: list[int] = []

    def add(number: int) -> None:
        archive = Archive.open(anywhere)
        start.wait()
        for attempt in count():
            try:
                archive.add(tars(archive.plan.shard_count, number + 1))
            except AlreadyExists:
                archive = Archive.open(anywhere)
            else:
                refused.append(attempt)
                return

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(bool, refused)) == [False, True, True, True], "all had opened the archive before the first was made"
    found = Archive.open(anywhere)
    assert sorted(sum(part.shards for part in each) for each in found.additions) == [1, 2, 3, 4]
    assert list(found.shards()) == [*SHARDS, *tars(3, 10)]


def test_damaged_additions_are_refused(store: LocalStore, archive: Archive) -> None:
    """Protects against a shorter plan taken for the whole: an addition that is gone, junk, or another plan's is told."""
    archive.add(tars(3, 1)).add(tars(4, 1))
    first, second = (f"plan/additions/00000{number}.json" for number in (1, 2))
    kept, other = store.read(first), store.read(second)
    wrong = {
        b"{": "it is no JSON",
        b"[]": "has no format_version",
        kept.replace(b"parts", b"pasts"): "no addition can be read from it",
        json.dumps({**json.loads(kept), "parts": []}).encode(): "it has no parts",
        json.dumps({**json.loads(kept), "parts": [{"sha256": "x", "shards": 1, "objects": 1}]}).encode(): "without a digest",
        kept.replace(archive.digest.encode(), b"00" * 32): "it adds to the plan 0000000000000000…",
    }
    for data, words in wrong.items():
        store.replace(first, data)
        with pytest.raises(DamagedObject, match=r"000001\.json is damaged") as caught:
            Archive.open(store)
        assert words in str(caught.value)
    store.delete(first)
    with pytest.raises(DamagedObject, match=r"000001\.json is damaged \(it is missing, and there is"):
        Archive.open(store)
    store.replace(first, other)  # the second's part, where the first's belongs
    with pytest.raises(DamagedObject, match="stands where number 3 belongs"):
        list(Archive.open(store).shards())
    store.replace(first, kept)
    store.replace("plan/additions/notes.txt", b"of somebody's")
    assert Archive.open(store).plan.shard_count == 5


def test_a_damaged_part_of_an_addition_is_refused(store: LocalStore, archive: Archive) -> None:
    """Protects what was added as the plan itself is: its parts are named by their digests."""
    longer = archive.add(tars(3, 1))
    key = f"plan/{longer.additions[0][0].sha256}.parquet"
    store.replace(key, store.read(key)[:-1])
    with pytest.raises(ChecksumMismatch):
        list(longer.shards())


def test_earlier_versions_take_no_additions(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects archives that earlier programs read: those would not look for additions, so none is made."""
    monkeypatch.setattr(additions, "ADDITIONS_SINCE", 99)
    with pytest.raises(InvalidOption, match=r"--add .*would not see what is added"):
        archive.add(tars(3, 1))


def test_additions_came_with_version_4() -> None:
    """Protects archives of version 3, whose readers would not see what is added to them."""
    assert min(4, FORMAT_VERSION) == additions.ADDITIONS_SINCE


def test_opening_costs_a_listing(store: LocalStore, archive: Archive) -> None:
    """Protects the start of every worker: one request more than for plan.json, and one for each addition."""
    asked: Counter[str] = Counter()

    class Asked(LocalStore):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            asked[f"list {prefix}"] += 1
            return super().list(prefix)

        def read(self, key: str, *args: Any, **others: Any) -> bytes:
            asked[f"read {key}"] += 1
            return super().read(key, *args, **others)

    Archive.open(Asked(Path(store.uri)))
    assert asked == {"read plan.json": 1, "list plan/additions/": 1}
    archive.add(tars(3, 1))
    Archive.open(Asked(Path(store.uri)))
    assert asked["read plan/additions/000001.json"] == 1
    assert asked.total() == 5


def test_a_plan_is_given_up_with_its_additions(store: LocalStore, archive: Archive) -> None:
    """Protects another beginning from the additions of the one before."""
    archive.add(tars(3, 1)).add(tars(4, 1)).give_up()
    assert not [key for key in files(store) if key.endswith(".json")]
    assert begin(store, SHARDS[:1]).plan.shard_count == 1


def test_shards_of_an_addition_are_written_and_read_as_any(store: LocalStore, archive: Archive, spool: Path) -> None:
    """Protects exactly-once: a worker that opened the archive before the addition writes its shards as well, and a reader
    finds them."""
    (shard,) = tars(3, 1)
    longer = archive.add([shard])
    create_commit(store, write(archive, ENTRIES, spool, shard))
    assert [each.id for each in Archive.open(store).shards_done()] == [shard.id]
    assert list(longer.entries(shard.id)) == list(archive.entries(shard.id)) == ENTRIES
    assert [commit.shard_id for commit in longer.commits()] == [shard.id]
    assert list(archive.commits()) == []
    assert len(archive.done()) == 0, "an earlier opening does not take what was added for its own"


def test_rollups_of_the_shorter_plan_hold(store: LocalStore, archive: Archive) -> None:
    """Protects totals: a group that was complete is not any more, and what stands for its first commits stands for no more."""

    def commit(shards: Iterable[SourceShard]) -> None:
        with RollupWriter(store, archive.digest) as rollups:
            for shard in shards:
                counts = {"entries": 1, "originals": 0, "pixels": 7, "bytes_in": 3, "bytes_out": 2}
                report = ShardReport(shard_id=shard.id, **counts)
                create_commit(
                    store, Commit(shard_id=shard.id, plan=archive.digest, sha256="ab" * 32, byte_size=2, report=report)
                )
                rollups.add(report)

    longer = archive.add(tars(3, 40))
    commit([*SHARDS, *tars(3, 40)])
    longest = longer.add(tars(43, 50))
    (shorter,) = survey(store, archive.digest, archive.plan.shard_count)
    assert (shorter.done.shards, shorter.done.report.entries) == (3, 3)
    (found,) = survey(store, archive.digest, longest.plan.shard_count)
    assert (found.done.shards, found.done.report.entries, found.read.shards) == (43, 43, 0)
    commit(tars(43, 50))
    (found,) = survey(store, archive.digest, longest.plan.shard_count)
    assert (found.done.shards, found.done.report.entries, found.read.shards) == (93, 93, 0)
    assert len(list(store.list("rollups/"))) == 2
