"""The process around one worker, and what Ray's errors say of how it ended."""

from __future__ import annotations

import os
import pickle
import re
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import ray
from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayError, RayTaskError

from pipeline.cluster.errors import WorkerLost
from pipeline.cluster.room import first_line
from pipeline.core.errors import AccessDenied, CredentialsMissing, CredentialsRefused, PipelineError, StoreUnavailable
from pipeline.core.records import ShardReport, SourceShard

_NODE_GONE = re.compile(r"its node has died|node was (terminated|drained|preempted)|raylet (has )?died", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|running low on memory|memory pressure", re.IGNORECASE)


class Progress(Protocol):
    """Running totals of a worker: whatever it counts by name, and how much its queues hold now."""

    queued: dict[str, int]

    def counts(self) -> dict[str, float]: ...


class Worker(Protocol):
    """Runs shards, several at once from as many threads.

    One that has ``run_carefully`` as well is given by it what killed an actor before.
    """

    @property
    def progress(self) -> Progress: ...

    def run(self, shard: SourceShard) -> ShardReport: ...


class Work(Protocol):
    """A small picklable description of what a worker needs; ``halvings`` is how often it has to make do with half of it."""

    @property
    def device(self) -> str: ...

    @property
    def halvings(self) -> int: ...

    def start(self) -> Worker: ...


@dataclass(frozen=True, kw_only=True)
class ActorPlace:
    """Where an actor runs: the start of its id, its node's address and id."""

    actor: str
    node: str
    node_id: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an actor has counted since it began, and what its queues hold."""

    counts: Mapping[str, float] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What went wrong with a shard.

    ``again``: trying again may help. ``died``: its process ended under it. ``lost``: its node, or the way there, is gone, which
    says nothing of the shard. ``sick``: the actor cannot be trusted any more. ``memory``: there was too little.
    ``denied``: what the store said that refuses access. ``ends``: what the job ends with where trying again does not help,
    for every other shard would meet it as well.
    """

    reason: str
    again: bool = False
    died: bool = False
    lost: bool = False
    sick: bool = False
    memory: bool = False
    denied: AccessDenied | None = None
    ends: PipelineError | None = None


class _Actor:
    """The process around one worker; shards run in as many threads as a window has, and progress answers beside them."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._worker: Worker | None = None
        self._before: dict[str, float] = {}
        self._change = threading.Lock()

    def start(self) -> ActorPlace:
        self._worker = self._work.start()  # torch takes as many threads as Ray says by OMP_NUM_THREADS: the actor's CPUs
        context = ray.get_runtime_context()
        actor, node = context.get_actor_id() or "", ray.util.get_node_ip_address()
        return ActorPlace(actor=actor[:8], node=node, node_id=context.get_node_id())

    @ray.method(concurrency_group="shards")  # type: ignore[untyped-decorator] # Ray ships no types
    def run(self, call: bytes) -> ShardReport | Fault:
        shard, halvings, careful = pickle.loads(call)  # of our own driver
        try:
            worker = self._worker_for(halvings)
            run = getattr(worker, "run_carefully", worker.run) if careful else worker.run
            return cast(ShardReport, run(shard))
        except (CredentialsMissing, CredentialsRefused) as error:  # those of a file or a role may be renewed by then
            return Fault(reason=str(error), again=True, ends=error)
        except PipelineError as error:
            denied = error if isinstance(error, AccessDenied) else None
            return Fault(reason=str(error), again=isinstance(error, StoreUnavailable), denied=denied)
        except Exception as error:  # nobody foresaw it: a fault of ours, or a device that will not recover
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} (at {os.path.basename(place.filename)}:{place.lineno})"  # noqa: PTH119
            return Fault(reason=reason, again=True, sick=True, memory=_is_memory(error))

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def progress(self) -> Reading:
        worker = self._worker
        if worker is None:
            return Reading(counts=self._before)
        return Reading(counts=summed(self._before, worker.progress.counts()), queued=dict(worker.progress.queued))

    def _worker_for(self, halvings: int) -> Worker:
        """Return the worker, or one in its place that makes do with less, or with as much again."""
        with self._change:  # a shard that needs less has the actor for itself, so nobody uses the worker that goes
            if halvings != self._work.halvings and self._worker is not None:
                self._before = summed(self._before, self._worker.progress.counts())
                self._worker = None  # before the next one takes its memory
                self._work = replace(cast(Any, self._work), halvings=halvings)
            if self._worker is None:
                self._worker = self._work.start()
            return self._worker


def remote_actor(window: int, *, cpus: float, gpus: float) -> Any:
    """Return Ray's class of actors that run ``window`` shards at once, each on so many CPUs and GPUs."""
    groups = {"shards": window, "watch": 1}
    remote = ray.remote(concurrency_groups=groups, max_restarts=0)(_Actor)
    return remote.options(num_cpus=cpus, num_gpus=gpus)


def begin_run(handle: Any, shard: SourceShard, *, halvings: int, careful: bool) -> Any:
    """Have an actor run a shard; return the reference of the call.

    Pickled here: three arguments by Ray's own pickler took a driver 145 to 185 µs more (docs/scale.md).
    """
    return handle.run.remote(pickle.dumps((shard, halvings, careful)))


def results_of(calls: Mapping[Any, SourceShard]) -> list[ShardReport | Fault]:
    """Return what calls of ``run`` that have ended came to, by their references."""
    try:
        return cast("list[ShardReport | Fault]", ray.get(list(calls)))
    except RayError:
        return [_result_of(reference, shard) for reference, shard in calls.items()]


def _result_of(reference: Any, shard: SourceShard) -> ShardReport | Fault:
    try:
        result: ShardReport | Fault = ray.get(reference)
        return result
    except RayTaskError as error:  # what an actor returned could not be sent
        return Fault(reason=last_line(error))
    except RayError as error:  # its process, its node or the way to it is gone
        return fault_of(error, shard)


def fault_of(error: RayError, shard: SourceShard) -> Fault:
    """Return what the end of an actor means for the shard that it had at work."""
    reason, lost = str(WorkerLost(shard.id, cause_of_death(error))), node_is_lost(error)
    return Fault(reason=reason, again=True, died=not lost, lost=lost, memory=_is_memory(error))


def node_is_lost(error: RayError) -> bool:
    """Return whether an actor went with its node, or cannot be reached: no word about what it was doing.

    While Ray has not noticed that a node is gone, its actors are only unavailable.
    """
    gone = isinstance(error, (ActorUnavailableError, NodeDiedError)) or getattr(error, "preempted", False)
    return gone or _NODE_GONE.search(str(error)) is not None


def _is_memory(error: BaseException) -> bool:
    """Return whether memory was too small: told by Ray's monitor, Python, or torch, whose class is not known here."""
    if isinstance(error, (OutOfMemoryError, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError | RayError) and _OUT_OF_MEMORY.search(str(error)) is not None


def cause_of_death(error: BaseException) -> str:
    """Return the sentence of Ray's report that says why a process ended."""
    if isinstance(error, RayError) and node_is_lost(error):
        return "its node, or the way there, is gone"
    detail = re.search(r"Worker exit detail: (.+?)(?:\.\s|$)", str(error), re.DOTALL)
    return " ".join(detail[1].split()) if detail else first_line(error)


def last_line(error: BaseException) -> str:
    """Return the last line of what an error says: a remote traceback ends with its error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def summed(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    """Return two counts by name added up."""
    return {name: left.get(name, 0) + right.get(name, 0) for name in (*left, *right)}
