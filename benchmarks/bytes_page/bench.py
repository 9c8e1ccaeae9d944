"""What a run of rate_distortion.py was asked for, and the memory that lets it go on after a stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.support.page import Run
from pipeline.core.records import LrCodec, Settings, Tier
from pipeline.core.target import TargetSize


@dataclass(frozen=True, kw_only=True)
class Target:
    """A tier, and the floor in dB of PSNR-RGB where it has one."""

    tier: Tier
    floor: float | None = None

    def __str__(self) -> str:
        return self.tier.value if self.floor is None else f"{self.tier.value} {self.floor:g}"


@dataclass(frozen=True, kw_only=True)
class Bench(Run):
    """What was asked for, and where results go."""

    scales: Sequence[str]
    targets: Sequence[Target]
    floors: Sequence[float]
    codec: LrCodec
    weights: Path | None
    device: str
    limit: int | None
    cache: Path

    def settings(self, scale: str, target: Target) -> Settings:
        """Return the settings of one archive; nothing is kept as original for its size."""
        size = TargetSize.parse(scale=scale)
        return Settings(target=size, tier=target.tier, floor=target.floor, max_ratio=None, lr_codec=self.codec)

    def remembered(self, what: object, make: Callable[[], Any]) -> Any:
        """Return the JSON value of ``make``, or the one that it gave when ``what`` was made before."""
        path = self.cache / f"{digest(json.dumps(what, sort_keys=True).encode())}.json"
        if path.is_file():
            return json.loads(path.read_bytes())
        value = make()
        self.cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(value), encoding="utf-8")
        part.replace(path)
        return value


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
