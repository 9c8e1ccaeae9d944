"""The parts of a plan: millions of source shards come back in order, planners never mix, and damage is told."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archives import parts
from pipeline.archives.archive import Archive
from pipeline.archives.errors import ChecksumMismatch, NotAnArchive
from pipeline.archives.parts import read_parts, write_parts
from pipeline.core.errors import DamagedObject, PipelineError, PlanConflict
from pipeline.core.records import ObjectInfo, PlanPart, Settings, ShardKind, SourceShard
from pipeline.core.target import TargetSize
from pipeline.stores.store import LocalStore
from pipeline.tables.reader import RowReader
from tests.support import workshop

SETTINGS = Settings(target=TargetSize(scale=(2, 2)))


def shards(count: int, *, tag: str = "e") -> Iterator[SourceShard]:
    """Yield source shards of all kinds."""
    for index in range(count):
        kind = (ShardKind.TAR, ShardKind.PARQUET, ShardKind.FILES)[index % 3]
        names = [f"ü/{index:06d}.{each}" for each in range(3 if kind is ShardKind.FILES else 1)]
        objects = tuple(ObjectInfo(key=name, size=index, etag=f"{tag}{index}") for name in names)
        shard_id = f"{index:09d}-x"
        yield SourceShard(id=shard_id, name=shard_id if kind is ShardKind.FILES else names[0], kind=kind, objects=objects)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a hundred shards in row groups of ten objects."""
    monkeypatch.setattr(parts, "PART_SHARDS", 100)
    monkeypatch.setattr(parts, "_GROUP_ROWS", 10)


def begin(store: LocalStore, count: int = 250, **other: Any) -> Archive:
    """Begin an archive of ``count`` shards."""
    values = {"source": "/photos", "settings": SETTINGS, "model": b"weights", "shards": shards(count), **other}
    return Archive.begin(store, **values)


def test_keys_that_are_no_text_come_back(store: LocalStore) -> None:
    """Protects files of old systems in the plan: it holds their own names, byte for byte, and shows them as text."""
    names = ["caf%E9.jpg", "caf\udce9.jpg", "\udc8e\udca1/x.jpg", "é.jpg"]
    objects = tuple(ObjectInfo(key=name, size=1, etag="e") for name in names)
    shard = SourceShard(id="000000000-x", name="000000000-x", kind=ShardKind.FILES, objects=objects)
    written = write_parts(store, [shard])
    assert list(read_parts(store, written)) == [shard]
    with store.open(f"plan/{written[0].sha256}.parquet") as file:
        columns = RowReader(file, "x").column_lists(("key", "key_bytes"))
        assert list(zip(*next(columns), strict=True)) == [
            ("caf%E9.jpg", None),
            ("caf%E9.jpg", b"caf\xe9.jpg"),
            ("%8E%A1/x.jpg", b"\x8e\xa1/x.jpg"),
            ("é.jpg", None),
        ]


def test_times_and_modes_come_back(store: LocalStore) -> None:
    """Protects dates and privacy in the plan, with which files come back; two plans do not differ by them."""
    known = ObjectInfo(key="a.jpg", size=1, etag="e", modified=981_173_106.25, permissions=0o640)
    objects = (known, ObjectInfo(key="b.jpg", size=1, etag="e"))
    shard = SourceShard(id="000000000-x", name="000000000-x", kind=ShardKind.FILES, objects=objects)
    (found,) = read_parts(store, write_parts(store, [shard]))
    assert [(each.modified, each.permissions) for each in found.objects] == [(981_173_106.25, 0o640), (None, None)]
    assert objects[1] == ObjectInfo(key="b.jpg", size=1, etag="e", modified=1.0, permissions=0o600)


def files(store: LocalStore) -> dict[str, bytes]:
    """Return every object of a store."""
    return {info.key: store.read(info.key) for info in store.list()}


