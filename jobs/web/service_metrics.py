"""What a service shows to Prometheus: requests by status, seconds, restored pixels, the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as MEDIA_TYPE
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from pipeline.core.byte_cache import CacheState

__all__ = ["MEDIA_TYPE", "ServiceMetrics", "Shared"]

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Where the workers of a service count: files in a folder, one worker's by its number, mapped into its memory.

    A worker that is started in another's place goes on with its counts, so none are lost.
    """

    folder: Path
    worker: int

    def begin(self) -> None:
        """Have all metrics that this process makes from now on kept in the worker's files."""
        self.ended()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder)
        values.ValueClass = values.MultiProcessValue(lambda: self.worker)  # type: ignore[no-untyped-call]

    def ended(self) -> None:
        """Forget the gauges of a worker that is gone; its counts stay."""
        mark_process_dead(self.worker, self.folder)  # type: ignore[no-untyped-call]


class ServiceMetrics:
    """The metrics of a service, in a registry of their own. Labels are bounded: routes, methods, statuses.

    ``cache`` tells of this process's cache; ``shared`` is where the workers' metrics are summed, None for one process.
    """

    def __init__(self, cache: Callable[[], CacheState], shared: Shared | None = None) -> None:
        self._cache, self._shared = cache, shared
        self._seen = CacheState(values=0, bytes=0, hits=0, misses=0)
        self._registry = CollectorRegistry()
        if shared is not None:
            shared.begin()
        names = ("route", "method", "status")
        self._requests = self._counter("iarn_requests", "Answers by route, method and status", names)
        self._seconds = Histogram(
            "iarn_request_seconds", "Seconds to the end of an answer", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self._sent = self._counter("iarn_sent_bytes", "Bytes of bodies sent")
        self._under_way = self._gauge("iarn_requests_under_way", "Requests being answered")
        self._restores = self._counter("iarn_restores", "Restores by what they came to", ("outcome",))
        self._pixels = self._counter("iarn_restored_pixels", "Pixels of restored images")
        self._engine = self._counter("iarn_restore_seconds", "Seconds that replicas spent on restores")
        self._hits = self._counter("iarn_cache_hits", "Answers out of the cache")
        self._misses = self._counter("iarn_cache_misses", "Answers that were not in the cache")
        self._cached = self._gauge("iarn_cache_bytes", "Bytes in the cache")
        self._lost_lines = self._counter("iarn_access_log_lost", "Requests that the log could not take")
        self._gauge("iarn_workers", "Processes that answer").set(1)

    def begin(self) -> None:
        """Count a request that is being answered."""
        self._under_way.inc()

    def end(self, route: str, method: str, status: int, *, seconds: float, sent: int) -> None:
        """Count an answer, after ``sent`` bytes of its body."""
        self._under_way.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._sent.inc(sent)
        self._look_at_cache()

    def restored(self, outcome: str, *, pixels: int = 0, seconds: float = 0.0) -> None:
        """Count a restore as ``done``, ``refused``, ``failed`` or ``late``, the last for each who waited."""
        self._restores.labels(outcome).inc()
        self._pixels.inc(pixels)
        self._engine.inc(seconds)

    def line_lost(self) -> None:
        """Count a request that is not logged."""
        self._lost_lines.inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format, the sums over all workers."""
        if self._shared is None:
            return generate_latest(self._registry)
        summed = CollectorRegistry()
        MultiProcessCollector(summed, str(self._shared.folder))  # type: ignore[no-untyped-call]
        return generate_latest(summed)

    def _look_at_cache(self) -> None:
        seen, now = self._seen, self._cache()
        self._hits.inc(now.hits - seen.hits)
        self._misses.inc(now.misses - seen.misses)
        self._cached.set(now.bytes)
        self._seen = now

    def _counter(self, name: str, told: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, told, labels, registry=self._registry)

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(name, told, registry=self._registry, multiprocess_mode="livesum")
