"""Actors, windows, retries and quarantine; with group.py the only importer of Ray.

Each actor holds one worker (one engine) and runs a window of shards at once: while one shard has the engine, the next is
being read and decoded. A shard whose store was out of reach is tried again later. One whose actor died, or met an error
that nobody foresaw, is tried again in an actor of its own, so that it takes no other shard down with it. After
``attempts`` tries, or at once where trying again cannot help, a shard is quarantined with its reason. The driver holds
what is under way, two shards per actor that are next, and nothing else.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.errors import (
    ClusterUnavailable,
    CredentialsRefused,
    DeviceUnavailable,
    InvalidOption,
    PipelineError,
    ResourcesUnavailable,
    StoreUnavailable,
    WorkerLost,
    WorkerNotStarted,
)
from pipeline.records import Failure, ShardReport, SourceShard

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""A local Ray's object store; only plans' shards and reports pass through it, never pixels."""
POLL_SECONDS = 0.5
START_SECONDS = 900.0
"""How long an actor may load its network once its process is up; waiting for room in a busy cluster has no limit."""
CONNECT_SECONDS = 10.0
RETRY_SECONDS = 5.0
"""How long a shard waits after its store was out of reach the first time; four times as long after each further time."""
STALL_MINUTES = 120.0
"""Minutes an actor may finish no image: the largest that ``--pixel-limit`` lets in take less, floors included."""
DEFAULT_CPUS = 2
MOST_CPUS_PER_GPU = 8


class Progress(Protocol):
    """Running totals of a worker."""

    assets: int
    pixels: int
    bytes_in: int


class Worker(Protocol):
    """Runs shards, several at once from as many threads.

    One that has ``run_carefully`` as well is given by it what killed an actor before.
    """

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
    stall_minutes: float = STALL_MINUTES

    def __post_init__(self) -> None:
        for option, value in (("--actors", self.actors), ("--window", self.window), ("--attempts", self.attempts)):
            if value is not None and value < 1:
                raise InvalidOption(option, str(value), "give a number from 1.")
        if not self.stall_minutes > 0:
            raise InvalidOption("--stall-minutes", str(self.stall_minutes), "give minutes above 0, or inf.")
        for option, amount in (("--cpus-per-actor", self.cpus_per_actor), ("--gpus-per-actor", self.gpus_per_actor)):
            if amount is not None and not 0 <= amount < 1e6:
                raise InvalidOption(option, str(amount), "give a number from 0.")
            if amount is not None and amount > 1 and amount % 1:  # Ray shares out whole devices, or parts of one
                raise InvalidOption(option, str(amount), "give a whole number, or a share of one below 1.")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Where a job stands while shards are under way; ``actors`` counts those that have started."""

    assets: int = 0
    pixels: int = 0
    bytes_in: int = 0
    actors: int = 0


@dataclass(eq=False)
class _Attempt:
    """A shard, how often it failed by its own fault, whether it has to have an actor for itself, and why that was killed."""

    shard: SourceShard
    tries: int = 0
    alone: bool = False
    careful: bool = False
    stalled: bool = False


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """What went wrong with a shard: whether trying again may help, and whether its actor can still be trusted.

    ``ends`` is what the job ends with where trying again does not help, for every other shard would meet it as well.
    """

    reason: str
    again: bool = False
    died: bool = False
    sick: bool = False
    ends: PipelineError | None = None


class _Actor:
    """The process around one worker; shards run in as many threads as a window has, and progress answers beside them."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._worker: Worker | None = None

    def start(self) -> None:
        self._worker = self._work.start()  # torch takes as many threads as Ray says by OMP_NUM_THREADS: the actor's CPUs

    @ray.method(concurrency_group="shards")  # type: ignore[untyped-decorator] # Ray ships no types
    def run(self, shard: SourceShard, careful: bool) -> ShardReport | _Fault:
        assert self._worker is not None
        run = getattr(self._worker, "run_carefully", self._worker.run) if careful else self._worker.run
        try:
            return cast(ShardReport, run(shard))
        except CredentialsRefused as error:  # those of a file or a role may be renewed by then
            return _Fault(reason=str(error), again=True, ends=error)
        except PipelineError as error:
            return _Fault(reason=str(error), again=isinstance(error, StoreUnavailable))
        except Exception as error:  # nobody foresaw it: a fault of ours, or a device that will not recover
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} (at {os.path.basename(place.filename)}:{place.lineno})"  # noqa: PTH119
            return _Fault(reason=reason, again=True, sick=True)

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def progress(self) -> tuple[int, int, int]:
        if self._worker is None:
            return 0, 0, 0
        progress = self._worker.progress
        return progress.assets, progress.pixels, progress.bytes_in


