"""Sources with odd files, there and back: each is an entry or told of, under a name that can be written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import EmptySource, InvalidOption, PlanConflict
from pipeline.core.records import Entry, EntryKind, Tier
from pipeline.outputs.changed_names import list_changed_names
from pipeline.outputs.outputs import OutputKind, named_outputs
from pipeline.planning.left_out import LEFT_OUT
from pipeline.planning.sources import Listing, find_source
from tests.support import workshop
from tests.support.opaque_s3 import opaque_bucket
from tests.support.pictures import photo, saved
from tests.support.seaweed import OVERRIDING_VARIABLES

PHOTO = saved(photo(24, 32), "JPEG")
PNG = saved(photo(24, 32), "PNG")


def source_of(folder: Path, files: dict[str, bytes]) -> str:
    """Write files below a folder, whatever their names; return the source's URI."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


@pytest.mark.slow
def test_names_that_are_not_utf8_go_there_and_come_back_encoded(tmp_path: Path) -> None:
    """Protects photographs of old systems: read under a percent-encoded key, with a note, as in a tar."""
    names = (b"caf\xe9.jpg", b"\xdcberlingen 1998/see.jpg", b"\x8e\xca\x90^.jpg", b"plain.jpg")
    source = source_of(tmp_path / "source", {os.fsdecode(name): PHOTO for name in names})
    result = workshop.rescale(source, tmp_path / "archive")
    assert not result.failures
    keys = {entry.key for entry in result.entries}
    assert keys == {"caf%E9.jpg", "%DCberlingen 1998/see.jpg", "%8Eʐ^.jpg", "plain.jpg"}
    assert {entry.key for entry in result.entries if entry.reason} == keys - {"plain.jpg"}
    assert all("is not a safe relative path" in str(entry.reason) for entry in result.entries if entry.reason)
    assert not workshop.failures(workshop.verify(result))
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))
    assert workshop.written(tmp_path / "out").keys() == keys


def test_first_bytes_tell_an_image_where_its_name_does_not(tmp_path: Path) -> None:
    """Protects stores of hashes and downloads with odd names: images in folders, under the names they have."""
    images = {"c0/ffee": PHOTO, "web/photo.jpg?width=1200": PHOTO, "web/x.jpg_large": PHOTO, "a.b/1234": PNG, "b.JPE": PHOTO}
    others = {"README": b"read me", "web/page": b"<html>", "empty": b"", "beside.txt": b"no image", "scan.svg": PNG}
    source = source_of(tmp_path / "source", images | others | {"c0/ffee.txt": b"caption"})
    result = workshop.rescale(source, tmp_path / "archive")
    assert not result.failures
    assert {entry.key: entry.kind for entry in result.entries} == dict.fromkeys(images, EntryKind.RESCALED)
    assert listed(tmp_path / "archive") == set(others)
    workshop.restore(result, tmp_path / "out")
    assert workshop.written(tmp_path / "out").keys() == {*images, "c0/ffee.txt"}


TAKEOUT = {
    "2016-07-19 18.22.01.jpg": "2016-07-19 18.22.01.jpg.supplemental-metadata.json",
    "2016-07-19 18.22.09.jpg": "2016-07-19 18.22.09.jpg.supplemental-metadata.json",
    "Harbour and the old lighthouse at the end of day.jpg": "Harbour and the old lighthouse at the end of d.json",
    "Harbour and the old lighthouse at the end of day-edited.jpg": None,
    "Harbour and the old lighthouse at the end-b of it.jpg": "Harbour and the old lighthouse at the end-b of.json",
    "IMG_3397(1).JPG": "IMG_3397.JPG.supplemental-metadata(1).json",
    "IMG_3397(2).JPG": "IMG_3397.JPG(2).json",
    "IMG_3397-edited.JPG": None,
    "IMG_3397.JPG": "IMG_3397.JPG.supplemental-metadata.json",
    "IMG_20160719_182201_HDR_of_the_lake.jpg": "IMG_20160719_182201_HDR_of_the_lake.jpg.supple.json",
}
"""Photographs of a Google export, and the file that is about each."""


