"""Commits: one winner each, told by a listing, never of another plan."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.archives.commits import commits, create_commit, decode_report, done, encode_report, read_commit
from pipeline.archives.errors import UnsupportedFormat
from pipeline.archives.plans import decode_json, encode_json
from pipeline.core.errors import AlreadyExists, DamagedObject, NotFound, PlanConflict
from pipeline.core.records import Commit, Failure, ShardReport
from pipeline.stores.store import LocalStore

REPORT = ShardReport(
    shard_id="000000001-a",
    entries=3,
    originals=1,
    pixels=2**40,
    bytes_in=5,
    bytes_out=6,
    failures=(
        Failure(shard_id="000000001-a", key="ä\udc80.jpg", reason="cannot be decoded: it is “empty”"),
        Failure(shard_id="000000001-a", key=None, reason="cut"),
    ),
)
COMMIT = Commit(
    shard_id="000000001-a", plan="ab" * 32, sha256="cd" * 32, byte_size=6, report=REPORT, begun=1.7e9 + 0.125, ended=1.7e9 + 60
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


class Unreadable(LocalStore):
    """A store that lists and does not read."""

    def read(self, key: str, *_: object, **__: object) -> bytes:
        raise AssertionError(f"{key} was read")


def test_a_commit_comes_back(store: LocalStore) -> None:
    """Protects every field, failures included, through JSON."""
    assert create_commit(store, COMMIT) == COMMIT
    found = read_commit(store, COMMIT.shard_id, COMMIT.plan)
    assert (found, found.begun, found.ended) == (COMMIT, COMMIT.begun, COMMIT.ended)
    assert list(commits(store, COMMIT.plan, 2)) == [COMMIT]
    assert decode_report(decode_json(b'{"format_version":3,' + encode_report(REPORT)[1:].encode(), "report")) == REPORT


def test_a_commit_without_times_is_read(store: LocalStore) -> None:
    """Protects archives of older releases: a commit that tells no times is one all the same."""
    values = decode_json(encode_json({"format_version": 3, **COMMIT.to_json()}), "commit")
    store.create(
        "commits/000000/000000001-a.json",
        encode_json({name: values[name] for name in values if name not in ("begun", "ended")}),
    )
    found = read_commit(store, COMMIT.shard_id, COMMIT.plan)
    assert (found, found.begun, found.ended) == (COMMIT, None, None)


def test_done_reads_no_object(tmp_path: Path, store: LocalStore) -> None:
    """Protects the resume of a job of a million shards: listings by the thousand, and nothing but commits counts."""
    ids = ["000000001-a", "000000002-b", "000000999-c", "000001000-d", "000002345-e"]
    for shard_id in reversed(ids):
        create_commit(store, replace(COMMIT, shard_id=shard_id, report=replace(REPORT, shard_id=shard_id)))
    for other in ("a.txt", "folder/x.json", "000000/000001003-x.json", "000000/x.json", "000001/000001004-x.json/y"):
        store.create(f"commits/{other}", b"{}")
    found = done(Unreadable(tmp_path), 2400)
    assert len(found) == len(ids)
    assert all(shard_id in found for shard_id in ids)
    assert not any(
        shard_id in found for shard_id in ("000000000-a", "000001003-x", "000001004-x", "000002344-e", "000003345-e")
    )
    assert [commit.shard_id for commit in commits(store, COMMIT.plan, 2400)] == ids


def test_the_same_commit_again_is_accepted_and_another_is_not(store: LocalStore) -> None:
    """Protects exactly once: a repeated attempt agrees with the first, one with other bytes or another plan is refused."""
    create_commit(store, COMMIT)
    repeated = replace(COMMIT, report=replace(REPORT, bytes_in=99))
    assert create_commit(store, repeated) == COMMIT
    with pytest.raises(AlreadyExists, match=r"commits/000000/000000001-a\.json"):
        create_commit(store, replace(COMMIT, sha256="ee" * 32))
    with pytest.raises(PlanConflict, match="plan abab"):
        create_commit(store, replace(COMMIT, plan="ff" * 32))
    with pytest.raises(PlanConflict):
        list(commits(store, "ff" * 32, 2))
    assert read_commit(store, COMMIT.shard_id, COMMIT.plan) == COMMIT


def race(store: LocalStore, attempts: list[Commit]) -> list[Commit | AlreadyExists]:
    """Return what each attempt got, all started at once."""
    results: list[Commit | AlreadyExists] = []
    start = threading.Barrier(len(attempts))

    def attempt(commit: Commit) -> None:
        start.wait()
        try:
            results.append(create_commit(store, commit))
        except AlreadyExists as error:
            results.append(error)

    threads = [threading.Thread(target=attempt, args=(commit,)) for commit in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_writers_racing_for_one_commit_agree(store: LocalStore) -> None:
    """Protects two jobs on one archive: all writers of the same shard bytes get the one commit that stands."""
    for number in range(10):
        shard_id = f"{number:09}-x"
        attempts = [replace(COMMIT, shard_id=shard_id, report=replace(REPORT, bytes_in=index)) for index in range(4)]
        standing = read_commit_after(store, attempts)
        assert standing in attempts


def read_commit_after(store: LocalStore, attempts: list[Commit]) -> Commit:
    results = race(store, attempts)
    standing = read_commit(store, attempts[0].shard_id, COMMIT.plan)
    assert results == [standing] * len(attempts)
    return standing


def test_writers_of_other_bytes_racing_have_one_winner(store: LocalStore) -> None:
    """Protects against a commit that describes a shard object which is not the one that stands."""
    for number in range(10):
        attempts = [replace(COMMIT, shard_id=f"{number:09}-x", sha256=f"{index:02x}" * 32) for index in range(4)]
        results = race(store, attempts)
        assert sum(isinstance(result, Commit) for result in results) == 1
        assert sum(isinstance(result, AlreadyExists) for result in results) == 3


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", DamagedObject),
        (b"{", DamagedObject),
        (b"\xff\xfe", DamagedObject),
        (b"[" * 100_000, DamagedObject),
        (b"[1]", DamagedObject),
        (b"{}", DamagedObject),
        (b'{"format_version":3}', DamagedObject),
        (b'{"format_version":true}', UnsupportedFormat),
        (b'{"format_version":1}', UnsupportedFormat),
        (encode_json({"format_version": 3, **COMMIT.to_json(), "report": None}), DamagedObject),
        (encode_json({"format_version": 3, **COMMIT.to_json(), "byte_size": "many"}), DamagedObject),
        (encode_json({"format_version": 3, **COMMIT.to_json(), "shard_id": "000000002-b"}), DamagedObject),
    ],
)
def test_a_damaged_commit_is_told(store: LocalStore, data: bytes, error: type[Exception]) -> None:
    """Protects against a traceback, and against taking a broken commit for one."""
    store.create("commits/000000/000000001-a.json", data)
    with pytest.raises(error, match=r"commits/000000/000000001-a\.json"):
        read_commit(store, "000000001-a", COMMIT.plan)
    with pytest.raises(error):
        create_commit(store, COMMIT)


def test_a_shard_that_is_not_done_is_not_found(store: LocalStore) -> None:
    """Protects the difference between not done and damaged."""
    assert not done(store, 1)
    with pytest.raises(NotFound):
        read_commit(store, "000000001-a", COMMIT.plan)
