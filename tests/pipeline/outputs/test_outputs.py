"""Where restored assets go: names, collisions, hostile names, and nothing overwritten, for files, tars and Parquet."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.assets.names import split_stem
from pipeline.assets.shards import read_assets
from pipeline.core.errors import AlreadyExists, DamagedEntry, InvalidKey, StoreUnavailable
from pipeline.core.records import ObjectInfo, ShardKind, SourceShard
from pipeline.outputs.changed_names import HEADER, list_changed_names
from pipeline.outputs.names import ShardNames
from pipeline.outputs.outputs import OutputKind, create_or_confirm, loose_folders, named_outputs, open_output
from pipeline.stores.store import LocalStore
from tests.support import workshop
from tests.support.workshop import Sample

Added = tuple[str, bytes | None, Mapping[str, bytes]]


def shard_of(kind: ShardKind, name: str = "folder/photos.tar", shard_id: str = "000000000-photos") -> SourceShard:
    """Return a source shard of one object."""
    return SourceShard(id=shard_id, name=name, kind=kind, objects=(ObjectInfo(key=name, size=1, etag="x"),))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A destination."""
    (tmp_path / "out").mkdir()
    return LocalStore(tmp_path / "out")


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A local place for what is not uploaded yet."""
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def put(kind: OutputKind, store: LocalStore, spool: Path, added: list[Added], source: ShardKind = ShardKind.FILES) -> int:
    """Write assets of one shard; return the bytes that it told of."""
    output = open_output(kind, store, shard_of(source), "photos", spool)
    with closing(output):
        return sum(output.add(*each) for each in added) + output.finish()


def names_in(store: LocalStore) -> list[str]:
    """Return the names of all files that were written, of a tar's members where it is one."""
    files = workshop.written(Path(store.uri))
    tars = [name for name in files if name.endswith(".tar")]
    return [member for name in tars for member, _ in workshop.members_of(files[name])] if tars else list(files)


@pytest.mark.parametrize("kind", [OutputKind.FILES, OutputKind.TAR])
def test_assets_that_would_share_a_name_get_one_each(kind: OutputKind, store: LocalStore, spool: Path) -> None:
    """Protects a.jpg and a.png written as PNG: both are there, with all their sidecars, each beside its own image."""
    added: list[Added] = [
        ("a.png", b"one", {"txt": b"first"}),
        ("a.png", b"two", {"txt": b"second"}),
        ("a~2.png", b"three", {}),
    ]
    written = put(kind, store, spool, added)
    files = workshop.written(Path(store.uri))
    found = dict(workshop.members_of(files["photos.tar"])) if kind is OutputKind.TAR else files
    assert found["a.png"] == b"one"
    assert found["a.txt"] == b"first"
    assert found["a~2.png"] == b"two"
    assert found["a~2.txt"] == b"second"
    assert sorted(found.values()) == sorted([b"one", b"first", b"two", b"second", b"three"])
    assert written == sum(map(len, files.values()))


def test_an_image_does_not_take_the_name_of_its_own_sidecar(store: LocalStore, spool: Path) -> None:
    """Protects samples of two images: a.jpg written as PNG beside its sidecar a.png leaves both."""
    put(OutputKind.FILES, store, spool, [("a.png", b"image", {"png": b"mask", "png.png": b"other"})], ShardKind.TAR)
    found = workshop.written(Path(store.uri) / "photos")
    assert found == {"a.png": b"mask", "a.png.png": b"other", "a.png.png.png": b"image"}


def test_a_sidecar_of_another_stem_takes_no_other_ones_name(store: LocalStore, spool: Path) -> None:
    """Protects Takeout's JSON beside a photograph's own: as members of one stem both are there, each with its bytes."""
    put(OutputKind.TAR, store, spool, [("a.jpg", b"1", {"/cut.json": b"2", "json": b"3", "/cut.json.json": b"4"})])
    (tar,) = workshop.written(Path(store.uri)).values()
    found = dict(workshop.members_of(tar))
    assert found == {"a.jpg": b"1", "a.cut.json": b"2", "a.json": b"3", "a.json.json": b"4"}