@pytest.mark.slow
def test_takeouts_cut_names_find_their_photograph(tmp_path: Path) -> None:
    """Protects dates, places and albums of Google's exports: each JSON is beside its photograph, and comes back so."""
    files = {f"Photos/{name}": PHOTO for name in TAKEOUT}
    about = {f"Photos/{name}": name.encode() for name in TAKEOUT.values() if name}
    source = source_of(tmp_path / "source", files | about | {"Photos/metadata.json": b"{}", "Photos/IMG_1.MOV": b"raw"})
    result = workshop.rescale(source, tmp_path / "archive")
    assert not result.failures
    found = {entry.key.removeprefix("Photos/"): [data.decode() for data in entry.sidecars.values()] for entry in result.entries}
    assert found == {name: [text] if text else [] for name, text in TAKEOUT.items()}
    assert listed(tmp_path / "archive") == {"Photos/metadata.json", "Photos/IMG_1.MOV"}
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))
    assert workshop.written(tmp_path / "out").keys() == files.keys() | about.keys()


def listed(archive: Path) -> set[str]:
    """Return the keys of an archive's list of what was left out."""
    return {json.loads(line)["key"] for line in (archive / LEFT_OUT).read_text().splitlines()}


OTHERS = {
    "film.MP4": b"a film" * 99,
    "a/IMG.MOV": b"II*\0 raw",
    "a/README": b"",
    ".cache/x.bin": b"\x01",
    "n.txt": b"n",
}


def test_all_files_make_an_archive_a_copy_of_its_source(tmp_path: Path) -> None:
    """Protects users who delete the source: with the option every file is an entry, and comes back to the byte."""
    source = source_of(tmp_path / "source", {"x.jpg": PHOTO, "x.txt": b"caption"} | OTHERS)
    result = workshop.rescale(source, tmp_path / "archive", all_files=True)
    assert not result.failures
    kinds: dict[str, Entry] = {entry.key: entry for entry in result.entries}
    assert kinds.keys() == {"x.jpg"} | OTHERS.keys()
    assert all(kinds[name].reason == "kept as it is: no image" for name in OTHERS)
    assert dict(result.reports[0].kept) == {"other-file": len(OTHERS)}
    assert not (tmp_path / "archive" / LEFT_OUT).exists()
    assert not workshop.failures(workshop.verify(result))
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))
    back = workshop.written(tmp_path / "out")
    assert {name: back[name] for name in OTHERS} == OTHERS
    assert back.keys() == {"x.jpg", "x.txt"} | OTHERS.keys()


METADATA = {"key": ["0", "1"], "url": ["https://example.org/0.jpg", "http://example.org/1"], "width": [1, 2]}


@pytest.mark.slow
@pytest.mark.parametrize("output", list(OutputKind))
def test_tables_without_images_lie_beside_the_tars(tmp_path: Path, output: OutputKind) -> None:
    """Protects what img2dataset writes: its tables of metadata are told and ignored, and shards come back by their names."""
    source = tmp_path / "source"
    for name in ("00000", "00001"):
        workshop.as_tar(source, workshop.samples(2), f"{name}.tar")
        pq.write_table(pa.table(METADATA), source / f"{name}.parquet")
        (source / f"{name}_stats.json").write_text("{}")
    result = workshop.rescale(str(source), tmp_path / "archive")
    assert [shard.name for shard in result.archive.shards()] == ["00000.tar", "00001.tar"]
    assert not result.failures
    assert listed(tmp_path / "archive") == {"00000.parquet", "00000_stats.json", "00001.parquet", "00001_stats.json"}
    assert "holds addresses of images" in (tmp_path / "archive" / LEFT_OUT).read_text()
    assert not workshop.failures(workshop.restore(result, tmp_path / "out", output=output))
    ending = {OutputKind.FILES: "", OutputKind.TAR: ".tar", OutputKind.PARQUET: ".parquet"}[output]
    assert {name.partition("/")[0] for name in workshop.written(tmp_path / "out")} == {f"0000{n}{ending}" for n in (0, 1)}


