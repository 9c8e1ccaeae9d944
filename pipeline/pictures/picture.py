"""A decoded picture, and what is done with pixels whatever file they are of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.core.records import Pixels, Size


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded source: ``pixels`` (H, W, 3) RGB and ``alpha`` (H, W) or None, uint8, both upright.

    ``grey`` says that the source had no colour channels (the three are equal). ``orientation`` (1 to 8), ``mode`` and
    ``format`` (Pillow's names) are the source file's, ``icc`` and ``xmp`` its bytes. ``exif`` is its EXIF block with its
    orientation tag, without the prefix that JPEG puts before it; a TIFF, whose own tags these are, gets a block of them.
    """

    pixels: Pixels
    alpha: Pixels | None
    grey: bool
    orientation: int
    mode: str
    format: str
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None


def is_grey(mode: str | None) -> bool:
    """Return whether a source of Pillow's ``mode`` had no colour channels."""
    return mode in {"L", "LA"}


def size_of(pixels: Pixels) -> Size:
    """Return the (height, width) of pixels (H, W, 3), or of a plane (H, W)."""
    return pixels.shape[0], pixels.shape[1]


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Return pixels (H, W, 3), or a plane (H, W), at ``size`` (height, width) in pixels, by antialiased bicubic (a = -0.5)."""
    return np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def label(pixels: Pixels, text: str, *, left: int, top: int, size: int = 14, grey: int = 0) -> Pixels:
    """Return a copy of pixels (H, W, 3) with ``text`` on them, ``size`` pixels high, its upper left corner at (left, top)."""
    canvas = Image.fromarray(pixels)
    ImageDraw.Draw(canvas).text((left, top), text, fill=(grey, grey, grey), font=ImageFont.load_default(size=size))
    return np.array(canvas)