def test_dotted_keys_of_parquet_keep_their_names_and_sidecars(store: LocalStore, spool: Path) -> None:
    """Protects v1.1.jpg and v1.2.jpg: as files each keeps its name, and its sidecar has the name of its own image."""
    added: list[Added] = [(f"v1.{index}.jpg", b"%d" % index, {"json": b"{%d}" % index}) for index in range(3)]
    put(OutputKind.FILES, store, spool, added, ShardKind.PARQUET)
    found = workshop.written(Path(store.uri) / "photos")
    assert found == {f"v1.{i}.jpg": b"%d" % i for i in range(3)} | {f"v1.{i}.json": b"{%d}" % i for i in range(3)}


@pytest.mark.parametrize("source", [ShardKind.PARQUET, ShardKind.FILES])
def test_every_asset_of_a_tar_is_a_sample_of_its_own(source: ShardKind, store: LocalStore, spool: Path) -> None:
    """Protects readers of WebDataset, who would take v1.1.jpg and v1.2.jpg, or a.jpg and a.png, for one sample."""
    added: list[Added] = [
        *((f"v1.{index}.jpg", b"%d" % index, {"json": b"{%d}" % index}) for index in range(3)),
        ("a.jpg", b"one", {}),
        ("a.png", b"two", {}),
    ]
    put(OutputKind.TAR, store, spool, added, source)
    info = store.stat("photos.tar")
    shard = SourceShard(id="x", name=info.key, kind=ShardKind.TAR, objects=(info,))
    assets = list(read_assets(store, shard))
    assert [(asset.data, dict(asset.sidecars)) for asset in assets] == [(data, sidecars) for _, data, sidecars in added]


def test_samples_of_a_tar_keep_their_names(store: LocalStore, spool: Path) -> None:
    """Protects tar to tar: what was there under a name, a stem that comes twice too, is there under the same again."""
    added: list[Added] = [("a.jpg", b"1", {"txt": b"2"}), ("b.1.jpg", b"3", {}), ("a.json", None, {"json": b"4"})]
    put(OutputKind.TAR, store, spool, added, ShardKind.TAR)
    assert names_in(store) == ["a.jpg", "a.txt", "b.1.jpg", "a.json"]


