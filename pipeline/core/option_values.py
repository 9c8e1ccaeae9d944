"""Sizes as users write them, as numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from pipeline.core.errors import InvalidOption


def parse_target(*, scale: str | None, max_side: str | None, max_pixels: str | None, size: str | None) -> dict[str, Any]:
    """Return the field of a target size that the one given option sets; raises InvalidOption where it is not one."""
    options = {"--scale": scale, "--max-side": max_side, "--max-pixels": max_pixels, "--size": size}
    given = {name: value for name, value in options.items() if value is not None}
    if len(given) != 1:
        raise InvalidOption("target size", " ".join(given) or "missing", f"give one of {', '.join(options)}.")
    if scale is not None:
        return {"scale": _parse_scale(scale)}
    if size is not None:
        return {"size": _parse_size(size)}
    ((option, text),) = given.items()
    return {option.removeprefix("--").replace("-", "_"): _parse_count(option, text)}


def _parse_scale(text: str) -> tuple[float, float]:
    """Return the vertical and the horizontal scale of ``2.5`` or ``2x3``; raises InvalidOption."""
    advice = "give a number from 1, as in 2.5, or height x width, as in 2x3; a scale below 1 would enlarge."
    parts = text.split("x")
    values = [float(part) for part in parts if re.fullmatch(r"\d{1,6}(\.\d{1,12})?", part)]
    if len(values) != len(parts) or len(values) > 2 or min(values) < 1:
        raise InvalidOption("--scale", text, advice)
    return values[0], values[-1]


def _parse_count(option: str, text: str) -> int:
    """Return the count of pixels of ``1024``, ``500k`` or ``1.5M``; raises InvalidOption with the name of the option."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)([kMG]?)", text)
    count = Fraction(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]] if match else Fraction(0)
    if count < 1 or count.denominator != 1:
        raise InvalidOption(option, text, "give a count of pixels from 1, as in 1024, 500k or 1.5M.")
    return int(count)


def _parse_size(text: str) -> tuple[int, int]:
    """Return the height and width of ``640x480``, which is width x height; raises InvalidOption."""
    match = re.fullmatch(r"([1-9]\d{0,6})x([1-9]\d{0,6})", text)
    if match is None:
        raise InvalidOption("--size", text, "give width x height in pixels, as in 640x480.")
    return int(match[2]), int(match[1])
