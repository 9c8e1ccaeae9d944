"""Bad sources, all the way to the archive and back: one clear sentence each, nothing lost, nothing led astray."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import (
    DamagedShard,
    EmptySource,
    InvalidOption,
    NotFound,
    PipelineError,
    UnsupportedShard,
    UsageError,
)
from pipeline.core.records import EntryKind
from pipeline.outputs.outputs import OutputKind
from tests.support import workshop
from tests.support.workshop import back, by_key, outside

# Tars -----------------------------------------------------------------------------------------------------------------


def tar_source(folder: Path, members: list[tuple[str, bytes]], cut: float = 1.0) -> str:
    """Write members as a tar, cut off behind a share of it; return the source's URI."""
    folder.mkdir()
    data = workshop.tar_of(members)
    (folder / "photos.tar").write_bytes(data[: int(len(data) * cut)])
    return str(folder)


def test_a_tar_cut_in_half_keeps_what_is_before_the_cut(tmp_path: Path) -> None:
    """Protects the first half: its assets are rescaled and come back, and one failure tells of the shard's damage."""
    members = [(f"{index}.png", workshop.picture(60, 60, seed=index)) for index in range(6)]
    result = workshop.rescale(tar_source(tmp_path / "source", members, cut=0.5), tmp_path / "archive")
    entries = by_key(result)
    assert 2 <= len(entries) <= 3
    assert {entry.kind for entry in entries.values()} == {EntryKind.RESCALED}
    (failure,) = result.failures
    assert failure.key is None
    assert re.search(r"photos\.tar is damaged \(cut off .*fetch", workshop.sentence(failure.reason))
    assert back(result, tmp_path / "out").keys() == entries.keys()


def test_members_that_are_not_adjacent_are_all_kept(tmp_path: Path) -> None:
    """Protects unsorted tars: members away from their image are an entry of their own that says so, and all come back."""
    data = workshop.picture(20, 30)
    members = [("a.png", data), ("b.png", data), ("a.txt", b"caption"), ("a.json", b"{}"), ("b.txt", b"other")]
    result = workshop.rescale(tar_source(tmp_path / "source", members), tmp_path / "archive")
    entries = by_key(result)
    assert list(entries) == ["a.png", "b.png", "a.txt", "b.txt"]
    assert dict(entries["a.txt"].sidecars) == {"txt": b"caption", "json": b"{}"}
    assert [failure.key for failure in result.failures] == ["a.txt", "b.txt"]
    for failure in result.failures:
        assert "adjacent" in workshop.sentence(failure.reason)
    files = back(result, tmp_path / "out")
    assert files.keys() == {name for name, _ in members}
    assert [files[name] for name, _ in members[2:]] == [content for _, content in members[2:]]


@pytest.mark.slow
@pytest.mark.parametrize("output", list(OutputKind))
def test_names_that_lead_elsewhere_are_led_home(tmp_path: Path, output: OutputKind) -> None:
    """Protects the machine that restores: absolute and ../ names are stored and restored below the destination, and told."""
    data = workshop.picture(20, 30)
    names = ["/etc/passwd.png", "../../up.png", "a/../../b.png", "C:\\x.png", "good.png"]
    members = [member for name in names for member in ((name, data), (name.replace(".png", ".txt"), b"caption"))]
    result = workshop.rescale(tar_source(tmp_path / "source", members), tmp_path / "archive")
    entries = by_key(result)
    assert len(entries) == 5
    assert not result.failures
    for key, entry in entries.items():
        assert (entry.reason is None) == (key == "good.png")
        assert ".." not in key.split("/")
        assert not key.startswith("/")
    before = outside(tmp_path / "out")
    reports = workshop.restore(result, tmp_path / "out", output=output)
    assert not workshop.failures(reports)
    assert outside(tmp_path / "out") == before
    files = workshop.written(tmp_path / "out")
    assert len(files) == (10 if output is OutputKind.FILES else 1)
    if output is OutputKind.TAR:
        members_out = [name for name, _ in workshop.members_of(files["photos.tar"])]
        assert len(set(members_out)) == 10
        assert not [name for name in members_out if name.startswith("/") or ".." in name.split("/") or "\\" in name]