@pytest.mark.usefixtures("small_parts")
def test_shards_come_back_in_order(store: LocalStore) -> None:
    """Protects every field of every shard, over the borders of parts and of row groups."""
    made = write_parts(store, shards(250))
    assert [part.shards for part in made] == [100, 100, 50]
    assert sum(part.objects for part in made) == 250 + 2 * 83
    assert list(read_parts(store, made)) == list(shards(250))
    for part in made:
        assert hashlib.sha256(store.read(f"plan/{part.sha256}.parquet")).hexdigest() == part.sha256


OBJECTS = st.builds(ObjectInfo, key=st.text(max_size=9), size=st.integers(0, 2**62), etag=st.text(max_size=9))


@given(st.lists(st.lists(OBJECTS, min_size=1, max_size=3).map(tuple), max_size=5))
@settings(max_examples=25)
def test_any_names_and_sizes_come_back(tmp_path_factory: pytest.TempPathFactory, listed: list[tuple[ObjectInfo, ...]]) -> None:
    """Protects keys and ETags of any text, which the check for changed sources relies on."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    names = [f"{index:09d}-x" for index in range(len(listed))]
    made = [
        SourceShard(id=name, name=name, kind=ShardKind.FILES, objects=each) for name, each in zip(names, listed, strict=True)
    ]
    assert list(read_parts(store, write_parts(store, made))) == made


def test_a_part_is_closed_by_its_bytes(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the memory of readers: shards of many loose files with long names make parts of fewer shards."""
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    made = write_parts(store, shards(300))
    assert len(made) > 5
    assert list(read_parts(store, made)) == list(shards(300))


@pytest.mark.usefixtures("small_parts")
def test_a_planner_that_died_leaves_nothing_in_the_way(store: LocalStore) -> None:
    """Protects the crash between parts and plan.json: there is no archive, and the next planner takes the parts up."""

    def dying() -> Iterator[SourceShard]:
        yield from islice(shards(250), 220)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(store, shards=dying())
    left = files(store)
    assert len(left) == 2
    assert all(key.startswith("plan/") for key in left)
    with pytest.raises(NotAnArchive):
        Archive.open(store)
    for key, data in list(left.items())[:1]:  # and one that was damaged since is written again
        store.replace(key, data[:-1])
    archive = begin(store)
    assert list(archive.shards()) == list(shards(250))
    assert left.items() <= files(store).items()


