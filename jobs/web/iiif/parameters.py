"""The grammar of image requests (IIIF Image API 3.0, section 4), and what a request means for an image of a known size.

    region / size / rotation / quality.format

Whatever cannot be met raises InvalidOption, which is a 400 (4.1 to 4.5). Text of any length is understood in bounded time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from pipeline.core.errors import InvalidOption
from pipeline.core.records import Size
from pipeline.pictures.region import Region

FORMATS: Mapping[str, str] = {"jpg": "jpeg", "png": "png", "webp": "webp", "avif": "avif"}
"""Formats by the extension that asks for them (4.5); jpg and png are those of level 2."""

QUALITIES = ("default", "color", "gray", "bitonal")

_NUMBER = r"(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"  # 4.7
_PIXELS = re.compile(r"(\d{1,20}),(\d{1,20}),(\d{1,20}),(\d{1,20})", re.ASCII)
_PERCENT = re.compile(rf"pct:({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER})", re.ASCII)
_SCALED = re.compile(rf"pct:({_NUMBER})", re.ASCII)
_WIDTH = re.compile(r"(\d{1,9}),", re.ASCII)
_HEIGHT = re.compile(r",(\d{1,9})", re.ASCII)
_BOX = re.compile(r"(!?)(\d{1,9}),(\d{1,9})", re.ASCII)
_TURN = re.compile(rf"(!?)({_NUMBER})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is given of one image at most, in pixels: of a ``side`` and in all (``area``); maxWidth and maxArea of 5.2."""

    side: int
    area: int


@dataclass(frozen=True, kw_only=True)
class ImageParameters:
    """One image request for one image: the region (None: all of it), its size before it is turned, the turn, and so on.

    ``size`` is (height, width), ``degrees`` are clockwise, after mirroring left and right. ``canonical`` is the request as 4.8
    writes it.
    """

    region: Region | None
    size: Size
    degrees: int
    mirrored: bool
    quality: str
    format: str
    canonical: str


def understand(
    region: str, size: str, rotation: str, quality: str, format: str, *, of: Size, bounds: Bounds
) -> ImageParameters:
    """Return what a request means for an image of the size ``of``, (height, width); raises InvalidOption."""
    rectangle = rectangle_of(region, of)
    own = rectangle.height, rectangle.width
    wanted = size_of(size, own, bounds)
    degrees, mirrored = turn_of(rotation)
    if quality not in QUALITIES:
        raise InvalidOption("quality", _short(quality), f"give one of {', '.join(QUALITIES)}.")
    if format not in FORMATS:
        raise InvalidOption("format", _short(format), f"give one of {', '.join(FORMATS)}.")
    quality = "default" if quality == "color" else quality  # they are the same (4.8)
    part = "full" if own == of else ",".join(map(str, rectangle))
    turn = f"{'!' * mirrored}{degrees}"
    return ImageParameters(
        region=None if own == of else rectangle,
        size=wanted,
        degrees=degrees,
        mirrored=mirrored,
        quality=quality,
        format=format,
        canonical=f"{part}/{_canonical_size(wanted, own, bounds)}/{turn}/{quality}.{format}",
    )


