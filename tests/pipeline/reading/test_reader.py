"""An archive from Python: found by key, iterated, listed, restored at any size; the pixels are those of `iarn restore`."""

from __future__ import annotations

import io
import math
import multiprocessing
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

import pipeline.reading.reader
from pipeline.archives.entries import COLUMNS, PARTS
from pipeline.archives.errors import NotAnArchive
from pipeline.core.errors import InvalidOption, SizeNotReachable, UndecodableImage
from pipeline.core.records import EntryKind, Tier
from pipeline.decoders import decoding
from pipeline.reading.errors import AmbiguousKey, NoSuchEntry, NotKept, NotRead
from pipeline.reading.keys import KeyIndex
from pipeline.reading.reader import ArchiveReader, EntryReader, open_archive
from pipeline.stores.store import Store, open_store
from pipeline.tables.seal import Footers, checked_footer
from tests.support.commands import GUARD
from tests.support.pictures import exif, photo, saved
from tests.support.workshop import (
    Rescaled,
    Sample,
    as_folder,
    as_tar,
    noise,
    picture,
    rescale,
    restore,
    samples,
    sentence,
    written,
)

ODD = [
    Sample(key="alpha.png", data=picture(26, 33, "PNG", channels=4, seed=1)),
    Sample(key="grey.png", data=saved(photo(21, 30, 1, 2), "PNG")),
    Sample(key="no image.jpg", data=b"these bytes are no picture"),
    Sample(key="turned.jpg", data=saved(photo(24, 35, 3, 3), "JPEG", exif=b"Exif\0\0" + exif(6))),
    Sample(key="wide.webp", data=picture(20, 41, "WEBP", seed=4), sidecars={"txt": b"a caption"}),
]


@pytest.fixture(scope="module", params=[Tier.LEAN, Tier.BALANCED, Tier.EXACT, Tier.EXACT_PIXELS], ids=str)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of one tier with every kind of picture that matters to pixels."""
    folder = tmp_path_factory.mktemp("odd")
    return rescale(as_tar(folder / "source", ODD), folder / "archive", tier=request.param)


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of two tars that share a key."""
    folder = tmp_path_factory.mktemp("two")
    as_tar(folder / "source", samples(5, folder="a/"), "a.tar")
    shared = [Sample(key="a/002.webp", data=picture(20, 20, "WEBP", seed=9))]
    source = as_tar(folder / "source", shared + samples(5, folder="b/"), "b.tar")
    return rescale(source, folder / "archive")


def upright(data: bytes) -> Any:
    """Return a file's pixels as the reader gives them: upright, three channels, and alpha as the fourth."""
    found = decoding.decode(data, pixel_limit=10**6)
    return found.pixels if found.alpha is None else np.dstack((found.pixels, found.alpha))


@pytest.mark.slow
@pytest.mark.parametrize("asked", [{}, {"max_side": 17}, {"scale": 1.5}, {"scale": 0.5}, {"use_latent": False}], ids=str)
def test_pixels_are_those_of_the_command(odd: Rescaled, asked: dict[str, Any], tmp_path: Path) -> None:
    """Protects one truth: whatever size and tier, `.restore()` gives the pixels that `iarn restore --format png` writes."""
    restore(odd, tmp_path / "back", format="png", **asked)
    files = {Path(name).stem: data for name, data in written(tmp_path / "back").items() if not name.endswith(".txt")}
    mine = {"latent" if name == "use_latent" else name: value for name, value in asked.items()}
    rescaled = [entry for entry in open_archive(odd.uri, device="cpu") if entry.kind is EntryKind.RESCALED]
    assert len(rescaled) == 4
    for entry in rescaled:
        pixels = entry.restore(**mine)
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, upright(files[Path(entry.key).stem]))


def test_an_lr_is_the_picture_that_is_stored(odd: Rescaled) -> None:
    """Protects `.lr()`: the pixels, alpha too, that any program sees in `.lr_bytes`; an original has none and says so."""
    for entry in open_archive(odd.uri):
        if entry.kind is EntryKind.ORIGINAL:
            with pytest.raises(NotKept) as caught:
                entry.lr()
            sentence(str(caught.value))
            continue
        with Image.open(io.BytesIO(entry.lr_bytes)) as lr:
            np.testing.assert_array_equal(entry.lr(), np.asarray(lr.convert("RGBA" if entry.key == "alpha.png" else "RGB")))


