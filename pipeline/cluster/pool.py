"""Actors, windows, retries and quarantine.

Each actor holds one worker (one engine) and runs a window of shards at once: while one shard has the engine, the next is
being read and decoded. There are as many actors as the cluster has room for, and that is looked at again and again: nodes that
join are used, one that leaves costs the shards it had at work. A shard whose store was out of reach is tried again later. One
whose actor died, or met an error that nobody foresaw, is tried again in an actor of its own, so that it takes no other shard
down with it, and with less at once where memory was too small. After ``attempts`` tries, or at once where trying again cannot
help, a shard is quarantined with its reason. The driver holds what is under way, two shards per actor that are next, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

import ray

from pipeline.cluster.actor import Work
from pipeline.cluster.crew import Crew
from pipeline.cluster.notices import Notice, Snapshot
from pipeline.cluster.options import PoolOptions
from pipeline.cluster.room import cluster, ray_job, request_for
from pipeline.core.errors import InvalidOption
from pipeline.core.records import Failure, ShardReport, SourceShard

__all__ = ["Notice", "PoolOptions", "Snapshot", "cluster", "run"]


def run(
    work: Work,
    shards: Iterable[SourceShard],
    options: PoolOptions,
    watch: Callable[[Snapshot], None] = lambda _: None,
    notice: Callable[[Notice], None] = lambda _: None,
) -> Iterator[ShardReport | Failure]:
    """Run ``work`` over ``shards`` and yield, as each ends, its report, or the failure it is quarantined with.

    Raises ClusterUnavailable, ResourcesUnavailable or DeviceUnavailable before anything starts where there is no cluster or it
    can never hold the actors, what ``work.start`` raises, WorkerNotStarted where actors keep dying before they are up, and
    AccessDenied where a store refuses shard after shard.
    """
    if options.may_grow and options.address is None and not ray.is_initialized():
        raise InvalidOption("--may-grow", "without --address", "a Ray of this machine alone does not grow; give the cluster's.")
    with cluster(options.address, lambda reason: notice(Notice(event="starting again", reason=reason))):
        request = request_for(work.device, options)
        if request.gpus and work.device == "auto":
            work = replace(cast(Any, work), device="cuda")  # an actor that was given a GPU never falls back to the CPU
        notice(Notice(event="joined", ray=ray_job()))
        crew = Crew(work, options, request, watch, notice)
        try:
            yield from crew.run(iter(shards))
        finally:
            crew.dismiss()
