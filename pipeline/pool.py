"""Actors, windows, retries and quarantine; the only importer of Ray.

Each actor holds one worker (one engine) and runs a window of shards at once: while one shard has the engine, the next is
being read and decoded. A shard whose worker died, or whose store was out of reach, is tried again elsewhere; after
``attempts`` tries, or at once where trying again cannot help, it is quarantined with its reason. The driver holds what
is under way and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayActorError, RayTaskError

from pipeline.errors import (
    DeviceUnavailable,
    InvalidOption,
    PipelineError,
    ResourcesUnavailable,
    StoreUnavailable,
    WorkerLost,
)
from pipeline.records import Failure, ShardReport, SourceShard

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""A local Ray's object store; only plans' shards and reports pass through it, never pixels."""
POLL_SECONDS = 0.5
DEFAULT_CPUS = 2
MOST_CPUS_PER_GPU = 8


class Progress(Protocol):
    """Running totals of a worker."""

    assets: int
    pixels: int
    bytes_in: int


class Worker(Protocol):
    """Runs shards, several at once from as many threads."""

    @property
    def progress(self) -> Progress: ...

    def run(self, shard: SourceShard) -> ShardReport: ...


class Work(Protocol):
    """A small picklable description of what a worker needs."""

    @property
    def device(self) -> str: ...

    @property
    def threads(self) -> int: ...

    def start(self) -> Worker: ...


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """How much of which cluster a job uses; None lets the pool fill what is there."""

    address: str | None = None
    actors: int | None = None
    cpus_per_actor: float | None = None
    gpus_per_actor: float | None = None
    window: int = 2
    attempts: int = 3

    def __post_init__(self) -> None:
        for option, value in (("--actors", self.actors), ("--window", self.window), ("--attempts", self.attempts)):
            if value is not None and value < 1:
                raise InvalidOption(option, str(value), "give a number from 1.")
        for option, amount in (("--cpus-per-actor", self.cpus_per_actor), ("--gpus-per-actor", self.gpus_per_actor)):
            if amount is not None and not 0 <= amount < 1e6:
                raise InvalidOption(option, str(amount), "give a number from 0.")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Where a job stands while shards are under way."""

    assets: int = 0
    pixels: int = 0
    bytes_in: int = 0
    actors: int = 0


@dataclass
class _Attempt:
    """A shard and how often it was tried."""

    shard: SourceShard
    tries: int = 0


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """What went wrong with a shard inside an actor."""

    reason: str
    again: bool


class _Actor:
    """The process around one worker."""

    def __init__(self, work: Work, attention: int) -> None:
        self._work = work
        self._threads = attention
        self._worker: Worker | None = None
        self._ready = threading.Event()

    def start(self) -> int:
        import torch

        torch.set_num_threads(self._threads)
        self._worker = self._work.start()
        self._ready.set()
        return os.getpid()

    def run(self, shard: SourceShard) -> ShardReport | _Fault:
        self._ready.wait()  # shards are sent along with the call that starts the worker, to other threads
        assert self._worker is not None
        try:
            return self._worker.run(shard)
        except PipelineError as error:
            return _Fault(reason=str(error), again=isinstance(error, StoreUnavailable))
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} (at {os.path.basename(place.filename)}:{place.lineno})"  # noqa: PTH119
            return _Fault(reason=reason, again=True)

    def progress(self) -> tuple[int, int, int]:
        if self._worker is None:
            return 0, 0, 0
        progress = self._worker.progress
        return progress.assets, progress.pixels, progress.bytes_in


@dataclass
class _Member:
    """One actor as the driver sees it."""

    handle: Any
    started: Any
    running: dict[Any, _Attempt] = field(default_factory=dict)
    asked: Any = None
    totals: tuple[int, int, int] = (0, 0, 0)


def run(
    work: Work,
    shards: Iterable[SourceShard],
    options: PoolOptions,
    watch: Callable[[Snapshot], None] = lambda _: None,
) -> Iterator[ShardReport | Failure]:
    """Run ``work`` over ``shards`` and yield, as each ends, its report, or the failure it is quarantined with.

    Raises ResourcesUnavailable before anything starts where the cluster cannot hold one actor, what ``work.start`` raises,
    and WorkerLost where actors keep dying before they have started.
    """
    with _cluster(options.address):
        request = _request(work.device, options)
        crew = _Crew(work, options, request, watch)
        try:
            yield from crew.run(iter(shards))
        finally:
            crew.dismiss()


class _Crew:
    """The actors of one job and the shards they have under way."""

    def __init__(self, work: Work, options: PoolOptions, request: _Request, watch: Callable[[Snapshot], None]) -> None:
        self._work, self._options, self._request, self._watch = work, options, request, watch
        self._members: list[_Member] = []
        self._again: deque[_Attempt] = deque()
        self._retired = (0, 0, 0)
        self._false_starts = 0

    def run(self, shards: Iterator[SourceShard]) -> Iterator[ShardReport | Failure]:
        waiting = next(shards, None)
        while waiting is not None or self._again or any(member.running for member in self._members):
            while len(self._members) < self._request.actors and (waiting is not None or self._again or not self._members):
                self._members.append(self._hire())
            for member in self._members:
                while len(member.running) < self._options.window and (self._again or waiting is not None):
                    if self._again:
                        attempt = self._again.popleft()
                    else:
                        assert waiting is not None
                        attempt, waiting = _Attempt(waiting), next(shards, None)
                    attempt.tries += 1
                    member.running[member.handle.run.remote(attempt.shard)] = attempt
            yield from self._collect()
            self._watch(self._snapshot())

    def dismiss(self) -> None:
        for member in self._members:
            ray.kill(member.handle.handle)
        self._members.clear()

    def _hire(self) -> _Member:
        window = {"shards": self._options.window, "watch": 1}
        remote = ray.remote(concurrency_groups=window, max_restarts=0)(_Actor)
        bound = remote.options(num_cpus=self._request.cpus, num_gpus=self._request.gpus)
        handle = bound.remote(self._work, max(1, int(self._request.cpus)))
        return _Member(handle=_Grouped(handle), started=handle.start.remote())

    def _collect(self) -> Iterator[ShardReport | Failure]:
        """Wait a moment for anything to end, and deal with all that has."""
        for member in list(self._members):
            if member.started is not None and not self._has_started(member):
                return
        references = {reference: member for member in self._members for reference in member.running}
        ready, _ = ray.wait(list(references), num_returns=1, timeout=POLL_SECONDS)
        for reference in ready:
            member = references[reference]
            attempt = member.running.pop(reference)
            try:
                result = ray.get(reference)
            except RayActorError as error:
                self._retire(member)
                result = _Fault(reason=str(WorkerLost(attempt.shard.id, _first_line(error))), again=True)
            except RayTaskError as error:  # what an actor returned could not be sent
                result = _Fault(reason=_last_line(error), again=False)
            if isinstance(result, ShardReport):
                yield result
            elif result.again and attempt.tries < self._options.attempts:
                self._again.append(attempt)
            else:
                tries = f" (after {attempt.tries} tries)" if attempt.tries > 1 else ""
                yield Failure(shard_id=attempt.shard.id, key=None, reason=f"{result.reason}{tries}")

    def _has_started(self, member: _Member) -> bool:
        """Look whether ``member`` is up; raise what kept it from starting. False where it died and was let go."""
        if not ray.wait([member.started], timeout=0)[0]:
            return True  # not yet: its shards wait with it
        try:
            ray.get(member.started)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, PipelineError) else WorkerLost("-", _last_line(error))) from None
        except RayActorError as error:
            self._false_starts += 1
            if self._false_starts > self._options.attempts:
                raise WorkerLost("-", f"{self._false_starts} actors died while starting; {_first_line(error)}") from None
            for attempt in member.running.values():
                attempt.tries -= 1  # it never ran
            self._again.extend(member.running.values())
            member.running.clear()
            self._retire(member)
            return False
        member.started = None
        return True

    def _retire(self, member: _Member) -> None:
        if member in self._members and not member.running:
            self._members.remove(member)
            self._retired = _sum(self._retired, member.totals)

    def _snapshot(self) -> Snapshot:
        totals = self._retired
        for member in self._members:
            if member.asked is None:
                member.asked = member.handle.progress.remote()
            elif ray.wait([member.asked], timeout=0)[0]:
                with suppress(RayActorError, RayTaskError):  # its shards tell
                    member.totals = ray.get(member.asked)
                member.asked = None
            totals = _sum(totals, member.totals)
        return Snapshot(assets=totals[0], pixels=totals[1], bytes_in=totals[2], actors=len(self._members))


@dataclass(frozen=True)
class _Grouped:
    """An actor's methods, each in its concurrency group."""

    handle: Any

    @property
    def run(self) -> Any:
        return self.handle.run.options(concurrency_group="shards")

    @property
    def progress(self) -> Any:
        return self.handle.progress.options(concurrency_group="watch")


