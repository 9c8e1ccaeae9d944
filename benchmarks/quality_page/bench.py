"""What quality.py measures, and the scales that most of its sections are at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.page import Run
from iarn.network import Rescaler
from jobs.reports import sheet
from pipeline.core.records import Pixels
from pipeline.engines.engine import Engine

FIXED = ((2.0, 2.0), (4.0, 4.0))


@dataclass(frozen=True, kw_only=True)
class Bench(Run):
    """What is measured, and where the results go."""

    engine: Engine
    network: Rescaler
    weights: bytes
    sets: dict[str, list[Pixels]]
    samples: Path
    quick: bool

    def picture(self, name: str, pixels: Pixels) -> str:
        """Write a lossless WebP and return its link from the document."""
        (self.out / "images" / f"{name}.webp").write_bytes(sheet.as_file(pixels, "webp"))
        return f"images/{name}.webp"