@dataclass(eq=False)
class _Member:
    """One actor as the driver sees it; ``starting`` until its worker is there, ``leaving`` once it gets no more shards."""

    handle: Any
    starting: Any
    running: dict[Any, _Attempt] = field(default_factory=dict)
    leaving: bool = False
    up_since: float | None = None
    asked: Any = None
    totals: tuple[int, int, int] = (0, 0, 0)
    moved: float = 0.0


def run(
    work: Work,
    shards: Iterable[SourceShard],
    options: PoolOptions,
    watch: Callable[[Snapshot], None] = lambda _: None,
) -> Iterator[ShardReport | Failure]:
    """Run ``work`` over ``shards`` and yield, as each ends, its report, or the failure it is quarantined with.

    Raises ClusterUnavailable, ResourcesUnavailable or DeviceUnavailable before anything starts where there is no cluster or it
    can never hold the actors, what ``work.start`` raises, and WorkerNotStarted where actors keep dying before they are up.
    """
    with cluster(options.address):
        request = request_for(work.device, options)
        if request.gpus and work.device == "auto":
            work = replace(cast(Any, work), device="cuda")  # an actor that was given a GPU never falls back to the CPU
        crew = _Crew(work, options, request, watch)
        try:
            yield from crew.run(iter(shards))
        finally:
            crew.dismiss()


