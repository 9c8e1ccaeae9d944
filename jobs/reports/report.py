"""What a job leaves for the morning: ``report.json``, beside the list of failures.

Both tell the job as a whole, the shards of earlier runs included, so a run that resumes it writes them anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from jobs.console import Reporter, Totals
from pipeline.stores.store import Store

REPORT = "report.json"
LISTED = 1000
"""Quarantined shards that a report names."""


def write_report(
    store: Store, reporter: Reporter, *, digest: str, settings: Mapping[str, Any], shards: int, **more: Any
) -> None:
    """Write how a job stands at the end of this run: totals, failures by reason, times, settings, digests and Ray's ids.

    ``digest`` is what names the job's commits, ``shards`` how many it has in all, ``more`` what else there is to tell.
    """
    totals, seconds = reporter.totals, reporter.seconds
    fresh = totals.pixels - reporter.resumed.pixels
    report = {
        "job": reporter.verb,
        "version": version("iarn"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": digest,
        "settings": settings,
        "shards": {"planned": shards, "done": totals.shards, "quarantined": totals.quarantined},
        "totals": _counts(totals),
        "failures_by_reason": dict(totals.reasons.most_common()),
        "kept_by_reason": dict(totals.kept.most_common()),
        "kept_beside_lrs": totals.whole,
        "lost": dict(totals.lost.most_common()),
        "examples": {
            reason: [asdict(each) for each in shown] for reason, shown in (totals.examples | totals.failure_examples).items()
        },
        "quarantined": totals.quarantined_ids[:LISTED],
        **more,
        "this_run": {
            "shards": totals.shards - reporter.resumed.shards,
            "seconds": round(seconds, 3),
            "mpix_per_s": round(fresh / 1e6 / max(seconds, 1e-3), 3),
            "most_actors": reporter.most_actors,
            "retries": reporter.retries,
            **reporter.times,
        },
        "ray": reporter.ray,
    }
    store.replace(REPORT, (json.dumps(report, ensure_ascii=False, indent=2) + "\n").encode(errors="backslashreplace"))


def _counts(totals: Totals) -> dict[str, int]:
    names = ("entries", "originals", "pixels", "bytes_in", "bytes_out")
    return {name: getattr(totals, name) for name in names} | {"failures": totals.failed}