@dataclass(frozen=True, kw_only=True)
class _Request:
    """Actors, and CPUs and GPUs for each."""

    actors: int
    cpus: float
    gpus: float


def _request(device: str, options: PoolOptions) -> _Request:
    """Decide how many actors of which size run; raise where the cluster can never give them."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    have = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if device.startswith("cuda") or (device == "auto" and have["GPU"] >= 1) else 0.0
    if gpus > 0 and device == "cpu":
        raise InvalidOption("--gpus-per-actor", f"{gpus:g}", "it needs a CUDA device; leave out --device cpu.")
    cpus = options.cpus_per_actor
    if cpus is None:
        largest = max((node.get("CPU", 1.0) for node in nodes), default=1.0)
        per_gpu = have["CPU"] * gpus / have["GPU"] if gpus and have["GPU"] else DEFAULT_CPUS
        cpus = max(1.0, min(per_gpu // 1, MOST_CPUS_PER_GPU, largest))
    fitting = sum(_fits(node, cpus, gpus) for node in nodes)
    actors = options.actors or fitting
    if not fitting or actors > fitting:
        if device.startswith("cuda") and not have["GPU"]:
            raise DeviceUnavailable(device, "no node of the cluster has a GPU")
        wanted = f"{max(1, actors)} actors of {cpus:g} CPUs and {gpus:g} GPUs"
        raise ResourcesUnavailable(wanted, f"room for {fitting}, with {have['CPU']:g} CPUs and {have['GPU']:g} GPUs")
    return _Request(actors=actors, cpus=cpus, gpus=gpus)


def _fits(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Return how many actors a node has room for."""
    rooms = [node.get(kind, 0.0) / wanted for kind, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted]
    return int(min(rooms, default=1.0) + 1e-9)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Join the cluster at ``address``, or the one this process is in, or start one here that ends with this process."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # without it every worker prints a warning
    local: dict[str, Any] = {} if address else {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResourcesUnavailable(f"the cluster at {address or 'local'}", _first_line(error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]  # a remote traceback ends with its error
    return lines[-1] if lines else type(error).__name__


def _sum(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]
