"""What a job says while it runs and when it ends: a bar and sentences for people, JSON lines by structlog for programs."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

import structlog
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from pipeline.cluster.notices import Notice, Snapshot
from pipeline.core.records import Failure, ShardReport
from pipeline.core.tally import FreshReport, Tally, remember
from pipeline.stores.store import Store

FAILURES = "failures.jsonl"
MOST_LISTED = 100_000
"""Failures that a job remembers for its list, some 50 MB; it counts all, and the commits have them."""
SHOWN_EVENTS = ("starting again",)
"""What is said above the bar when it happens; the rest is in its numbers, or in the end."""
SHOWN_IDS = ("ray_job", "submission")
SHOWN_NOTES = 20
NOT_TOLD = ("failed", "failures", "notes", "reasons", "failure_examples", "examples", "quarantined_ids", "compared")
"""Totals that a job's last line has otherwise, or not."""
HEARTBEAT_SECONDS = 10.0
LOOK_OBJECTS = 1000
"""How many objects are listed between two looks at the clock."""

Listed = TypeVar("Listed")


@dataclass
class Totals(Tally):
    """What has been done, over all shards a job has heard of; ``failures`` are the first of those that failed."""

    shards: int = 0
    noted: int = 0
    """Reports' notes; of these, too, the first are remembered."""
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """All that failed, by class of reason."""
    failure_examples: dict[str, list[Failure]] = field(default_factory=dict)
    """A few of each class."""
    quarantined: int = 0
    quarantined_ids: list[str] = field(default_factory=list)

    def include(self, report: ShardReport, shards: int = 1) -> None:
        """Count a report, which may be the sum of several shards'."""
        super().include(replace(report, failures=(), notes=()))
        for each in report.examples if isinstance(report, FreshReport) else ():
            remember(self.examples, replace(each, shard_id=report.shard_id))
        self.shards += shards
        self.noted += len(report.notes)
        self.notes += report.notes[: MOST_LISTED - len(self.notes)]
        self._failed(report.failures)

    def quarantine(self, failure: Failure) -> None:
        """Count a shard that was given up."""
        self._failed((failure,))
        self.quarantined += 1
        self.quarantined_ids += [failure.shard_id][: MOST_LISTED - len(self.quarantined_ids)]

    def _failed(self, failures: Sequence[Failure]) -> None:
        self.failed += len(failures)
        self.reasons.update(remember(self.failure_examples, failure) for failure in failures)
        self.failures += failures[: MOST_LISTED - len(self.failures)]


