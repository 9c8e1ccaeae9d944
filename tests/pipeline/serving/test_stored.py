"""Stored files in pieces: large LRs and originals, whole and in part, with memory for a piece; damage never comes whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.archives.archive import Archive
from pipeline.core.errors import ArchiveError, DamagedEntry, SourceChanged
from pipeline.core.records import Entry, EntryKind, OriginalCoding, ShardReport, Tier
from pipeline.pictures.originals import pack
from pipeline.reading.errors import NotKept
from pipeline.serving import stored
from pipeline.serving.shelf import Shelf
from pipeline.serving.stored import File, FileFigures, LargeFile
from pipeline.stores.store import LocalStore
from tests.support.archives import SHARDS, begin, entry, report
from tests.support.workshop import sentence

NOISE = np.random.default_rng(1).bytes(1_300_000)
FLAT = b"".join(bytes([n % 7]) * 9000 for n in range(150))
SMALL = b"a few bytes that stand beside others"


def kept(key: str, data: bytes) -> Entry:
    """Return an entry of which the file is kept, as an archive codes it."""
    coded, coding = pack(data)
    return Entry(
        key=key, kind=EntryKind.ORIGINAL, tier=Tier.EXACT, reason=None, sha256=hashlib.sha256(data).hexdigest(),
        byte_size=len(data), original=coded, original_coding=coding,
    )  # fmt: skip


ENTRIES = [kept("a.bin", SMALL), kept("b.bin", NOISE), kept("c.tif", FLAT), entry("d.jpg", size=1_000_000), entry("e.jpg")]
FILES = {"a.bin": SMALL, "b.bin": NOISE, "c.tif": FLAT, "d.jpg": ENTRIES[3].lr or b"", "e.jpg": ENTRIES[4].lr or b""}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """An archive of one shard, with large files and small ones."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "archive").mkdir()
    with closing(Shelf("stored", written(folder).store.uri)) as made:
        yield made


def written(folder: Path) -> Archive:
    """Write the archive."""
    from pipeline.archives.commits import create_commit

    archive = begin(LocalStore(folder / "archive"), SHARDS[:1])
    with archive.writer(SHARDS[0], folder) as writer:
        for each in ENTRIES:
            writer.append(each)
        told: ShardReport = report(SHARDS[0], ENTRIES)
        create_commit(archive.store, writer.finish(told))
    return archive


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large, and what is a piece, are less than usual."""
    monkeypatch.setattr(stored, "LARGE_BYTES", 500_000)
    monkeypatch.setattr(stored, "PIECE_BYTES", 70_000)


def given_of(shelf: Shelf, key: str) -> File | FileFigures:
    """Return the file of an entry: its original where it is kept, else its LR."""
    place = shelf.place(key)
    return shelf.original(place) if FILES[key] in (SMALL, NOISE, FLAT) else shelf.lr(place)


def test_large_files_are_not_held(shelf: Shelf) -> None:
    """Protects memory: a large file, and a small coding of one, are given in pieces of a bounded size; small ones at once."""
    codings = {each.key: each.original_coding for each in ENTRIES}
    assert (codings["b.bin"], codings["c.tif"]) == (OriginalCoding.BYTES, OriginalCoding.ZSTD)
    for key, data in FILES.items():
        found = given_of(shelf, key)
        assert (found.size, found.digest) == (len(data), hashlib.sha256(data).hexdigest())
        assert isinstance(found, LargeFile) == (len(data) > 500_000), key
        if isinstance(found, LargeFile):
            pieces = list(found.pieces())
            assert max(map(len, pieces)) <= 70_000
            assert b"".join(pieces) == data
        elif isinstance(found, File):
            assert found.data == data


@settings(suppress_health_check=list(HealthCheck), max_examples=40)
@given(key=st.sampled_from(["b.bin", "c.tif", "d.jpg"]), start=st.integers(0, 1_400_000), length=st.integers(0, 200_000))
def test_a_part_is_a_slice(shelf: Shelf, key: str, start: int, length: int) -> None:
    """Protects ranges: whatever is asked of a large file are those bytes of it."""
    found = given_of(shelf, key)
    assert isinstance(found, LargeFile)
    start = min(start, found.size)
    stop = min(start + length, found.size)
    assert b"".join(found.pieces(start, stop)) == FILES[key][start:stop]


def test_what_is_passed_over_comes_as_nothing(shelf: Shelf) -> None:
    """Protects whoever gives a file's end: control comes back with each piece of the frames that stands before it."""
    found = shelf.original(shelf.place("c.tif"))
    assert isinstance(found, LargeFile)
    *passed, last = found.pieces(found.size - 1)
    assert (last, set(passed)) == (FLAT[-1:], {b""})
    assert len(passed) == (len(FLAT) - 1) // 70_000