def rectangle_of(text: str, image: Size) -> Region:
    """Return the rectangle that a region (4.1) is of an image, cut off at its edges; of percentages, every pixel they touch.

    Raises InvalidOption where it is empty or beside the image.
    """
    height, width = image
    if text == "full":
        return Region(0, 0, width, height)
    if text == "square":
        side = min(image)
        return Region((width - side) // 2, (height - side) // 2, side, side)
    if (match := _PIXELS.fullmatch(text)) is not None:
        x, y, w, h = map(int, match.groups())
        left, top, right, bottom = x, y, x + w, y + h
    elif (match := _PERCENT.fullmatch(text)) is not None:
        across, down, wide, high = (Fraction(each) / 100 for each in match.groups())
        left, right = math.floor(across * width), math.ceil((across + wide) * width) if wide else 0
        top, bottom = math.floor(down * height), math.ceil((down + high) * height) if high else 0
    else:
        raise InvalidOption("region", _short(text), "give full, square, x,y,w,h in pixels or pct:x,y,w,h.")
    right, bottom = min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        raise InvalidOption("region", _short(text), f"nothing of the image, {width} x {height} pixels, is in it.")
    return Region(left, top, right - left, bottom - top)


def size_of(text: str, own: Size, bounds: Bounds) -> Size:
    """Return the size, (height, width), that a size parameter (4.2) is for a region of the size ``own``.

    Raises InvalidOption above the bounds, below one pixel, and where it would enlarge and has no ``^`` that says so. A box
    ``!w,h`` that the region would have to grow for is such a case to the IIIF's validator, and so here.
    """
    form, upscale = text.removeprefix("^"), text.startswith("^")
    if form == "max":
        return most_of(own, bounds, upscale=upscale)
    wanted, share = _asked_for(form, own)
    if min(wanted) < 1:
        raise InvalidOption("size", _short(text), "that is less than a pixel.")
    if not upscale and (wanted[0] > own[0] or wanted[1] > own[1] or share > 1):
        raise InvalidOption("size", _short(text), f"the region has {own[1]} x {own[0]} pixels; a ^ before it enlarges.")
    if form.startswith("!"):
        most = most_of(own, bounds, upscale=upscale)
        wanted = fitted(own, (min(wanted[0], most[0]), min(wanted[1], most[1])))
    if max(wanted) > bounds.side or wanted[0] * wanted[1] > bounds.area:
        shown = f"{wanted[1]}x{wanted[0]}"
        raise InvalidOption("size", shown, f"the service gives {bounds.side} pixels a side and {bounds.area} in all.")
    return wanted


def turn_of(text: str) -> tuple[int, bool]:
    """Return the degrees, 0 to 270, and whether it is mirrored before, of a rotation (4.3); raises InvalidOption."""
    match = _TURN.fullmatch(text)
    degrees = Fraction(match[2]) if match is not None else Fraction(-1)
    if match is None or degrees % 90 or not 0 <= degrees <= 360:
        raise InvalidOption("rotation", _short(text), "give 0, 90, 180 or 270, behind a ! to mirror first.")
    return int(degrees) % 360, bool(match[1])


def most_of(own: Size, bounds: Bounds, *, upscale: bool) -> Size:
    """Return the largest size within the bounds that a region of the size ``own`` is given at, its own unless ``upscale``."""
    height, width = own
    most = min(bounds.side, bounds.area)
    box = (
        min(most, max(1, math.isqrt(bounds.area * height // width))),
        min(most, max(1, math.isqrt(bounds.area * width // height))),
    )
    return fitted(own, box if upscale else (min(box[0], height), min(box[1], width)))


def fitted(own: Size, box: Size) -> Size:
    """Return the largest size of the shape of ``own`` within a box, at least one pixel a side; all (height, width)."""
    height, width = own
    if width * box[0] >= height * box[1]:
        return min(box[0], max(1, _rounded(Fraction(height * box[1], width)))), box[1]
    return box[0], min(box[1], max(1, _rounded(Fraction(width * box[0], height))))


def _asked_for(form: str, own: Size) -> tuple[Size, Fraction]:
    """Return the size that a form without its ``^`` asks for, whatever is given, and its share of the region for ``pct:n``."""
    if (match := _SCALED.fullmatch(form)) is not None:
        share = Fraction(match[1]) / 100
        return (_rounded(own[0] * share), _rounded(own[1] * share)), share
    if (match := _BOX.fullmatch(form)) is not None:
        size = int(match[3]), int(match[2])
        return fitted(own, size) if match[1] else size, Fraction(0)
    if (match := _WIDTH.fullmatch(form)) is not None:
        width = int(match[1])
        return (max(1, _rounded(Fraction(own[0] * width, own[1]))), width), Fraction(0)
    if (match := _HEIGHT.fullmatch(form)) is not None:
        height = int(match[1])
        return (height, max(1, _rounded(Fraction(own[1] * height, own[0])))), Fraction(0)
    raise InvalidOption("size", _short(form), "give max, w, or ,h or w,h or !w,h or pct:n, behind a ^ to enlarge.")


def _canonical_size(size: Size, own: Size, bounds: Bounds) -> str:
    if size == most_of(own, bounds, upscale=False):
        return "max"
    enlarged = size[0] > own[0] or size[1] > own[1]
    if enlarged and size == most_of(own, bounds, upscale=True):
        return "^max"
    return f"{'^' * enlarged}{size[1]},{size[0]}"


def _rounded(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