def test_columns_are_checked_before_there_is_a_plan(tmp_path: Path) -> None:
    """Protects users of tables: what has no images is told, a wrong column with the right ones, and nothing is begun."""
    (tmp_path / "urls").mkdir()
    pq.write_table(pa.table(METADATA), tmp_path / "urls" / "x.parquet")
    with pytest.raises(EmptySource, match=r"x\.parquet: its column url holds addresses of images, not images"):
        workshop.begin(str(tmp_path / "urls"), tmp_path / "archive")
    (tmp_path / "two").mkdir()
    pq.write_table(pa.table({"left": [PHOTO], "right": [PNG], "text": ["t"]}), tmp_path / "two" / "x.parquet")
    with pytest.raises(InvalidOption, match=r"--image-column text: .* has its images in left, right"):
        workshop.begin(str(tmp_path / "two"), tmp_path / "archive", image_column="text")
    assert not (tmp_path / "archive" / "plan.json").exists()
    result = workshop.rescale(str(tmp_path / "two"), tmp_path / "archive")
    assert [entry.key for entry in result.entries] == ["00000000#left.jpg", "00000000#right.png"]
    assert not result.failures
    assert not workshop.failures(workshop.restore(result, tmp_path / "out", output=OutputKind.PARQUET))
    assert pq.read_table(tmp_path / "out" / "x.parquet").column_names == ["key", "image", "sidecars"]


def test_an_archive_in_which_nothing_stands_is_begun_anew(tmp_path: Path) -> None:
    """Protects the advice to give another option: it holds for the same place while no shard was written there, if asked."""
    source = source_of(tmp_path / "source", {"x.jpg": PHOTO})
    first = workshop.begin(source, tmp_path / "archive")
    with pytest.raises(PlanConflict, match="--anew begins it"):
        workshop.begin(source, tmp_path / "archive", all_files=True)
    second = workshop.begin(source, tmp_path / "archive", all_files=True, anew=True)
    assert second.digest != first.digest
    assert second.plan.settings.all_files
    result = workshop.rescale(source, tmp_path / "archive", all_files=True)
    assert result.archive.digest == second.digest
    assert not result.failures
    with pytest.raises(PlanConflict, match=r"other destination\.$"):
        workshop.begin(source, tmp_path / "archive", anew=True)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment of S3 without anything of the user's own; the endpoint is still to be set."""
    for name in OVERRIDING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    values = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.slow
def test_keys_of_a_bucket_are_opaque(tmp_path: Path, credentials: pytest.MonkeyPatch) -> None:
    """Protects 256 images from one legal, odd key beside them: it is read, under a safe name, or a failure by itself."""
    odd = {"/leading.jpg": "%2F/leading.jpg", "2024//double.jpg": "2024/%2F/double.jpg", "2024/../up.jpg": "2024/%2E%2E/up.jpg"}
    objects = dict.fromkeys([*odd, "2024/./dot.jpg", "2024/a.jpg", "2024/a.txt", "2024"], PHOTO)
    with opaque_bucket(objects, refused=frozenset({"2024/./dot.jpg"})) as endpoint:
        credentials.setenv("AWS_ENDPOINT_URL", endpoint)
        result = workshop.rescale("s3://opaque", tmp_path / "archive")
        good = {entry.key for entry in result.entries if entry.kind is EntryKind.RESCALED}
        assert good == {"2024/a.jpg", *odd.values()}
        (failure,) = result.failures
        assert failure.key == "2024/%2E/dot.jpg"
        assert "lists this object and does not give it" in failure.reason
        assert listed(tmp_path / "archive") == {"2024"}
        below = workshop.rescale("s3://opaque/2024", tmp_path / "below")
        assert {entry.key for entry in below.entries} == {"a.jpg", "%2F/double.jpg", "%2E%2E/up.jpg", "%2E/dot.jpg"}
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))[1:]
    assert {*good, "2024/a.txt"} <= workshop.written(tmp_path / "out").keys()