def test_a_part_reads_no_more(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects bandwidth: what is asked of a large original is read of its shard, and next to nothing else; of its figures
    not even that."""
    read: list[int] = []
    fetch = LocalStore.read

    def counted(self: LocalStore, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        data = fetch(self, key, start, stop, etag)
        read.append(len(data))
        return data

    monkeypatch.setattr(LocalStore, "read", counted)
    place = shelf.place("b.bin")
    asset = shelf.asset(place)
    assert (asset["bytes"]["original"], asset["stored_bytes"]) == (len(NOISE), len(NOISE))
    assert sum(read) < 300_000  # buffers of 64 kB, for some columns
    read.clear()
    found = shelf.original(place)
    told = sum(read)
    assert isinstance(found, LargeFile)
    assert told < 300_000
    assert b"".join(found.pieces(900_000, 1_000_000)) == NOISE[900_000:1_000_000]
    assert sum(read) == told + 100_000


def test_damage_never_comes_whole(tmp_path: Path) -> None:
    """Protects readers: a flipped bit in a large file is found before its last piece, as is a coding that is cut short."""
    (tmp_path / "archive").mkdir()
    archive = written(tmp_path)
    (path,) = (tmp_path / "archive" / "shards").iterdir()
    data = bytearray(path.read_bytes())
    coded = ENTRIES[2].original or b""
    for each, place in ((NOISE, 40_000), (coded, len(coded) // 2)):
        data[data.index(each) + place] ^= 1
    path.write_bytes(data)
    with closing(Shelf("damaged", archive.store.uri)) as shelf:
        for key in ("b.bin", "c.tif"):
            sent = 0
            with pytest.raises(ArchiveError) as caught:  # noqa: PT012 - the last piece is what must not come
                found = shelf.original(shelf.place(key))
                assert isinstance(found, LargeFile)
                for piece in found.pieces():
                    sent += len(piece)
            sentence(str(caught.value))
            assert sent < len(FILES[key])
        found = shelf.original(shelf.place("b.bin"))
        assert isinstance(found, LargeFile)
        assert b"".join(found.pieces(100_000, 200_000)) == NOISE[100_000:200_000]


def test_one_file_is_of_one_version(tmp_path: Path) -> None:
    """Protects against mixtures: a shard that is replaced while a file of it is given ends that file."""
    (tmp_path / "archive").mkdir()
    archive = written(tmp_path)
    (path,) = (tmp_path / "archive" / "shards").iterdir()
    with closing(Shelf("changing", archive.store.uri)) as shelf:
        found = shelf.original(shelf.place("b.bin"))
        assert isinstance(found, LargeFile)
        pieces = found.pieces()
        next(pieces)
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data + b"x")
        with pytest.raises(SourceChanged):
            next(pieces)


def test_what_is_not_kept_is_said_by_the_figures(shelf: Shelf) -> None:
    """Protects HEAD and conditions: whether there is a file, its digest and format are told without reading it."""
    for key, function in (("a.bin", stored.lr_figures), ("e.jpg", stored.original_figures)):
        with pytest.raises(NotKept) as caught:
            function(shelf.figures(shelf.place(key)))
        sentence(str(caught.value))
    assert stored.original_figures(shelf.figures(shelf.place("b.bin"))) == ("bin", hashlib.sha256(NOISE).hexdigest())
    assert stored.lr_figures(shelf.figures(shelf.place("e.jpg"))) == ("webp", ENTRIES[4].lr_sha256)
    with pytest.raises(DamagedEntry):
        stored.original_figures(Entry(**{**vars(ENTRIES[1]), "sha256": None}))
