"""How a bucket is asked: with credentials, without any, or at the cost of whoever asks; each request, and whole commands."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import open_archive
from pipeline.cluster import pool
from pipeline.core.errors import AccessDenied, AlreadyExists, InvalidOption
from pipeline.planning.sources import Listing, find_source
from pipeline.stores.s3 import S3Store
from pipeline.stores.store import Access, open_store
from pipeline.works import RescaleWork, RestoreWork, VerifyWork
from tests.support import workshop
from tests.support.faulty_proxy import FaultyProxy, faulty_proxy
from tests.support.in_process import iarn
from tests.support.seaweed import PUBLIC_BUCKET, SeaweedServer
from tests.support.store_contract import Bucket

PAYER = "x-amz-request-payer"


@pytest.fixture
def public(s3_server: SeaweedServer, s3_environment: None) -> str:  # noqa: ARG001 - asked for its effect
    """The URI of a fresh prefix in a bucket that everybody may read."""
    with suppress(s3_server.client.exceptions.BucketAlreadyExists, s3_server.client.exceptions.BucketAlreadyOwnedByYou):
        s3_server.client.create_bucket(Bucket=PUBLIC_BUCKET)
    return f"s3://{PUBLIC_BUCKET}/{secrets.token_hex(6)}"


@pytest.fixture
def proxy(s3_server: SeaweedServer, s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:  # noqa: ARG001
    """A proxy that notes what is asked of the server."""
    with faulty_proxy(s3_server.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the credentials out of the environment."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def put(server: SeaweedServer, uri: str, files: dict[str, bytes]) -> None:
    """Put objects below a URI, around the store under test."""
    bucket = Bucket(server, uri)
    for key, data in files.items():
        bucket.put(key, data)


def tar(count: int = 2) -> bytes:
    """Return a tar of little pictures."""
    return workshop.tar_of(member for sample in workshop.samples(count) for member in sample.members.items())


@pytest.mark.parametrize("there", [True, False], ids=["with credentials", "without"])
def test_a_public_bucket_is_read_without_credentials(
    public: str, s3_bucket: str, proxy: FaultyProxy, s3_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Protects users of public buckets: nothing is signed, whether the process has credentials or not, here and where the
    store is sent to; what is not public is told, with that it was asked without credentials."""
    put(s3_server, public, {"a": b"abcdef", "b/c": b"x"})
    if not there:
        without_credentials(monkeypatch)
    opened = open_store(public, access=Access.UNSIGNED)
    for store in (opened, pickle.loads(pickle.dumps(opened))):
        assert [info.key for info in store.list()] == ["a", "b/c"]
        assert (store.stat("a").size, store.exists("none"), store.read("a", 1, 3)) == (6, False, b"bc")
        assert store.open("b/c").read() == b"x"
    private = open_store(s3_bucket, access=Access.UNSIGNED)
    for use in (lambda: list(private.list()), lambda: private.stat("a"), lambda: private.read("a")):
        with pytest.raises(AccessDenied, match=r"refuses access \(.*, asked without credentials\)"):
            use()
    assert len(proxy.headers) > 10
    assert not [headers for headers in proxy.headers if "authorization" in headers or PAYER in headers]


