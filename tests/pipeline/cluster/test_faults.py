"""Processes killed in the middle: the same command finishes the job, exactly once, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from pipeline.archives.archive import Archive
from pipeline.cluster import crew, pool
from pipeline.cluster.notices import Snapshot
from pipeline.cluster.pool import PoolOptions
from pipeline.core.errors import StoreUnavailable
from pipeline.core.records import Failure, ShardReport, Tier
from pipeline.outputs.outputs import OutputKind
from pipeline.stores import spool
from pipeline.stores.store import open_store
from pipeline.works import RescaleWork
from tests.jobs.test_jobs import bulky
from tests.support import workshop
from tests.support.accounting import accounted_for, planned
from tests.support.commands import GUARD, IARN, Running, ray_logs
from tests.support.faulty_proxy import Fault, faulty_proxy
from tests.support.hooked_worker import HookedWork
from tests.support.in_process import iarn
from tests.support.ray_here import ray_here
from tests.support.ray_nodes import actors, kill
from tests.support.seaweed import SECRET_KEY, SeaweedServer
from tests.support.workshop import Rescaled


@pytest.mark.ray
def test_a_job_on_object_storage_survives_kill_9(
    tmp_path: Path, s3_bucket: str, s3_server: SeaweedServer, clean_environment: dict[str, str]
) -> None:
    """Protects against a lost machine: no Ray process outlives the driver, what is done is neither read nor written again,
    every entry is there once, all of it comes back byte by byte, and the secret is nowhere."""
    objects = Bucket(s3_server, s3_bucket)
    samples = {
        f"{shard:02d}": [
            workshop.Sample(key=f"{shard:02d}/{index}.png", data=workshop.picture(60, 70, seed=2 * shard + index))
            for index in range(2)
        ]
        for shard in range(10)
    }
    for shard, content in samples.items():
        objects.put(f"source/{shard}.tar", workshop.tar_of(member for sample in content for member in sample.members.items()))
    (tmp_path / "weights").write_bytes(workshop.weights())
    source, archive, out = (f"{s3_bucket}/{part}" for part in ("source", "archive", "out"))
    command = ("rescale", source, archive, "--scale", "2", "--tier", "exact", "--weights", tmp_path / "weights", "--json")
    command += ("--actors", "1")

    commits, killed = count(1), threading.Event()

    def choose(method: str, path: str) -> Fault | None:
        if method == "PUT" and "/commits/" in path and next(commits) > 3:
            killed.wait(GUARD)  # or the job might be done before it is killed
            return Fault.RESET
        return None

    with faulty_proxy(s3_server.endpoint) as proxy:
        proxy.choose = choose
        environment = clean_environment | {"AWS_ENDPOINT_URL": proxy.endpoint}
        with Running(tmp_path / "first", environment, IARN, *command) as first:
            first.until(lambda: len(objects.keys("archive/commits/")) >= 2)
            first.kill()
            # Ray's two agents try for a minute to tell its dead server of the death of its raylet; then they end as well.
            assert not first.left_behind("ray::DashboardAgent", "ray::RuntimeEnvAgent")
            killed.set()
    done = objects.keys("archive/commits/")
    assert 2 <= len(done) < len(samples)
    before = {key: objects.etag(key) for key in (*done, *objects.keys("archive/shards/"), "archive/plan.json")}
    for key in done:
        objects.delete(f"source/{Path(key).stem[-2:]}.tar")  # what is done is not read again

    with ray_here():
        second = iarn(*command)
    assert second.status == 0, second.err
    assert second.event("start")["shards_done"] == len(done)
    assert second.event("end")["entries"] == 2 * len(samples)
    assert before == {key: objects.etag(key) for key in before}
    for shard, content in samples.items():
        objects.put(f"source/{shard}.tar", workshop.tar_of(member for sample in content for member in sample.members.items()))
    assert accounted_for(source, archive).entries == 2 * len(samples)

    finished = Rescaled(archive=Archive.open(open_store(archive)), reports=[])
    assert not workshop.failures(workshop.restore(finished, out, output=OutputKind.TAR))
    for shard, content in samples.items():
        assert workshop.members_of(objects.read(f"out/{shard}.tar")) == [(sample.key, sample.data) for sample in content]

    assert SECRET_KEY not in first.out + first.err + second.out + second.err
    assert not [key for key in objects.keys("") if SECRET_KEY.encode() in objects.read(key)]
    assert not [path for path, data in ray_logs(clean_environment).items() if SECRET_KEY.encode() in data]


class Bucket:
    """The objects of a bucket, by a plain client."""

    def __init__(self, server: SeaweedServer, uri: str) -> None:
        self._client, self._name = server.client, uri.removeprefix("s3://")

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._name, Key=key, Body=data)

    def read(self, key: str) -> bytes:
        return self._client.get_object(Bucket=self._name, Key=key)["Body"].read()

    def etag(self, key: str) -> str:
        return self._client.head_object(Bucket=self._name, Key=key)["ETag"]

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._name, Key=key)

    def keys(self, prefix: str) -> list[str]:
        return [found["Key"] for found in self._client.list_objects_v2(Bucket=self._name, Prefix=prefix).get("Contents", ())]


@pytest.mark.usefixtures("ray_cluster")
def test_kill_9_of_an_actor_costs_a_repetition(tmp_path: Path) -> None:
    """Protects a job from the loss of an actor with real shards under way: each is committed once and every entry is there."""
    for shard in range(8):
        workshop.as_tar(tmp_path / "source", [bulky(f"{shard}/{index}.png", shard) for index in range(2)], f"{shard}.tar")
    archive = workshop.begin(str(tmp_path / "source"), tmp_path / "archive", tier=Tier.LEAN)
    killed: list[int] = []

    def kill_once(snapshot: Snapshot) -> None:
        if snapshot.actors and not killed and any((tmp_path / "archive").glob("commits/*/*.json")):
            for process in actors():
                kill(process)
                killed.append(process.pid)

    work = RescaleWork(archive=archive.store.uri, device="cpu")
    results = list(pool.run(work, archive.shards(), PoolOptions(actors=1, cpus_per_actor=1), kill_once))
    assert len(killed) == 1
    assert all(isinstance(result, ShardReport) for result in results), results
    assert sorted(result.shard_id for result in results) == [shard.id for shard in planned(archive)]
    assert accounted_for(str(tmp_path / "source"), archive.store.uri).entries == 16


@pytest.mark.slow
@pytest.mark.usefixtures("actors_here")
def test_two_drivers_on_one_plan_share_it(tmp_path: Path) -> None:
    """Protects against the same command given twice at once: both end well with all shards, each is committed once."""
    for shard in range(6):
        workshop.as_tar(tmp_path / "source", [bulky(f"{shard}/{index}.png", shard) for index in range(2)], f"{shard}.tar")
    archive = workshop.begin(str(tmp_path / "source"), tmp_path / "archive", tier=Tier.LEAN)
    results: list[list[object]] = [[], []]

    def drive(index: int) -> None:
        work = RescaleWork(archive=archive.store.uri, device="cpu")
        results[index] += pool.run(work, planned(archive), PoolOptions(actors=1, cpus_per_actor=1))

    threads = [threading.Thread(target=drive, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in results:
        assert sorted(result.shard_id for result in found if isinstance(result, ShardReport)) == sorted(
            shard.id for shard in planned(archive)
        )
    account = accounted_for(str(tmp_path / "source"), archive.store.uri)
    assert (account.entries, account.failures) == (12, [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_under_the_archive_is_told_and_resumed_from(small_disk: Path, tmp_path: Path) -> None:
    """Protects archives on a disk that fills up: what does not fit is told and leaves no part of itself, what is there is
    whole, and with room the rest is done."""
    for shard in range(4):
        large = b"".join(workshop.noise(4 * shard + part) for part in range(4))
        workshop.as_tar(tmp_path / "source", [workshop.Sample(key=f"{shard}.png", data=large)], f"{shard}.tar")
    archive = workshop.begin(str(tmp_path / "source"), small_disk / "archive", tier=Tier.EXACT)
    worker = workshop.rescaler(archive)
    undone, told = [], set()
    for shard in planned(archive):
        try:
            worker.run(shard)
        except StoreUnavailable as error:
            told.add(error.detail)
            undone.append(shard)
    assert told == {"No space left on device"}
    assert 1 <= len(undone) < 4
    source = str(tmp_path / "source")
    accounted_for(source, archive.store.uri, undone=[shard.id for shard in undone])
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    for shard in undone:
        worker.run(shard)
    assert accounted_for(source, archive.store.uri).entries == 4


@pytest.mark.usefixtures("ray_cluster")
def test_a_full_disk_of_an_actor_is_told_and_resumed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects jobs whose actors have no room for a shard before its upload: the sentence names the disk, small shards are
    done, no local file is left, and with room the rest is done."""
    monkeypatch.setattr(crew, "RETRY_SECONDS", 0.1)
    spooled = tmp_path / "spool"
    spooled.mkdir()
    source = tmp_path / "source"
    large = b"".join(workshop.noise(part) for part in range(4))
    workshop.as_tar(source, [workshop.Sample(key="big.png", data=large)], "big.tar")
    workshop.as_tar(source, workshop.samples(2), "small.tar")
    archive = workshop.begin(str(source), tmp_path / "archive", tier=Tier.EXACT)
    hooked = HookedWork(archive=archive.store.uri, environment={"TMPDIR": str(spooled)}, file_bytes=1_000_000)
    options = PoolOptions(actors=1, cpus_per_actor=1, attempts=2)
    results = list(pool.run(hooked, planned(archive), options))
    (failure,) = [result for result in results if isinstance(result, Failure)]
    assert "File too large" in workshop.sentence(failure.reason)
    assert "big" in failure.reason
    accounted_for(str(source), archive.store.uri, undone=[failure.shard_id])
    assert not list(spooled.iterdir())
    assert all(isinstance(r, ShardReport) for r in pool.run(replace(hooked, file_bytes=None), planned(archive), options))
    assert accounted_for(str(source), archive.store.uri).entries == 3


def test_what_a_killed_process_left_on_the_disk_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the disk: the folder of a process that was killed goes with the next one, those of the living stay."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("dead", "alive", "young", "other"):
        folder = tmp_path / (f"{spool.PREFIX}{name}" if name != "other" else name)
        folder.mkdir()
        (folder / "shard.parquet").write_bytes(b"PAR1")
        if name != "young":
            os.utime(folder, (0, 0))
    held = os.open(tmp_path / f"{spool.PREFIX}alive", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with spool.spool() as own:
            (own / "shard.parquet").write_bytes(b"PAR1")
            os.utime(own, (0, 0))
            with spool.spool():
                assert own.exists(), "a spool of the same process is no orphan"
            left = {path.name.removeprefix(spool.PREFIX) for path in tmp_path.iterdir()} - {own.name.removeprefix(spool.PREFIX)}
        assert left == {"alive", "young", "other"}
        assert not own.exists()
    finally:
        os.close(held)
