"""What an archive amounts to, in figures: one pass over the columns of figures, with memory for histograms and the worst few.

Totals are those of `iarn inspect`. Bytes by part come from the shards' footers; pictures are not read.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from jobs.inspect import summarise
from pipeline.archives.archive import FORMAT_VERSION, Archive
from pipeline.core.reasons import FILE_KEPT
from pipeline.core.records import Commit, Failure
from pipeline.core.tally import remember

COLUMNS = ("key", "kind", "tier", "reason", "width", "height", "byte_size", "psnr", "ssim")
PARTS = {
    "lr": ("lr",),
    "latent": ("latent",),
    "alpha": ("alpha",),
    "original": ("original",),
    "sidecars": ("sidecars",),
    "metadata": ("icc", "exif", "xmp", "parts"),
}
"""What the bytes of an archive are for, and the columns that hold it; ``structure`` is all else: figures, pages, footers."""

ORIGINAL = "original"
"""Stands among the tiers for entries that have nothing but their source's bytes."""

EMPTY_CHUNK = 128
"""Bytes of a column in a row group that may be nothing but pages of nulls, and count as structure (83 were found)."""


class Histogram:
    """Counts in narrow bins over [low, high], with exact mean, least and greatest value; quantiles are good to a bin."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        self._low, self._width, self._counts = low, (high - low) / bins, [0] * bins
        self._sum, self.identical = 0.0, 0
        self.least, self.greatest = math.inf, -math.inf

    def add(self, value: float) -> None:
        """Count a value; infinity stands by itself, and what is outside goes to the bin at the end."""
        if value == math.inf:
            self.identical += 1
            return
        self._sum += value
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        self._counts[min(len(self._counts) - 1, max(0, int((value - self._low) / self._width)))] += 1

    @property
    def count(self) -> int:
        """How many finite values there are."""
        return sum(self._counts)

    def quantile(self, share: float) -> float:
        """Return the value that ``share`` of the finite ones do not exceed."""
        wanted, seen = share * self.count, 0
        for number, count in enumerate(self._counts):
            if count and seen + count >= wanted:
                inside = self._low + self._width * (number + (wanted - seen) / count)
                return min(self.greatest, max(self.least, inside))
            seen += count
        raise ValueError("no quantile of nothing")

    def figures(self, digits: int, bars: int) -> dict[str, Any]:
        """Return the distribution as plain values: quantiles, and at most ``bars`` bars of ``width`` from ``low`` on."""
        values: dict[str, Any] = {"entries": self.count, "identical": self.identical}
        if not self.count:
            return values
        shares = {"p1": 0.01, "p10": 0.1, "median": 0.5, "p90": 0.9}
        named = {name: self.quantile(share) for name, share in shares.items()}
        every = {"mean": self._sum / self.count, "least": self.least, **named, "greatest": self.greatest}
        values |= {name: round(value, digits) for name, value in every.items()}
        first = next(number for number, count in enumerate(self._counts) if count)
        last = len(self._counts) - next(number for number, count in enumerate(reversed(self._counts)) if count)
        step = next(step for step in _steps() if last // step - first // step < bars)
        start = first // step * step
        values["low"], values["width"] = round(self._low + start * self._width, 6), round(step * self._width, 6)
        values["bars"] = [sum(self._counts[at : at + step]) for at in range(start, last, step)]
        return values


def _steps() -> Iterator[int]:
    """Yield 1, 2, 5, 10, 20, …: widths that people read easily, in bins."""
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


@dataclass
class Share:
    """What one tier takes part in."""

    entries: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    decibels: float = 0.0
    similarity: float = 0.0
    finite: int = 0
    measured: int = 0

    def figures(self, tier: str) -> dict[str, Any]:
        """Return them as plain values; the mean of PSNR is over entries that are not identical."""
        return {
            "tier": tier,
            "entries": self.entries,
            "pixels": self.pixels,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "psnr": round(self.decibels / self.finite, 3) if self.finite else None,
            "ssim": round(self.similarity / self.measured, 5) if self.measured else None,
        }


@dataclass
class Reasons:
    """How many failures, or files kept, there are of each class of reason, and a few of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Failure]] = field(default_factory=dict)

    def add(self, found: Failure) -> None:
        """Count one."""
        self.counts[remember(self.examples, found)] += 1

    def listed(self) -> list[dict[str, Any]]:
        """Return them as plain values, the most frequent class first."""
        return [
            {
                "reason": kind,
                "entries": count,
                "examples": [{"key": each.key, "shard": each.shard_id, "reason": each.reason} for each in self.examples[kind]],
            }
            for kind, count in self.counts.most_common()
        ]


