"""The LR size that is asked for: as users write it, and as numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.core.errors import InvalidOption

MOST_SCALE = 256
"""The largest scale per axis of an LR, whatever the network reaches."""


@dataclass(frozen=True, kw_only=True)
class TargetSize:
    """The LR size that was asked for; exactly one field is set.

    ``scale`` is (vertical, horizontal), each at least 1; ``max_side`` and ``max_pixels`` keep the aspect ratio; ``size`` is
    (height, width).
    """

    scale: tuple[float, float] | None = None
    max_side: int | None = None
    max_pixels: int | None = None
    size: tuple[int, int] | None = None

    @classmethod
    def parse(
        cls,
        *,
        scale: str | None = None,
        max_side: str | None = None,
        max_pixels: str | None = None,
        size: str | None = None,
    ) -> TargetSize:
        """Parse the options ``--scale 2.5 | 2x3``, ``--max-side 1024``, ``--max-pixels 1M``, ``--size 640x480``.

        Raises InvalidOption where not exactly one is given or its value makes no sense.
        """
        return cls(**_parse_target(scale=scale, max_side=max_side, max_pixels=max_pixels, size=size))

    def resolve(self, image: tuple[int, int]) -> tuple[int, int]:
        """Return the LR size (height, width) for an image of ``image`` (height, width).

        A scale rounds up, so that no scale is above the one asked for. No side is enlarged: where the target would enlarge
        one, the image's own size is returned.
        """
        height, width = image
        if self.scale is not None:
            # As decimals, the way they were typed: 1130 / 1.13 is a little above 1000 in floats.
            rows, columns = (Fraction(str(value)) for value in self.scale)
            return math.ceil(height / rows), math.ceil(width / columns)
        if self.size is not None:
            lr = self.size
        elif self.max_side is not None:
            part = min(Fraction(1), Fraction(self.max_side, max(image)))
            lr = (max(1, round(height * part)), max(1, round(width * part)))
        else:
            assert self.max_pixels is not None
            across = max(1, math.isqrt(self.max_pixels * width // height))
            down = max(1, min(math.isqrt(self.max_pixels * height // width), self.max_pixels // across))
            lr = image if height * width <= self.max_pixels else (down, min(across, self.max_pixels // down))
        return image if lr[0] > height or lr[1] > width else lr

    def __str__(self) -> str:
        if self.scale is not None:
            return f"scale {self.scale[0]:g}x{self.scale[1]:g}"
        if self.size is not None:
            return f"size {self.size[1]}x{self.size[0]}"
        return f"max-side {self.max_side}" if self.max_side is not None else f"max-pixels {self.max_pixels}"


def _parse_target(*, scale: str | None, max_side: str | None, max_pixels: str | None, size: str | None) -> dict[str, Any]:
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
    if max(values) > MOST_SCALE:
        raise InvalidOption("--scale", text, f"{MOST_SCALE} is the largest scale per axis.")
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
