"""A local folder as a store: the contract, and what only a file system does."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import AccessDenied, AlreadyExists, InvalidKey, NotFound, SourceChanged, StoreError, StoreUnavailable
from pipeline.stores.base import Stamp, from_os_error
from pipeline.stores.store import LocalStore, Store, open_store
from tests.support.commands import GUARD
from tests.support.store_contract import Behind, Folder, StoreContract


class TestLocalStore(StoreContract):
    """A local folder."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(str(tmp_path / "store"), create=True)

    @pytest.fixture
    def behind(self, tmp_path: Path) -> Behind:
        return Folder(tmp_path / "store")


class TestLocalStoreWithoutHardLinks(TestLocalStore):
    """A local folder on a file system such as FAT."""

    @pytest.fixture(autouse=True)
    def _no_links(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)


def test_a_folder_that_vanished_is_told_from_an_object_that_did(tmp_path: Path) -> None:
    """On a machine without the folder a store fails with its URI, and never makes another folder there."""
    store = LocalStore(tmp_path / "gone")
    uses = (lambda: list(store.list()), lambda: store.stat("a"), lambda: store.exists("a"), lambda: store.create("a", b""))
    for use in uses:
        with pytest.raises(NotFound) as caught:
            use()
        assert caught.value.uri == store.uri
    assert not (tmp_path / "gone").exists()


WHOLE: dict[str, Callable[[Store, str], bytes]] = {
    "read": lambda store, etag: store.read("a", 0, 4000, etag=etag),
    "open": lambda store, etag: store.open("a", etag=etag, buffer_size=1000).read(),
}
"""Ways to read all of a file of 4,000 bytes."""


@pytest.mark.parametrize(
    "now", [b"much" * 2000, b"", b"some", b"four" * 1000], ids=["grows", "is emptied", "shrinks", "is another"]
)
@pytest.mark.parametrize("way", WHOLE)
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, now: bytes, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects entries from the half of one file and the half of another: what was listed is read, or nothing."""
    path, store, fstat = tmp_path / "a", LocalStore(tmp_path), os.fstat
    path.write_bytes(b"more" * 1000)
    os.utime(path, (1e9, 1e9))
    planned = store.stat("a").etag

    def change_behind_it(file: int) -> os.stat_result:
        status = fstat(file)
        if path.stat().st_mtime == 1e9:
            path.write_bytes(now)
        return status

    monkeypatch.setattr(os, "fstat", change_behind_it)
    with pytest.raises(SourceChanged):
        WHOLE[way](store, planned)


def test_a_file_gets_its_time_and_mode(tmp_path: Path) -> None:
    """Protects dates and privacy: what is written is of the time and mode that were asked for, whatever the umask is."""
    store = LocalStore(tmp_path)
    store.create("a", b"1", Stamp(modified=981_173_106.25, permissions=0o666))
    store.create("b", b"1", Stamp(modified=math.nan, permissions=0o400))
    store.create("c", b"1")
    found = [store.stat(key) for key in "abc"]
    assert (found[0].modified, found[0].permissions) == (981_173_106.25, 0o666)
    assert found[1].permissions == 0o400
    assert found[1].modified == pytest.approx(found[2].modified, abs=GUARD)


def test_a_file_system_without_modes_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects restores to FAT, which refuses modes of files: they are written all the same."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no modes here")

    monkeypatch.setattr(Path, "chmod", refuse)
    LocalStore(tmp_path).create("a", b"1", Stamp(modified=981_173_106, permissions=0o600))
    assert (tmp_path / "a").stat().st_mtime == 981_173_106


def test_links_and_odd_files(tmp_path: Path) -> None:
    """Linked files and folders are listed and read; loops, dangling links, pipes and unfinished files are no objects."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "x").write_bytes(b"linked")
    (root / "file").symlink_to(outside / "x")
    (root / "folder").symlink_to(outside)
    (root / "sub" / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "dangling").symlink_to(root / "absent")
    (root / "sub" / ".iarn-0123456789abcdef.part").write_bytes(b"half")
    os.mkfifo(root / "pipe")
    store = open_store(str(root))
    assert [info.key for info in store.list()] == ["file", "folder/x"]
    assert store.read("file") == store.read("folder/x") == b"linked"
    for key in ("self", "dangling", "pipe", "sub"):
        assert not store.exists(key)
        with pytest.raises(NotFound):
            store.read(key)
    with pytest.raises(AlreadyExists):
        store.create("dangling", b"")


