"""What a service shows to Prometheus: requests by status, seconds, restored pixels, the cache."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as MEDIA_TYPE

from pipeline.core.byte_cache import CacheState

__all__ = ["MEDIA_TYPE", "ServiceMetrics"]

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServiceMetrics:
    """The metrics of one service process, in a registry of their own. Labels are bounded: routes, methods, statuses."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        names = ("route", "method", "status")
        self._requests = Counter("iarn_requests", "Answers by route, method and status", names, registry=self._registry)
        self._seconds = Histogram(
            "iarn_request_seconds", "Seconds to the end of an answer", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self._sent = Counter("iarn_sent_bytes", "Bytes of bodies sent", registry=self._registry)
        self._under_way = Gauge("iarn_requests_under_way", "Requests being answered", registry=self._registry)
        self._restores = Counter("iarn_restores", "Restores by what they came to", ("outcome",), registry=self._registry)
        self._pixels = Counter("iarn_restored_pixels", "Pixels of restored images", registry=self._registry)
        self._engine = Counter("iarn_restore_seconds", "Seconds that replicas spent on restores", registry=self._registry)
        self._hits = Gauge("iarn_cache_hits", "Answers out of the cache", registry=self._registry)
        self._misses = Gauge("iarn_cache_misses", "Answers that were not in the cache", registry=self._registry)
        self._cached = Gauge("iarn_cache_bytes", "Bytes in the cache", registry=self._registry)

    def begin(self) -> None:
        """Count a request that is being answered."""
        self._under_way.inc()

    def end(self, route: str, method: str, status: int, *, seconds: float, sent: int) -> None:
        """Count an answer, after ``sent`` bytes of its body."""
        self._under_way.dec()
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._sent.inc(sent)

    def restored(self, outcome: str, *, pixels: int = 0, seconds: float = 0.0) -> None:
        """Count a restore as ``done``, ``refused``, ``failed`` or ``late``, the last for each who waited."""
        self._restores.labels(outcome).inc()
        self._pixels.inc(pixels)
        self._engine.inc(seconds)

    def text(self, cache: CacheState) -> bytes:
        """Return all of it in Prometheus' text format, with what the cache says of itself."""
        self._hits.set(cache.hits)
        self._misses.set(cache.misses)
        self._cached.set(cache.bytes)
        return generate_latest(self._registry)