def test_two_assets_of_one_key_are_two_entries(tmp_path: Path) -> None:
    """Protects the second of two assets of one name: it gets a name of its own, which its reason tells, and both come back."""
    one, two = workshop.picture(20, 30), workshop.picture(24, 32)
    members = [("a.png", one), ("a.txt", b"1"), ("b.png", one), ("a.png", two), ("a.txt", b"2")]
    result = workshop.rescale(tar_source(tmp_path / "source", members), tmp_path / "archive")
    entries = by_key(result)
    assert list(entries) == ["a.png", "b.png", "a~2.png"]
    assert "another asset" in workshop.sentence(entries["a~2.png"].reason or "")
    files = back(result, tmp_path / "out")
    assert workshop.shown(files["a.png"]).shape[0] == 20
    assert workshop.shown(files["a~2.png"]).shape[0] == 24
    assert (files["a.txt"], files["a~2.txt"]) == (b"1", b"2")


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100], ids=["empty", "text"])
def test_a_file_that_is_no_tar_is_one_failure(tmp_path: Path, data: bytes) -> None:
    """Protects the other shards: a broken tar is told with its name, and the next one is rescaled."""
    workshop.as_tar(tmp_path / "source", workshop.samples(2), name="good.tar")
    (tmp_path / "source/bad.tar").write_bytes(data)
    result = workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")
    (failure,) = result.failures
    assert failure.key is None
    assert "bad.tar is damaged" in workshop.sentence(failure.reason)
    assert len(result.entries) == 2


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    """Protects the user of Zstandard: the sentence says what is read instead."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/photos.tar").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(50))
    archive = workshop.begin(str(tmp_path / "source"), tmp_path / "archive")
    with pytest.raises(UnsupportedShard) as caught:
        workshop.rescaler(archive).run(next(archive.shards()))
    assert ".tar.gz" in workshop.sentence(str(caught.value))


# Parquet --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "wanted", "kind", "words"),
    [
        ({"text": ["a"], "blob": [b"no picture"]}, None, EmptySource, "a table without images in any of its columns"),
        ({"image": [workshop.picture(9, 9)]}, "photo", InvalidOption, "--image-column photo"),
        ({"image": [workshop.picture(9, 9)], "label": [3]}, "label", InvalidOption, "has its images in image"),
    ],
    ids=["none", "misnamed", "numbers"],
)
def test_parquet_without_its_image_column_is_refused_whole(
    tmp_path: Path, columns: Mapping[str, Any], wanted: str | None, kind: type[UsageError], words: str
) -> None:
    """Protects tables: no column of images, or the wrong one, is told before anything is planned."""
    (tmp_path / "source").mkdir()
    pq.write_table(pa.table(dict(columns)), tmp_path / "source/photos.parquet")
    with pytest.raises(kind, match=words):
        workshop.begin(str(tmp_path / "source"), tmp_path / "archive", image_column=wanted)
    assert not (tmp_path / "archive/plan.json").exists()


def test_a_parquet_cut_in_half_is_refused_whole(tmp_path: Path) -> None:
    """Protects tables: a file without its footer can be read nowhere, which is told; nothing is committed."""
    workshop.as_parquet(tmp_path / "source", workshop.samples(3))
    path = tmp_path / "source/photos.parquet"
    path.write_bytes(path.read_bytes()[:-500])
    archive = workshop.begin(str(tmp_path / "source"), tmp_path / "archive")
    with pytest.raises(DamagedShard) as caught:
        workshop.rescaler(archive).run(next(archive.shards()))
    assert "photos.parquet" in workshop.sentence(str(caught.value))
    assert not archive.done()


def test_rows_without_an_image_are_entries(tmp_path: Path) -> None:
    """Protects rows: one whose image is null keeps its other columns, is told, and is a row again when restored."""
    samples = workshop.samples(3)
    table = workshop.table_of(samples)
    images = table["image"].to_pylist()
    images[1] = {"bytes": None, "path": "001.jpg"}
    table = table.set_column(1, "image", pa.array(images, table.schema.field("image").type))
    (tmp_path / "source").mkdir()
    pq.write_table(table, tmp_path / "source/photos.parquet")
    result = workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")
    assert [failure.key for failure in result.failures] == ["001.jpg"]
    assert "no image" in workshop.sentence(result.failures[0].reason)
    workshop.restore(result, tmp_path / "out", output=OutputKind.PARQUET)
    after = pq.read_table(tmp_path / "out/photos.parquet")
    assert after.drop_columns(["image"]).equals(table.drop_columns(["image"]))
    assert after["image"].to_pylist()[1] == images[1]


# Sources --------------------------------------------------------------------------------------------------------------


def test_an_empty_source_begins_no_archive(tmp_path: Path) -> None:
    """Protects against archives of nothing: an empty folder, one without images, and a missing one are told apart."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_bytes(b"text")
    errors: dict[str, type[PipelineError]] = {"empty": EmptySource, "texts": EmptySource, "missing": NotFound}
    for name, expected in errors.items():
        with pytest.raises(expected) as caught:
            workshop.begin(str(tmp_path / name), tmp_path / "archive")
        assert name in workshop.sentence(str(caught.value))
    assert not (tmp_path / "archive/plan.json").exists()
