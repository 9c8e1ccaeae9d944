"""What looks at archives cost, what they tell, and that none of them holds up another or the end."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.web import library as library_module
from jobs.web.library import ASKED_EVERY, LOOKERS, Library
from pipeline.core.errors import NotFound
from pipeline.reading.catalogue import Catalogue
from pipeline.serving.shelf import Shelf
from pipeline.stores.store import LocalStore
from tests.support.commands import GUARD
from tests.support.growing import begun, total, unplugged
from tests.support.workshop import Sample, as_folder, picture, rescale, rescaler


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one archive below it, ``first``; its source is beside it."""
    source = as_folder(tmp_path / "source", [Sample(key="x.png", data=picture(20, 22))])
    (tmp_path / "archives").mkdir()
    rescale(source, tmp_path / "archives" / "first")
    return tmp_path / "archives"


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the log."""
    return [record.getMessage() for record in caplog.records]


def test_other_folders_are_asked_seldom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects buckets with many other folders: whether one is an archive is one request of the store that is there, once in
    several looks; one that becomes an archive is served at the latest then."""
    (folder / "notes").mkdir()
    asked: list[str] = []
    exists = LocalStore.exists

    def counted(store: LocalStore, key: str) -> bool:
        asked.append(f"{store.uri}/{key}")
        return exists(store, key)

    monkeypatch.setattr(LocalStore, "exists", counted)
    with closing(Library({"archives": str(folder)})) as library:
        for _ in range(2 * ASKED_EVERY):
            library.look()
        assert asked.count(f"{folder}/notes/plan.json") == 3
        shutil.copytree(folder / "first", folder / "notes", dirs_exist_ok=True)
        for _ in range(ASKED_EVERY):
            library.look()
        assert sorted(library.shelves) == ["first", "notes"]


def test_a_store_that_fails_below_a_folder_is_told_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Protects the log: of an archive below a folder one line says that its store fails and one that it no longer does,
    however many looks there were; neither advises what a job's user would do."""
    with closing(Library({"archives": str(folder)})) as library:
        with monkeypatch.context() as broken:
            for name in ("list", "stat", "read"):
                broken.setattr(LocalStore, name, unplugged)
            for _ in range(3):
                library.look()
        for _ in range(3):
            library.look()
    first = folder / "first"
    assert messages(caplog) == [
        f"Nothing new is seen at {first}: {first} could not be reached or read (it was unplugged).",
        f"{first} is seen again.",
    ]


def test_two_names_of_one_archive_are_both_looked_at(tmp_path: Path) -> None:
    """Protects an archive that is served under two names: what comes to it is seen under both."""
    archive, shards = begun(tmp_path)
    rescaler(archive).run(shards[0])
    with closing(Library({"one": archive.store.uri, "two": archive.store.uri})) as library:
        rescaler(archive).run(shards[1])
        library.look()
        assert {name: shelf.entries for name, shelf in library.shelves.items()} == {"one": 5, "two": 5}


def test_a_look_that_hangs_does_not_hold_up_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects SIGTERM: a store that does not answer keeps a library from closing for a short time alone, and the process
    from ending not at all; others are looked at meanwhile."""
    gate, reached, looked = threading.Event(), threading.Event(), threading.Event()
    shutil.copytree(folder / "first", folder / "second")
    refresh = Shelf.refresh
    monkeypatch.setattr(library_module, "CLOSE_SECONDS", 0.2)
    library = Library({"archives": str(folder)})

    def held(shelf: Shelf) -> int:
        if shelf.name == "first":
            reached.set()
            gate.wait(GUARD)
        else:
            looked.set()
        return refresh(shelf)

    monkeypatch.setattr(Shelf, "refresh", held)
    library.begin(0.01)
    try:
        assert reached.wait(GUARD)
        assert looked.wait(GUARD)
        library.close()
        assert not gate.is_set()
        held_up = [thread for thread in library._threads if thread.is_alive()]
        assert (len(held_up), len(library._threads)) == (1, LOOKERS + 1)
        assert held_up[0].daemon
    finally:
        gate.set()
        for thread in library._threads:
            thread.join(GUARD)


def test_a_patient_library_opens_what_it_can(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Protects workers that are started again: an archive that is away, and a folder that has become empty, are told in a
    line each and served once they are there; the command's first start refuses them."""
    (tmp_path / "empty").mkdir()
    uris = {"first": str(folder / "first"), "away": str(tmp_path / "away"), "empty": str(tmp_path / "empty")}
    with pytest.raises(NotFound):
        Library(uris)
    with closing(Library(uris, patient=True)) as library:
        library.begin()
        library.look()
        assert list(library.shelves) == ["first"]
        assert [uris["away"] in messages(caplog)[0], uris["empty"] in messages(caplog)[1]] == [True, True]
        shutil.copytree(folder / "first", tmp_path / "away")
        shutil.copytree(folder / "first", tmp_path / "empty" / "empty")
        library.look()
        assert sorted(library.shelves) == ["away", "empty", "first"]
        assert [total(shelf) for shelf in library.shelves.values()] == [1, 1, 1]
        library.look()
    assert messages(caplog)[2:] == [f"{uris['away']} is seen again.", f"{uris['empty']} is seen again."]


