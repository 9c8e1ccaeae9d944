"""What every store has to keep; its set-up and its checks go around the store under test."""

from __future__ import annotations

import itertools
import pickle
import random
import threading
from pathlib import Path
from typing import Protocol

import pytest

from pipeline.core.errors import AlreadyExists, InvalidKey, NotFound, SourceChanged, StoreError
from pipeline.core.records import ObjectInfo
from pipeline.stores.store import Store
from tests.support.seaweed import SeaweedServer

DATA = bytes(range(256)) * 40

ODD_KEYS = (
    "A", "a-b", "a.b", "a/b", "a/c-d", "a/c/d", "a/c/e f", "a0", "ab", "b/c/d/e.tar", "space in it/x  y.png", "q?#%20&+=.jpg",
    "é", "e\u0301", "\uffee", "\U0001f600", "z/\U0001f600/ß", "~", "-", ".hidden", "'quote\"", "<xml>&amp;", "semi;colon,comma",
)  # fmt: skip


class Behind(Protocol):
    """The way around a store: its objects by other means; ``keys`` tells everything there is, in any order."""

    def put(self, key: str, data: bytes) -> None: ...

    def get(self, key: str) -> bytes: ...

    def keys(self) -> list[str]: ...


class Folder:
    """A folder by plain file calls."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def keys(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()]


class Bucket:
    """A prefix of a bucket by a plain client."""

    def __init__(self, server: SeaweedServer, uri: str) -> None:
        self.client = server.client
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self.base = f"{prefix}/" if prefix else ""

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.base + key, Body=data)

    def get(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=self.base + key)["Body"].read()

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.base).get("Contents", [])
        return [entry["Key"].removeprefix(self.base) for entry in found]


def together(count: int, work: object) -> list[BaseException | None]:
    """Call ``work(i)`` in as many threads at one moment; return what each raised."""
    outcome: list[BaseException | None] = [None] * count
    gate = threading.Barrier(count)

    def run(index: int) -> None:
        gate.wait()
        try:
            work(index)  # type: ignore[operator]
        except BaseException as error:
            outcome[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


class StoreContract:
    """Inherit and give the fixtures ``store`` (empty) and ``behind`` (the way around the same store)."""

    races = 4
    writers = 8
    opaque_keys = False
    """Whether a key is no path: any text may be one that somebody else wrote."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def behind(self) -> Behind:
        raise NotImplementedError

    # Listing

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        """A new destination is empty, not missing."""
        assert list(store.list()) == []
        assert list(store.list("any/prefix")) == []

    def test_list_is_in_byte_order_and_complete(self, store: Store, behind: Behind) -> None:
        """Two runs, and two kinds of store, plan the same shards in the same order, whatever the names."""
        keys = list(ODD_KEYS)
        random.Random(7).shuffle(keys)
        for key in keys:
            behind.put(key, key.encode())
        found = [info.key for info in store.list()]
        assert found == sorted(ODD_KEYS, key=str.encode)

    def test_list_takes_any_prefix(self, store: Store, behind: Behind) -> None:
        """A prefix is of the key, not of a folder, and cannot lead out of the store."""
        keys = ["a-b", "a/b", "a/c-d", "a/c/d", "a/c/e", "b/c/d"]
        for key in keys:
            behind.put(key, b"x")
        for prefix in ("", "a", "a/", "a/c", "a/c/", "a/c/d", "a/c/dx", "a-b/", "b", "none", "/", "/a", "..", "../", "a//"):
            assert [info.key for info in store.list(prefix)] == [key for key in keys if key.startswith(prefix)], prefix

    def test_folders_are_one_level(self, store: Store, behind: Behind) -> None:
        """What lies directly below a place is told once each, in order, however much is below it; objects are no folders."""
        assert list(store.folders()) == []
        for key in ("b/c/d", "b/e", "a b/x", "é/x/y", "a-b", "b-c/x", "z"):
            behind.put(key, b"x")
        assert list(store.folders()) == ["a b", "b", "b-c", "é"]

    def test_list_and_stat_agree(self, store: Store, behind: Behind) -> None:
        """The ETag that a plan took from a listing is the one that a read checks."""
        behind.put("a/b", DATA)
        behind.put("a/empty", b"")
        listed = list(store.list())
        assert listed == [store.stat("a/b"), store.stat("a/empty")]
        assert [info.size for info in listed] == [len(DATA), 0]
        assert all(info.etag and '"' not in info.etag for info in listed)
        assert store.read("a/b", etag=listed[0].etag) == DATA

    # Reading

    def test_odd_keys_are_read_back(self, store: Store, behind: Behind) -> None:
        """Every name that can be listed can be read, byte for byte."""
        for key in ODD_KEYS:
            behind.put(key, key.encode())
        for key in ODD_KEYS:
            assert store.exists(key)
            assert store.read(key) == key.encode()

    def test_a_range_is_a_slice(self, store: Store, behind: Behind) -> None:
        """Ranges at, before and beyond the ends give what a slice gives, also nothing, and never count from the end."""
        data = b"0123456789"
        behind.put("ten", data)
        behind.put("empty", b"")
        for start, stop in itertools.product((0, 1, 9, 10, 11, 10**12), (None, 0, 1, 9, 10, 11, 10**12)):
            assert store.read("ten", start, stop) == data[start:stop], (start, stop)
        for start, stop in ((0, None), (0, 0), (0, 5), (3, None), (3, 5)):
            assert store.read("empty", start, stop) == b"", (start, stop)
        for start, stop in ((-1, None), (0, -1)):
            with pytest.raises(ValueError, match="counts from 0"):
                store.read("ten", start, stop)

    def test_absent_objects_are_not_found(self, store: Store, behind: Behind) -> None:
        """A missing object is told as such, with its URI, by everything that needs it."""
        behind.put("there/x", b"x")
        for key in ("absent", "there", "there/absent", "there/x/below"):
            assert not store.exists(key)
            for use in (store.stat, store.read, lambda key: store.read(key, 3, 3), lambda key: store.read(key, 3), store.open):
                with pytest.raises(NotFound) as caught:
                    use(key)
                assert caught.value.uri == f"{store.uri}/{key}"

    def test_another_object_is_noticed(self, store: Store, behind: Behind) -> None:
        """An object that changed after the plan is never taken for the planned one, whatever part is read."""
        behind.put("a", b"first")
        planned = store.stat("a").etag
        assert store.read("a", 1, 3, etag=planned) == b"ir"
        behind.put("a", b"second!")
        for start, stop in ((0, None), (1, 3), (2, 2), (100, None)):
            with pytest.raises(SourceChanged) as caught:
                store.read("a", start, stop, etag=planned)
            assert (caught.value.expected, caught.value.found) == (planned, store.stat("a").etag)
        with pytest.raises(SourceChanged):
            store.open("a", etag=planned)

    # Files

    def test_open_seeks_and_reads(self, store: Store, behind: Behind) -> None:
        """An opened object is a file as tarfile and pyarrow expect one."""
        behind.put("file", DATA)
        with store.open("file", buffer_size=512) as file:
            assert file.readable()
            assert file.seekable()
            assert not file.writable()
            assert file.read(3) == DATA[:3]
            assert file.tell() == 3
            assert file.seek(-5, 2) == len(DATA) - 5
            assert file.read() == DATA[-5:]
            assert file.read(10) == b""
            file.seek(1000)
            assert file.read(2000) == DATA[1000:3000]
            file.seek(10, 1)
            assert file.read(1) == DATA[3010:3011]
            file.seek(len(DATA) + 50)
            assert file.read() == b""
            file.seek(0)
            assert file.read() == DATA
            with pytest.raises(ValueError, match=r"before the start|negative|invalid"):
                file.seek(-1)
        assert file.closed

    def test_open_sees_one_version(self, store: Store, behind: Behind) -> None:
        """Half of one object is never joined to half of another."""
        behind.put("file", b"a" * 4096)
        with store.open("file", buffer_size=1024) as file:
            assert file.read(1024) == b"a" * 1024
            behind.put("file", b"b" * 5000)
            with pytest.raises(SourceChanged):
                file.read(2048)

    def test_an_empty_object_opens(self, store: Store, behind: Behind) -> None:
        """A zero-byte file is a file."""
        behind.put("empty", b"")
        with store.open("empty") as file:
            assert file.read() == b""

    # Writing

    def test_create_writes_bytes_and_files(self, store: Store, behind: Behind, tmp_path: Path) -> None:
        """What was given is what is there, and nothing beside it."""
        for name, data in (("none", b""), ("one", b"x"), ("more", DATA)):
            (tmp_path / "source").write_bytes(data)
            store.create(f"a/{name}", data)
            store.create(f"b/é {name}", tmp_path / "source")
            assert behind.get(f"a/{name}") == behind.get(f"b/é {name}") == data
        assert sorted(behind.keys()) == ["a/more", "a/none", "a/one", "b/é more", "b/é none", "b/é one"]

    def test_create_never_overwrites(self, store: Store, behind: Behind, tmp_path: Path) -> None:
        """Whatever was there stays as it was, and the refusal names it."""
        (tmp_path / "source").write_bytes(b"new")
        behind.put("a/b", b"old")
        for data in (b"new", b"old", b"", tmp_path / "source"):
            with pytest.raises(AlreadyExists) as caught:
                store.create("a/b", data)
            assert caught.value.uri == f"{store.uri}/a/b"
        assert behind.get("a/b") == b"old"
        assert behind.keys() == ["a/b"]

    def test_create_has_one_winner(self, store: Store, behind: Behind) -> None:
        """Of writers at one moment exactly one succeeds, its bytes are there whole, and the others leave nothing."""
        for race in range(self.races):
            key = f"race/{race}"
            contents = [bytes([index]) * 50_000 for index in range(self.writers)]
            outcome = together(self.writers, lambda index, key=key, contents=contents: store.create(key, contents[index]))
            winners = [index for index, error in enumerate(outcome) if error is None]
            assert len(winners) == 1, outcome
            assert all(isinstance(error, AlreadyExists) for error in outcome if error is not None), outcome
            assert behind.get(key) == contents[winners[0]]
        assert sorted(behind.keys()) == [f"race/{race}" for race in range(self.races)]

    def test_equal_bytes_do_not_make_a_second_winner(self, store: Store) -> None:
        """Two writers of one commit may write the same bytes; still only one of them has made it."""
        outcome = together(self.writers, lambda _: store.create("commit", b"same"))
        assert sum(error is None for error in outcome) == 1

    def test_create_from_a_missing_file_leaves_nothing(self, store: Store, behind: Behind, tmp_path: Path) -> None:
        """A failed write names the file at fault and leaves no trace."""
        with pytest.raises(NotFound) as caught:
            store.create("a/b", tmp_path / "absent")
        assert caught.value.uri == str(tmp_path / "absent")
        assert behind.keys() == []
        assert list(store.list()) == []

    def test_readers_never_see_a_part(self, store: Store) -> None:
        """Whoever reads while objects are replaced sees one whole version or another."""
        versions = [bytes([index]) * 30_000 for index in range(6)]
        store.create("report", versions[0])
        seen: list[bytes] = []

        def work(index: int) -> None:
            for version in versions:
                if index == 0:
                    store.replace("report", version)
                else:
                    seen.append(store.read("report"))

        errors = [error for error in together(3, work) if error is not None]
        assert errors == []
        assert set(seen) <= set(versions)

    def test_replace_writes_whether_or_not_it_is_there(self, store: Store, behind: Behind, tmp_path: Path) -> None:
        """A report can be written again, shorter too, and a list that lies on the local disk."""
        store.replace("a/report", b"long before")
        assert behind.get("a/report") == b"long before"
        store.replace("a/report", b"short")
        assert behind.get("a/report") == b"short"
        (tmp_path / "list").write_bytes(b"line\n" * 10**5)
        store.replace("a/report", tmp_path / "list")
        assert behind.get("a/report") == b"line\n" * 10**5
        (tmp_path / "list").write_bytes(b"")
        store.replace("a/report", tmp_path / "list")
        assert behind.get("a/report") == b""
        with pytest.raises(NotFound):
            store.replace("a/report", tmp_path / "none")
        assert behind.keys() == ["a/report"]

    def test_delete(self, store: Store, behind: Behind) -> None:
        """A refused writer can take its attempt back, also twice, and create anew."""
        behind.put("a/b", b"x")
        behind.put("a/c", b"y")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/was")
        assert behind.keys() == ["a/c"]
        store.create("a/b", b"z")
        assert behind.get("a/b") == b"z"

    # Keys

    def test_no_key_leads_out(self, store: Store, behind: Behind) -> None:
        """A name from an archive or a tar reaches nothing outside the store."""
        uses = (store.stat, store.exists, store.read, store.open)
        writes = (store.delete, lambda key: store.create(key, b""), lambda key: store.replace(key, b""))
        for key in ("", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "./a", "a/./b", "a\0b", "\ud800"):
            opaque = self.opaque_keys and key not in ("", "a\0b", "\ud800")
            for use in writes if opaque else (*uses, *writes):
                with pytest.raises(InvalidKey, match="cannot be a key"):
                    use(key)
        assert behind.keys() == []

    def test_no_ambiguous_key_is_written(self, store: Store, behind: Behind) -> None:
        """Nothing is written under a name that another store would take for a different one, or never list."""
        for key in ("a//b", "a/", "a\\b", "..\\x", "a/.iarn-0123abcd.part"):
            for write in (store.create, store.replace):
                with pytest.raises(InvalidKey):
                    write(key, b"")
        assert behind.keys() == []

    def test_a_name_too_long_is_refused(self, store: Store, behind: Behind) -> None:
        """An absurd name gives one of our errors and no object."""
        with pytest.raises(StoreError):
            store.create("x" * 2000, b"")
        assert behind.keys() == []

    # Processes and threads

    def test_pickled_stores_work(self, store: Store, behind: Behind) -> None:
        """A store reaches an actor whole, also after it was used."""
        behind.put("a", b"x")
        assert store.read("a") == b"x"
        copy = pickle.loads(pickle.dumps(store))
        assert copy.uri == store.uri
        assert repr(copy) == repr(store)
        assert copy.read("a") == b"x"
        assert list(copy.list()) == list(store.list())

    def test_many_threads_use_a_new_store(self, store: Store, behind: Behind) -> None:
        """A store's first use may come from many threads at once."""
        behind.put("a", DATA)
        fresh = pickle.loads(pickle.dumps(store))
        found: list[bytes] = []
        assert together(12, lambda _: found.append(fresh.read("a", 5, 500))) == [None] * 12
        assert found == [DATA[5:500]] * 12

    def test_infos_are_frozen_values(self, store: Store, behind: Behind) -> None:
        """Plans hash what a listing gives."""
        behind.put("a", b"x")
        first = next(iter(store.list()))
        assert isinstance(first, ObjectInfo)
        assert hash(first) == hash(store.stat("a"))
        assert list(itertools.islice(store.list(), 1)) == [first]
