"""S3 as a store, on a real server: the contract, and what networks, servers and users do to it."""

from __future__ import annotations

import os
import pickle
import secrets
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline.core.errors import (
    AlreadyExists,
    CredentialsMissing,
    CredentialsRefused,
    InvalidOption,
    NotFound,
    StoreUnavailable,
)
from pipeline.stores.s3 import S3Store
from pipeline.stores.store import Store, open_store
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, SeaweedServer
from tests.support.store_contract import Behind, Bucket, StoreContract, together


@pytest.fixture(scope="module")
def shared_bucket(s3_server: SeaweedServer) -> str:
    """One bucket for this file: the server takes its time over the first object of each."""
    s3_server.client.create_bucket(Bucket="test-store")
    return "s3://test-store"


@pytest.fixture
def s3_root(shared_bucket: str, s3_environment: None) -> str:  # noqa: ARG001 - asked for its effect
    """The URI of a fresh prefix, which only this test uses."""
    return f"{shared_bucket}/some/{secrets.token_hex(6)}"


class TestS3Store(StoreContract):
    """A prefix of a bucket on a real server, listed in small pages."""

    opaque_keys = True
    races = 1  # SeaweedFS lets conflicting writers wait by whole seconds
    writers = 4

    @pytest.fixture
    def store(self, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Store:
        monkeypatch.setattr(S3Store, "LIST_PAGE", 4)
        return open_store(s3_root)

    @pytest.fixture
    def behind(self, s3_server: SeaweedServer, s3_root: str) -> Behind:
        return Bucket(s3_server, s3_root)


@pytest.fixture
def proxy(s3_server: SeaweedServer, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:  # noqa: ARG001
    """A proxy between the stores of a test and the server; little patience, so that failing is quick."""
    monkeypatch.setattr(S3Store, "ATTEMPTS", 3)
    monkeypatch.setattr(S3Store, "BACKOFF", 0.01)
    with faulty_proxy(s3_server.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def bucket(s3_server: SeaweedServer, s3_root: str) -> Bucket:
    """The bucket of a test by a plain client."""
    return Bucket(s3_server, s3_root)


def test_list_of_a_bucket_streams(proxy: FaultyProxy, s3_root: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server that lists in order the first object comes after one page, not after all."""
    monkeypatch.setattr(S3Store, "LIST_PAGE", 3)
    monkeypatch.setattr(S3Store, "ORDERED_SERVERS", ("SeaweedFS",))
    keys = [f"{number:02}" for number in range(10)]
    for key in keys:
        bucket.put(key, b"")
    listing = open_store(s3_root).list()
    assert next(listing).key == "00"
    assert len(proxy.requests) == 1
    assert [info.key for info in listing] == keys[1:]
    assert len(proxy.requests) == 4


def test_folder_marks_are_no_objects(s3_root: str, bucket: Bucket) -> None:
    """The empty object that a console makes for a folder is not an image that failed."""
    bucket.put("a/", b"")
    bucket.put("a/b/", b"")
    bucket.put("a/b/c", b"x")
    assert [info.key for info in open_store(s3_root).list()] == ["a/b/c"]
    assert [info.key for info in open_store(f"{s3_root}/a").list()] == ["b/c"]


def test_a_tar_streams_over_ranges(proxy: FaultyProxy, s3_root: str, bucket: Bucket, tmp_path: Path) -> None:
    """A tar is read in order with one request per buffer, and never whole."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for index in range(4):
            (tmp_path / f"{index}").write_bytes(bytes([index]) * 100_000)
            tar.add(tmp_path / f"{index}", f"{index}")
    bucket.put("x.tar", (tmp_path / "x.tar").read_bytes())
    with open_store(s3_root).open("x.tar", buffer_size=2**16) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        found = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    assert found == [(f"{index}", bytes([index]) * 100_000) for index in range(4)]
    assert len(proxy.requests) < 12


def test_a_lost_answer_is_not_another_writer(proxy: FaultyProxy, s3_root: str, bucket: Bucket, tmp_path: Path) -> None:
    """A write that happened though its answer was lost is a success; the same bytes by someone else are not."""
    proxy.faults["PUT"] = [Fault.LOSE_ANSWER]
    store = open_store(s3_root)
    store.create("a", b"data")
    assert [method for method, _ in proxy.requests] == ["PUT", "PUT", "HEAD"]
    assert bucket.get("a") == b"data"
    (tmp_path / "source").write_bytes(b"data")
    for data in (b"data", tmp_path / "source"):
        with pytest.raises(AlreadyExists):
            store.create("a", data)


def test_a_conflict_is_tried_again(proxy: FaultyProxy, s3_root: str, bucket: Bucket) -> None:
    """S3's answer to two writers at one moment is no failure, and no end either while it lasts."""
    proxy.faults["PUT"] = [Fault.CONFLICT, Fault.CONFLICT]
    store = open_store(s3_root)
    store.create("a", b"data")
    assert bucket.get("a") == b"data"
    proxy.faults["PUT"] = [Fault.CONFLICT] * 3
    with pytest.raises(StoreUnavailable, match="other writers"):
        store.create("b", b"data")


@pytest.mark.parametrize("fault", [Fault.CUT_BODY, Fault.FLIP_BIT, Fault.BUSY])
def test_a_harmed_answer_is_fetched_again(proxy: FaultyProxy, s3_root: str, bucket: Bucket, fault: Fault) -> None:
    """Bytes cut short or changed on the way are never handed on; they are asked for again, and not for ever."""
    bucket.put("a", b"data" * 1000)
    store = open_store(s3_root)
    proxy.faults["GET"] = [fault]
    assert store.read("a") == b"data" * 1000
    assert len(proxy.requests) == 2
    proxy.faults["GET"] = [fault] * 20
    with pytest.raises(StoreUnavailable) as caught:
        store.read("a")
    assert caught.value.uri == f"{s3_root}/a"


def test_a_cut_range_is_fetched_again(proxy: FaultyProxy, s3_root: str, bucket: Bucket) -> None:
    """An open object survives a connection that breaks in the middle of a buffer."""
    data = bytes(range(256)) * 100
    bucket.put("a", data)
    with open_store(s3_root).open("a", buffer_size=4096) as file:
        proxy.faults["GET"] = [Fault.CUT_BODY]
        assert file.read() == data


def test_reading_to_the_end_is_one_request(proxy: FaultyProxy, s3_root: str, bucket: Bucket) -> None:
    """A shard that is wanted whole is not fetched in thousands of small pieces."""
    bucket.put("a", bytes(200_000))
    with open_store(s3_root).open("a", buffer_size=4096) as file:
        assert file.read(10) == bytes(10)
        assert file.read() == bytes(199_990)
    assert [method for method, _ in proxy.requests] == ["HEAD", "GET", "GET"]


def test_a_server_without_ranges_is_told(proxy: FaultyProxy, s3_root: str, bucket: Bucket) -> None:
    """A whole object is never taken for the part that was asked for."""
    bucket.put("a", b"0123456789")
    proxy.faults["GET"] = [Fault.NO_RANGE]
    with pytest.raises(StoreUnavailable, match="does not honour ranges"):
        open_store(s3_root).read("a", 2, 4)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of three parts, and stores that write it so."""
    monkeypatch.setattr(S3Store, "MULTIPART_THRESHOLD", 6 * 2**20)
    monkeypatch.setattr(S3Store, "PART_SIZE", 5 * 2**20)
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2**20) * 11)
    return path


def test_large_files_go_in_parts(proxy: FaultyProxy, s3_root: str, bucket: Bucket, small_parts: Path) -> None:
    """An object of any size is written whole or not at all, once, also when the last answer is lost."""
    store = open_store(s3_root)
    proxy.faults["POST"] = [None, Fault.LOSE_ANSWER]  # type: ignore[list-item]
    store.create("a", small_parts)
    assert [method for method, _ in proxy.requests].count("PUT") == 3
    assert bucket.get("a") == small_parts.read_bytes()
    with pytest.raises(AlreadyExists):
        store.create("a", small_parts)
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.bucket, Prefix=bucket.base).get("Uploads")


def test_a_large_write_that_fails_leaves_nothing(proxy: FaultyProxy, s3_root: str, bucket: Bucket, small_parts: Path) -> None:
    """No object and no paid-for parts stay behind a failed upload."""
    proxy.faults["PUT"] = [None, *[Fault.BUSY] * 3]  # type: ignore[list-item]
    with pytest.raises(StoreUnavailable):
        open_store(s3_root).create("a", small_parts)
    assert bucket.keys() == []
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.bucket, Prefix=bucket.base).get("Uploads")


@pytest.mark.usefixtures("small_parts")
def test_uploads_that_race_leave_one_whole_object(s3_root: str, bucket: Bucket) -> None:
    """Uploads in parts never mix, and losers leave nothing. (How many are told that they won, SeaweedFS gets wrong.)"""
    store = open_store(s3_root)
    contents = [bytes([index]) * (7 * 2**20) for index in range(3)]
    outcome = together(3, lambda index: store.create("a", contents[index]))
    assert all(isinstance(error, AlreadyExists) for error in outcome if error is not None), outcome
    winners = [data for data, error in zip(contents, outcome, strict=True) if error is None]
    assert bucket.get("a") in winners
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.bucket, Prefix=bucket.base).get("Uploads")


def test_a_file_is_streamed(s3_root: str, bucket: Bucket, tmp_path: Path) -> None:
    """A shard is never in memory as a whole while it is written."""
    path = tmp_path / "shard"
    path.write_bytes(os.urandom(2**20) * 40)
    store = open_store(s3_root)
    store.exists("warm")
    tracemalloc.start()
    store.create("a", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20
    assert bucket.get("a") == path.read_bytes()


def _uses(store: Store) -> list[Any]:
    return [
        lambda: list(store.list()), lambda: store.stat("a"), lambda: store.exists("a"), lambda: store.read("a"),
        lambda: store.read("a", 1, 1), lambda: store.open("a"),
    ]  # fmt: skip


@pytest.mark.usefixtures("s3_root")
def test_a_missing_bucket_is_named() -> None:
    """It is the bucket's name that is wrong, so it is the bucket that every use names."""
    for use in _uses(open_store("s3://no-such-bucket/prefix")):
        with pytest.raises(NotFound) as caught:
            use()
        assert caught.value.uri == "s3://no-such-bucket"


@pytest.mark.parametrize(
    "settings",
    [
        {"AWS_SECRET_ACCESS_KEY": "hunter2"},
        {"AWS_ACCESS_KEY_ID": "AKIAHUNTERHUNTER2222", "AWS_SECRET_ACCESS_KEY": "hunter2"},
        {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        {"AWS_SECRET_ACCESS_KEY": None},
    ],
    ids=["wrong", "unknown", "none", "half"],
)
def test_refused_credentials(s3_root: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str | None]) -> None:
    """Wrong and unknown credentials, and none at all, are told apart from absent objects and each other, and never shown."""
    expected = CredentialsMissing if None in settings.values() else CredentialsRefused
    for name, value in settings.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    store = open_store(s3_root)
    for use in (*_uses(store), lambda: store.create("a", b""), lambda: store.replace("a", b""), lambda: store.delete("a")):
        with pytest.raises(expected) as caught:
            use()
        text = f"{caught.value!s} {caught.value!r} {store!r}"
        assert not any(secret in text for secret in ("hunter2", "AKIA", SECRET_KEY, ACCESS_KEY))
        told = ("no credentials were found", "--source-access unsigned") if None in settings.values() else ("are refused",)
        assert all(words in text for words in told)


def test_one_client_for_all_threads(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that use a store for the first time at one moment share one client, made once."""
    made: list[int] = []
    session = boto3.session.Session

    def counted() -> boto3.session.Session:
        made.append(1)
        return session()

    monkeypatch.setattr(boto3.session, "Session", counted)
    store = open_store(s3_root)
    assert together(8, lambda _: store.exists("a")) == [None] * 8
    assert len(made) == 1


def test_no_credentials_are_pickled(s3_root: str, bucket: Bucket) -> None:
    """A store that was used takes no secret with it to another process."""
    bucket.put("a", b"x")
    store = open_store(s3_root)
    assert store.read("a") == b"x"
    pickled = pickle.dumps(store)
    assert ACCESS_KEY.encode() not in pickled
    assert SECRET_KEY.encode() not in pickled


def test_a_server_that_is_down(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection gives one sentence, after a few tries, without the password of its URL."""
    monkeypatch.setattr(S3Store, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hunter2@127.0.0.1:9")
    store = open_store(s3_root)
    for use in (*_uses(store), lambda: store.create("a", b""), lambda: store.replace("a", b""), lambda: store.delete("a")):
        with pytest.raises(StoreUnavailable) as caught:
            use()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"AWS_ENDPOINT_URL": "no url"}, {"AWS_PROFILE": "absent"}, {"AWS_DEFAULT_REGION": "not a region!"}],
    ids=["endpoint", "profile", "region"],
)
def test_settings_that_make_no_sense(s3_root: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    """A slip in the environment is the user's to mend, and is told as such."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidOption, match="AWS configuration"):
        open_store(s3_root).stat("a")