def test_exact_sizes_and_what_is_no_size(odd: Rescaled) -> None:
    """Protects callers: `size` is met exactly, and what makes no sense is refused by a sentence of ours."""
    entry = open_archive(odd.uri, device="cpu")["wide.webp"]
    assert entry.size == (20, 41)
    assert entry.restore(size=(9, 50)).shape == (9, 50, 3)
    for asked in ({"size": (0, 4)}, {"size": (4, 4), "max_side": 3}, {"scale": -1.0}, {"scale": 2.0, "max_side": 3}):
        with pytest.raises(InvalidOption):
            entry.restore(**asked)  # type: ignore[arg-type]
    with pytest.raises(SizeNotReachable):
        entry.restore(size=(10_000, 10_000))


def test_originals_come_back_as_bytes(odd: Rescaled) -> None:
    """Protects `.original()`: the identical file where it is kept, None where it is not, never something made up."""
    archive = open_archive(odd.uri)
    for sample in ODD:
        entry = archive[sample.key]
        kept = odd.archive.plan.settings.tier is Tier.EXACT or entry.kind is EntryKind.ORIGINAL
        if kept:
            assert entry.original() == sample.data
        elif odd.archive.plan.settings.tier is not Tier.EXACT_PIXELS:
            assert entry.original() is None
    assert archive["no image.jpg"].reason
    with pytest.raises(UndecodableImage):
        archive["no image.jpg"].restore()


def test_an_archive_is_what_python_expects(two_shards: Rescaled) -> None:
    """Protects the first minute: len, iteration in the plan's order, `in`, `[…]`, and a KeyError that says what is missing."""
    archive = open_archive(two_shards.uri)
    entries = list(archive)
    assert len(archive) == len(entries) == 11
    assert [entry.record for entry in entries] == two_shards.entries
    assert "b/002.webp" in archive
    assert "b/nothing" not in archive
    assert 7 not in archive
    entry = archive["b/002.webp"]
    assert isinstance(entry, EntryReader)
    assert (entry.key, entry.shard, entry.record.sidecars["txt"]) == ("b/002.webp", "000000001-b", b"caption 2")
    assert entry.psnr is not None
    assert entry.psnr > 20
    assert entry.ssim is not None
    with pytest.raises(KeyError) as caught:
        archive["b/nothing"]
    assert isinstance(caught.value, NoSuchEntry)
    sentence(str(caught.value))
    assert repr(archive).startswith("<archive ")
    assert repr(entry) == "<entry b/002.webp, balanced>"
    with pytest.raises(NotAnArchive):
        open_archive(str(Path(two_shards.uri) / "shards"))


def test_a_key_of_two_shards_is_not_guessed(two_shards: Rescaled) -> None:
    """Protects against the wrong picture: a key that two shards have is refused with both, and given where one is named."""
    archive = open_archive(two_shards.uri)
    with pytest.raises(AmbiguousKey) as caught:
        archive["a/002.webp"]
    assert caught.value.shards == ("000000000-a", "000000001-b")
    sentence(str(caught.value))
    mine, other = (archive.entry("a/002.webp", shard=shard) for shard in caught.value.shards)
    assert mine.record.sha256 != other.record.sha256
    with pytest.raises(NoSuchEntry):
        archive.entry("a/001.jpg", shard="000000001-b")


def test_parts_that_are_not_read(two_shards: Rescaled) -> None:
    """Protects the network between: entries come with the parts that were asked for and no others."""
    archive = open_archive(two_shards.uri)
    for entry in archive.entries("b/*", parts={"lr"}):
        assert entry.lr().shape[2] == 3
        assert not entry.record.sidecars
    assert len(list(archive.entries(["a/001.jpg", "b/001.jpg"], parts=()))) == 2
    bare = archive.entry("b/001.jpg", parts={"sidecars"})
    for ask in (lambda: bare.lr_bytes, bare.lr, bare.original, bare.restore, archive.entry("b/001.jpg", parts={"lr"}).restore):
        with pytest.raises(NotRead) as caught:  # and never the pixels that an entry without a latent would have
            ask()
        sentence(str(caught.value))


def test_keys_are_listed_in_order(two_shards: Rescaled) -> None:
    """Protects paging: keys in byte order, each once, by prefix, after a key, at most so many; as sorting all would give."""
    every = sorted({entry.key for entry in two_shards.entries})
    assert list(open_archive(two_shards.uri).keys()) == every
    rng = random.Random(3)
    for _ in range(60):
        prefix = rng.choice(["", "a", "a/", "a/00", "b/004", "c", "b/004.bmp"])
        after = rng.choice(["", "a/001.jpg", "a/0015", "b", "zzz", every[-1]])
        limit = rng.choice([None, 0, 1, 2, 5, 100])
        archive = open_archive(two_shards.uri)  # anew: what is asked first must not matter to what is asked next
        expected = [key for key in every if key.startswith(prefix) and key > after][:limit]
        assert list(archive.keys(prefix, after=after, limit=limit)) == expected, (prefix, after, limit)