@pytest.mark.usefixtures("small_parts")
def test_two_planners_at_once_never_mix(tmp_path: Path) -> None:
    """Protects a plan from holding another listing's shards: of two planners one wins whole, the other is told what differs."""
    store, barrier = LocalStore(tmp_path), threading.Barrier(2)
    outcomes: dict[str, Archive | PipelineError] = {}

    def planner(tag: str) -> None:
        def together() -> Iterator[SourceShard]:
            for index, shard in enumerate(shards(250, tag=tag)):
                if index % 100 == 99:
                    barrier.wait()
                yield shard
            barrier.wait()

        try:
            outcomes[tag] = begin(store, shards=together())
        except PipelineError as error:
            outcomes[tag] = error

    threads = [threading.Thread(target=planner, args=(tag,)) for tag in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (tag for tag, outcome in outcomes.items() if isinstance(outcome, Archive))
    (refused,) = (outcome for outcome in outcomes.values() if isinstance(outcome, PlanConflict))
    assert list(Archive.open(store).shards()) == list(shards(250, tag=winner))
    assert "250 source shards changed in the source since (ü/000000.0, ü/000001.0, 000000002-x, …)" in str(refused)


@pytest.mark.usefixtures("small_parts")
def test_the_same_shards_in_other_parts_are_the_same_plan(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects planners of different releases on one archive: what counts is the shards, not how their parts were cut."""
    begun = begin(store)
    monkeypatch.setattr(parts, "PART_SHARDS", 70)
    monkeypatch.setattr(LocalStore, "exists", lambda *_: False)  # planned at the same time
    assert begin(store).digest == begun.digest


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_or_missing_part_is_refused(store: LocalStore, tmp_path: Path) -> None:
    """Protects against a job over half a plan: parts flipped, gone, swapped or miscounted are each one sentence."""
    archive = begin(store)
    first, second, third = archive.plan.parts
    path = tmp_path / "plan" / f"{second.sha256}.parquet"
    data = path.read_bytes()

    def refused(error: type[PipelineError], *parts: PlanPart) -> str:
        with pytest.raises(error) as caught:
            list(read_parts(store, parts or archive.plan.parts))
        return workshop.sentence(str(caught.value))

    path.write_bytes(data[:50] + b"!" + data[51:])
    assert "is damaged: SHA-256" in refused(ChecksumMismatch)
    assert len(list(islice(archive.shards(), 100))) == 100, "what is before the damage does not depend on it"
    path.unlink()
    assert "the plan names it, and it is missing" in refused(DamagedObject)
    path.write_bytes(data)
    assert list(archive.shards()) == list(shards(250))
    assert "shard 000000100-x stands where number 0 belongs" in refused(DamagedObject, second, first, third)
    more = PlanPart(sha256=third.sha256, shards=51, objects=third.objects)
    assert "50 shards are in it, 51 in the plan" in refused(DamagedObject, first, second, more)
    junk = b"PAR1 is not all there is to it"
    part = PlanPart(sha256=hashlib.sha256(junk).hexdigest(), shards=1, objects=1)
    store.create(f"plan/{part.sha256}.parquet", junk)
    assert "does not end as a Parquet file does" in refused(DamagedObject, part)


@pytest.mark.usefixtures("small_parts")
def test_opening_an_archive_reads_no_part(tmp_path: Path) -> None:
    """Protects workers, which open the archive and are handed their shards: a plan of millions costs them nothing."""

    class Listening(LocalStore):
        keys: tuple[str, ...] = ()

        def read(self, key: str, *args: Any, **others: Any) -> bytes:
            self.keys += (key,)
            return super().read(key, *args, **others)

    begin(LocalStore(tmp_path))
    store = Listening(tmp_path)
    archive = Archive.open(store)
    archive.model_bytes()
    assert archive.plan.shard_count == 250
    assert [key for key in store.keys if key.startswith("plan/")] == []
    next(archive.shards())
    assert len([key for key in store.keys if key.startswith("plan/")]) == 1


PLANNER = """
import resource, sys
from pathlib import Path
from pipeline.archives.archive import Archive
from pipeline.core.records import ObjectInfo, Settings, ShardKind, SourceShard
from pipeline.core.target import TargetSize
from pipeline.stores.store import LocalStore
from pipeline.tables.reader import RowReader

def shards(count):
    for index in range(count):
        keys = [f"photos/{index:09d}/{each:03d}.jpg" for each in range(32)]
        objects = tuple(ObjectInfo(key=key, size=1, etag=f"{index:032x}") for key in keys)
        yield SourceShard(id=f"{index:09d}-x", name=f"{index:09d}-x", kind=ShardKind.FILES, objects=objects)

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def cycle(folder, count):
    Path(folder).mkdir()
    settings = Settings(target=TargetSize(scale=(2, 2)))
    archive = Archive.begin(LocalStore(Path(folder)), source="/x", settings=settings, model=b"", shards=shards(count))
    assert sum(len(shard.objects) for shard in archive.shards()) == 32 * count

cycle(sys.argv[1] + "/small", 500)
before = memory()
cycle(sys.argv[1] + "/large", 5000)
print(memory() - before)
"""


@pytest.mark.slow
def test_planning_is_a_stream(tmp_path: Path) -> None:
    """Protects planners and drivers from the size of a plan: objects by the hundred thousand pass through little memory."""
    done = subprocess.run([sys.executable, "-c", PLANNER, tmp_path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 30, "MB; the objects of the large plan would be some 50"


def test_plan_json_stays_small(store: LocalStore) -> None:
    """Protects what every worker reads: plan.json has a line's worth for some 50,000 shards."""
    archive = begin(store)
    value = json.loads(store.read("plan.json"))
    (part,) = archive.plan.parts
    assert value["parts"] == [{"objects": part.objects, "sha256": part.sha256, "shards": 250}]
