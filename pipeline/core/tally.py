"""What is counted of a shard, entry by entry, and of many shards, report by report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from pipeline.core.reasons import reason_class
from pipeline.core.records import Failure, ShardReport

EXAMPLES = 3
"""Of a class of reasons, those that are shown beside their count."""


@dataclass(frozen=True, kw_only=True)
class FreshReport(ShardReport):
    """What became of a shard, by whoever has just done it: with a few of its originals and their reasons, of each class.

    The examples are for the summary of the job, and no part of a commit.
    """

    examples: tuple[Failure, ...] = ()


def remember(examples: dict[str, list[Failure]], found: Failure) -> str:
    """Keep a failure among the few of its class that are shown, those first that say different things; return the class."""
    kind = reason_class(found.reason)
    shown = examples.setdefault(kind, [])
    said = [each.reason for each in shown]
    if len(shown) < EXAMPLES:
        shown.append(found)
    elif found.reason not in said and len(set(said)) < EXAMPLES:
        shown[next(place for place in range(1, EXAMPLES) if said[place] in said[:place])] = found
    return kind


@dataclass
class Tally:
    """What a report is made of: one shard's, or the sum of several shards'."""

    entries: int = 0
    originals: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    notes: list[Failure] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    compared: int = 0
    examples: dict[str, list[Failure]] = field(default_factory=dict)
    """Of ``kept``, a few of each class."""

    def add(
        self, *, original: bool, pixels: int, bytes_in: int, whole: bool = False, key: str = "", reason: str | None = None
    ) -> None:
        """Count one entry: an ``original`` has no LR, a ``whole`` one its file beside it; these by reason, where it is news."""
        if (original or whole) and reason is not None:
            self.kept[remember(self.examples, Failure(shard_id="", key=key, reason=reason))] += 1
        self.entries += 1
        self.originals += original
        self.whole += whole
        self.pixels += pixels
        self.bytes_in += bytes_in

    def lacks(self, lost: Iterable[str]) -> None:
        """Count what an entry's restore lacks."""
        self.lost.update(lost)

    def fail(self, shard_id: str, key: str | None, reason: object) -> None:
        """Note what did not go as asked."""
        self.failures.append(Failure(shard_id=shard_id, key=key, reason=str(reason)))

    def note(self, shard_id: str, key: str, reason: str) -> None:
        """Note what was done otherwise than asked, and is no failure."""
        self.notes.append(Failure(shard_id=shard_id, key=key, reason=reason))

    def include(self, report: ShardReport) -> None:
        """Count a report, which may itself be the sum of several: each of its fields adds to the one of that name here."""
        for each in fields(report):
            value = getattr(report, each.name)
            match getattr(self, each.name, None):
                case Counter() as counts:
                    counts.update(value)
                case list() as listed:
                    listed.extend(value)
                case int() as count:
                    setattr(self, each.name, count + value)

    def report(self, name: str) -> ShardReport:
        """Return the report of the shard, or the group of shards, called ``name``."""
        return ShardReport(
            shard_id=name,
            entries=self.entries,
            originals=self.originals,
            pixels=self.pixels,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            failures=tuple(self.failures),
            kept=dict(sorted(self.kept.items())),
            lost=dict(sorted(self.lost.items())),
            whole=self.whole,
            notes=tuple(self.notes),
            compared=self.compared,
        )


def fresh(report: ShardReport, examples: Mapping[str, Sequence[Failure]]) -> ShardReport:
    """Return a report with what is shown of its originals, where it has any."""
    if not examples:
        return report
    values = {each.name: getattr(report, each.name) for each in fields(report)}
    return FreshReport(**values, examples=tuple(each for shown in examples.values() for each in shown))


def summed(name: str, reports: Iterable[ShardReport]) -> ShardReport:
    """Return the sum of some reports as one called ``name``, with all of their failures."""
    tally = Tally()
    for report in reports:
        tally.include(report)
    return tally.report(name)
