"""Whole shards over a real S3 server while actors are killed, the server dies, throttles, lies, and credentials expire.

Every test ends with ``accounted_for``: nothing lost, nothing twice, nothing over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from jobs.requests import RescaleJob
from jobs.rescale import open_archive
from pipeline.cluster import crew, pool
from pipeline.cluster.notices import Snapshot
from pipeline.cluster.pool import PoolOptions
from pipeline.core.errors import CredentialsRefused
from pipeline.core.records import Failure, Settings, ShardReport, Tier
from pipeline.stores.s3 import S3Store
from pipeline.works import RescaleWork
from tests.support import workshop
from tests.support.accounting import accounted_for, planned
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.hooked_worker import BACKOFF, HookedWork
from tests.support.ray_nodes import actors, kill
from tests.support.seaweed import SeaweedServer

here = pytest.mark.usefixtures("actors_here")
"""Where no actor is killed."""

ONE = PoolOptions(actors=1, cpus_per_actor=1)


@pytest.fixture
def proxy(s3_server: SeaweedServer, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:  # noqa: ARG001
    """A proxy before the server; jobs are led to it, and a test's own checks past it."""
    monkeypatch.setattr(crew, "RETRY_SECONDS", 0.3)
    with faulty_proxy(s3_server.endpoint) as running:
        yield running


class Job:
    """A job of small tars in a bucket, whose actors reach the store by the proxy."""

    def __init__(self, folder: Path, bucket: str, server: SeaweedServer, proxy: FaultyProxy, *, shards: int) -> None:
        self.source, self.archive, self.folder = f"{bucket}/source", f"{bucket}/archive", folder
        self.proxy = proxy
        for index in range(shards):
            samples = workshop.samples(3, folder=f"{index}-")
            tar = workshop.tar_of(member for sample in samples for member in sample.members.items())
            server.client.put_object(Bucket=bucket.removeprefix("s3://"), Key=f"source/{index}.tar", Body=tar)
        self._commits = partial(server.client.list_objects_v2, Bucket=bucket.removeprefix("s3://"), Prefix="archive/commits/")
        (folder / "weights").write_bytes(workshop.weights())
        settings = Settings(target=workshop.HALF, tier=Tier.LEAN, max_ratio=None)
        self.begun = open_archive(
            RescaleJob(source=self.source, archive=self.archive, settings=settings, weights=folder / "weights")
        )

    def run(
        self, watch: Callable[[Snapshot], None] = lambda _: None, *, attempts: int = ONE.attempts
    ) -> list[ShardReport | Failure]:
        """Run what is left of the job, by an actor in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.proxy.endpoint)
            patch.setattr(S3Store, "BACKOFF", BACKOFF)
            work = RescaleWork(archive=self.archive, device="cpu", threads=1)
            return list(pool.run(work, planned(self.begun), replace(ONE, attempts=attempts), watch))

    def run_apart(self, watch: Callable[[Snapshot], None], *, attempts: int, pause: Path) -> list[ShardReport | Failure]:
        """Run what is left of the job, by an actor in a process of its own."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment["AWS_ENDPOINT_URL"] = self.proxy.endpoint
        work = HookedWork(archive=self.archive, environment=environment, pause=str(pause))
        return list(pool.run(work, planned(self.begun), replace(ONE, attempts=attempts), watch))

    def committed(self) -> int:
        """Return how many shards are done."""
        return len(self._commits().get("Contents", ()))


@pytest.fixture
def job(tmp_path: Path, s3_bucket: str, s3_server: SeaweedServer, proxy: FaultyProxy) -> Job:
    """A job of six shards, planned and not begun."""
    return Job(tmp_path, s3_bucket, s3_server, proxy, shards=6)


