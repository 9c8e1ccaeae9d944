"""Sources with odd files, there and back: each is an entry or told of, under a name that can be written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline.assets.left_out import LEFT_OUT
from pipeline.core.records import Entry, EntryKind
from tests.support import workshop
from tests.support.pictures import photo, saved

PHOTO = saved(photo(24, 32), "JPEG")
PNG = saved(photo(24, 32), "PNG")


def source_of(folder: Path, files: dict[str, bytes]) -> str:
    """Write files below a folder, whatever their names; return the source's URI."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


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
    others = {"README": b"read me", "web/page": b"<html>", "empty": b"", "beside.txt": b"no image", "scan.dng": PNG}
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


def test_takeouts_cut_names_find_their_photograph(tmp_path: Path) -> None:
    """Protects dates, places and albums of Google's exports: each JSON is beside its photograph, and comes back so."""
    files = {f"Photos/{name}": PHOTO for name in TAKEOUT}
    about = {f"Photos/{name}": name.encode() for name in TAKEOUT.values() if name}
    source = source_of(tmp_path / "source", files | about | {"Photos/metadata.json": b"{}", "Photos/IMG_1.HEIC": b"heic"})
    result = workshop.rescale(source, tmp_path / "archive")
    assert not result.failures
    found = {entry.key.removeprefix("Photos/"): [data.decode() for data in entry.sidecars.values()] for entry in result.entries}
    assert found == {name: [text] if text else [] for name, text in TAKEOUT.items()}
    assert listed(tmp_path / "archive") == {"Photos/metadata.json", "Photos/IMG_1.HEIC"}
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))
    assert workshop.written(tmp_path / "out").keys() == files.keys() | about.keys()


def listed(archive: Path) -> set[str]:
    """Return the keys of an archive's list of what was left out."""
    return {json.loads(line)["key"] for line in (archive / LEFT_OUT).read_text().splitlines()}


OTHERS = {
    "film.MP4": b"a film" * 99,
    "a/IMG.HEIC": b"\0\0\0\x18ftypheic",
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