def test_any_error_is_told_and_the_look_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Protects against looks that end without a word: an error that nobody thought of is told with its type, and the next
    look is made."""
    refresh, fails = Shelf.refresh, [True, True, False]
    looked = threading.Event()

    def failing(shelf: Shelf) -> int:
        if fails and fails.pop(0):
            raise ZeroDivisionError("of course")
        looked.set()
        return refresh(shelf)

    with closing(Library({"first": str(folder / "first")})) as library:
        monkeypatch.setattr(Shelf, "refresh", failing)
        library.begin(0.01)
        assert looked.wait(GUARD)
    uri = folder / "first"
    assert messages(caplog)[0] == f"Nothing new is seen at {uri}: ZeroDivisionError: of course"
    assert len(caplog.records) <= 2


def test_a_name_that_is_no_text_is_passed_over(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Protects lists of archives: one whose folder's name is no UTF-8, which no answer can tell, is not served; one line of
    the log says so, which is text itself."""
    shutil.copytree(folder / "first", folder / os.fsdecode(b"\xff"))
    with closing(Library({"archives": str(folder)})) as library:
        library.look()
        assert json.dumps([shelf.describe() for shelf in library.shelves.values()], ensure_ascii=False).encode()
        assert list(library.shelves) == ["first"]
    assert ["UTF-8" in each and bool(each.encode()) for each in messages(caplog)] == [True]


def test_what_is_served_no_more_is_told_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Protects the log from archives that were removed: a look at one that ends after the folder's says nothing, and nothing
    is remembered of one that was told of before."""
    shutil.copytree(folder / "first", folder / "second")
    with closing(Library({"archives": str(folder)})) as library:
        late = library._looks()["first"]
        refresh = Shelf.refresh

        def removed_meanwhile(shelf: Shelf) -> int:
            shutil.rmtree(folder / "first")
            library._looks()[str(folder)]()
            return refresh(shelf)

        with monkeypatch.context() as patched:
            patched.setattr(Shelf, "refresh", removed_meanwhile)
            late()
        assert (list(library.shelves), messages(caplog)) == (["second"], [])
        (folder / "second" / "plan.json").unlink()
        library.look()
        assert len(caplog.records) == len(library._told) == 1
        shutil.rmtree(folder / "second")
        library.look()
        assert (len(caplog.records), library._told, library.shelves) == (1, {}, {})


def test_shards_are_counted_while_others_are_read(tmp_path: Path) -> None:
    """Protects the count that says whether a list is complete: a shard that is read while others are added is not missed."""
    archive, _ = begun(tmp_path)
    with closing(Catalogue(archive)) as catalogue:
        catalogue.add(["000000"])

        def while_one_is_read() -> Iterator[str]:
            catalogue._waiting.popleft()
            yield "000001"

        catalogue.add(while_one_is_read())
        assert catalogue.shards == 2


def test_a_closed_library_keeps_nothing(folder: Path) -> None:
    """Protects the memory of a process that only starts workers: it keeps no index of what it opened to know the names."""
    library = Library({"archives": str(folder)})
    uris = library.uris
    library.close()
    library.close()
    assert (uris, library.shelves) == ([str(folder / "first")], {})