def kill_actors() -> int:
    """Kill every actor of this process's own Ray; return how many there were."""
    found = actors()
    for process in found:
        kill(process)
    return len(found)


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_killed_in_any_phase_costs_a_repetition(job: Job, proxy: FaultyProxy, tmp_path: Path) -> None:
    """Protects every moment of a shard: an actor is killed while it fetches, computes, uploads, when its object stands and its
    commit does not, and when the commit stands and nobody has heard of it."""
    pause = tmp_path / "pause"
    phases: list[tuple[str, Callable[[], Callable[[], bool]], Callable[[], None]]] = []

    def held(method: str, fragment: str, *, answered: bool = False) -> None:
        holds = []

        def arm() -> Callable[[], bool]:
            holds.append(proxy.hold(method, fragment, answered=answered))
            return holds[0].arrived.is_set

        phases.append((fragment, arm, lambda: holds[0].end(dropped=True)))

    def paused() -> Callable[[], bool]:
        pause.touch()
        return pause.with_suffix(".reached").exists

    held("GET", "source/")
    phases.append(("network", paused, pause.unlink))
    held("PUT", "/shards/")
    held("PUT", "/shards/", answered=True)
    held("PUT", "/commits/")
    held("PUT", "/commits/", answered=True)
    killed: list[str] = []
    name, arm, end = phases.pop(0)
    reached = arm()

    def watch(_: Snapshot) -> None:
        nonlocal name, end, reached
        if reached():
            assert kill_actors() == 1
            killed.append(name)
            end()
            if phases:
                name, arm, end = phases.pop(0)
                reached = arm()
            else:
                reached = bool

    results = job.run_apart(watch, attempts=9, pause=pause)
    assert killed == ["source/", "network", "/shards/", "/shards/", "/commits/", "/commits/"]
    assert all(isinstance(result, ShardReport) for result in results), results
    assert sorted(result.shard_id for result in results) == [shard.id for shard in planned(job.begun)]
    assert accounted_for(job.source, job.archive).entries == 18


@here
def test_a_store_that_dies_and_comes_back_costs_a_wait(job: Job, s3_server: SeaweedServer) -> None:
    """Protects a job from the restart of its store: what was under way is tried again, and the store holds what it said."""
    stopped = list[float]()

    def watch(_: Snapshot) -> None:
        # Started again from this thread: the server ends with the thread that began it.
        if not stopped and job.committed():
            s3_server.stop()
            stopped.append(time.monotonic())
        elif stopped and s3_server.pid is None and time.monotonic() - stopped[0] > 2:
            s3_server.start()

    results = job.run(watch, attempts=6)
    assert stopped
    assert s3_server.pid is not None
    assert all(isinstance(result, ShardReport) for result in results), results
    assert accounted_for(job.source, job.archive).entries == 18


@here
def test_a_store_that_throttles_lies_and_breaks_off_is_outlasted(job: Job, proxy: FaultyProxy) -> None:
    """Protects a job from a bad network: a third of all requests is throttled, reset, cut short or changed on the way, either
    way, or done and never answered; all is asked for again, and what is stored is what was meant."""
    kinds = (Fault.SLOW_DOWN, Fault.RESET, Fault.CUT_BODY, Fault.FLIP_BIT, Fault.FLIP_SENT, Fault.LOSE_ANSWER, Fault.BUSY)
    lock, seen, wait = threading.Lock(), list[Fault](), count()

    def choose(_method: str, path: str) -> Fault | None:
        with lock:
            kind = kinds[len(seen) % len(kinds)]
            # Ranges carry no check sum: there bytes are what TCP and TLS make of them.
            if next(wait) % 3 or (kind is Fault.FLIP_BIT and "/source/" in path):
                return None
            seen.append(kind)
            return kind

    proxy.choose = choose
    results = job.run(attempts=6)
    assert set(seen) == set(kinds)
    assert all(isinstance(result, ShardReport) for result in results), results
    assert accounted_for(job.source, job.archive).entries == 18


@here
def test_credentials_that_expire_end_the_job_and_fresh_ones_resume_it(job: Job, proxy: FaultyProxy) -> None:
    """Protects the user whose temporary credentials end at night: one sentence, not a failure for every shard that is left;
    what is done stays, and the job goes on with fresh ones."""
    expired = threading.Event()
    proxy.choose = lambda _method, _path: Fault.EXPIRED if expired.is_set() else None

    def watch(_: Snapshot) -> None:
        if job.committed():
            expired.set()

    with pytest.raises(CredentialsRefused, match=r"ExpiredToken.*With fresh ones the same command resumes") as caught:
        job.run(watch)
    workshop.sentence(str(caught.value))
    assert 1 <= job.committed() < 6
    expired.clear()
    results = job.run()
    assert all(isinstance(result, ShardReport) for result in results), results
    assert accounted_for(job.source, job.archive).entries == 18


@here
def test_credentials_that_are_renewed_are_taken_up(job: Job, proxy: FaultyProxy) -> None:
    """Protects jobs whose credentials somebody renews beside them: a refusal is asked about again before the job ends."""
    refusals = iter(range(4))
    proxy.choose = lambda _method, path: Fault.EXPIRED if "/source/" in path and next(refusals, None) is not None else None
    results = job.run()
    assert all(isinstance(result, ShardReport) for result in results), results
    assert accounted_for(job.source, job.archive).entries == 18
