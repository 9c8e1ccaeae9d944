"""`iarn report`: what an archive amounts to, as one page to look at, and the same figures as JSON.

The page is one file: no script, nothing fetched, pictures inside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from jobs.console import size
from jobs.reports import charts
from jobs.reports.closeups import SIDE, Closeup, closeups, data_uris
from jobs.reports.figures import figures
from jobs.requests import ReportJob
from pipeline.core.errors import AlreadyExists
from pipeline.reading.reader import open_archive
from pipeline.stores.base import local_errors

TEMPLATE = "archive_report.html"
MARK = '<meta name="generator" content="iarn report">'
"""Tells a report from other pages, which are not overwritten."""

NBSP = "\N{NO-BREAK SPACE}"

PART_NAMES = {
    "lr": "LRs",
    "latent": "latents",
    "alpha": "alpha",
    "original": "originals",
    "sidecars": "sidecars",
    "metadata": "EXIF, ICC, XMP and other parts of files",
    "structure": "figures and structure",
}


def report(job: ReportJob) -> int:
    """Write the report of an archive as :func:`write` does, and print where."""
    for path in write(job):
        print(path)
    return 0


def write(job: ReportJob) -> tuple[Path, ...]:
    """Write the report of an archive in place of an older one; return its files. Raises AlreadyExists for any other file."""
    check_replaceable(job.out)
    archive = open_archive(job.archive, device=job.device, access=job.archive_access)
    found = figures(archive.archive, sample=job.sample, worst=job.worst)
    page = render(found, closeups(archive, found["worst"], job.source_access))
    with local_errors(str(job.out)):
        job.out.parent.mkdir(parents=True, exist_ok=True)
        job.out.write_text(page, encoding="utf-8", errors="backslashreplace")
        if not job.as_json:
            return (job.out,)
        path = figures_path(job.out)
        text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return job.out, path


def figures_path(page: Path) -> Path:
    """Return where the figures of a page go: not ``report.json``, which is a job's own in its archive."""
    return page.with_name(f"{page.stem}.figures.json")


def check_replaceable(path: Path) -> None:
    """Raise AlreadyExists where there is a file that is no report."""
    with local_errors(str(path)):
        if path.exists() and (not path.is_file() or MARK.encode() not in path.read_bytes()[:1000]):
            raise AlreadyExists(str(path))


def render(found: Mapping[str, Any], pictures: Sequence[Closeup]) -> str:
    """Return the page of an archive's figures and of close-ups of its worst entries."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "size": size_together,
        "count": count,
        "span": span,
        "when": when,
        "share": share,
        "pixels": pixels,
        "pyid": id,
        "until": until,
    }
    text = resources.files("jobs.reports").joinpath(TEMPLATE).read_text(encoding="utf-8")
    names = {
        "mark": MARK,
        "title": found["totals"]["archive"].rstrip("/").rpartition("/")[2],
        "closeups": pictures,
        "side": SIDE,
        "uris": data_uris(pictures),
        "part_names": PART_NAMES,
        "bytes": _bytes(found),
        "psnr_chart": _histogram(found["psnr"]),
        "ssim_chart": _histogram(found["ssim"]),
        "time_chart": _times(found["times"]),
    }
    return environment.from_string(text).render(**found, **names)


def _bytes(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the bars of bytes are drawn from: lengths in percent of the longer one."""
    parts = {name: stored for name, stored in found["parts"].items() if stored}
    bytes_in = sum(tier["bytes_in"] for tier in found["tiers"])
    bytes_out = sum(parts.values())
    longest = max(bytes_in, bytes_out, 1)
    lengths = {name: 100 * stored / longest for name, stored in parts.items()}
    return {"in": bytes_in, "out": bytes_out, "before": 100 * bytes_in / longest, "parts": parts, "lengths": lengths}


def _histogram(values: Mapping[str, Any]) -> dict[str, Any] | None:
    if not values["entries"]:
        return None
    low, high = values["low"], values["low"] + values["width"] * len(values["bars"])
    marks = {name: charts.place(values[name], low, high) for name in ("p10", "median", "p90")}
    return {"svg": charts.bars(values["bars"]), "ticks": charts.ticks(low, high), "marks": marks, "most": max(values["bars"])}


def _times(values: Mapping[str, Any]) -> dict[str, Any] | None:
    if not values["shards"]:
        return None
    rate = values["mpix_per_s_over_time"]
    unit, name = next(
        (unit, name)
        for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
        if values["seconds"] >= 2 * unit or unit == 1
    )
    return {
        "rate": charts.area(rate),
        "most": max(rate),
        "under_way": charts.area(values["under_way_over_time"]),
        "most_under_way": max(values["under_way_over_time"]),
        "lanes": charts.lanes(values["spans"], values["seconds"]) if values["spans"] else None,
        "lane_count": charts.lane_count(values["spans"]),
        "ticks": charts.ticks(0, values["seconds"] / unit),
        "unit": name,
    }


def size_together(value: float) -> str:
    """Return bytes in a person's unit, which is not parted from its number at the end of a line."""
    return size(value).replace(" ", NBSP)


def count(value: float) -> str:
    """Return a count with its thousands apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def pixels(value: float) -> str:
    """Return a count of pixels in megapixels."""
    return f"{count(round(value / 1e6, 1))}{NBSP}MPix"


def share(part: float, whole: float) -> str:
    """Return a part of a whole in percent, with as many digits as tell something."""
    if not whole:
        return "\N{EN DASH}"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return f"<{NBSP}0.1{NBSP}%"
    return f"{percent:.{int(0 < percent < 99.5)}f}{NBSP}%"


def span(seconds: float) -> str:
    """Return a length of time as a person would say it."""
    if seconds < 60:
        return f"{seconds:.1f}{NBSP}s"
    minutes = math.floor(seconds / 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {seconds - 60 * minutes:.0f}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"


def when(moment: str) -> str:
    """Return a moment, ISO 8601 in UTC, to the minute."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M} UTC"


def until(begun: str, ended: str) -> str:
    """Return two moments as a stretch of time; the day is said once where it is one."""
    first, last = datetime.fromisoformat(begun), datetime.fromisoformat(ended)
    if first.date() != last.date():
        return f"{when(begun)} to {when(ended)}"
    return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC" if f"{first:%H:%M}" != f"{last:%H:%M}" else when(begun)