@pytest.mark.slow
def test_objects_of_a_bucket_are_looked_into_where_asked(credentials: pytest.MonkeyPatch) -> None:
    """Protects buckets of hashes: with `--sniff` images are found in them too, in the order of the listing."""
    objects = {f"{number:04x}": PHOTO if number % 3 else b"text" for number in range(40)} | {"x.jpg": PHOTO, "y.txt": b"y"}
    images = [key for key, data in objects.items() if data is PHOTO]
    with opaque_bucket(objects) as endpoint:
        credentials.setenv("AWS_ENDPOINT_URL", endpoint)
        told: dict[str, str] = {}
        source = find_source("s3://opaque", Listing(sniff=True, left_out=lambda info, why: told.update({info.key: why})))
        assert [info.key for shard in source.shards for info in shard.objects] == images
        assert told.keys() == objects.keys() - set(images)
        plain = find_source("s3://opaque", Listing(left_out=lambda info, why: told.update({info.key: why})))
        assert [info.key for shard in plain.shards for info in shard.objects] == ["x.jpg"]
        assert "--sniff" in told["0001"]
        assert "--sniff" not in told["y.txt"]


def test_a_name_that_the_destination_cannot_hold_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects restores onto exFAT or NTFS: one name with a colon is a failure of its own, all others are written."""
    source = source_of(tmp_path / "source", {"a.jpg": PHOTO, "a shot at 10:20.jpg": PHOTO, "d.jpg": PHOTO})
    result = workshop.rescale(source, tmp_path / "archive")
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        if ":" in target.name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    (failure,) = workshop.failures(workshop.restore(result, tmp_path / "out"))
    assert failure.key == "a shot at 10:20.jpg"
    assert "cannot be a key" in failure.reason
    assert workshop.written(tmp_path / "out").keys() == {"a.jpg", "d.jpg"}


SAME = {
    "same.gif": saved(photo(24, 32), "GIF"),
    "same.jpg": PHOTO,
    "same.png": PNG,
    "same.txt": b"caption",
    "alone.jpg": PHOTO,
    "b.jpg": PHOTO,
    "b.png": PNG,
    "b.jpg.png": PNG,
}
NAMES = {
    "source": {"same.gif": "same.gif.png"},
    "png": {"same.gif": "same.gif.png", "same.jpg": "same.jpg.png", "alone.jpg": "alone.png", "b.jpg": "b.jpg.png.png"},
    "webp": {"alone.jpg": "alone.webp", "b.jpg.png": "b.jpg.png.webp"}
    | {name: f"{name}.webp" for name in ("same.gif", "same.jpg", "same.png", "b.jpg", "b.png")},
}
"""By format, the entries that come back under another name than their own."""


@pytest.mark.slow
@pytest.mark.parametrize("form", NAMES)
@pytest.mark.parametrize("kind", ["files", "tar"])
def test_a_name_that_an_entry_has_by_itself_is_given_to_no_other(tmp_path: Path, kind: str, form: str) -> None:
    """Protects whoever looks for same.png: it is the PNG, whatever the GIF beside it comes back as or is selected."""
    source, folder = source_of(tmp_path / "source", SAME), ""
    if kind == "tar":
        source, folder = str(tmp_path / "tar"), "x/"
        source_of(tmp_path / "tar", {"x.tar": workshop.tar_of(SAME.items())})
    result = workshop.rescale(source, tmp_path / "archive")
    assert not result.failures
    worker = workshop.restorer(result, tmp_path / "all", format=form)
    assert not workshop.failures([worker.run(shard) for shard in named_outputs(result.archive.shards())])
    written = workshop.written(tmp_path / "all")
    assert written.keys() == {folder + NAMES[form].get(key, key) for key in SAME}
    count, place = list_changed_names(worker.state, worker.destination)
    assert (count, place) == (len(NAMES[form]), str(tmp_path / "all" / "names.tsv"))
    rows = [line.split("\t")[1:] for line in (tmp_path / "all" / "names.tsv").read_text().splitlines()[1:]]
    assert dict(rows) == {key: folder + name for key, name in NAMES[form].items()}
    assert list_changed_names(worker.state, worker.destination)[0] == count
    assert len((tmp_path / "all" / "names.tsv").read_text().splitlines()) == count + 1
    for key in ("same.gif", "same.png", "b.jpg"):
        workshop.restore(result, tmp_path / key, format=form, keys=frozenset({key}))
        alone = workshop.written(tmp_path / key)
        assert folder + NAMES[form].get(key, key) in alone
        assert alone.items() <= written.items()


def test_lrs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Protects folders of LRs: each has a name that says whose it is where several would have one."""
    result = workshop.rescale(source_of(tmp_path / "source", SAME), tmp_path / "archive", max_ratio=None)
    workshop.restore(result, tmp_path / "lr", lr=True)
    names = {"same.gif.avif", "same.jpg.avif", "same.png.avif", "alone.avif", "b.jpg.avif", "b.png.avif", "b.jpg.png.avif"}
    assert workshop.written(tmp_path / "lr").keys() == {*names, "same.txt"}


