"""What is counted of a shard, entry by entry, and of many shards, report by report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from pipeline.core.reasons import reason_class
from pipeline.core.records import Failure, ShardReport


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

    def add(self, *, original: bool, pixels: int, bytes_in: int, reason: str | None = None) -> None:
        """Count one entry; an original by its ``reason``, where that is news."""
        if original and reason is not None:
            self.kept[reason_class(reason)] += 1
        self.entries += 1
        self.originals += original
        self.pixels += pixels
        self.bytes_in += bytes_in

    def lacks(self, lost: Iterable[str], *, whole: bool) -> None:
        """Count what an entry's restore lacks, or that it lacks nothing because its source is kept for it."""
        self.whole += whole
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


def summed(name: str, reports: Iterable[ShardReport]) -> ShardReport:
    """Return the sum of some reports as one called ``name``, with all of their failures."""
    tally = Tally()
    for report in reports:
        tally.include(report)
    return tally.report(name)
