"""Bad input, all the way: each kind gets one clear sentence, the rest is written, nothing is overwritten or led astray.

Images, source shards, archives and weights are here, from the source to the archive and back; options, buckets and credentials
in the tests of the command line and of the stores.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.rescale import read_weights
from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.archives.entries import source_bytes
from pipeline.archives.errors import ChecksumMismatch, NotAnArchive, UnsupportedFormat
from pipeline.core.errors import (
    DamagedObject,
    DamagedShard,
    EmptySource,
    InvalidOption,
    InvalidWeights,
    NotFound,
    PipelineError,
    UnsupportedShard,
)
from pipeline.core.records import Entry, EntryKind, OriginalCoding, Settings, ShardReport, Tier
from pipeline.outputs.outputs import OutputKind, named_outputs
from pipeline.restore import RestoreOptions, RestoreWork
from pipeline.stores.store import LocalStore
from tests.support import pictures, workshop
from tests.support.workshop import Rescaled, Sample

DAMAGED, UNSUPPORTED = pictures.damaged(), pictures.unsupported()
LIMIT = Settings(target=workshop.HALF).pixel_limit


def around(bad: Sample) -> list[Sample]:
    """Return a sample between two good ones."""
    before, after = workshop.samples(2)
    return [replace(before, key="a.png"), bad, replace(after, key="z.jpg")]


def by_key(result: Rescaled) -> dict[str, Entry]:
    """Return the entries of an archive by key; no key comes twice."""
    entries = result.entries
    found = {entry.key: entry for entry in entries}
    assert len(found) == len(entries)
    return found


def back(result: Rescaled, folder: Path, **options: Any) -> dict[str, bytes]:
    """Restore without a failure; return the files, by their last name."""
    assert not workshop.failures(workshop.restore(result, folder, **options))
    return {name.rpartition("/")[2]: data for name, data in workshop.written(folder).items()}


def outside(folder: Path) -> dict[str, bytes]:
    """Return every file beside a destination."""
    return {name: data for name, data in workshop.written(folder.parent).items() if not name.startswith(f"{folder.name}/")}


# Images ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [*DAMAGED, "bomb"])
def test_a_damaged_image_is_kept_and_told(tmp_path: Path, what: str) -> None:
    """Protects the rest of a shard from damaged, cut and zero-byte images and from a bomb: each is kept, told once."""
    bad = Sample(key="b.png", data=pictures.bomb() if what == "bomb" else DAMAGED[what], sidecars={"txt": b"caption"})
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", around(bad)), tmp_path / "archive", pixel_limit=LIMIT)
    entries = by_key(result)
    assert [entry.kind for entry in entries.values()] == [EntryKind.RESCALED, EntryKind.ORIGINAL, EntryKind.RESCALED]
    entry = entries["b.png"]
    assert (source_bytes(entry), entry.sha256) == (bad.data, hashlib.sha256(bad.data).hexdigest())
    (failure,) = result.failures
    assert (failure.key, failure.reason) == ("b.png", entry.reason)
    assert ("--pixel-limit" if what == "bomb" else "cannot be decoded") in workshop.sentence(failure.reason)
    files = back(result, tmp_path / "out")
    assert (files["b.png"], files["b.txt"]) == (bad.data, b"caption")
    assert {"a.png", "z.jpg"} < files.keys()


@pytest.mark.parametrize("source", [workshop.as_folder, workshop.as_parquet])
def test_zero_bytes_are_kept_and_told_in_other_sources(tmp_path: Path, source: Any) -> None:
    """Protects folders and tables: an empty file, and an empty value, is an entry with its reason there as well."""
    result = workshop.rescale(source(tmp_path / "source", around(Sample(key="b.png", data=b""))), tmp_path / "archive")
    assert source_bytes(by_key(result)["b.png"]) == b""
    (failure,) = result.failures
    assert (failure.key, failure.reason) == ("b.png", "cannot be decoded: the file is empty")
    assert back(result, tmp_path / "out")["b.png"] == b""


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_cannot_be_rescaled_faithfully_is_kept(tmp_path: Path, what: str) -> None:
    """Protects animated, 16-bit, CMYK, float and other pictures: they are kept as they are with the reason, no failure."""
    odd = Sample(key="b.png", data=UNSUPPORTED[what])
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", around(odd)), tmp_path / "archive")
    entry = by_key(result)["b.png"]
    assert (entry.kind, source_bytes(entry)) == (EntryKind.ORIGINAL, odd.data)
    assert workshop.sentence(entry.reason or "").startswith("not rescaled: ")
    assert not result.failures
    assert back(result, tmp_path / "out", format="jpeg")["b.png"] == odd.data


def test_a_mislabelled_image_is_read_by_its_content(tmp_path: Path) -> None:
    """Protects against names that lie: a JPEG called b.png is rescaled, a text called c.jpg is kept and told."""
    samples = [*around(Sample(key="b.png", data=workshop.picture(20, 30, "JPEG"))), Sample(key="zz.jpg", data=b"a caption")]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive")
    entries = by_key(result)
    assert (entries["b.png"].kind, entries["b.png"].format) == (EntryKind.RESCALED, "JPEG")
    assert [failure.key for failure in result.failures] == ["zz.jpg"]
    assert back(result, tmp_path / "out")["zz.jpg"] == b"a caption"


def test_the_limit_is_the_users(tmp_path: Path) -> None:
    """Protects --pixel-limit: what has more pixels is kept, and the sentence names the option that would let it in."""
    result = workshop.rescale(
        workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=workshop.picture(20, 21))]),
        tmp_path / "archive",
        pixel_limit=419,
    )
    (failure,) = result.failures
    assert "--pixel-limit" in workshop.sentence(failure.reason)


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
    ("columns", "wanted"),
    [
        ({"text": ["a"], "blob": [b"no picture"]}, None),
        ({"image": [workshop.picture(9, 9)]}, "photo"),
        ({"image": [workshop.picture(9, 9)], "label": [3]}, "label"),
    ],
    ids=["none", "misnamed", "numbers"],
)
def test_parquet_without_its_image_column_is_refused_whole(
    tmp_path: Path, columns: Mapping[str, Any], wanted: str | None
) -> None:
    """Protects tables: no column of images, or the wrong one, is told with those there are; nothing is begun."""
    (tmp_path / "source").mkdir()
    pq.write_table(pa.table(dict(columns)), tmp_path / "source/photos.parquet")
    with pytest.raises(EmptySource if wanted is None else InvalidOption) as caught:
        workshop.begin(str(tmp_path / "source"), tmp_path / "archive", image_column=wanted)
    text = workshop.sentence(str(caught.value))
    assert ("--image-column" in text) == (wanted is not None)
    assert all(column in text for column in columns)
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


# Archives -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Rescaled:
    """An archive of two tars."""
    for name in ("one.tar", "two.tar"):
        workshop.as_tar(tmp_path / "source", workshop.samples(3), name=name)
    return workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")


def refused(archive: Path, destination: Path, error: type[PipelineError]) -> str:
    """Return the sentence with which a restore does not even begin; nothing is written."""
    with pytest.raises(error) as caught:
        RestoreWork(archive=str(archive), destination=str(destination), options=RestoreOptions(), device="cpu").start()
    assert workshop.written(destination) == {}
    return workshop.sentence(str(caught.value))


def test_another_format_version_is_refused(stored: Rescaled, tmp_path: Path) -> None:
    """Protects archives of other releases: they are neither restored nor resumed, and stay as they are."""
    path = tmp_path / "archive/plan.json"
    plan = json.loads(path.read_bytes())
    plan["format_version"] = 99
    path.write_text(json.dumps(plan))
    assert "format version 99" in refused(tmp_path / "archive", tmp_path / "out", UnsupportedFormat)
    before = workshop.written(tmp_path / "archive")
    with pytest.raises(UnsupportedFormat):
        workshop.begin(str(tmp_path / "source"), tmp_path / "archive")
    assert workshop.written(tmp_path / "archive") == before
    assert stored.reports


def test_a_plan_that_is_none_is_refused(stored: Rescaled, tmp_path: Path) -> None:
    """Protects against junk: a damaged plan and a folder without one are told apart, each with what to do."""
    path = tmp_path / "archive/plan.json"
    path.write_bytes(path.read_bytes()[:100])
    assert "plan.json is damaged" in refused(tmp_path / "archive", tmp_path / "out", DamagedObject)
    path.unlink()
    assert "iarn rescale" in refused(tmp_path / "archive", tmp_path / "out", NotAnArchive)
    assert stored.reports


@pytest.mark.parametrize("output", list(OutputKind))
def test_a_flipped_byte_costs_its_own_entries_alone(tmp_path: Path, output: OutputKind) -> None:
    """Protects all other entries: a damaged page takes those it holds, each named in a sentence, and the rest is restored."""
    large = [Sample(key=f"x{index}.png", data=workshop.noise(index)) for index in range(3)]
    samples = [*workshop.samples(2), *large, replace(workshop.samples(1)[0], key="y.png")]
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    (path,) = (tmp_path / "archive/shards").iterdir()
    data = bytearray(path.read_bytes())
    data[data.find(workshop.noise(1)) + 5] ^= 1
    path.write_bytes(data)
    (report,) = workshop.restore(result, tmp_path / "out", output=output)
    (failure,) = report.failures
    assert failure.key == "x1.png"
    assert path.name in workshop.sentence(failure.reason)
    assert report.entries == 5
    files = workshop.written(tmp_path / "out")
    if output is OutputKind.FILES:
        wanted = {sample.key for sample in samples} - {"x1.png"}
        assert {name.removeprefix("photos/") for name in files} >= wanted
    elif output is OutputKind.TAR:
        assert len(workshop.members_of(files["photos.tar"])) == 5 + 2 * 3
    else:
        assert pq.read_table(tmp_path / "out/photos.parquet").num_rows == 5


@pytest.mark.parametrize("place", [0.0, 0.01, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
def test_a_flipped_byte_anywhere_is_told_or_harmless(stored: Rescaled, tmp_path: Path, place: float) -> None:
    """Protects what is restored: wherever a shard is damaged, nothing else than before comes out; the other shard is whole."""
    workshop.restore(stored, tmp_path / "whole")
    first, second = named_outputs(stored.archive.shards())
    path = tmp_path / f"archive/shards/{first.id}.parquet"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    path.write_bytes(data)
    worker = workshop.restorer(stored, tmp_path / "out")
    try:
        failures = worker.run(first).failures
        sentences = [failure.reason for failure in failures]
    except PipelineError as error:
        sentences = [str(error)]
    for text in sentences:
        assert path.name in workshop.sentence(text)
    assert not worker.run(second).failures
    whole, damaged = workshop.written(tmp_path / "whole"), workshop.written(tmp_path / "out")
    assert damaged.items() <= whole.items()
    assert {name for name in whole if name.startswith("two/")} <= damaged.keys()
    assert sentences or damaged == whole


def test_a_missing_or_damaged_model_is_refused(stored: Rescaled, tmp_path: Path) -> None:
    """Protects restores: another network would give other pictures, so none begins; neither does a rescale go on."""
    (model,) = (tmp_path / "archive/model").iterdir()
    good = model.read_bytes()
    model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "SHA-256" in refused(tmp_path / "archive", tmp_path / "out", ChecksumMismatch)
    model.unlink()
    assert "lacks its model" in refused(tmp_path / "archive", tmp_path / "out", InvalidWeights)
    with pytest.raises(InvalidWeights):
        workshop.rescaler(stored.archive)


FORGED: Mapping[str, Mapping[str, Any]] = {
    "a size of no pixels": {"width": 0},
    "no size": {"height": None},
    "a size of a thousand million": {"width": 10**9, "height": 10**9},
    "a size below the LR's": {"width": 3, "height": 3},
    "an LR that is none": {"lr": b"nothing", "lr_sha256": None},
    "no LR": {"lr": None, "lr_sha256": None},
    "another LR": {"lr": workshop.picture(10, 16)},
    "a latent that is none": {"latent": b"nothing"},
    "an alpha that is none": {"alpha": b"nothing"},
    "an alpha of another size": {"alpha": None},
    "an original that is another": {
        "kind": EntryKind.ORIGINAL,
        "original": b"another",
        "original_coding": OriginalCoding.BYTES,
    },
    "an original of no coding": {"kind": EntryKind.ORIGINAL, "original": b"another"},
    "an original that is no JPEG XL": {"kind": EntryKind.ORIGINAL, "original": b"a", "original_coding": OriginalCoding.JXL},
    "pixels that are none": {"original": b"nothing", "original_coding": OriginalCoding.PIXELS},
}


def forge(result: Rescaled, folder: Path, entries: list[Entry]) -> Rescaled:
    """Write an archive of the same plan that holds other entries, in their own valid shard and commit."""
    shutil.copytree(result.uri, folder / "forged", ignore=shutil.ignore_patterns("shards", "commits"))
    archive = Archive.open(LocalStore(folder / "forged"))
    (shard,) = archive.shards()
    report = ShardReport(shard_id=shard.id, entries=len(entries), originals=0, pixels=0, bytes_in=0, bytes_out=0)
    with archive.writer(shard, folder) as writer:
        for entry in entries:
            writer.append(entry)
        create_commit(archive.store, writer.finish(report))
    return Rescaled(archive=archive, reports=[report])


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_entry_is_one_failure(tmp_path: Path, what: str) -> None:
    """Protects the entries beside one that makes no sense, though its shard is intact: it is told, they are restored."""
    samples = [Sample(key=f"{name}.png", data=workshop.picture(20, 31, channels=4)) for name in "abc"]
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    first, second, third = result.entries
    fields = dict(FORGED[what])
    if what == "an alpha of another size":
        small = workshop.rescale(
            workshop.as_folder(tmp_path / "small", [Sample(key="a.png", data=workshop.picture(5, 5, channels=4))]),
            tmp_path / "other",
        )
        fields["alpha"] = small.entries[0].alpha
    forged = forge(result, tmp_path, [first, replace(second, **fields), third])
    for output in OutputKind:
        (failure,) = workshop.failures(workshop.restore(forged, tmp_path / output, output=output))
        assert failure.key == "b.png"
        assert "b.png" in workshop.sentence(failure.reason)
    assert workshop.written(tmp_path / "files").keys() == {"photos/a.png", "photos/c.png"}


def test_hostile_names_in_an_archive_do_not_leave_the_destination(tmp_path: Path) -> None:
    """Protects whoever restores an archive of a stranger: keys, LR names and suffixes that lead out are led home."""
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive")
    first, second = result.entries
    hostile = replace(first, key="../../up.png", lr_path="/abs/../up.webp", sidecars={"../../../txt": b"x", "/json": b"y"})
    forged = forge(result, tmp_path, [hostile, second])
    destination = tmp_path / "a/b/out"
    destination.mkdir(parents=True)
    before = workshop.written(tmp_path)
    for options in ({}, {"lr": True}, {"output": OutputKind.TAR}):
        workshop.restore(forged, destination, **options)
    fresh = {name for name in workshop.written(tmp_path).keys() - before.keys() if not name.startswith("a/b/out/")}
    assert fresh == set()
    for name, _ in workshop.members_of((destination / "photos.tar").read_bytes()):
        assert not name.startswith("/")
        assert ".." not in name.split("/")


def test_a_destination_in_use_is_not_overwritten(stored: Rescaled, tmp_path: Path) -> None:
    """Protects a user's own files: an existing file of a restored name stays, and is the one failure."""
    mine = tmp_path / "out/one/000.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    (failure,) = workshop.failures(workshop.restore(stored, tmp_path / "out"))
    assert failure.key == "000.png"
    assert "not overwritten" in workshop.sentence(failure.reason)
    assert mine.read_bytes() == b"mine"
    assert len(workshop.written(tmp_path / "out")) == 18


# Weights --------------------------------------------------------------------------------------------------------------


def test_weights_that_are_not_what_they_say_begin_nothing(tmp_path: Path) -> None:
    """Protects archives from a wrong network: a flipped bit, a cut, junk and a missing file are told, and nothing is begun."""
    good = workshop.weights()
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    path = tmp_path / "tiny.safetensors"
    kinds = {"digest": good[:-1] + bytes([good[-1] ^ 1]), "weights file": good[: len(good) // 2], "metadata": b"junk" * 100}
    for words, data in kinds.items():
        path.write_bytes(data)
        with pytest.raises(InvalidWeights, match=words) as caught:
            workshop.begin(source, tmp_path / "archive", tier=Tier.LEAN)
        assert path.name in workshop.sentence(str(caught.value))
    path.unlink()
    with pytest.raises(InvalidWeights, match=path.name):
        read_weights(path)
    assert not (tmp_path / "archive/plan.json").exists()
