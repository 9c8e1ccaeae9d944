"""What a worker counts: totals, the seconds of stages and the depth of queues, from any thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.core.errors import StoreUnavailable
from pipeline.core.overlap import ahead
from pipeline.core.progress import QUEUES, STAGES, Progress
from pipeline.works import RescaleWork
from tests.support import workshop


def test_stages_take_the_seconds_that_they_take() -> None:
    """Protects the dashboard's question of where time goes: a block, a function and each item of a stream count to their
    stage, also where they fail."""
    progress = Progress()
    with progress.stage("network"):
        time.sleep(0.02)
    assert progress.timed("encode", lambda number: number + 1)(1) == 2
    with pytest.raises(StoreUnavailable), progress.stage("write"):
        raise StoreUnavailable("s3://bucket/key", "it is down")

    def slowly() -> object:
        for number in range(3):
            time.sleep(0.01)
            yield number

    assert list(progress.each("read", slowly())) == [0, 1, 2]
    counts = progress.counts()
    assert counts["network"] >= 0.02
    assert counts["read"] >= 0.03
    assert all(counts[stage] > 0 for stage in ("encode", "write"))
    assert counts["decode"] == 0


def test_a_stage_within_another_is_counted_once() -> None:
    """Protects shares of stages: measuring within encoding is not both, in whatever thread, and the engine's time is apart."""
    progress = Progress()

    passed: list[float] = []

    def encode() -> None:
        begin = time.perf_counter()
        with progress.stage("encode"):
            for _ in range(2):
                progress.timed("verify", time.sleep)(0.03)
        passed.append(time.perf_counter() - begin)

    with progress.stage("network"), ThreadPoolExecutor(2) as threads, progress.engine():
        for each in [threads.submit(encode) for _ in range(2)]:
            each.result()
    counts = progress.counts()
    assert counts["verify"] >= 0.12
    assert counts["encode"] + counts["verify"] <= sum(passed) + 1e-6
    assert counts["network"] >= counts["busy"] >= 0.06
    assert counts["up"] >= counts["busy"]


def test_nothing_is_lost_between_threads() -> None:
    """Protects totals: threads that count at once lose nothing."""
    progress = Progress()

    def count() -> None:
        for _ in range(500):
            progress.add(pixels=2, bytes_in=3)
            progress.wrote(1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = progress.counts()
    assert [counts[name] for name in ("assets", "pixels", "bytes_in", "bytes_out")] == [2000, 4000, 6000, 2000]


@pytest.mark.parametrize("taken", [0, 3, 10])
def test_a_queue_is_empty_in_the_end(taken: int) -> None:
    """Protects the queues' depth: whether all is taken, some or none, what waited is counted out again."""
    progress, depths = Progress(), list[int]()
    with ThreadPoolExecutor(2) as threads:
        results = ahead(threads, str, range(10), limit=4, queue=progress.queue("decode"))
        for _ in range(taken):
            next(results)
            depths.append(progress.queued["decode"])
        results.close()  # type: ignore[attr-defined]
    assert progress.queued["decode"] == 0
    assert not taken or 0 < max(depths) <= 4


@pytest.mark.slow
def test_a_worker_tells_its_stages_and_does_the_same_with_less(tmp_path: Path) -> None:
    """Protects what the pool publishes and asks for: each stage has its seconds, queues end empty, and a worker whose windows
    and tiles are halved makes the same entries."""
    source = workshop.as_tar(tmp_path / "source", workshop.samples(4))
    entries = []
    for name, halvings in (("full", 0), ("less", 3)):
        archive = workshop.begin(source, tmp_path / name)
        worker = RescaleWork(archive=archive.store.uri, device="cpu", halvings=halvings).start()
        report = worker.run(next(archive.shards()))
        counts = worker.progress.counts()
        assert all(counts[stage] > 0 for stage in STAGES)
        assert counts["bytes_out"] == report.bytes_out
        assert worker.progress.queued == dict.fromkeys(QUEUES, 0)
        entries.append([(entry.key, entry.lr_sha256, entry.psnr) for entry in archive.entries(next(archive.shards()).id)])
    assert entries[0] == entries[1]
