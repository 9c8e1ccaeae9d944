"""A service that stays up while its archives grow, come, go and are out of reach; what was known stays."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.web.library import Library
from pipeline.archives.archive import Archive
from pipeline.archives.errors import NotAnArchive
from pipeline.core.errors import InvalidOption, StoreUnavailable
from pipeline.core.records import SourceShard
from pipeline.core.target import TargetSize
from pipeline.reading.catalogue import Filter
from pipeline.reading.errors import NoSuchEntry, Replaced
from pipeline.reading.keys import KeyIndex
from pipeline.reading.requests import ImageRequest
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from pipeline.stores.store import LocalStore, open_store
from tests.support import workshop
from tests.support.commands import GUARD
from tests.support.growing import begun, total, unplugged
from tests.support.workshop import Sample, as_folder, picture, rescale, rescaler, sentence


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[Library, Archive, list[SourceShard]]]:
    """A library of an archive of which one shard of two is done."""
    archive, shards = begun(tmp_path)
    rescaler(archive).run(shards[0])
    with closing(Library({"small": archive.store.uri})) as library:
        library.begin()
        yield library, archive, shards


def test_a_later_shard_is_served(growing: tuple[Library, Archive, list[SourceShard]]) -> None:
    """Protects a job that goes on: after a look its entries are found, listed, counted and restored, without a restart."""
    library, archive, shards = growing
    shelf, restorer = library.shelves["small"], Restorer(library.uris, device="cpu")
    assert (total(shelf), shelf.describe()["entries"]) == (2, 2)
    rescaler(archive).run(shards[1])
    with pytest.raises(NoSuchEntry):
        shelf.place("b/001.jpg")
    library.look()
    assert library.shelves["small"] is shelf
    assert (total(shelf), shelf.describe()["entries"]) == (5, 5)
    reference = Shelf("small", archive.store.uri)
    assert shelf.describe() == reference.describe()
    place = shelf.place("b/001.jpg")
    assert place == reference.place("b/001.jpg")
    assert shelf.lr(place) == reference.lr(place)
    assert restorer.restore(place, ImageRequest()).data
    page = shelf.list(Filter(prefix="b/"), after="b/000.png", limit=1, seconds=GUARD)
    assert ([each["key"] for each in page["assets"]], page["next"], page["total"]) == (["b/001.jpg"], "b/001.jpg", 3)


def test_additions_are_served(tmp_path: Path) -> None:
    """Protects sources that are added to an archive: their entries appear after a look."""
    workshop.rescale(as_folder(tmp_path / "source", [Sample(key="a.png", data=picture(20, 22))]), tmp_path / "archive")
    with closing(Library({"small": str(tmp_path / "archive")})) as library:
        library.begin()
        as_folder(tmp_path / "source", [Sample(key="b.png", data=picture(20, 22, seed=1))])
        grown, _ = workshop.add(str(tmp_path / "source"), tmp_path / "archive")
        library.look()
        shelf = library.shelves["small"]
        assert (total(shelf), shelf.version) == (2, grown.archive.digest[:12])
        assert shelf.figures(shelf.place("b.png")).sha256 == grown.entries[-1].sha256


def test_looks_are_made_every_so_often(growing: tuple[Library, Archive, list[SourceShard]]) -> None:
    """Protects whoever waits for a shard: nobody has to ask for a look, and none is made where none is wanted."""
    library, archive, shards = growing
    rescaler(archive).run(shards[1])
    shelf = library.shelves["small"]
    assert shelf.entries == 2
    library.begin(0.05)
    for _ in range(int(100 * GUARD)):
        if shelf.entries == 5:
            break
        threading.Event().wait(0.01)
    assert total(shelf) == 5


def test_a_store_out_of_reach_takes_nothing_down(
    growing: tuple[Library, Archive, list[SourceShard]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Protects the service from its stores: what was seen stays, one line of the log says why nothing new is, and one when
    that is over; what came meanwhile is then seen."""
    library, archive, shards = growing
    shelf = library.shelves["small"]
    assert (total(shelf), shelf.place("a/001.jpg").key) == (2, "a/001.jpg")
    rescaler(archive).run(shards[1])
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING):
        for name in ("list", "stat", "read"):
            broken.setattr(LocalStore, name, unplugged)
        library.look()
        library.look()
        assert total(shelf) == 2
        assert shelf.place("a/001.jpg")
    with caplog.at_level(logging.WARNING):
        library.look()
        library.look()
    first, second = (record.getMessage() for record in caplog.records)
    assert "it was unplugged" in first
    assert second == f"{archive.store.uri} is seen again."
    assert total(shelf) == 5


