"""What there is to rescale under a URI: stable shards, nothing overlooked without being counted."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.assets.names import has_image_name, is_hidden, split_stem
from pipeline.assets.shards import read_assets
from pipeline.core.errors import AccessDenied, EmptySource, InvalidOption, NotFound, SourceChanged
from pipeline.core.records import ObjectInfo, ShardKind, SourceShard
from pipeline.planning.left_out import HIDDEN
from pipeline.planning.sources import Listing, Source, find_shards, find_source
from pipeline.stores.store import LocalStore, Store, open_store


class ListedStore:
    """A store that is only a listing."""

    uri = "test://store"

    def __init__(self, sizes: Iterable[tuple[str, int]]) -> None:
        self._sizes = sorted(sizes)

    def exists(self, key: str) -> bool:
        return any(key == each for each, _ in self._sizes)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (ObjectInfo(key=key, size=size, etag="e") for key, size in self._sizes if key.startswith(prefix))


def found(names: Iterable[str], size: int = 1, **limits: int) -> Source:
    """Return what is found in a listing of these names."""
    return find_shards(cast(Store, ListedStore((name, size) for name in names)), Listing(tables=False, **limits))


def keys(shard: SourceShard) -> list[str]:
    """Return the keys of a shard's objects."""
    return [info.key for info in shard.objects]


def test_tars_and_parquets_are_shards_and_images_are_grouped() -> None:
    """Protects the rule that plans are made by, and the ids and names that commits and archives carry."""
    source = found(["a/1.jpg", "a/2.PNG", "b.tar", "c/d e.tar.gz", "f.parquet", "g.tgz", "notes.txt", "z.jpg"])
    assert [(shard.id, shard.name, shard.kind, keys(shard)) for shard in source.shards] == [
        ("000000000-b", "b.tar", ShardKind.TAR, ["b.tar"]),
        ("000000001-d-e", "c/d e.tar.gz", ShardKind.TAR, ["c/d e.tar.gz"]),
        ("000000002-f", "f.parquet", ShardKind.PARQUET, ["f.parquet"]),
        ("000000003-g", "g.tgz", ShardKind.TAR, ["g.tgz"]),
        ("000000004-a", "000000004-a", ShardKind.FILES, ["a/1.jpg", "a/2.PNG", "z.jpg"]),
    ]
    assert source.ignored == 1


def test_groups_close_by_count_and_by_bytes() -> None:
    """Protects the size of the unit of work."""
    names = [f"{number:03d}.jpg" for number in range(10)]
    assert [len(shard.objects) for shard in found(names, group_count=4).shards] == [4, 4, 2]
    assert [len(shard.objects) for shard in found(names, size=10, group_bytes=35).shards] == [3, 3, 3, 1]
    assert [len(shard.objects) for shard in found(names, size=100, group_bytes=35).shards] == [1] * 10


def test_stems_and_sidecars_stay_together() -> None:
    """Protects samples at the edge of a group, also where a folder sorts between the files of one stem."""
    names = ["a.jpg", "b.jpg", "b.png", "b.seg.json", "b.d/x.jpg", "b.txt", "c.jpg"]
    source = found(names, group_count=2)
    assert [keys(shard) for shard in source.shards] == [
        ["a.jpg", "b.d/x.jpg"],
        ["b.jpg", "b.png", "b.seg.json", "b.txt"],
        ["c.jpg"],
    ]
    assert source.ignored == 0


def test_files_that_are_no_part_of_a_sample_are_counted() -> None:
    """Protects users from thinking that everything was taken: other and hidden files are ignored, and that is told."""
    names = ["x.jpg", "y.txt", "README", ".DS_Store", "._x.jpg", ".git/a.jpg", "d/.x.jpg", "folder/"]
    source = found(names)
    assert [keys(shard) for shard in source.shards] == [["x.jpg"]]
    assert source.ignored == 7


def test_hidden_files_are_told_and_taken_where_all_are() -> None:
    """Protects what begins with a dot: it is listed as left out, with that as its reason, and carried with all files."""
    names, left = ["x.jpg", ".y.jpg", "d/.z.txt", ".git/a.jpg"], dict[str, str]()
    store = cast(Store, ListedStore((name, 1) for name in names))
    source = find_shards(store, Listing(left_out=lambda info, why: left.update({info.key: why})))
    assert [keys(shard) for shard in source.shards] == [["x.jpg"]]
    assert left == dict.fromkeys(sorted(names[1:]), HIDDEN)
    whole = find_shards(store, Listing(all_files=True))
    assert [keys(shard) for shard in whole.shards] == [sorted(names)]
    assert whole.ignored == 0