@dataclass
class Survey:
    """What a pass over shards has found; memory does not grow with them."""

    keep: int
    psnr: Histogram = field(default_factory=lambda: Histogram(0, 120, 2400))
    ssim: Histogram = field(default_factory=lambda: Histogram(-1, 1, 4000))
    parts: Counter[str] = field(default_factory=Counter)
    tiers: dict[str, Share] = field(default_factory=dict)
    kept: Reasons = field(default_factory=Reasons)
    shards: int = 0
    unmeasured: int = 0
    _worst: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)

    def add_shard(self, archive: Archive, shard_id: str, size: int) -> None:
        """Go through one shard's figures; ``size`` are the bytes of its object."""
        self.shards += 1
        told = 0
        with archive.shard_rows(shard_id) as reader:
            for group in range(reader.num_row_groups):
                rows = reader.row_group(group, COLUMNS)
                chunks = reader.chunk_bytes(group)
                for part, columns in PARTS.items():
                    stored = sum(chunks[name] for name in columns if chunks.get(name, 0) > EMPTY_CHUNK)
                    self.parts[part] += stored
                    told += stored
                    if part in _HOLDERS and stored:
                        self._share_out(part, stored, rows, lambda part=part, group=group: _lengths(reader, part, group))
                for row in rows:
                    self._add_row(shard_id, row)
        self.parts["structure"] += size - told

    def _share_out(self, part: str, stored: int, rows: list[dict[str, Any]], lengths: Any) -> None:
        """Give a column's bytes in a row group to the tiers that have them; they are read only where several may."""
        labels = [_label(row) for row in rows]
        holders = sorted({label for label in labels if label in _HOLDERS[part]})
        if len(holders) == 1:
            self._tier(holders[0]).bytes_out += stored
            return
        for label, length in zip(labels, lengths(), strict=True):
            self._tier(label).bytes_out += length

    def _add_row(self, shard_id: str, row: dict[str, Any]) -> None:
        share = self._tier(_label(row))
        share.entries += 1
        share.bytes_in += row["byte_size"]
        if row["kind"] == ORIGINAL or (row["reason"] or "").startswith(FILE_KEPT):
            self.kept.add(Failure(shard_id=shard_id, key=row["key"], reason=row["reason"] or "no reason given"))
        if row["kind"] == ORIGINAL:
            return
        share.pixels += row["width"] * row["height"]
        psnr, ssim = row["psnr"], row["ssim"]
        if psnr is None:
            self.unmeasured += 1
            return
        self.psnr.add(psnr)
        self.ssim.add(ssim)
        share.similarity, share.measured = share.similarity + ssim, share.measured + 1
        if psnr == math.inf:
            return
        share.decibels, share.finite = share.decibels + psnr, share.finite + 1
        # A heap of those kept with the best of them on top; the count keeps rows from being compared.
        worst = (-psnr, -self.psnr.count, {"shard": shard_id, **row})
        if len(self._worst) < self.keep:
            heapq.heappush(self._worst, worst)
        elif self._worst and worst > self._worst[0]:
            heapq.heapreplace(self._worst, worst)

    def _tier(self, label: str) -> Share:
        return self.tiers.setdefault(label, Share())

    @property
    def worst(self) -> list[dict[str, Any]]:
        """The entries that are restored worst, the worst first; not those that come back exactly."""
        names = ("key", "shard", "tier", "width", "height", "psnr", "ssim")
        rows = [row for _, _, row in sorted(self._worst, key=lambda each: each[:2], reverse=True)]
        return [{name: _rounded(name, row[name]) for name in names} for row in rows]


