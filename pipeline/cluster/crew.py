"""The actors of one job and the shards they have under way: windows, retries, quarantine."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.cluster.actor import (
    ActorPlace,
    Fault,
    Reading,
    Work,
    begin_run,
    cause_of_death,
    last_line,
    node_is_lost,
    remote_actor,
    results_of,
    summed,
)
from pipeline.cluster.errors import WorkerNotStarted
from pipeline.cluster.instruments import Instruments
from pipeline.cluster.notices import Notice, Snapshot
from pipeline.cluster.options import PoolOptions
from pipeline.cluster.room import Request, room_for
from pipeline.core.errors import PipelineError, StoreUnavailable
from pipeline.core.progress import BUSY, STAGES, UP
from pipeline.core.reasons import by_class
from pipeline.core.records import Failure, ShardReport, SourceShard
from pipeline.decoders.apart import DECODE_SECONDS

COLLECT_SECONDS = 0.1
"""How often at most what has ended is collected: all of it at once, for looking costs a driver more than a shard does.

An actor is given its next shards then, so it gets through ten windows of them a second and no more.
"""

POLL_SECONDS = 0.5

WATCHES_PER_SECOND = 25
"""Actors that are asked for their progress, at most: asking each after every shard would be most of a driver's work."""

SURVEY_SECONDS = 1.0
"""How often the cluster is asked which nodes it has, and the metrics are set."""

LAST_WORDS_SECONDS = 1.0
"""How long actors that are let go may take to say what they counted last."""

START_SECONDS = 900.0
"""How long an actor may load its network once its process is up; waiting for room in a busy cluster has no limit."""

RETRY_SECONDS = 5.0
"""How long a shard waits after its store was out of reach the first time; four times as long after each further time."""

MOST_HALVINGS = 3

MOST_DENIALS = 10
"""Shards in a row that a store may refuse access for; more is no matter of single objects."""


@dataclass(eq=False)
class _Attempt:
    """A shard: how often it failed by its own fault, how often its node went, and how it is to be tried the next time.

    ``alone``: in an actor for itself; ``halvings``: with so much less at once; ``careful``: its images decoded in a process
    apart.
    """

    shard: SourceShard
    tries: int = 0
    lost: int = 0
    alone: bool = False
    halvings: int = 0
    careful: bool = False
    stalled: bool = False
    begun: float = 0.0


@dataclass(eq=False)
class _Member:
    """One actor as the driver sees it; ``starting`` until its worker is there, ``leaving`` once it gets no more shards."""

    handle: Any
    starting: Any
    place: ActorPlace | None = None
    running: dict[Any, _Attempt] = field(default_factory=dict)
    leaving: bool = False
    up_since: float | None = None
    asked: Any = None
    reading: Reading = field(default_factory=Reading)
    moved: float = 0.0

    def notice(self, event: str, **more: Any) -> Notice:
        """Return what happened here."""
        actor, node = (None, None) if self.place is None else (self.place.actor, self.place.node)
        return Notice(event=event, actor=actor, node=node, **more)