def test_long_sequences_of_one_stem_are_cut() -> None:
    """Protects the bound on a shard: frames of a film all share a stem up to the first dot."""
    names = [f"film.{number:05d}.jpg" for number in range(1000)] + ["film.txt"]
    source = found(names, group_count=100)
    assert [len(shard.objects) for shard in source.shards] == [100] * 9 + [101]
    assert source.ignored == 0


def test_images_of_one_stem_stay_together_in_a_full_group() -> None:
    """Protects restored names: where a GIF is written as PNG, only its own shard knows that a PNG of that stem is there."""
    names = ["scan (0).png", *(f"scan ({number}).{form}" for number in range(1, 40) for form in ("gif", "png"))]
    shards = [keys(shard) for shard in found(names, group_count=10).shards]
    assert len(shards) > 4
    for shard in shards:
        stems = [split_stem(key)[0] for key in shard]
        assert all(stems.count(stem) == 2 for stem in stems if stem != "scan (0)")
    assert sorted(key for shard in shards for key in shard) == sorted(names)


def test_what_is_about_a_numbered_photograph_is_beside_it() -> None:
    """Protects the JSON of a Takeout album, which sorts behind that of photographs with more numbers."""
    names = ["IMG_1(1)(1).jpg", "IMG_1(1).jpg", "IMG_1(1).jpg.supplemental-metadata(1).json"]
    names.append("IMG_1.jpg.supplemental-metadata(1).json")
    assert [sorted(keys(shard)) for shard in found(names).shards] == [sorted(names)]


