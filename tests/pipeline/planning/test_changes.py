"""A source beside its plan: what is new, gone or changed is told, each object once, and what is new makes shards of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.assets.folders import loose_samples
from pipeline.assets.names import has_image_name
from pipeline.core.errors import EmptySource
from pipeline.core.records import ObjectInfo, ShardKind, SourceShard
from pipeline.planning.changes import WHY, Change, PlannedObjects, SourceChanges
from pipeline.planning.object_list import ObjectList
from pipeline.planning.sources import Listing, find_shards, find_source
from pipeline.stores.store import LocalStore, Store
from tests.pipeline.planning.test_sources import keys

Files = dict[str, str]
"""A listing: ETags by key."""


class ListedStore:
    """A store that is only a listing."""

    uri = "test://store"

    def __init__(self, files: Files) -> None:
        self._files = files

    def exists(self, key: str) -> bool:
        return key in self._files

    def list(self, prefix: str = "") -> Iterable[ObjectInfo]:
        return (ObjectInfo(key=key, size=1, etag=self._files[key]) for key in sorted(self._files) if key.startswith(prefix))


@dataclass
class Found:
    """What comparing has found: the shards of what is new, and the lines of both lists by what they say."""

    shards: list[SourceShard]
    counts: Counter[Change]
    lines: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def new(self) -> list[str]:
        """The keys of what would be added, in order."""
        return [key for shard in self.shards for key in keys(shard)]


def planned(files: Files, **limits: int | bool) -> list[SourceShard]:
    """Return the plan of a listing."""
    return list(find_shards(cast(Store, ListedStore(files)), Listing(tables=False, **limits)).shards)  # type: ignore[arg-type]


def compared(plan: list[SourceShard], files: Files, folder: Path, **limits: int | bool) -> Found:
    """Compare a plan with a listing."""
    left_out: list[str] = []
    with ObjectList(folder / "list") as listed:
        changes = SourceChanges(PlannedObjects(plan), listed, lambda info, _why: left_out.append(info.key))
        told = {"planned": changes.is_planned, "left_out": changes.leave_out}
        listing = Listing(tables=False, first=len(plan), **told, **limits)  # type: ignore[arg-type]
        shards = list(find_shards(cast(Store, ListedStore(files)), listing).shards)
        changes.add_gone(plan)
        store = LocalStore(folder)
        listed.put(store, "changes")
    lines: dict[str, list[str]] = {}
    if store.exists("changes"):
        for line in store.read("changes").splitlines():
            row = json.loads(line)
            assert row["why"] == WHY[row["what"]]
            lines.setdefault(row["what"], []).append(row["key"])
    assert {what: len(each) for what, each in lines.items()} == changes.counts
    return Found(shards=shards, counts=changes.counts, lines=lines, left_out=left_out)


def test_each_kind_of_change_is_told(tmp_path: Path) -> None:
    """Protects users who go by "all done": every object that is not as planned is counted and named, and no other."""
    before = dict.fromkeys(("a.jpg", "a.txt", "b.tar", "c/d.png", "e.parquet", "notes.md"), "1")
    plan = planned(before)
    now = dict.fromkeys((*(before.keys() - {"b.tar"}), "c/d.txt", "f.jpg", "film.mp4", "g.tar"), "1")
    found = compared(plan, now | dict.fromkeys(("a.txt", "e.parquet", "notes.md"), "2"), tmp_path)
    assert found.lines == {"gone": ["b.tar"], "changed": ["a.txt", "e.parquet"], "late sidecar": ["c/d.txt"]}
    assert [(shard.id, shard.kind, keys(shard)) for shard in found.shards] == [
        ("000000003-g", ShardKind.TAR, ["g.tar"]),
        ("000000004-f", ShardKind.FILES, ["f.jpg"]),
    ]
    assert found.left_out == ["film.mp4", "notes.md"]
    same = compared(plan, before, tmp_path)
    assert (same.counts, same.new, same.left_out) == (Counter(), [], ["notes.md"])


NAMES = [
    *(
        f"{folder}{stem}{end}"
        for folder in ("", "a/")
        for stem in ("a", "b", "c.d")
        for end in (".jpg", ".png", ".txt", ".json")
    ),
    *("a.tar", "b/x.tgz", "b.parquet", "README", ".hidden.jpg", "IMG(1).jpg", "IMG.jpg", "IMG.jpg(1).json"),
]


ROUNDS = st.lists(st.lists(st.sampled_from(NAMES), unique=True, max_size=9), min_size=1, max_size=5)
LISTINGS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("12"))


@pytest.mark.slow
@given(rounds=ROUNDS, group_count=st.integers(1, 4), all_files=st.booleans())
@example(rounds=[["a/c.d.jpg", "a/c.d.json"], ["a.jpg", "a.png", "a.txt", "a/c.d.txt"]], group_count=1, all_files=False)
@settings(max_examples=100)
def test_any_additions_are_each_object_once(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[str]], group_count: int, all_files: bool
) -> None:
    """Protects exactly-once over any rounds: each object that one plan of all would have is in one shard, or told as late;
    those that it would not have are in none, images are always taken, and numbers go on."""
    folder = tmp_path_factory.mktemp("lists")
    files: Files = {}
    plan: list[SourceShard] = []
    late: set[str] = set()
    for names in rounds:
        files |= dict.fromkeys(names, "e")
        found = compared(plan, files, folder, group_count=group_count, all_files=all_files)
        assert found.counts.keys() <= {Change.LATE}
        late = set(found.lines.get(Change.LATE, ()))
        taken = {key for shard in plan for key in keys(shard)}
        assert {*found.new, *found.left_out} | late | taken == files.keys()
        plan += found.shards
    try:
        whole = {key for shard in planned(files, group_count=group_count, all_files=all_files) for key in keys(shard)}
    except EmptySource:
        whole = set()
    objects = [key for shard in plan for key in keys(shard)]
    assert len(objects) == len(set(objects))
    assert set(objects) | late == whole
    assert not any(has_image_name(key) for key in late)
    assert not (all_files and late)
    assert [shard.id[:9] for shard in plan] == [f"{number:09d}" for number in range(len(plan))]
    assert not compared(plan, files, folder, group_count=group_count, all_files=all_files).new
    for shard in plan:
        if shard.kind is ShardKind.FILES and not all_files:
            assert not loose_samples(shard.objects, {key for key in keys(shard) if has_image_name(key)})[1]


@pytest.mark.slow
@given(LISTINGS, LISTINGS)
@settings(max_examples=100)
def test_any_listing_beside_any_plan(tmp_path_factory: pytest.TempPathFactory, before: Files, now: Files) -> None:
    """Protects the counts: they are those of two sets laid side by side, whatever the listing leaves out by now."""
    try:
        plan = planned(before)
    except EmptySource:
        plan = []
    had = {info.key: info.etag for shard in plan for info in shard.objects}
    found = compared(plan, now, tmp_path_factory.mktemp("lists"))
    assert set(found.lines.get(Change.GONE, ())) == had.keys() - now.keys()
    assert set(found.lines.get(Change.CHANGED, ())) == {key for key in had.keys() & now.keys() if had[key] != now[key]}
    assert set(found.new).isdisjoint(had)
    assert {*found.new, *found.left_out, *found.lines.get(Change.LATE, ())} == now.keys() - had.keys()


def test_what_belongs_to_a_planned_image_is_late(tmp_path: Path) -> None:
    """Protects sidecars from being attached to another image, and from silence: also where Takeout cut or numbered a name,
    and in long sequences of one stem."""
    plan = planned({"IMG.jpg": "1", "IMG(1).jpg": "1", "x.jpg": "1"})
    late = {"IMG.jpg.supplemental-metadata.json", "IMG.jpg(1).json", "x.json"}
    found = compared(plan, dict.fromkeys(("IMG.jpg", "IMG(1).jpg", "x.jpg", "metadata.json", *late), "1"), tmp_path)
    assert set(found.lines[Change.LATE]) == late
    assert found.left_out == ["metadata.json"]
    frames = {f"film.{number:04d}.jpg": "1" for number in range(20)}
    found = compared(planned(frames, group_count=4), frames | {"film.0020.jpg": "1", "film.txt": "1"}, tmp_path, group_count=4)
    assert (found.new, found.counts) == (["film.0020.jpg", "film.txt"], Counter())
    found = compared(planned(frames, group_count=4), frames | {"film.txt": "1"}, tmp_path, group_count=4)
    assert (found.new, found.lines) == ([], {Change.LATE: ["film.txt"]})


def test_new_images_take_new_sidecars_of_their_stem(tmp_path: Path) -> None:
    """Protects a caption that comes with a second image of its stem: it is taken in with that one."""
    plan = planned({"cat.jpg": "1", "dog.jpg": "1", "dog.txt": "1"})
    found = compared(plan, dict.fromkeys(("cat.jpg", "cat.png", "cat.txt", "dog.jpg", "dog.bmp", "dog.txt"), "1"), tmp_path)
    assert [keys(shard) for shard in found.shards] == [["cat.png", "cat.txt", "dog.bmp"]]
    assert not found.counts


def test_planned_objects_are_not_looked_into_again(tmp_path: Path) -> None:
    """Protects large sources: only what is new is looked into, and where its name does not tell."""
    for name in ("c0ffee", "x.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0 and so on")
    store = LocalStore(tmp_path)
    plan = list(find_shards(store).shards)
    read: list[str] = []

    class Reading(LocalStore):
        def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
            read.append(key)
            return super().read(key, start, stop, etag)

    (tmp_path / "decade").write_bytes(b"\xff\xd8\xff\xe0 and so on")
    seen = PlannedObjects(plan)
    (shard,) = find_shards(Reading(tmp_path), Listing(planned=lambda info: seen.meet(info) is not Change.NEW)).shards
    assert (keys(shard), read) == (["decade"], ["decade"])


def test_an_archive_among_its_sources_is_passed_over() -> None:
    """Protects `rescale photos photos/small`: what the archive itself consists of is not new, not with --all-files either."""
    found = {
        "x.jpg": "1",
        "small/plan.json": "1",
        f"small/plan/{'ab' * 32}.parquet": "1",
        "small/shards/0.parquet": "1",
        "small2/y.jpg": "1",
    }
    listing = Listing(own="small/", all_files=True, planned=lambda _: False)
    (shard,) = find_shards(cast(Store, ListedStore(found)), listing).shards
    assert keys(shard) == ["small2/y.jpg", "x.jpg"]


def test_a_single_file_is_compared_by_itself(tmp_path: Path) -> None:
    """Protects archives of one file: the file that is planned makes no shard, another one a shard with the next number."""
    for name in ("x.jpg", "y.jpg"):
        (tmp_path / name).write_bytes(b"\0")
    (shard,) = find_source(str(tmp_path / "x.jpg")).shards
    seen = PlannedObjects([shard])
    listing = Listing(planned=lambda info: seen.meet(info) is not Change.NEW, first=1)
    assert list(find_source(str(tmp_path / "x.jpg"), listing).shards) == []
    (other,) = find_source(str(tmp_path / "y.jpg"), listing).shards
    assert (other.id, keys(other)) == ("000000001-y", ["y.jpg"])


@pytest.mark.slow
def test_a_plan_takes_little_memory() -> None:
    """Protects drivers of ten million objects: 16 bytes and two bits are remembered of each."""
    objects = (ObjectInfo(key=f"photos/{number:09d}.jpg", size=1, etag=f"{number:032x}") for number in range(100_000))
    seen = PlannedObjects(SourceShard(id="", name="", kind=ShardKind.TAR, objects=(info,)) for info in objects)
    held = sum(len(memoryview(part).cast("B")) for part in (seen._same, seen._keys, seen._met_same, seen._met_keys))
    assert held <= 100_000 * 16.3
