"""The demo's picture: a crop of each photograph as it was, as its LR, and as it came back, all at 1:1 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.records import Pixels
from pipeline.pictures.picture import Picture, label
from pipeline.pictures.writing import encode

CROP = 192
"""Side of a crop in source pixels."""

NARROWEST = 124
"""Width of a column at least, for what is written there."""

_GAP = 12
_TITLE, _HEADING, _CAPTION = 38, 24, 30
_PAPER, _INK, _FAINT = 252, 20, 110


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One crop, (h, w, 3) uint8 of at most CROP a side, and the line below it."""

    pixels: Pixels
    caption: str


def crop(pixels: Pixels, place: tuple[int, int], divisor: float = 1.0) -> Pixels:
    """Return what CROP x CROP source pixels at ``place`` (top, left) are in ``pixels`` (H, W, 3), ``divisor`` times smaller."""
    top, left = (round(edge / divisor) for edge in place)
    side = round(CROP / divisor)
    return pixels[top : top + side, left : left + side]


def draw(title: str, headings: Sequence[str], rows: Sequence[Sequence[Panel]]) -> Pixels:
    """Return a sheet (H, W, 3) uint8: a title, a column for each heading, a row of panels for each photograph."""
    widths = [max(NARROWEST, *(row[column].pixels.shape[1] for row in rows)) for column in range(len(headings))]
    lefts = [_GAP + column * _GAP + sum(widths[:column]) for column in range(len(headings))]
    height = _TITLE + _HEADING + len(rows) * (CROP + _CAPTION) + _GAP
    sheet = np.full((height, lefts[-1] + widths[-1] + _GAP, 3), _PAPER, np.uint8)
    texts = [(title, _GAP, _GAP, 16, _INK)]
    texts += [(heading, left, _TITLE + 3, 14, _INK) for heading, left in zip(headings, lefts, strict=True)]
    for index, row in enumerate(rows):
        top = _TITLE + _HEADING + index * (CROP + _CAPTION)
        for panel, left in zip(row, lefts, strict=True):
            tall, wide = panel.pixels.shape[:2]
            sheet[top : top + tall, left : left + wide] = panel.pixels
            texts.append((panel.caption, left, top + CROP + 4, 12, _FAINT))
    for text, left, top, size, grey in texts:
        sheet = label(sheet, text, left=left, top=top, size=size, grey=grey)
    return sheet


def as_file(pixels: Pixels, extension: str) -> bytes:
    """Return pixels (H, W, 3) as a lossless PNG or WebP, by ``extension``."""
    picture = Picture(
        pixels=pixels, alpha=None, grey=False, orientation=1, mode="RGB", format="PNG", icc=None, exif=None, xmp=None
    )
    return encode(picture, format=extension, quality=100)