@pytest.mark.parametrize("error", [AccessDenied("x", "no"), NotFound("x"), SourceChanged("x", "a", "b")], ids=type)
def test_an_object_that_cannot_be_looked_into_costs_itself(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects a plan from a file that is another's, goes, or grows while it is made: it is listed, and the rest is planned."""
    for name in ("a.jpg", "notes"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0")

    def refuse(*_: object, **__: object) -> bytes:
        raise error

    monkeypatch.setattr(LocalStore, "read", refuse)
    left: dict[str, str] = {}
    source = find_source(str(tmp_path), Listing(left_out=lambda info, why: left.update({info.key: why})))
    assert [keys(shard) for shard in source.shards] == [["a.jpg"]]
    assert list(left) == ["notes"]
    assert "cannot be looked into" in left["notes"]


@pytest.mark.slow
@given(
    st.lists(
        st.from_regex(re.compile(r"(a|b|a\.c|\.h)?/?(a|b|a-b|A)(\.s)?(\.(jpg|png|txt|tar|d/a\.jpg))?"), fullmatch=True),
        unique=True,
    ),
    st.integers(1, 5),
)
@settings(max_examples=200, deadline=None)
def test_every_object_is_in_one_shard_or_counted(names: list[str], group_count: int) -> None:
    """Protects "nothing is lost": images once, sidecars beside them, ids unique and in order, the same each time."""
    try:
        source = found(names, group_count=group_count)
    except EmptySource:
        assert not any((has_image_name(name) or name.endswith(".tar")) and not is_hidden(name) for name in names)
        return
    made = tuple(source.shards)
    objects = [key for shard in made for key in keys(shard)]
    assert len(objects) == len(set(objects))
    assert len(objects) + source.ignored == len(names)
    assert {name for name in names if has_image_name(name) and not is_hidden(name)} <= set(objects)
    ids = [shard.id for shard in made]
    assert ids == sorted(set(ids))
    assert made == tuple(found(reversed(names), group_count=group_count).shards)
    for shard in made:
        assert keys(shard) == sorted(keys(shard))
        images = {split_stem(key)[0] for key in keys(shard) if has_image_name(key)}
        assert shard.kind is ShardKind.TAR or {split_stem(key)[0] for key in keys(shard)} == images


def test_ids_are_safe_file_names() -> None:
    """Protects the archive's keys, which ids become part of, against any name of a source."""
    names = ["ü/☀.tar", "..x.tar" * 30, "a b/" + "y" * 300 + ".parquet", "Straße/1.jpg", "Straße/2.jpg"]
    for shard in found(name for name in names if not is_hidden(name)).shards:
        assert re.fullmatch(r"\d{9}-[A-Za-z0-9_-]([A-Za-z0-9._-]{0,38}[A-Za-z0-9_-])?", shard.id)


@pytest.mark.parametrize("names", [[], ["a.txt", "b/README", ".x.jpg"]])
def test_nothing_to_rescale_is_told(names: list[str]) -> None:
    """Protects against a job that ends well without having done anything."""
    with pytest.raises(EmptySource, match="test://store holds no image"):
        found(names)


def test_archive_is_refused_as_source() -> None:
    """Protects against rescaling an archive's own tables; an archive just begun is one as well."""
    with pytest.raises(InvalidOption, match="iarn restore"):
        found(["plan.json", "commits/0.json", "shards/0.parquet"])
    with pytest.raises(InvalidOption, match="iarn restore"):
        found(["plan.json", "model/0.safetensors"])
    source = found(["plan.json", "x.jpg"])
    assert [keys(shard) for shard in source.shards] == [["x.jpg"]]
    assert source.ignored == 1


def test_archive_among_the_sources_is_passed_over() -> None:
    """Protects `rescale photos photos/small` and then another one: the first archive's tables are no photographs."""
    part = f"plan/{'ab' * 32}.parquet"
    archive = ["FORMAT.md", "commits/0/0.json", "model/0.safetensors", "plan.json", part, "rollups/0.json", "shards/0.parquet"]
    source = found(["a.jpg", "z.parquet", *(f"small/{name}" for name in archive), "small/shards2/0.parquet"])
    assert [shard.name for shard in source.shards] == ["small/shards2/0.parquet", "z.parquet", "000000002-a"]
    assert source.ignored == len(archive)


def test_folders_and_single_files_are_sources(tmp_path: Path) -> None:
    """Protects the first argument of `iarn rescale`: a folder, an image, a tar or a Parquet file."""
    for name in ("x.jpg", "x.txt", "y.tar", "z.parquet"):
        (tmp_path / name).write_bytes(b"\0" * 1024)
    source = find_source(str(tmp_path))
    assert [shard.name for shard in source.shards] == ["y.tar", "z.parquet", "000000002-x"]
    assert next(find_source(f"{tmp_path}/").shards).name == "y.tar"
    for name, kind in (("x.jpg", ShardKind.FILES), ("y.tar", ShardKind.TAR), ("z.parquet", ShardKind.PARQUET)):
        source = find_source(str(tmp_path / name))
        assert source.store.uri == str(tmp_path)
        assert [(shard.kind, keys(shard)) for shard in source.shards] == [(kind, [name])]
    assert list(read_assets(source.store, next(find_source(str(tmp_path / "y.tar")).shards))) == []


def test_sources_that_are_not_there_are_told(tmp_path: Path) -> None:
    """Protects against a missing folder, an empty one, and a file of another kind being taken for sources."""
    with pytest.raises(NotFound, match=r"/none does not exist"):
        find_source(str(tmp_path / "none"))
    with pytest.raises(EmptySource):
        find_source(str(tmp_path))
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(EmptySource, match=r"x\.txt"):
        find_source(str(tmp_path / "x.txt"))
    with pytest.raises(InvalidOption):
        find_source("ftp://somewhere/x")


def test_listing_is_read_once_and_in_order(tmp_path: Path) -> None:
    """Protects large prefixes, and that a real folder's order is the one that grouping relies on."""
    for name in ("b.d/x.jpg", "b.jpg", "b.txt", "b-1.jpg", "b/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (shard,) = find_shards(open_store(str(tmp_path))).shards
    assert keys(shard) == ["b-1.jpg", "b.d/x.jpg", "b.jpg", "b.txt", "b/y.jpg"]


def test_names_that_are_no_files_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the list of what is left out: links to nothing or back, pipes and folders that may not be read are in it, and
    cost nothing beside them."""
    for name in ("a.jpg", "locked/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "annexed.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    scandir = os.scandir

    def guarded(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    left: dict[str, str] = {}
    source = find_source(str(tmp_path), Listing(left_out=lambda info, why: left.update({info.key: why})))
    assert [keys(shard) for shard in source.shards] == [["a.jpg"]]
    assert source.ignored == len(left) == 4
    assert left["annexed.jpg"].startswith("a link to nothing")
    assert left["locked/"] == "this folder cannot be read (Permission denied)"
    assert (left["pipe.jpg"], left["round/"]) == ("a pipe, a socket or a device", "a link to a folder that it is in")