def test_shards_beside_each_other_keep_their_own_names(tmp_path: Path) -> None:
    """Protects x.tar beside x.parquet of images: as tars the one is x.tar again, and the other says what it was."""
    source = tmp_path / "source"
    workshop.as_tar(source, workshop.samples(1), "x.tar")
    workshop.as_parquet(source, workshop.samples(1), "x.parquet")
    result = workshop.rescale(str(source), tmp_path / "archive")
    for output, names in ((OutputKind.TAR, {"x.tar", "x.parquet.tar"}), (OutputKind.PARQUET, {"x.parquet", "x.tar.parquet"})):
        assert not workshop.failures(workshop.restore(result, tmp_path / output, output=output))
        assert workshop.written(tmp_path / output).keys() == names


@pytest.mark.parametrize("output", list(OutputKind))
def test_a_tar_beside_a_folder_of_its_name(tmp_path: Path, output: OutputKind) -> None:
    """Protects cats.tar beside cats/, of the same names inside: each comes back, and neither is in the other's place."""
    inside = {"a.png": workshop.picture(20, 30, seed=1), "b.png": workshop.picture(20, 30, seed=2)}
    files = {"cats.tar": workshop.tar_of(inside.items()), "cats/a.png": workshop.picture(20, 30, seed=3)}
    result = workshop.rescale(source_of(tmp_path / "source", files), tmp_path / "archive", tier=Tier.EXACT)
    assert not workshop.failures(workshop.restore(result, tmp_path / "back", output=output))
    back = workshop.written(tmp_path / "back")
    if output is OutputKind.FILES:
        assert back == {f"cats.tar/{name}": data for name, data in inside.items()} | {"cats/a.png": files["cats/a.png"]}
    else:
        assert back.keys() == {f"cats.{output}", f"000000001-a.{output}"}


def test_names_that_meet_are_told(tmp_path: Path) -> None:
    """Protects two files of different shards whose keys are one, as one's name is no UTF-8: neither is written over the
    other, and the one that has no place is told."""
    one, two = (workshop.picture(20, 30, seed=seed) for seed in (1, 2))
    source = source_of(tmp_path / "source", {"d%E9/a.png": one})
    workshop.rescale(source, tmp_path / "archive", tier=Tier.EXACT)
    source_of(tmp_path / "source", {os.fsdecode(b"d\xe9/a.png"): two})
    result, _ = workshop.add(source, tmp_path / "archive", tier=Tier.EXACT)
    assert [entry.key for entry in result.entries] == 2 * ["d%E9/a.png"]
    (failure,) = workshop.failures(workshop.restore(result, tmp_path / "back"))
    assert "exists already and was not overwritten" in failure.reason
    assert workshop.written(tmp_path / "back") == {"d%E9/a.png": one}
    second = frozenset({result.reports[1].shard_id})
    assert not workshop.failures(workshop.restore(result, tmp_path / "second", shards=second))
    assert workshop.written(tmp_path / "second") == {"d%E9/a.png": two}