class _Crew:
    """The actors of one job and the shards they have under way."""

    def __init__(self, work: Work, options: PoolOptions, request: Request, watch: Callable[[Snapshot], None]) -> None:
        self._work, self._options, self._request, self._watch = work, options, request, watch
        groups = {"shards": options.window, "watch": 1}
        remote = ray.remote(concurrency_groups=groups, max_restarts=0)(_Actor)
        self._remote = remote.options(num_cpus=request.cpus, num_gpus=request.gpus)
        self._members: list[_Member] = []
        self._next: deque[_Attempt] = deque()
        self._suspects: deque[_Attempt] = deque()
        self._later: list[tuple[float, _Attempt]] = []
        self._retired = (0, 0, 0)
        self._false_starts = 0

    def run(self, shards: Iterator[SourceShard]) -> Iterator[ShardReport | Failure]:
        while self._look_ahead(shards) or self._suspects or any(member.running for member in self._members):
            self._hire()
            self._assign()
            yield from self._collect()
            self._watch(self._snapshot())

    def dismiss(self) -> None:
        for member in list(self._members):
            self._let_go(member)

    def _look_ahead(self, shards: Iterator[SourceShard]) -> bool:
        """Hold as many shards as two per actor, and those whose time has come again; return whether any is left."""
        now = time.monotonic()
        for attempt in (attempt for due, attempt in self._later if due <= now):
            (self._suspects if attempt.alone else self._next).append(attempt)
        self._later = [(due, attempt) for due, attempt in self._later if due > now]
        if self._later:  # a store is out of reach: no further shard is spent on it
            return True
        while len(self._next) < 2 * self._request.actors and (shard := next(shards, None)) is not None:
            self._next.append(_Attempt(shard))
        return bool(self._next)

    def _hire(self) -> None:
        """Start actors up to the number asked for, as long as there is a shard for each."""
        busy = sum(bool(member.running) for member in self._members)
        wanted = min(self._request.actors, busy + len(self._next) + len(self._suspects))
        while len(self._members) < wanted:
            handle = self._remote.remote(self._work)
            self._members.append(_Member(handle=handle, starting=handle.start.remote()))

    def _assign(self) -> None:
        """Give every actor that is up its window of shards, those first that have the fewest."""
        for _ in range(self._options.window):
            for member in sorted(self._members, key=lambda member: len(member.running)):
                attempt = self._attempt_for(member)
                if attempt is not None:
                    member.running[member.handle.run.remote(attempt.shard, attempt.careful)] = attempt
                    member.moved = time.monotonic()

    def _attempt_for(self, member: _Member) -> _Attempt | None:
        under_way = len(member.running)
        alone = any(attempt.alone for attempt in member.running.values())
        if member.starting is not None or member.leaving or alone or under_way >= self._options.window:
            return None
        if self._suspects and not under_way:
            return self._suspects.popleft()
        # The last shards go to actors with none, those about to be up included, before any gets a second.
        kept = sum(other.starting is not None for other in self._members) if under_way else 0
        return self._next.popleft() if len(self._next) > kept else None

    def _collect(self) -> Iterator[ShardReport | Failure]:
        """Wait a moment for anything to end or start, and deal with what has."""
        starting = {member.starting: member for member in self._members if member.starting is not None}
        running = {reference: member for member in self._members for reference in member.running}
        if not starting and not running:  # all that is left has to wait
            time.sleep(POLL_SECONDS)
            return
        ready, _ = ray.wait([*starting, *running], num_returns=1, timeout=POLL_SECONDS)
        for reference in ready:
            if reference in starting:
                self._welcome(starting[reference])
                continue
            member = running[reference]
            attempt = member.running.pop(reference)
            member.moved = max(member.moved, time.monotonic())
            result = _result(reference, attempt.shard)
            if isinstance(result, _Fault):
                failure = self._judge(member, attempt, result)
                if failure is not None:
                    yield failure
            else:
                yield result
            if member.leaving and not member.running:
                self._let_go(member)
        for member in [member for member in self._members if member.starting is not None]:
            if member.up_since is not None and time.monotonic() - member.up_since > START_SECONDS:
                self._count_false_start(member, f"an actor was not ready {START_SECONDS:g} s after its process began")
        self._kill_stalled()

    def _kill_stalled(self) -> None:
        """Kill actors that finish nothing any more; what they had under way is then judged as after any death."""
        for member in self._members:
            if member.running and time.monotonic() - member.moved > 60 * self._options.stall_minutes:
                for attempt in member.running.values():
                    attempt.stalled = True
                member.leaving, member.moved = True, math.inf
                ray.kill(member.handle)

    def _judge(self, member: _Member, attempt: _Attempt, fault: _Fault) -> Failure | None:
        """Decide whether a shard is tried again; return its failure if not."""
        alone = attempt.alone or self._options.window == 1
        # An actor takes all its shards down with it, and what follows on a first unforeseen error may be its echo: there
        # nobody is blamed, and each shard has an actor for itself the next time.
        attempt.tries += alone or not (fault.died or (fault.sick and member.leaving))
        if fault.died or fault.sick:
            member.leaving = attempt.alone = True
        if not fault.again or attempt.tries >= self._options.attempts:
            if fault.ends is not None:
                raise fault.ends
            tries = f" (after {attempt.tries} tries)" if attempt.tries > 1 else ""
            stalled = f"It finished no image within {self._options.stall_minutes:g} minutes." if attempt.stalled else None
            return Failure(shard_id=attempt.shard.id, key=None, reason=f"{stalled or fault.reason}{tries}")
        # Whoever had company in death may be innocent; other shards show their images to a process apart from now on.
        attempt.careful |= attempt.stalled or (fault.died and attempt.tries + 1 >= min(2, self._options.attempts))
        attempt.stalled = False
        if fault.died or fault.sick:
            self._suspects.append(attempt)
        else:  # a store needs its time, also for a shard that has an actor for itself
            self._later.append((time.monotonic() + RETRY_SECONDS * 4 ** (attempt.tries - 1), attempt))
        return None

    def _welcome(self, member: _Member) -> None:
        """Take an actor's word that it is up, or raise what kept it from starting."""
        try:
            ray.get(member.starting)
        except RayTaskError as error:
            if isinstance(error.cause, StoreUnavailable):
                self._count_false_start(member, str(error.cause))
                return
            raise (error.cause if isinstance(error.cause, PipelineError) else WorkerNotStarted(_last_line(error))) from None
        except RayError as error:
            self._count_false_start(member, _cause_of_death(error))
        else:
            member.starting, self._false_starts = None, 0

    def _count_false_start(self, member: _Member, reason: str) -> None:
        self._let_go(member)
        self._false_starts += 1
        if self._false_starts >= self._options.attempts:
            raise WorkerNotStarted(f"{self._false_starts} in a row failed; the last: {reason}")

    def _let_go(self, member: _Member) -> None:
        self._members.remove(member)
        self._retired = _sum(self._retired, member.totals)
        ray.kill(member.handle)

    def _snapshot(self) -> Snapshot:
        totals = self._retired
        for member in self._members:
            if member.asked is None:
                member.asked = member.handle.progress.remote()
            elif ray.wait([member.asked], timeout=0)[0]:
                with suppress(RayError):  # its shards tell
                    totals_now = ray.get(member.asked)
                    if totals_now != member.totals:
                        member.totals, member.moved = totals_now, max(member.moved, time.monotonic())
                    member.up_since = member.up_since or time.monotonic()
                member.asked = None
            totals = _sum(totals, member.totals)
        started = sum(member.starting is None for member in self._members)
        return Snapshot(assets=totals[0], pixels=totals[1], bytes_in=totals[2], actors=started)