def test_listing_does_not_depend_on_pages(two_shards: Rescaled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects long listings: with pages and portions of one the keys are the same."""
    every = list(open_archive(two_shards.uri).keys())
    monkeypatch.setattr("pipeline.reading.keys.PAGE", 1)
    monkeypatch.setattr("pipeline.reading.keys._EXPANDED", 1)
    assert list(open_archive(two_shards.uri).keys()) == every
    assert list(open_archive(two_shards.uri).keys("b/", limit=3)) == every[5:8]


class CountingStore:
    """A store that says how many bytes were read of the objects below ``shards/``."""

    def __init__(self, inner: Store) -> None:
        self._inner, self.uri, self.count = inner, inner.uri, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        data = self._inner.read(key, start, stop, etag)
        self.count += len(data) if key.startswith("shards/") else 0
        return data

    def open(self, key: str, etag: str | None = None, buffer_size: int = 2**22) -> BinaryIO:
        from pipeline.stores.base import open_ranged

        return open_ranged(self, key, etag, buffer_size)  # type: ignore[arg-type]


def test_one_key_is_found_without_reading_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects archives of terabytes: finding one entry reads footers and its own row group, nothing of the others'."""
    for number in range(3):  # bytes that no codec shrinks: entries of 300 kB, one in a row group
        names = [f"{number}/{index:02d}.jpg" for index in range(8)]
        as_tar(tmp_path / "source", [Sample(key=name, data=noise(hash(name) % 10**6)) for name in names], f"{number}.tar")
    archive = rescale(str(tmp_path / "source"), tmp_path / "archive")
    whole = sum(path.stat().st_size for path in (tmp_path / "archive" / "shards").iterdir())
    assert whole > 7_000_000
    counting = CountingStore(open_store(archive.uri))
    monkeypatch.setattr(pipeline.reading.reader, "open_store", lambda _, **__: counting)
    reader = open_archive(archive.uri)
    assert counting.count == 0
    assert "1/05.jpg" in reader
    footers = counting.count
    assert footers < 3 * 70_000
    assert len(reader["1/05.jpg"].original() or b"") == 300_000
    assert counting.count - footers < 3 * 300_000
    counting.count = 0
    assert list(reader.keys("2/", limit=3)) == ["2/00.jpg", "2/01.jpg", "2/02.jpg"]
    assert counting.count == 0, "a row group of one entry has told its key in the footer"


def test_an_index_of_untold_keys(two_shards: Rescaled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects shards whose footers tell nothing of their keys: they are found by reading the keys."""
    monkeypatch.setattr("pipeline.tables.reader.RowReader.key_ranges", lambda self, _: [None] * self.num_row_groups)
    index = KeyIndex(two_shards.archive, ["000000000-a", "000000001-b"])
    assert index.shards_of("b/001.jpg") == ["000000001-b"]
    assert index.shards_of("nothing") == []


def test_a_growing_archive_is_seen_when_asked(tmp_path: Path) -> None:
    """Protects training on what is there: shards done later are seen after `refresh()`, and not in the middle of an epoch."""
    from tests.support.workshop import begin, rescaler

    as_tar(tmp_path / "source", samples(2, folder="a/"), "a.tar")
    begun = begin(as_tar(tmp_path / "source", samples(3, folder="b/"), "b.tar"), tmp_path / "archive")
    first, second = begun.shards()
    rescaler(begun).run(first)
    archive = open_archive(begun.store.uri)
    assert len(archive) == 2
    rescaler(begun).run(second)
    assert (len(archive), "b/001.jpg" in archive) == (2, False)
    archive.refresh()
    assert (len(archive), "b/001.jpg" in archive) == (5, True)


def test_a_table_of_entries(two_shards: Rescaled) -> None:
    """Protects analysis: all figures as a DataFrame, and the bytes only where they are named."""
    archive = open_archive(two_shards.uri)
    frame = archive.to_pandas()
    assert list(frame.columns) == [name for name in COLUMNS if name not in PARTS] + ["shard"]
    assert list(frame["key"]) == [entry.key for entry in two_shards.entries]
    assert list(frame["shard"]) == ["000000000-a"] * 5 + ["000000001-b"] * 6
    assert math.isclose(frame["psnr"].mean(), np.mean([entry.psnr for entry in two_shards.entries]))  # type: ignore[arg-type]
    named = archive.to_pandas(["lr", "key"])
    assert list(named.columns) == ["lr", "key"]
    assert named["lr"][0]["bytes"] == two_shards.entries[0].lr
    assert list(archive.to_pandas(["shard"])["shard"]) == list(frame["shard"])
    with pytest.raises(InvalidOption):
        archive.to_pandas(["nonsense"])


def test_an_archive_without_a_shard_yet(tmp_path: Path) -> None:
    """Protects the first minute of a job: an archive that has nothing yet is empty, and says so in every way."""
    from tests.support.workshop import begin

    archive = open_archive(begin(as_folder(tmp_path / "source", samples(2)), tmp_path / "archive").store.uri)
    assert (len(archive), list(archive), list(archive.keys())) == (0, [], [])
    assert list(archive.to_pandas().columns)[:2] == ["key", "kind"]
    assert len(archive.to_pandas()) == 0


@pytest.mark.slow
def test_many_threads_share_one_network(two_shards: Rescaled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects services: threads that restore at once load the network once, and get what each asked for."""
    loaded = []

    def engine(*arguments: Any) -> Any:
        loaded.append(1)
        return pipeline.reading.reader.__dict__["_Engine"](*arguments)

    monkeypatch.setattr(pipeline.reading.reader, "_Engine", pipeline.reading.reader.Engine, raising=False)
    monkeypatch.setattr(pipeline.reading.reader, "Engine", engine)
    archive = open_archive(two_shards.uri, device="cpu")
    keys = [entry.key for entry in two_shards.entries if entry.key != "a/002.webp"]
    with ThreadPoolExecutor(4) as threads:
        found = dict(zip(keys, threads.map(lambda key: archive[key].restore(), keys), strict=True))
    assert len(loaded) == 1
    alone = open_archive(two_shards.uri, device="cpu")
    for key, pixels in found.items():
        np.testing.assert_array_equal(pixels, alone[key].restore())


def test_readers_travel(two_shards: Rescaled) -> None:
    """Protects workers: archive and entry survive pickling, even after use, and work on the other side."""
    archive = open_archive(two_shards.uri, device="cpu")
    entry = archive["b/001.jpg"]
    pixels = entry.restore()
    there: ArchiveReader = pickle.loads(pickle.dumps(archive))
    assert len(there) == 11
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(entry)).restore(), pixels)