@pytest.mark.parametrize("kind", [OutputKind.FILES, OutputKind.TAR])
@pytest.mark.parametrize("key", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", "C:\\x.jpg", "a\x00b.jpg", "..", "a//b"])
def test_no_name_leads_out_of_the_destination(kind: OutputKind, key: str, store: LocalStore, spool: Path) -> None:
    """Protects whoever restores an archive of a stranger: hostile keys and suffixes become harmless names below the folder."""
    put(kind, store, spool, [(key, b"image", {"../../txt": b"text", "/json": b"{}"})])
    names = names_in(store)
    assert len(names) == 3
    for name in names:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert not re.search(r"[\x00-\x1f\\]", name)
    outside = [path for path in Path(store.uri).parent.rglob("*") if path.is_file() and Path(store.uri) not in path.parents]
    assert [path for path in outside if path.parent != spool] == []


def test_another_file_of_the_name_stays_and_the_rest_is_written(store: LocalStore, spool: Path) -> None:
    """Protects what is in a destination already: it stays as it is, its asset is refused, sidecars and others are written."""
    mine = Path(store.uri) / "b.png"
    mine.write_bytes(b"mine")
    output = open_output(OutputKind.FILES, store, shard_of(ShardKind.FILES), "photos", spool)
    assert output.add("a.png", b"a", {}) == 1
    with pytest.raises(AlreadyExists) as caught:
        output.add("b.png", b"b", {"txt": b"caption"})
    assert "b.png" in workshop.sentence(str(caught.value))
    assert output.add("c.png", b"c", {}) == 1
    assert workshop.written(Path(store.uri)) == {"a.png": b"a", "b.png": b"mine", "b.txt": b"caption", "c.png": b"c"}


def test_names_that_are_too_long_are_cut_apart_and_keep_their_kind(store: LocalStore, spool: Path) -> None:
    """Protects long names, which another extension, a number or a suffix makes too long for a disk: all files are there, each
    with its extension, and sidecars with the stem of their image."""
    keys = [f"{'x' * 250}{number}.gif" for number in range(2)]
    names = ShardNames(lambda: [*keys, *(key.replace("gif", "png") for key in keys)])
    written = [names.written_as(key, "png") for key in keys]
    put(OutputKind.FILES, store, spool, [(name, b"1", {"txt": b"2"}) for name in (*written, *written)])
    found = names_in(store)
    assert len(found) == 8
    assert all(len(name) <= 255 for name in found)
    assert [sum(name.endswith(end) for name in found) for end in (".gif.png", ".txt")] == [4, 4]
    stems = {split_stem(name)[0] for name in found if name.endswith(".png")}
    assert len(stems) == 4
    assert stems == {split_stem(name)[0] for name in found}


def test_a_folder_in_the_way_is_a_clear_refusal(store: LocalStore, spool: Path) -> None:
    """Protects folders: a folder of an asset's name, and a file where its folder would be, are told and left."""
    (Path(store.uri) / "a.png").mkdir()
    (Path(store.uri) / "b").write_bytes(b"mine")
    output = open_output(OutputKind.FILES, store, shard_of(ShardKind.FILES), "photos", spool)
    with pytest.raises(AlreadyExists):
        output.add("a.png", b"a", {})
    with pytest.raises(InvalidKey) as caught:
        output.add("b/c.png", b"c", {})
    workshop.sentence(str(caught.value))
    assert workshop.written(Path(store.uri)) == {"b": b"mine"}


@pytest.mark.parametrize("kind", list(OutputKind))
def test_the_same_bytes_are_accepted_and_others_refused(kind: OutputKind, store: LocalStore, spool: Path) -> None:
    """Protects resuming: the same restore again finds its own files and goes on; a tar or Parquet file of others is refused."""
    put(kind, store, spool, [("a.png", b"a", {"txt": b"x"})])
    before = workshop.written(Path(store.uri))
    put(kind, store, spool, [("a.png", b"a", {"txt": b"x"})])
    assert workshop.written(Path(store.uri)) == before
    with pytest.raises(AlreadyExists):
        put(kind, store, spool, [("a.png", b"b", {"txt": b"x"})])
    assert workshop.written(Path(store.uri)) == before


def test_a_tar_is_the_same_every_time_and_plain(store: LocalStore, spool: Path) -> None:
    """Protects reproducible tars: no times, no owners, members in order, long and foreign names kept."""
    names = ["é" * 60 + ".png", "x/" * 60 + "b.png"]
    put(OutputKind.TAR, store, spool, [(name, b"data", {}) for name in names])
    data = (Path(store.uri) / "photos.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        headers = tar.getmembers()
    assert [header.name for header in headers] == names
    assert {(header.mtime, header.uid, header.uname, header.mode) for header in headers} == {(0, 0, "", 0o644)}


def test_parquet_without_source_columns_has_key_image_and_sidecars(store: LocalStore, spool: Path) -> None:
    """Protects readers of a restored table: one row per asset, keys unique, the Hugging Face image struct."""
    put(OutputKind.PARQUET, store, spool, [("a.png", b"1", {"txt": b"x"}), ("a.png", b"2", {}), ("b.txt", None, {"txt": b"y"})])
    rows = pq.read_table(Path(store.uri) / "photos.parquet").to_pylist()
    assert [row["key"] for row in rows] == ["a.png", "a~2.png", "b.txt"]
    assert [row["image"] for row in rows] == [
        {"bytes": b"1", "path": "a.png"},
        {"bytes": b"2", "path": "a~2.png"},
        {"bytes": None, "path": "b.txt"},
    ]
    assert [row["sidecars"] for row in rows] == [[{"name": "txt", "data": b"x"}], [], [{"name": "txt", "data": b"y"}]]


def test_a_damaged_row_of_parquet_is_ours(tmp_path: Path, store: LocalStore, spool: Path) -> None:
    """Protects the sentence: columns that cannot be put back together are a damaged entry, no vendor's error."""
    workshop.as_parquet(tmp_path / "source", workshop.samples(1))
    schema = pq.read_schema(tmp_path / "source/photos.parquet").serialize().to_pybytes()
    output = open_output(OutputKind.PARQUET, store, shard_of(ShardKind.PARQUET), "photos", spool, (schema, "image"))
    with closing(output), pytest.raises(DamagedEntry):
        output.add("a.png", b"1", {"json": b"{no json"})


def test_what_is_given_up_leaves_nothing(store: LocalStore, spool: Path) -> None:
    """Protects destination and disk: an output that is closed unfinished has written no object."""
    for kind in (OutputKind.TAR, OutputKind.PARQUET):
        output = open_output(kind, store, shard_of(ShardKind.FILES), "photos", spool)
        output.add("a.png", b"1", {})
        output.close()
    assert workshop.written(Path(store.uri)) == {}


def test_a_full_local_disk_is_ours(store: LocalStore, tmp_path: Path) -> None:
    """Protects the sentence: where the spool cannot be written it is a store's error with the place, and can be tried again."""
    with pytest.raises((StoreUnavailable, InvalidKey)) as caught:
        open_output(OutputKind.TAR, store, shard_of(ShardKind.FILES), "photos", tmp_path / ("x" * 300))
    workshop.sentence(str(caught.value))


def test_names_of_shards_are_their_own() -> None:
    """Protects sources with x.tar, x.tar.gz and x.parquet side by side: no two shards are written to one place."""
    shards = [
        shard_of(ShardKind.TAR, "x.tar", "0"),
        shard_of(ShardKind.TAR, "x.tar.gz", "1"),
        shard_of(ShardKind.PARQUET, "x.parquet", "2"),
        shard_of(ShardKind.TAR, "y/z.TGZ", "3"),
        shard_of(ShardKind.FILES, "000000004-x", "4"),
        shard_of(ShardKind.TAR, "../../evil.tar", "5"),
        shard_of(ShardKind.PARQUET, "data.pq", "6"),
    ]
    assert [shard.name for shard in named_outputs(shards)] == [
        "x.tar",
        "x.tar.gz",
        "x.parquet",
        "y/z",
        "4",
        "%2E%2E/%2E%2E/evil",
        "data",
    ]


def test_names_are_told_as_shards_pass() -> None:
    """Protects a restore of millions of shards: their names are known without the plan's end, and few shards are held."""
    listed = (
        each
        for index in count()
        for each in (
            shard_of(ShardKind.TAR, f"{index:06d}.tar", f"{3 * index:09d}-t"),
            shard_of(ShardKind.TAR, f"{index:06d}.tgz", f"{3 * index + 1:09d}-t"),
            shard_of(ShardKind.FILES, f"{index:06d}/x.jpg", f"{3 * index + 2:09d}-x"),
        )
    )
    names = [shard.name for shard in islice(named_outputs(listed), 7)]
    assert names == ["000000.tar", "000000.tgz", "000000002-x", "000001.tar", "000001.tgz", "000000005-x", "000002.tar"]


def test_a_tar_beside_a_folder_of_its_name_is_written_in_full() -> None:
    """Protects cats.tar beside cats/: their files are not mixed, whichever came later, and what was named keeps its name."""
    tar, files = shard_of(ShardKind.TAR, "a/cats.tar", "0"), shard_of(ShardKind.FILES, "a/cats/b/c.jpg", "1")
    odd = shard_of(ShardKind.FILES, "a/cats.tar/d.jpg", "2")
    for shards, begun, names in (
        ([tar, files], None, ["a/cats.tar", "1"]),
        ([tar, files, odd], None, ["0", "1", "2"]),
        ([tar, files], 1, ["a/cats", "1"]),
        ([files, tar], 1, ["1", "0"]),
    ):
        assert [shard.name for shard in named_outputs(shards, begun, loose_folders(shards))] == names


@pytest.mark.parametrize("source", [ShardKind.FILES, ShardKind.TAR])
def test_no_asset_is_written_among_what_a_destination_remembers(store: LocalStore, spool: Path, source: ShardKind) -> None:
    """Protects a restore's own state from a source that was a restore itself, and its files, which get another name."""
    shard = shard_of(source)
    name, key = ("photos", ".iarn/a.png") if source is ShardKind.FILES else (".iarn", "a.png")
    output = open_output(OutputKind.FILES, store, shard, name, spool)
    output.add(key, b"a", {"txt": b"x"})
    assert output.place + output.name == "%2Eiarn/a.png"
    found = sorted(path.relative_to(store.uri).as_posix() for path in Path(store.uri).rglob("*") if path.is_file())
    assert found == ["%2Eiarn/a.png", "%2Eiarn/a.txt"]


def test_create_or_confirm_takes_files_and_bytes(store: LocalStore, tmp_path: Path) -> None:
    """Protects both ways in: a local file and bytes are compared with what is there by content."""
    (tmp_path / "local").write_bytes(b"content")
    create_or_confirm(store, "a", tmp_path / "local")
    create_or_confirm(store, "a", b"content")
    for other in (b"CONTENT", b"longer content"):
        with pytest.raises(AlreadyExists):
            create_or_confirm(store, "a", other)
    assert (Path(store.uri) / "a").read_bytes() == b"content"


def test_samples_of_the_workshop_are_what_they_say() -> None:
    """Protects these tests: a sample's sidecars stand beside its image, under its stem."""
    sample = Sample(key="x/a.b.jpg", data=b"1", sidecars={"txt": b"2"})
    assert sample.members == {"x/a.b.jpg": b"1", "x/a.txt": b"2"}


def test_names_with_other_ends_of_lines_are_one_line_each(tmp_path: Path, store: LocalStore) -> None:
    """Protects the list of changed names from what else Unicode calls an end of a line, also where it is added to."""
    (tmp_path / "state").mkdir()
    state = LocalStore(tmp_path / "state")
    for number in range(2):
        state.create(f"names/{number}.tsv", f"{number}\ta\u2028b.gif\ta\u2028b.gif.png\n".encode())
        assert list_changed_names(state, store)[0] == number + 1
    assert (Path(store.uri) / "names.tsv").read_text().split("\n")[1:] == [
        *(f"{number}\ta\u2028b.gif\ta\u2028b.gif.png" for number in range(2)),
        "",
    ]


@pytest.mark.parametrize("theirs", [b"", b"mine", HEADER.encode(), f"{HEADER}0\ta.gif\ta.png\n".encode()])
def test_a_list_of_somebody_elses_stays(tmp_path: Path, store: LocalStore, theirs: bytes) -> None:
    """Protects a names.tsv that was restored, also one that looks like a list of changed names: that one is told elsewhere."""
    (tmp_path / "state").mkdir()
    state = LocalStore(tmp_path / "state")
    state.create("names/0.tsv", b"0\tb.gif\tb.gif.png\n")
    (Path(store.uri) / "names.tsv").write_bytes(theirs)
    assert list_changed_names(state, store) == (1, f"{state.uri}/names/")
    assert (Path(store.uri) / "names.tsv").read_bytes() == theirs


def test_a_list_that_was_cut_off_is_completed(tmp_path: Path, store: LocalStore) -> None:
    """Protects the list from a kill between its two copies, and from a folder of its name."""
    (tmp_path / "state").mkdir()
    state, place = LocalStore(tmp_path / "state"), Path(store.uri) / "names.tsv"
    state.create("names/0.tsv", b"0\ta.gif\ta.png\n")
    list_changed_names(state, store)
    before = place.read_bytes()
    state.create("names/1.tsv", b"1\tb.gif\tb.png\n")
    list_changed_names(state, store)
    whole = place.read_bytes()
    assert whole == before + b"1\tb.gif\tb.png\n"
    for left in (before, None):
        place.unlink()
        if left is not None:
            place.write_bytes(left)
        assert list_changed_names(state, store) == (2, f"{store.uri}/names.tsv")
        assert place.read_bytes() == whole
    place.unlink()
    place.mkdir()
    assert list_changed_names(state, store) == (2, f"{state.uri}/names/")