def _result(reference: Any, shard: SourceShard) -> ShardReport | _Fault:
    """Return what a call of ``_Actor.run`` came to."""
    try:
        result: ShardReport | _Fault = ray.get(reference)
        return result
    except RayTaskError as error:  # what an actor returned could not be sent
        return _Fault(reason=_last_line(error))
    except RayError as error:  # its process, its node or the way to it is gone
        return _Fault(reason=str(WorkerLost(shard.id, _cause_of_death(error))), again=True, died=True)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Actors, and CPUs and GPUs for each."""

    actors: int
    cpus: float
    gpus: float


def request_for(device: str, options: PoolOptions, *, noun: str = "actor") -> Request:
    """Decide how many actors (called by ``noun``) of which size run; raise where the cluster can never give them."""
    if device.startswith("cuda:"):
        raise InvalidOption("--device", device, f"each {noun} sees the GPU that Ray gives it, and no other; give cuda.")
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
        wanted = f"{max(1, actors)} {noun}s of {cpus:g} CPUs and {gpus:g} GPUs"
        raise ResourcesUnavailable(wanted, f"room for {fitting}, with {have['CPU']:g} CPUs and {have['GPU']:g} GPUs")
    return Request(actors=actors, cpus=cpus, gpus=gpus)


def _fits(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Return how many actors a node has room for."""
    rooms = [node.get(kind, 0.0) / wanted for kind, wanted in (("CPU", cpus), ("GPU", gpus)) if wanted]
    return int(min(rooms, default=1.0) + 1e-9)


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """Join the cluster at ``address``, or the one this process is in, or start one here that ends with the block.

    Around several jobs it spares all but the first the start of Ray. Raises ClusterUnavailable.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # without it every worker prints a warning
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the network's threads share CPUs with decoding: no spinning
    if address is not None:
        _check_reachable(address)
    local: dict[str, Any] = {} if address else {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        # Ray's handler of SIGTERM prints addresses, and aborts a process that takes 3 s to end.
        # Workers get this process's folder on their path, and a package named like ours there would hide ours.
        with keeping_handler(signal.SIGTERM), chdir(Path(__file__).parents[1]):
            ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise ClusterUnavailable(address or "local", _first_line(error)) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def keeping_handler(number: signal.Signals) -> Iterator[None]:
    """Put the handler of a signal back after the block, in which Ray may set its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)


def _check_reachable(address: str) -> None:
    """Raise ClusterUnavailable at once where nothing listens; Ray would try for two minutes and then end the process."""
    match = re.fullmatch(r"(?:ray://)?\[?([^\s/\[\]]+)\]?:(\d+)", address)
    if match is None:
        return  # "auto", or what Ray refuses by itself
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(address, str(error)) from None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]  # a remote traceback ends with its error
    return lines[-1] if lines else type(error).__name__


def _cause_of_death(error: BaseException) -> str:
    """Return the sentence of Ray's report that says why a process ended."""
    detail = re.search(r"Worker exit detail: (.+?)(?:\.\s|$)", str(error), re.DOTALL)
    return " ".join(detail[1].split()) if detail else _first_line(error)


def _sum(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]