def figures(archive: Archive, *, sample: int | None = None, worst: int = 12) -> dict[str, Any]:
    """Return everything that a report shows of an archive but its pictures, as plain values for JSON.

    ``sample`` bounds the shards whose entries are looked at, drawn evenly; totals, failures and times are always of all.
    Raises what reading an archive does.
    """
    totals = summarise(archive)
    done = totals["shards_done"]
    chosen = None if sample is None or sample >= done else set(random.Random(archive.digest).sample(range(done), sample))
    survey, failures, times = Survey(keep=worst), Reasons(), Times()
    for number, commit in enumerate(archive.commits()):
        for failure in commit.report.failures:
            failures.add(failure)
        times.add(commit)
        if chosen is None or number in chosen:
            survey.add_shard(archive, commit.shard_id, commit.byte_size)
    settings = asdict(archive.plan.settings)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "iarn": version("iarn"),
        "format_version": FORMAT_VERSION,
        "totals": totals,
        "sample": {"shards": survey.shards, "of": done} if chosen is not None else None,
        "settings": {name: value for name, value in settings.items() if name != "target"},
        "parts": {part: survey.parts[part] for part in (*PARTS, "structure")},
        "tiers": [survey.tiers[tier].figures(tier) for tier in sorted(survey.tiers)],
        "unmeasured": survey.unmeasured,
        "psnr": survey.psnr.figures(3, 48),
        "ssim": survey.ssim.figures(5, 48),
        "worst": survey.worst,
        "kept": survey.kept.listed(),
        "failures": failures.listed(),
        "times": times.figures(),
    }


@dataclass
class Times:
    """When shards were under way: three numbers for each."""

    spans: list[tuple[float, float, int]] = field(default_factory=list)
    unknown: int = 0

    def add(self, commit: Commit) -> None:
        """Take in a commit's times, where it tells them."""
        if commit.begun is None or commit.ended is None or commit.ended < commit.begun:
            self.unknown += 1
        else:
            self.spans.append((commit.begun, commit.ended, commit.report.pixels))

    def figures(self, steps: int = 96) -> dict[str, Any]:
        """Return the time of all, throughput and shards under way in ``steps`` of it, and each shard where they are few."""
        if not self.spans:
            return {"shards": 0, "unknown": self.unknown}
        self.spans.sort()
        begun, ended = self.spans[0][0], max(span[1] for span in self.spans)
        seconds = max(ended - begun, 1e-3)
        step = seconds / steps
        pixels, busy = [0.0] * steps, [0.0] * steps
        for start, stop, count in self.spans:
            length = max(stop - start, 1e-3)
            first = min(steps - 1, int((start - begun) / step))
            for number in range(first, min(steps, math.ceil((start + length - begun) / step) or 1)):
                covered = min(stop - begun, (number + 1) * step) - max(start - begun, number * step)
                part = max(0.0, covered) / length if stop > start else float(number == first)
                pixels[number] += part * count
                busy[number] += part * length / step
        return {
            "shards": len(self.spans),
            "unknown": self.unknown,
            "begun": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
            "ended": datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "pixels": sum(span[2] for span in self.spans),
            "mpix_per_s": round(sum(span[2] for span in self.spans) / 1e6 / seconds, 3),
            "mpix_per_s_over_time": [round(value / 1e6 / step, 4) for value in pixels],
            "under_way_over_time": [round(value, 3) for value in busy],
            "spans": self._lanes(begun) if len(self.spans) <= MOST_SPANS else [],
        }

    def _lanes(self, begun: float) -> list[dict[str, float]]:
        """Return each shard's begin and end in seconds and the first lane that was free, as a person would draw them."""
        free: list[float] = []
        found = []
        for start, stop, _ in self.spans:
            lane = next((number for number, since in enumerate(free) if since <= start), len(free))
            free[lane : lane + 1] = [stop]
            found.append({"begun": round(start - begun, 3), "ended": round(stop - begun, 3), "lane": lane})
        return found


MOST_SPANS = 240
"""Shards that are drawn one by one."""

_HOLDERS = {
    "lr": {"lean", "balanced", "high", "floor", "exact-pixels", "exact"},
    "latent": {"balanced", "high", "floor"},
    "alpha": {"lean", "balanced", "high", "floor", "exact-pixels", "exact"},
    "original": {ORIGINAL, "exact-pixels", "exact"},
}


def _label(row: dict[str, Any]) -> str:
    return ORIGINAL if row["kind"] == ORIGINAL else str(row["tier"])


def _lengths(reader: Any, part: str, group: int) -> list[int]:
    values = (row[part] for row in reader.rows([part], [group]))
    return [len((value["bytes"] if isinstance(value, dict) else value) or b"") for value in values]


def _rounded(name: str, value: Any) -> Any:
    return round(value, {"psnr": 3, "ssim": 5}[name]) if name in ("psnr", "ssim") else value