def test_a_look_that_ends_in_the_middle_is_made_up_for(
    growing: tuple[Library, Archive, list[SourceShard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects counts: where footers cannot be read after the commits were, the next look takes each shard in once."""
    library, archive, shards = growing
    rescaler(archive).run(shards[1])
    shelf, add = library.shelves["small"], KeyIndex.add

    def interrupted(index: KeyIndex, shard_ids: list[str]) -> None:
        add(index, shard_ids)
        raise StoreUnavailable("s3://bucket", "it was unplugged")

    with monkeypatch.context() as broken:
        broken.setattr(KeyIndex, "add", interrupted)
        library.look()
    assert shelf.entries == 2
    library.look()
    assert (shelf.entries, total(shelf)) == (5, 5)
    assert len(shelf._index.places_of("b/001.jpg")) == 1


def test_keys_are_found_while_footers_are_read(
    growing: tuple[Library, Archive, list[SourceShard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects who asks for an entry: it does not wait for a look that is under way."""
    library, archive, shards = growing
    rescaler(archive).run(shards[1])
    shelf, gate, reached = library.shelves["small"], threading.Event(), threading.Event()
    spans = KeyIndex._spans

    def held(index: KeyIndex, shard_id: str) -> object:
        reached.set()
        assert gate.wait(GUARD)
        return spans(index, shard_id)

    monkeypatch.setattr(KeyIndex, "_spans", held)
    look = threading.Thread(target=library.look)
    look.start()
    try:
        assert reached.wait(GUARD)
        assert shelf.lr(shelf.place("a/001.jpg")).size
        assert total(shelf) == 2
    finally:
        gate.set()
        look.join(GUARD)
    assert shelf.place("b/001.jpg")


def test_archives_below_a_folder_come_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Protects a folder of archives: those directly below it are served, and one that comes later, also by a replica that was
    there before; one that goes is forgotten; a folder that is no archive is passed over without a word."""
    source = as_folder(tmp_path / "source", [Sample(key="x.png", data=picture(20, 22))])
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / "notes").mkdir()
    with pytest.raises(NotAnArchive):
        Library({"archives": str(folder)})
    rescale(source, folder / "first")
    with closing(Library({"archives": f"{folder}/"})) as library:
        library.begin()
        restorer = Restorer(library.uris, device="cpu")
        assert list(library.shelves) == ["first"]
        rescale(source, folder / "second", target=TargetSize(scale=(3, 3)))
        library.look()
        assert list(library.shelves) == ["first", "second"]
        second = library.shelves["second"]
        assert total(second) == 1
        assert restorer.restore(second.place("x.png"), ImageRequest()).data
        shutil.rmtree(folder / "first")
        library.look()
        assert list(library.shelves) == ["second"]
    assert caplog.records == []


def test_names_are_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Protects addresses: of two archives of one name the first is served, and the other told; a folder takes no name."""
    source = as_folder(tmp_path / "source", [Sample(key="x.png", data=picture(20, 22))])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    rescale(source, tmp_path / "a" / "same")
    rescale(source, tmp_path / "b" / "same")
    rescale(source, tmp_path / "b" / "other")
    with pytest.raises(InvalidOption) as caught:
        Library({"name": str(tmp_path / "a")})
    sentence(str(caught.value))
    with closing(Library({"same": str(tmp_path / "a" / "same"), "b": str(tmp_path / "b")})) as library:
        assert sorted(library.shelves) == ["other", "same"]
        assert library.shelves["same"].uri == str(tmp_path / "a" / "same")
        library.look()
    assert [str(tmp_path / "b" / "same") in record.getMessage() for record in caplog.records] == [True]


def test_a_replica_does_not_mix_archives(tmp_path: Path) -> None:
    """Protects against a mix: a replica restores what a place is of, opens an archive that was made anew, and refuses a place
    of one that is gone. (It keeps nothing here: of what it has in memory it may still give the old one's.)"""
    source = as_folder(tmp_path / "source", [Sample(key="x.png", data=picture(40, 44))])
    library = Library({"small": rescale(source, tmp_path / "archive").uri})
    restorer = Restorer(library.uris, device="cpu", kept_bytes=0)
    before = library.shelves["small"].place("x.png")
    first = restorer.restore(before, ImageRequest(use_latent=False)).data
    shutil.rmtree(tmp_path / "archive")
    rescale(source, tmp_path / "archive", target=TargetSize(scale=(4, 4)))
    with pytest.raises(Replaced) as caught:
        restorer.restore(before, ImageRequest(use_latent=False))
    sentence(str(caught.value))
    library.look()
    after = library.shelves["small"].place("x.png")
    assert restorer.restore(after, ImageRequest(use_latent=False)).data != first
    with pytest.raises(Replaced):
        restorer.restore(before, ImageRequest(use_latent=False))
    library.close()


def test_a_bucket_is_looked_at_as_a_folder_is(tmp_path: Path, s3_bucket: str) -> None:
    """Protects archives in buckets: shards and archives that come later are seen by listings of a prefix."""
    archive, shards = begun(tmp_path)
    rescaler(archive).run(shards[0])
    root = tmp_path / "archive"

    def copy(name: str) -> None:
        store = open_store(f"{s3_bucket}/all/{name}")
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            if not store.exists(key := path.relative_to(root).as_posix()):
                store.create(key, path.read_bytes())

    copy("one")
    with closing(Library({"all": f"{s3_bucket}/all"})) as library:
        library.begin()
        assert (list(library.shelves), total(library.shelves["one"])) == (["one"], 2)
        rescaler(archive).run(shards[1])
        copy("one")
        copy("two")
        library.look()
        assert [total(library.shelves[name]) for name in ("one", "two")] == [5, 5]
        shelf = library.shelves["two"]
        assert Restorer(library.uris[:1], device="cpu").restore(shelf.place("b/001.jpg"), ImageRequest()).data
