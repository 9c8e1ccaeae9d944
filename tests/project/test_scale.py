"""The benchmark of a job's book-keeping, and by its counting store what a job of thousands of shards asks of a store."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from benchmarks.scale import begin, job, row, simulated
from benchmarks.support.simulated import IMAGES, SimulatedRay, SimulatedStore, finish_but
from jobs.inspect import summarise
from jobs.rescale import rescale
from pipeline.archives.archive import Archive


def measured(measure: str, shards: int, actors: int = 4) -> dict[str, Any]:
    """Return what the benchmark measures."""
    return row(Namespace(measures=[measure], shards=[shards], actors=[actors], rate=1e9, list_ms=0, get_ms=0, put_ms=0))


@pytest.mark.slow
def test_a_resumed_job_asks_by_the_thousand() -> None:
    """Protects the resume of a million shards: what is asked of the store grows by groups, and no commit is read twice."""
    few, many = measured("resume", 2000)["requests"], measured("resume", 5000)["requests"]
    assert many["list"] - few["list"] == 3
    assert many["get"] - few["get"] == 3


@pytest.mark.slow
def test_a_job_without_rollups_reads_the_commits_and_writes_them() -> None:
    """Protects totals where rollups are lost, and the next job from the same loss."""
    asked = measured("lost", 2000)["requests"]
    assert asked["get"] - 2000 < 20
    assert asked["put"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["plan", "loose"])
def test_planning_asks_for_pages(measure: str) -> None:
    """Protects planning from asking for each object: a listing by pages, and what is written first."""
    asked = measured(measure, 30)["requests"]
    assert asked["list"] == (8 if measure == "loose" else 1)
    assert asked["put"] == 4


@pytest.mark.slow
def test_a_driven_job_ends_with_every_shard_done_once() -> None:
    """Protects the driver: every shard of the plan reaches an actor once, and the totals of the archive are all reports."""
    store = SimulatedStore(2500)
    begin(store)
    finish_but(store, 2500, 1500, rollups=True)
    cluster = SimulatedRay(8, 0.0, store)
    with simulated(store, cluster):
        assert rescale(job(8)) == 1
    assert cluster.ran == 1500
    assert all(store.done)
    summary = summarise(Archive.open(store))
    assert (summary["shards_done"], summary["entries"], summary["failures"]) == (2500, 2500 * IMAGES, 2)