class Reporter:
    """Follows one job; ``snapshot``, ``notice`` and ``done`` are called as it goes.

    ``json_lines`` False means people, with a bar where standard error is a terminal; None means JSON lines where it is not.
    """

    def __init__(self, verb: str, shards: int, *, json_lines: bool | None = None) -> None:
        self.verb, self._shards = verb, shards
        self._log = _log_for(verb, json_lines)
        self._bar: Progress | None = None
        self._begun = self._beat = time.monotonic()
        self._place: dict[str, Any] = {}
        self.ray: dict[str, str] = {}
        self.most_actors = self.retries = 0
        self.stages: dict[str, float] = {}
        self.busy_share: float | None = None
        self.totals = Totals()
        self.resumed = Totals()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show progress while the block runs."""
        if self._log is not None:
            self._log.info("start", shards=self._shards, shards_done=self.resumed.shards)
            yield
            return
        if not sys.stderr.isatty():  # a bar is drawn over itself, which a file or a pipe keeps line after line
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("shards"),
            TextColumn("{task.fields[state]}", table_column=Column()),  # wraps where the terminal is narrow
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            self._bar = bar
            self._task = bar.add_task(self.verb, total=self._shards, completed=self.resumed.shards, state="starting")
            yield

    def snapshot(self, snapshot: Snapshot) -> None:
        """Take the running totals of the workers."""
        now = time.monotonic()
        seconds = max(now - self._begun, 1e-3)
        self.most_actors = max(self.most_actors, snapshot.actors)
        self.stages, self.busy_share = dict(snapshot.stages), snapshot.busy_share
        if self._bar is not None:
            state = (
                f"{snapshot.assets} images  {snapshot.pixels / 1e6 / seconds:.1f} MPix/s  "
                f"{size(self.totals.bytes_in)} → {size(self.totals.bytes_out)}  {self.totals.failed} failures"
            )
            if snapshot.busy_share is not None:
                state += f"  engines {snapshot.busy_share:.0%} busy"
            waiting = "waiting for an actor to start" if snapshot.room else "waiting for a node with room for an actor"
            self._bar.update(self._task, completed=self.totals.shards, state=state if snapshot.actors else waiting)
        elif self._log is not None and now - self._beat > HEARTBEAT_SECONDS:
            self._beat = now
            rate = round(snapshot.pixels / 1e6 / seconds, 2)
            counts = {"shards": self.totals.shards, "images": snapshot.assets, "actors": snapshot.actors, "room": snapshot.room}
            self._log.info("progress", **counts, mpix_per_s=rate, busy_share=_rounded(snapshot.busy_share))

    def notice(self, notice: Notice) -> None:
        """Tell what happened beside the results; where a shard ended goes with its own line."""
        values = {name: value for name, value in asdict(notice).items() if value is not None}
        event, reason = values.pop("event"), values.get("reason")
        self.retries += event == "retry"
        if event == "joined":  # from here on every line says which of the cluster's jobs it is of
            self.ray = dict(notice.ray or {})
            self._log = self._log and self._log.bind(**{name: self.ray[name] for name in SHOWN_IDS if name in self.ray})
        elif event == "ended":
            self._place = values
        else:
            self._say("warning" if reason else "info", event, **values)

    def resume(self, report: ShardReport, shards: int = 1) -> None:
        """Count shards that an earlier run has done, by their report or its sums."""
        self.resumed.include(replace(report, failures=(), notes=()), shards)
        self.totals.include(report, shards)

    def done(self, result: ShardReport | Failure) -> None:
        """Count a shard that has ended."""
        where, self._place = {"shard": result.shard_id} | self._place, {}
        if isinstance(result, Failure):
            self.totals.quarantine(result)
            self._say("warning", "quarantined", **where, reason=result.reason)
            return
        self.totals.include(result)
        unsaid = ("shard_id", "failures", "notes", "examples")
        counts = {name: value for name, value in asdict(result).items() if name not in unsaid}
        self._say("info", "shard", **where, **counts)
        where.pop("seconds", None)
        for level, event, told in (("info", "note", result.notes), ("warning", "failure", result.failures)):
            for each in told:
                self._say(level, event, **where | {"key": each.key, "reason": each.reason})

    def summary(self, **more: Any) -> None:
        """Print how the job ended: sentences on a terminal, one JSON line otherwise."""
        totals, seconds = self.totals, self.seconds
        counts = {each.name: getattr(totals, each.name) for each in fields(totals) if each.name not in NOT_TOLD}
        if self._log is not None:
            reasons = dict(totals.reasons.most_common())
            ended = {"failures": totals.failed, "failures_by_reason": reasons, "seconds": round(seconds, 2)}
            self._log.info("end", **counts, **ended, **self.times, **more)
            return
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        fresh = (totals.pixels - self.resumed.pixels) / 1e6
        console.print(
            f"{totals.entries} entries ({totals.originals} without an LR) in {totals.shards} of {self._shards} shards, "
            f"{size(totals.bytes_in)} → {size(totals.bytes_out)}, {fresh:.1f} MPix in {seconds:.1f} s"
        )
        if self.busy_share is not None and (whole := sum(self.stages.values())):
            shares = ", ".join(f"{stage} {seconds / whole:.0%}" for stage, seconds in self.stages.items() if seconds)
            console.print(f"engines {self.busy_share:.0%} busy; of all work {shares}")
        for reason, count in totals.kept.most_common():  # a file whose keeping is a failure is shown as that
            examples = [] if reason in totals.reasons else totals.examples.get(reason, [])
            console.print(*_told(f"{count} files kept: {reason}", count, examples), sep="\n", markup=False)
        if totals.whole:
            console.print(f"  {totals.whole} of the files are kept beside their LRs")
        for word, count in totals.lost.most_common():
            console.print(f"  {count} restored without: {word}", markup=False)
        for note in totals.notes[:SHOWN_NOTES]:
            console.print(f"  {note.shard_id} {note.key}: {note.reason}", markup=False)
        if totals.noted > SHOWN_NOTES:
            console.print(f"  … and {totals.noted - SHOWN_NOTES} more of these; with --json each has its line")
        for reason, count in totals.reasons.most_common():
            told = _told(f"{count} failed: {reason}", count, totals.failure_examples[reason])
            console.print(*told, sep="\n", markup=False)
        for name, value in more.items():
            if isinstance(value, dict):
                value = ", ".join(f"{count} {each}" for each, count in value.items()) or "none"
            console.print(f"{name.replace('_', ' ')}: {value}", markup=False)

    @property
    def seconds(self) -> float:
        """How long the job has run."""
        return time.monotonic() - self._begun

    @property
    def times(self) -> dict[str, Any]:
        """Where this run's time went: the share in which engines worked, the seconds of stages, and verify's share of those."""
        if self.busy_share is None:
            return {}
        whole = sum(self.stages.values())
        return {
            "busy_share": _rounded(self.busy_share),
            "verify_share": _rounded(self.stages.get("verify", 0.0) / whole if whole else None),
            "seconds_by_stage": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
        }

    def _say(self, level: str, event: str, **values: Any) -> None:
        if self._log is not None:
            getattr(self._log, level)(event, **values)
        elif event in SHOWN_EVENTS:
            console = self._bar.console if self._bar is not None else Console(stderr=True)
            console.print(f"{event}: {values['reason']}", markup=False)


def _told(head: str, count: int, examples: Sequence[Failure]) -> Iterator[str]:
    """Yield what a summary says of the failures, or the files kept, of one class."""
    yield f"  {head}"
    for each in examples:
        yield f"    {each.shard_id}{f' {each.key}' if each.key else ''}: {each.reason}"
    if examples and count > len(examples):
        yield f"    … and {count - len(examples)} more"


@contextmanager
def listing(
    verb: str, source: str, *, json_lines: bool | None = None
) -> Iterator[Callable[[Iterable[Listed]], Iterator[Listed]]]:
    """Show how far the listing of a source is, which the function that this gives passes on, while the block runs.

    On a terminal that is a line which goes with the block; for programs an event every ten seconds, so none where it is short.
    """
    log = _log_for(verb, json_lines)
    text = f"Listing {escape(source)}"
    status = Console(stderr=True).status(text) if log is None and sys.stderr.isatty() else None

    def watched(listed: Iterable[Listed]) -> Iterator[Listed]:
        beat = time.monotonic()
        for count, each in enumerate(listed, 1):
            if count % LOOK_OBJECTS == 0:
                if status is not None:
                    status.update(f"{text}: {count:,} objects")
                elif log is not None and time.monotonic() - beat > HEARTBEAT_SECONDS:
                    beat = time.monotonic()
                    log.info("listing", source=source, objects=count)
            yield each

    with status or nullcontext():
        yield watched


def list_failures(store: Store, totals: Totals) -> dict[str, str]:
    """Write the list of failures into ``store``, or empty that of an earlier run; return what a summary says of it."""
    if totals.failures:
        store.replace(FAILURES, failure_lines(totals.failures))
        more = f" (the first {len(totals.failures)}; the commits have all)" if totals.failed > len(totals.failures) else ""
        return {"failures_listed_in": f"{store.uri}/{FAILURES}{more}"}
    if store.exists(FAILURES):
        store.replace(FAILURES, b"")
    return {}


def failure_lines(failures: list[Failure]) -> bytes:
    """Return failures as JSON lines."""
    return b"".join(json_line(asdict(failure)) for failure in failures)


def json_line(value: Any) -> bytes:
    """Return a value as one line of JSON, readable; a byte of a name that is no UTF-8 is the escape that Python reads back."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def json_log() -> Any:
    """Return a logger that writes JSON lines with a UTC time to standard error."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )


def _log_for(verb: str, json_lines: bool | None) -> Any:
    """Return the logger of a job, None where people are told; by default they are at a terminal."""
    for_programs = not sys.stderr.isatty() if json_lines is None else json_lines
    return json_log().bind(job=verb) if for_programs else None


def teller(verb: str) -> Callable[..., None]:
    """Return a function that tells of an event and its values: a line of words for people, one of JSON for programs."""
    log = _log_for(verb, None)
    if log is not None:
        return lambda event, **values: log.warning(event, **values)
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(event: str, **values: Any) -> None:
        told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
        console.print(f"{event}: {told}", markup=False)

    return say


def sayer() -> Callable[[dict[str, Any]], None]:
    """Return a function that logs a ready event, for work that makes its own."""
    log = json_log()

    def say(event: dict[str, Any]) -> None:
        values = dict(event)
        log.info(values.pop("event"), **values)

    return say


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)


def size(count: float) -> str:
    """Return bytes in the unit a person would use, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