def test_an_archive_on_s3(two_shards: Rescaled, s3_bucket: str) -> None:
    """Protects the usual place of an archive: by its s3:// URI everything is as it is in a folder."""
    for path in _files(Path(two_shards.uri)):
        open_store(s3_bucket).create(path.relative_to(two_shards.uri).as_posix(), path)
    there, here = open_archive(s3_bucket, device="cpu"), open_archive(two_shards.uri, device="cpu")
    assert list(there.keys("b/", limit=2)) == ["b/000.png", "b/001.jpg"]
    np.testing.assert_array_equal(there["b/001.jpg"].restore(max_side=11), here["b/001.jpg"].restore(max_side=11))
    assert there.to_pandas().equals(here.to_pandas())


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_footer_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the bytes of one asset after the other: a shard's footer is kept, but not for a file of another size, nor beyond
    the limit, nor in a pickle."""
    result = rescale(as_tar(tmp_path / "source", samples(3)), tmp_path / "archive")
    read: list[str] = []
    monkeypatch.setattr(
        "pipeline.tables.reader.checked_footer", lambda file, uri: read.append(uri) or checked_footer(file, uri)
    )
    archive = open_archive(result.uri, device="cpu")
    assert [archive[key].key for key in list(archive.keys())] == sorted(archive.keys())
    assert len([uri for uri in read if "/shards/" in uri]) == 1
    footers = Footers(10)
    footers.put(("a", 1), "footer of a", 6)
    assert (footers.get(("a", 1)), footers.get(("a", 2))) == ("footer of a", None)
    footers.put(("b", 1), "footer of b", 4)
    assert footers.get(("a", 1))
    footers.put(("c", 1), "footer of c", 4)
    assert [footers.get((uri, 1)) is not None for uri in "abc"] == [True, False, True]
    assert pickle.loads(pickle.dumps(footers)).get(("a", 1)) is None


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_child_restores(tmp_path: Path) -> None:
    """Protects programs that fork after they have restored: OpenMP's threads stay behind, and no child waits for them."""
    source = as_folder(tmp_path / "source", [Sample(key="a.png", data=picture(400, 600))])
    uri = rescale(source, tmp_path / "archive", tier=Tier.LEAN).uri
    program = f"""
import os, signal, torch
from pipeline.reading.reader import open_archive
torch.set_num_threads(3)
archive = open_archive({uri!r}, device="cpu")
entry = archive["a.png"]
before = entry.restore().tobytes()
child = os.fork()
if child == 0:
    signal.alarm(300)
    os._exit(0 if archive["a.png"].restore().tobytes() == before else 7)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=GUARD, cwd=Path(__file__).parents[3])