def test_who_asks_offers_to_pay_with_every_request(s3_bucket: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects users of buckets whose requester pays: each request says so, in what is signed, whatever it asks; by default
    none does."""
    monkeypatch.setattr(S3Store, "LIST_PAGE", 2)
    monkeypatch.setattr(S3Store, "MULTIPART_THRESHOLD", 10)
    for access in (Access.REQUESTER_PAYS, Access.SIGNED):
        proxy.requests.clear()
        proxy.headers.clear()
        store: Any = pickle.loads(pickle.dumps(open_store(f"{s3_bucket}/{access}", access=access)))
        for number in range(3):
            store.create(f"{number}", b"abc")
        store.create("parts", b"x" * 50)
        with pytest.raises(AlreadyExists):
            store.create("0", b"other")
        store.replace("1", b"")
        assert [info.key for info in store.list()] == ["0", "1", "2", "parts"]
        assert (store.stat("2").size, store.exists("none"), store.read("2", 1), store.open("parts").read(3)) == (
            3, False, b"bc", b"xxx",
        )  # fmt: skip
        store.delete("2")
        assert {method for method, _ in proxy.requests} == {"GET", "HEAD", "PUT", "POST", "DELETE"}
        for request, headers in zip(proxy.requests, proxy.headers, strict=True):
            assert headers.get(PAYER) == ("requester" if access is Access.REQUESTER_PAYS else None), request
            assert (PAYER in headers["authorization"]) == (access is Access.REQUESTER_PAYS), request


def test_a_local_folder_has_no_access(tmp_path: Path) -> None:
    """Protects from an option that does nothing: for a local path any access but the usual is refused."""
    for access in (Access.UNSIGNED, Access.REQUESTER_PAYS):
        with pytest.raises(InvalidOption) as caught:
            open_store(str(tmp_path), access=access)
        assert workshop.sentence(str(caught.value)) == f"access {access}: it is for s3:// alone; leave it out for {tmp_path}."
    with pytest.raises(ValueError, match="free"):
        open_archive(str(tmp_path), access="free")


def test_workers_ask_the_source_in_its_way(tmp_path: Path, public: str, s3_server: SeaweedServer, proxy: FaultyProxy) -> None:
    """Protects workers of a public source: they ask it unsigned, the plan is the same however it is asked, and verifying
    compares with it as it is asked then."""
    put(s3_server, public, {"a.tar": tar(), "loose.png": workshop.picture(20, 30)})
    begun = workshop.begin(public, tmp_path / "archive")
    listed = list(find_source(public, Listing(access=Access.UNSIGNED)).shards)
    assert listed == list(begun.shards())
    proxy.headers.clear()
    proxy.requests.clear()
    worker = RescaleWork(archive=begun.store.uri, source_access=Access.UNSIGNED, device="cpu").start()
    assert sum(worker.run(shard).entries for shard in begun.shards()) == 3
    assert proxy.headers
    assert not [headers for headers in proxy.headers if "authorization" in headers]
    checker = VerifyWork(archive=begun.store.uri, sample=1, source_access=Access.UNSIGNED, device="cpu").start()
    assert sum(checker.run(shard).compared for shard in begun.shards()) == 3
    assert not [headers for headers in proxy.headers if "authorization" in headers]


def test_an_archive_is_read_in_its_way(
    tmp_path: Path, public: str, s3_server: SeaweedServer, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects public archives: Python reads one without credentials, also in another process, as do the commands."""
    made = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive")
    put(s3_server, public, workshop.written(tmp_path / "archive"))
    without_credentials(monkeypatch)
    reader = open_archive(public, device="cpu", access="unsigned")
    for opened in (reader, pickle.loads(pickle.dumps(reader))):
        assert sorted(opened.keys()) == [entry.key for entry in made.entries]
        assert opened["000.png"].restore().shape == (20, 31, 3)
    worker = RestoreWork(
        archive=public, destination=str(tmp_path / "back"), options=workshop.RestoreOptions(), archive_access=Access.UNSIGNED,
        device="cpu",
    ).start()  # fmt: skip
    assert not workshop.failures(worker.run(shard) for shard in workshop.named_outputs(worker.archive.shards()))
    assert not [headers for headers in proxy.headers if "authorization" in headers]


def test_commands_ask_each_bucket_in_its_way(
    tmp_path: Path, public: str, s3_bucket: str, s3_server: SeaweedServer, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the commands: with a public source and a private archive only the archive's requests are signed, by the driver
    and by workers, and again on resuming; a restore at the reader's cost offers to pay for each request of the archive."""

    def run(work: Any, shards: Any, *_: object) -> Any:
        worker = pickle.loads(pickle.dumps(replace(work, device="cpu"))).start()
        return (worker.run(shard) for shard in shards)

    monkeypatch.setattr(pool, "run", run)
    put(s3_server, public, {"a.tar": tar(), "b.tar": tar(3)})
    (tmp_path / "weights").write_bytes(workshop.weights())
    archive = f"{s3_bucket}/archive"
    begin = ("rescale", public, archive, "--scale", 2, "--max-ratio", "inf", "--weights", tmp_path / "weights")
    private = ["--source-access", "unsigned"]
    for words in ([*begin, *private], [*begin, *private], ["verify", archive, "--sample", 1, *private]):
        job = iarn(*words)
        assert (job.status, job.event("end")["entries"]) == (0, 5), job.err
    assert job.event("end")["restores_compared_with_source"] == 5
    asked = list(zip(proxy.requests, proxy.headers, strict=True))
    for name, signed in ((PUBLIC_BUCKET, False), (s3_bucket.removeprefix("s3://"), True)):
        assert {"authorization" in headers for (_, path), headers in asked if path.startswith(f"/{name}")} == {signed}
    for words in (["restore", archive, tmp_path / "back"], ["inspect", archive, "--json"]):
        proxy.headers.clear()
        job = iarn(*words, "--archive-access", "requester-pays")
        assert job.status == 0, job.err
        assert {headers.get(PAYER) for headers in proxy.headers} == {"requester"}
    assert len(workshop.written(tmp_path / "back")) == 15
