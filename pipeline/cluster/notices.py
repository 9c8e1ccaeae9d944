"""What a job is told while its shards are under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Where a job stands while shards are under way; ``actors`` counts those that have started, ``room`` those that fit.

    ``stages`` are the seconds of each over all threads, ``busy_share`` that of the actors' time in which their engines work.
    """

    assets: int = 0
    pixels: int = 0
    bytes_in: int = 0
    actors: int = 0
    room: int = 0
    stages: Mapping[str, float] = field(default_factory=dict)
    busy_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that happened beside the results: an actor came or went, a shard ended there or is tried again."""

    event: str
    shard: str | None = None
    actor: str | None = None
    node: str | None = None
    reason: str | None = None
    seconds: float | None = None
    count: int | None = None
    ray: Mapping[str, str] | None = None
