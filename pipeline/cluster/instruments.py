"""What a job shows on Ray's Prometheus endpoint. Workers report numbers; the driver, which has them all, publishes here.

Every name has Ray's prefix there, ``ray_``. Labels are bounded: the job's verb, the cluster's nodes, and fixed sets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from pipeline.cluster.actor import Reading
from pipeline.core.progress import BUSY as BUSY_SECONDS
from pipeline.core.progress import QUEUES, STAGES

COUNTED = {
    "assets": ("iarn_images_total", "Images that workers have been through"),
    "pixels": ("iarn_pixels_total", "Pixels of images rescaled, restored or checked"),
    "bytes_in": ("iarn_read_bytes_total", "Bytes of images read"),
    "bytes_out": ("iarn_written_bytes_total", "Bytes written to the store"),
}
"""Totals of workers by their names in a reading."""

STAGE_SECONDS = "iarn_stage_seconds_total"
QUEUED = "iarn_queued_images"
BUSY = "iarn_engine_busy_share"
ACTORS = "iarn_actors"
SHARDS = "iarn_shards_total"
UNDER_WAY = "iarn_shards_under_way"
FAILURES = "iarn_failures_total"
ORIGINALS = "iarn_originals_total"

METRICS = (*(name for name, _ in COUNTED.values()), STAGE_SECONDS, QUEUED, BUSY, ACTORS, SHARDS, UNDER_WAY, FAILURES, ORIGINALS)
"""Every metric of a job, without Ray's prefix."""


class Instruments:
    """The metrics of one job; ``verb`` tells its kind."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._counted = {key: Counter(name, about, ("job", "node")) for key, (name, about) in COUNTED.items()}
        self._seconds = Counter(STAGE_SECONDS, "Seconds spent in each stage, added up over threads", ("job", "node", "stage"))
        self._queued = Gauge(QUEUED, "Images under way or ready ahead of the network and behind it", ("job", "node", "queue"))
        self._busy = Gauge(BUSY, "Share of the time that the engines of a node were at work", ("job", "node"))
        self._actors = Gauge(ACTORS, "Actors that are up, and that wait for room", ("job", "state"))
        self._shards = Counter(SHARDS, "Shards that ended, and tries that are made again", ("job", "outcome"))
        self._under_way = Gauge(UNDER_WAY, "Shards that actors have at work", ("job",))
        self._failures = Counter(FAILURES, "Images and shards that failed, by class of reason", ("job", "reason"))
        self._originals = Counter(ORIGINALS, "Images kept as they were, by class of reason", ("job", "reason"))
        self._at_work: dict[str, float] = {}
        self._since = time.monotonic()

    def read(self, node: str, before: Reading, now: Reading) -> None:
        """Take what a worker on ``node`` has counted since ``before``."""
        grown = {name: value - before.counts.get(name, 0) for name, value in now.counts.items()}
        for name, counter in self._counted.items():
            _grow(counter, grown.get(name, 0), {"job": self._verb, "node": node})
        for stage in STAGES:
            _grow(self._seconds, grown.get(stage, 0), {"job": self._verb, "node": node, "stage": stage})
        self._at_work[node] = self._at_work.get(node, 0) + grown.get(BUSY_SECONDS, 0)

    def survey(self, readings: Mapping[str, list[Reading]], *, waiting: int, under_way: int) -> None:
        """Take what all workers show now, by their nodes, with how many actors wait for room and shards are under way."""
        now = time.monotonic()
        passed, self._since = max(now - self._since, 1e-3), now
        for node in {*self._at_work, *readings}:
            here = readings.get(node, [])
            busy = self._at_work.pop(node, 0.0) / passed / max(1, len(here))
            self._busy.set(min(1.0, busy), {"job": self._verb, "node": node})
            for queue in QUEUES:
                depth = sum(reading.queued.get(queue, 0) for reading in here)
                self._queued.set(depth, {"job": self._verb, "node": node, "queue": queue})
        self._actors.set(sum(map(len, readings.values())), {"job": self._verb, "state": "up"})
        self._actors.set(waiting, {"job": self._verb, "state": "waiting"})
        self._under_way.set(under_way, {"job": self._verb})

    def ended(self, outcome: str, failures: Mapping[str, int], originals: Mapping[str, int]) -> None:
        """Count a shard that ended as ``done`` or ``quarantined``, or is ``retried``, with what it tells by class of reason."""
        self._shards.inc(1, {"job": self._verb, "outcome": outcome})
        for reason, count in failures.items():
            _grow(self._failures, count, {"job": self._verb, "reason": reason})
        for reason, count in originals.items():
            _grow(self._originals, count, {"job": self._verb, "reason": reason})


def _grow(counter: Counter, amount: float, labels: dict[str, str]) -> None:
    if amount > 0:  # a counter takes nothing else
        counter.inc(amount, labels)