def test_names_that_are_no_text_are_listed_and_read(tmp_path: Path) -> None:
    """Photographs of old systems, Latin-1 or Shift-JIS in their names or their folders', are objects like others."""
    bad, folder = os.fsdecode(b"bad-\xff.jpg"), os.fsdecode(b"folder-\xfe")
    names = [f"a/{bad}", "a/good.jpg", bad, f"{folder}/good.jpg", "z.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(os.fsencode(name))
    store = open_store(str(tmp_path))
    found = list(store.list())
    assert [info.key for info in found] == names
    assert [info.key for info in store.list(f"{folder}/")] == names[3:4]
    for info in found:
        assert store.stat(info.key) == info
        assert store.read(info.key, etag=info.etag) == os.fsencode(info.key)
    for write in (store.create, store.replace):
        with pytest.raises(InvalidKey, match=r"bad-.*rename it"):
            write(bad, b"")


def test_a_file_in_a_folders_place(tmp_path: Path) -> None:
    """S3 may hold both ``a`` and ``a/b``; a folder cannot, and says so rather than that ``a/b`` exists."""
    store = open_store(str(tmp_path))
    store.create("a", b"")
    for key in ("a/b", "a/b/c"):
        with pytest.raises(InvalidKey, match="file stands"):
            store.create(key, b"")
    store.create("folder/x", b"")
    with pytest.raises(AlreadyExists):
        store.create("folder", b"")
    with pytest.raises(StoreError):
        store.replace("folder", b"")
    assert sorted(Folder(tmp_path).keys()) == ["a", "folder/x"]


def test_list_of_a_folder_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of thousands of objects comes after one folder per level was read, not after all."""
    keys = [f"{folder:02}/{name:03}" for folder in range(12) for name in range(100)]
    for folder in range(12):
        (tmp_path / f"{folder:02}").mkdir()
    for key in keys:
        (tmp_path / key).touch()
    scans: list[Any] = []
    scandir = os.scandir

    def counted(path: Path) -> Any:
        scans.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    listing = open_store(str(tmp_path)).list()
    assert next(listing).key == "00/000"
    assert len(scans) == 2
    assert [info.key for info in listing] == keys[1:]
    scans.clear()
    assert len(list(open_store(str(tmp_path)).list("07/0"))) == 100
    assert len(scans) == 1


@given(st.sets(st.text(st.sampled_from("ab-./0é\U0001f600"), min_size=1, max_size=8), max_size=12), st.text("ab-/", max_size=4))
def test_list_of_a_folder_is_the_sorted_keys(tmp_path_factory: pytest.TempPathFactory, names: set[str], prefix: str) -> None:
    """For any tree and any prefix a listing is exactly the keys with that prefix, in byte order."""
    root = tmp_path_factory.mktemp("tree")
    keys: set[str] = set()
    for name in sorted(names):
        parts = name.split("/")
        taken = any(name.startswith(f"{key}/") or key.startswith(f"{name}/") for key in keys)
        if not taken and not {"", ".", ".."} & set(parts):
            keys.add(name)
            Folder(root).put(name, b"")
    found = [info.key for info in open_store(str(root)).list(prefix)]
    assert found == sorted((key for key in keys if key.startswith(prefix)), key=str.encode)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreUnavailable),
        (errno.EDQUOT, StoreUnavailable),
        (errno.EIO, StoreUnavailable),
        (errno.EACCES, AccessDenied),
    ],
)
def test_a_failing_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StoreError]
) -> None:
    """A full or failing disk gives one of our errors with the object's URI, and no part of it stays."""
    store = open_store(str(tmp_path))
    store.create("old", b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for write in (store.create, store.replace):
        with pytest.raises(expected, match=os.strerror(number)) as caught:
            write("a/b", b"data")
        assert caught.value.args[0] == f"{tmp_path}/a/b"
    with pytest.raises(expected):
        store.replace("old", b"new")
    assert Folder(tmp_path).keys() == ["old"]
    assert Folder(tmp_path).get("old") == b"old"


_KILLED = """
import os, signal, sys
from pipeline.stores import local as store_local
from pathlib import Path
store_local.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
store_local.LocalStore(Path(sys.argv[1])).create("a/b", b"x" * 100000)
"""


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    """After ``kill -9`` in the middle of a write nothing is listed, and the same write succeeds."""
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)], cwd=Path(__file__).parents[3], timeout=GUARD, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    store = open_store(str(tmp_path))
    assert list(store.list()) == []
    assert not store.exists("a/b")
    store.create("a/b", b"whole")
    assert store.read("a/b") == b"whole"


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_of_a_file_system_is_translated(number: int) -> None:
    """No OSError leaves a store, whatever its number."""
    error = from_os_error(OSError(number, os.strerror(number)), "/store/key")
    assert isinstance(error, StoreError)
    assert "/store" in str(error)
