"""The scales that a network is measured at, as they are typed; light to import."""

from __future__ import annotations

import math

from pipeline.core.errors import InvalidOption


def parse_scales(text: str) -> tuple[tuple[float, float], ...]:
    """Parse ``1.5,2,2x3`` to (vertical, horizontal) pairs; raises InvalidOption."""
    scales = []
    for part in text.split(","):
        try:
            values = [float(value) for value in part.split("x")]
        except ValueError:
            values = []
        if not 1 <= len(values) <= 2 or not all(math.isfinite(value) and value >= 1 for value in values):
            raise InvalidOption("--scales", text, "give numbers from 1, as in 1.5,2,2x3 (height x width).")
        scales.append((values[0], values[-1]))
    return tuple(scales)