class Crew:
    """The actors of one job and the shards they have under way."""

    def __init__(
        self,
        work: Work,
        options: PoolOptions,
        request: Request,
        watch: Callable[[Snapshot], None],
        notice: Callable[[Notice], None],
    ) -> None:
        self._work, self._options, self._request, self._watch, self._notice = work, options, request, watch, notice
        self._remote = remote_actor(options.window, cpus=request.cpus, gpus=request.gpus)
        self._instruments = Instruments(type(work).__name__.removesuffix("Work").lower())
        self._members: list[_Member] = []
        self._next: deque[_Attempt] = deque()
        self._suspects: deque[_Attempt] = deque()
        self._later: list[tuple[float, _Attempt]] = []
        self._exhausted = False
        self._room, self._surveyed = -1, 0.0
        self._retired: dict[str, float] = {}
        self._false_starts = self._denials = 0
        self._watched = self._collected = 0.0

    def run(self, shards: Iterator[SourceShard]) -> Iterator[ShardReport | Failure]:
        """Yield, as each shard ends, its report or its failure; raises what :func:`pipeline.cluster.pool.run` does."""
        self._survey()
        while self._look_ahead(shards) or self._suspects or any(member.running for member in self._members):
            self._survey()
            self._hire()
            self._assign()
            yield from self._collect()
            if time.monotonic() - self._watched >= len(self._members) / WATCHES_PER_SECOND:
                self._watched = time.monotonic()
                self._watch(self._snapshot())
        self._hear_out(self._members)
        self._watch(self._snapshot())

    def dismiss(self) -> None:
        """Let every actor go."""
        for member in list(self._members):
            self._let_go(member)
        self._instruments.survey({}, waiting=0, under_way=0)

    def _survey(self) -> None:
        """Look which nodes there are, and show where the job stands."""
        now = time.monotonic()
        if now - self._surveyed < SURVEY_SECONDS:
            return
        self._surveyed, room = now, room_for(self._request)
        if room != self._room:
            if self._room >= 0 or not room:
                reason = None if room else f"waiting for a node with room for an actor of {self._request}"
                self._notice(Notice(event="room", count=room, reason=reason))
            self._room = room
        readings: dict[str, list[Reading]] = {}
        for member in self._members:
            if member.place is not None:
                readings.setdefault(member.place.node, []).append(member.reading)
        waiting = sum(member.place is None for member in self._members)
        under_way = sum(len(member.running) for member in self._members)
        self._instruments.survey(readings, waiting=waiting, under_way=under_way)

    @property
    def _wanted(self) -> int:
        """How many actors the job would have were there shards enough.

        Where more nodes may come, actors that find no room yet are what an autoscaler sees: as many as are up, and one at
        least, so that a cluster can double at every step and no more than that is ever asked for in vain.
        """
        if self._request.actors is not None:
            return self._request.actors
        up = sum(member.place is not None for member in self._members)
        return self._room + (max(1, up) if self._options.may_grow else 0)

    def _look_ahead(self, shards: Iterator[SourceShard]) -> bool:
        """Hold as many shards as two per actor, and those whose time has come again; return whether any is left."""
        now = time.monotonic()
        for attempt in (attempt for due, attempt in self._later if due <= now):
            (self._suspects if attempt.alone else self._next).append(attempt)
        self._later = [(due, attempt) for due, attempt in self._later if due > now]
        if self._later:  # a store is out of reach: no further shard is spent on it
            return True
        while not self._exhausted and len(self._next) < 2 * max(1, self._wanted):
            shard = next(shards, None)
            self._exhausted = shard is None
            if shard is not None:
                self._next.append(_Attempt(shard))
        return bool(self._next)

    def _hire(self) -> None:
        """Start actors up to the number wanted, as long as there is a shard for each; let those go that will get none."""
        busy = sum(bool(member.running) for member in self._members)
        left = len(self._next) + len(self._suspects)
        wanted = min(self._wanted, busy + left)
        while len(self._members) < wanted:
            handle = self._remote.remote(self._work)
            self._members.append(_Member(handle=handle, starting=handle.start.remote()))
        if self._exhausted and not self._later:
            idle = [member for member in self._members if not member.running]
            leaving = sorted(idle, key=lambda member: member.starting is not None)[left:]
            self._hear_out(leaving)
            for member in leaving:
                self._let_go(member)

    def _assign(self) -> None:
        """Give every actor that is up its window of shards, those first that have the fewest."""
        for _ in range(self._options.window):
            for member in sorted(self._members, key=lambda member: len(member.running)):
                attempt = self._attempt_for(member)
                if attempt is not None:
                    attempt.begun = member.moved = time.monotonic()
                    call = begin_run(member.handle, attempt.shard, halvings=attempt.halvings, careful=attempt.careful)
                    member.running[call] = attempt

    def _attempt_for(self, member: _Member) -> _Attempt | None:
        under_way = len(member.running)
        alone = any(attempt.alone for attempt in member.running.values())
        if member.starting is not None or member.leaving or alone or under_way >= self._options.window:
            return None
        if self._suspects and not under_way:
            return self._suspects.popleft()
        # The last shards go to actors with none, those about to be up included, before any gets a second.
        starting = sum(other.starting is not None for other in self._members)
        about = max(0, min(starting, self._room - (len(self._members) - starting)))
        return self._next.popleft() if len(self._next) > (about if under_way else 0) else None

    def _collect(self) -> Iterator[ShardReport | Failure]:
        """Wait a moment for anything to end or start, and deal with what has."""
        starting = {member.starting: member for member in self._members if member.starting is not None}
        running = {reference: member for member in self._members for reference in member.running}
        if not starting and not running:  # all that is left has to wait
            time.sleep(POLL_SECONDS)
            return
        time.sleep(max(0.0, self._collected + COLLECT_SECONDS - time.monotonic()))
        references = [*starting, *running]
        ready, _ = ray.wait(references, num_returns=1, timeout=POLL_SECONDS)
        if ready:
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        self._collected = time.monotonic()
        for member in [starting[reference] for reference in ready if reference in starting]:
            self._welcome(member)
        ended = [reference for reference in ready if reference in running]
        results = results_of({reference: running[reference].running[reference].shard for reference in ended})
        for reference, result in zip(ended, results, strict=True):
            member = running[reference]
            member.moved = max(member.moved, time.monotonic())
            yield from self._conclude(member, member.running.pop(reference), result)
            if member.leaving and not member.running:
                self._let_go(member)
        for member in [member for member in self._members if member.starting is not None]:
            if member.up_since is not None and time.monotonic() - member.up_since > START_SECONDS:
                self._count_false_start(member, f"an actor was not ready {START_SECONDS:g} s after its process began")
        self._kill_stalled()

    def _kill_stalled(self) -> None:
        """Kill actors that finish nothing any more; what they had under way is then judged as after any death."""
        for member in self._members:
            limit = 60 * self._options.stall_minutes
            if any(attempt.careful for attempt in member.running.values()):  # a picture apart ends by itself, and first
                limit = max(limit, 2 * DECODE_SECONDS)
            if member.running and time.monotonic() - member.moved > limit:
                for attempt in member.running.values():
                    attempt.stalled = True
                member.leaving, member.moved = True, math.inf
                ray.kill(member.handle)

    def _conclude(self, member: _Member, attempt: _Attempt, result: ShardReport | Fault) -> Iterator[ShardReport | Failure]:
        """Yield what a shard came to, unless it is tried again."""
        self._check_access(result)
        ended = {"shard": attempt.shard.id, "seconds": round(time.monotonic() - attempt.begun, 3)}
        if isinstance(result, ShardReport):
            failures = by_class(failure.reason for failure in result.failures)
            self._instruments.ended("done", failures, result.kept)
            self._notice(member.notice("ended", **ended))
            yield result
            return
        failure = self._judge(member, attempt, result)
        if failure is None:
            self._instruments.ended("retried", {}, {})
            self._notice(member.notice("retry", **ended, reason=result.reason))
            return
        self._instruments.ended("quarantined", by_class([failure.reason]), {})
        self._notice(member.notice("ended", **ended))
        yield failure

    def _check_access(self, result: ShardReport | Fault) -> None:
        """Raise AccessDenied where a store refuses shard after shard: permissions have gone, and no shard is at fault."""
        denied = None if isinstance(result, ShardReport) else result.denied
        self._denials = self._denials + 1 if denied else 0
        if denied and self._denials >= MOST_DENIALS:
            raise denied

    def _judge(self, member: _Member, attempt: _Attempt, fault: Fault) -> Failure | None:
        """Decide whether a shard is tried again; return its failure if not."""
        if fault.lost:
            member.leaving = True
            attempt.lost += 1
            if attempt.lost < self._options.attempts:
                attempt.stalled = False
                (self._suspects if attempt.alone else self._next).appendleft(attempt)
                return None
        died = fault.died or fault.lost  # a shard that loses node after node may be what ends them
        alone = attempt.alone or self._options.window == 1
        # An actor takes all its shards down with it, and what follows on a first unforeseen error may be its echo: there
        # nobody is blamed, and each shard has an actor for itself the next time.
        attempt.tries += alone or not (died or (fault.sick and member.leaving))
        if fault.memory or (died and alone):  # nobody tells what the system killed for its memory
            attempt.halvings = min(attempt.halvings + 1, MOST_HALVINGS)
        if died or fault.sick:
            member.leaving = attempt.alone = True
        if not fault.again or attempt.tries >= self._options.attempts:
            if fault.ends is not None:
                raise fault.ends
            tries = f" (after {attempt.tries} tries)" if attempt.tries > 1 else ""
            stalled = f"It finished no image within {self._options.stall_minutes:g} minutes."
            return Failure(
                shard_id=attempt.shard.id, key=None, reason=f"{stalled if attempt.stalled and died else fault.reason}{tries}"
            )
        # Whoever had company in death may be innocent; other shards show their images to a process apart from now on.
        attempt.careful |= attempt.stalled or (fault.died and attempt.tries + 1 >= min(2, self._options.attempts))
        attempt.stalled = False
        if died or fault.sick:
            self._suspects.append(attempt)
        else:  # a store needs its time, also for a shard that has an actor for itself
            self._later.append((time.monotonic() + RETRY_SECONDS * 4 ** (attempt.tries - 1), attempt))
        return None

    def _welcome(self, member: _Member) -> None:
        """Take an actor's word that it is up, or raise what kept it from starting."""
        try:
            member.place = ray.get(member.starting)
        except RayTaskError as error:
            if isinstance(error.cause, StoreUnavailable):
                self._count_false_start(member, str(error.cause))
                return
            raise (error.cause if isinstance(error.cause, PipelineError) else WorkerNotStarted(last_line(error))) from None
        except RayError as error:
            if node_is_lost(error):
                self._let_go(member)  # and another starts elsewhere
            else:
                self._count_false_start(member, cause_of_death(error))
        else:
            member.starting, self._false_starts = None, 0
            self._notice(member.notice("actor up"))

    def _count_false_start(self, member: _Member, reason: str) -> None:
        self._let_go(member)
        self._false_starts += 1
        if self._false_starts >= self._options.attempts:
            raise WorkerNotStarted(f"{self._false_starts} in a row failed; the last: {reason}")

    def _let_go(self, member: _Member) -> None:
        self._members.remove(member)
        self._retired = summed(self._retired, member.reading.counts)
        ray.kill(member.handle)
        if member.place is not None:
            self._notice(member.notice("actor gone"))

    def _snapshot(self) -> Snapshot:
        totals = self._retired
        for member in self._members:
            if member.asked is None:
                member.asked = member.handle.progress.remote()
            elif ray.wait([member.asked], timeout=0)[0]:
                with suppress(RayError):  # its shards tell
                    self._read(member, ray.get(member.asked))
                member.asked = None
            totals = summed(totals, member.reading.counts)
        return Snapshot(
            **{name: int(totals.get(name, 0)) for name in ("assets", "pixels", "bytes_in")},
            actors=sum(member.starting is None for member in self._members),
            room=self._room,
            stages={stage: totals.get(stage, 0.0) for stage in STAGES},
            busy_share=totals[BUSY] / totals[UP] if totals.get(UP) else None,
        )

    def _hear_out(self, members: Iterable[_Member]) -> None:
        """Read what members have counted to the end, of those that answer soon."""
        asked = {member.handle.progress.remote(): member for member in members if member.starting is None}
        if not asked:
            return
        for answer in ray.wait(list(asked), num_returns=len(asked), timeout=LAST_WORDS_SECONDS)[0]:
            with suppress(RayError):  # it died; its shards have told
                self._read(asked[answer], ray.get(answer))

    def _read(self, member: _Member, reading: Reading) -> None:
        """Take what an actor has counted, which also says that its process is there."""
        member.up_since = member.up_since or time.monotonic()
        if any(reading.counts.get(name) != member.reading.counts.get(name) for name in ("assets", "pixels", "bytes_in")):
            member.moved = max(member.moved, time.monotonic())
        if member.place is not None:
            self._instruments.read(member.place.node, member.reading, reading)
            member.reading = reading
