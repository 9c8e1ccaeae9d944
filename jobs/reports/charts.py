"""Charts as inline SVG: shapes alone, stretched to the width of the page; text stands beside them as text.

Shapes get their colours from the page's classes, so that they follow light, dark and print. Nothing but numbers goes in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

GAP = 0.12
"""Of a bar's width, left free between two bars."""

LANE = 10.0
"""Height of a lane in the units of its chart."""


@dataclass(frozen=True)
class Tick:
    """A label of an axis: how far along it stands, in percent, and what it says."""

    at: float
    text: str


def bars(values: Sequence[float]) -> str:
    """Return bars side by side, the highest as high as the chart."""
    most = max(values, default=0) or 1
    shapes = "".join(
        f'<rect x="{number + GAP / 2:g}" y="{100 - height:.2f}" width="{1 - GAP:g}" height="{height:.2f}"/>'
        for number, height in enumerate(100 * value / most for value in values)
        if height
    )
    return _svg(max(1, len(values)), 100, shapes)


def area(values: Sequence[float]) -> str:
    """Return a filled line through steps of equal length, the highest as high as the chart."""
    most = max(values, default=0) or 1
    points = " ".join(
        f"{at:g},{100 - 100 * value / most:.2f}" for number, value in enumerate(values) for at in (number, number + 1)
    )
    return _svg(max(1, len(values)), 100, f'<polygon points="0,100 {points} {len(values)},100"/>')


def lanes(spans: Sequence[dict[str, float]], seconds: float) -> str:
    """Return one line for each span of time, ``begun`` to ``ended`` seconds, in its ``lane``."""
    rows = 1 + int(max((span["lane"] for span in spans), default=0))
    width, shapes = 1000.0, ""
    for span in spans:
        left = width * span["begun"] / seconds
        length = max(2.0, width * (span["ended"] - span["begun"]) / seconds - 1.0)  # a gap between two that follow each other
        shapes += f'<rect x="{left:.1f}" y="{LANE * span["lane"] + 1:g}" width="{length:.1f}" height="{LANE - 2:g}"/>'
    return _svg(width, LANE * rows, shapes)


def lane_count(spans: Sequence[dict[str, float]]) -> int:
    """Return how many lanes spans take."""
    return 1 + int(max((span["lane"] for span in spans), default=0))


def ticks(low: float, high: float, *, most: int = 6) -> list[Tick]:
    """Return round numbers on an axis from ``low`` to ``high``, at most ``most`` of them."""
    if high <= low:
        return []
    step = next(step for step in _round_steps((high - low) / most) if (high - low) / step <= most)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [Tick(100 * (n * step - low) / (high - low), f"{n * step:.{digits}f}") for n in range(first, last + 1)]


def place(value: float, low: float, high: float) -> float:
    """Return where a value stands on an axis, in percent."""
    return 100 * (value - low) / (high - low) if high > low else 50.0


def _round_steps(least: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(least))
    return [factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= least * (1 - 1e-9)]


def _svg(width: float, height: float, shapes: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>'
