"""An image request of the IIIF to an engine: what becomes of a picture before it is a file (Image API 3.0, 4.3 to 4.6).

Region, size, turn, quality, format: in this order. Files have upright pixels and their colour profile; of the source's other
metadata they have none, for a tile is no copy of a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jobs.web.iiif.parameters import FORMATS, ImageParameters
from pipeline.core.errors import InvalidOption, SizeNotReachable, UnwritableImage
from pipeline.core.options import Limits
from pipeline.core.records import Entry, Pixels
from pipeline.pictures import writing
from pipeline.pictures.colour import is_for_grey
from pipeline.pictures.depth import in_8_bits, peak
from pipeline.pictures.picture import Picture
from pipeline.reading.requests import ImageRequest

CODING_QUALITY = 90
LOSSLESS_QUALITY = 100
"""Of bitonal images: what is black or white stays so."""

_LUMA = (299, 587, 114)  # of a thousand: ITU-R BT.601
_STRIP = 256


@dataclass(frozen=True, kw_only=True)
class TurnedRequest(ImageRequest):
    """An image as the IIIF asks for it: mirrored and turned clockwise by ``degrees``, then in a ``tone``, one of QUALITIES."""

    degrees: int = 0
    mirrored: bool = False
    tone: str = "default"

    @classmethod
    def of(cls, wanted: ImageParameters) -> TurnedRequest:
        """Return what an engine is asked for."""
        return cls(
            form=FORMATS[wanted.format],
            quality=LOSSLESS_QUALITY if wanted.quality == "bitonal" else CODING_QUALITY,
            size=wanted.size,
            region=wanted.region,
            degrees=wanted.degrees,
            mirrored=wanted.mirrored,
            tone=wanted.quality,
        )

    def written(self, picture: Picture) -> tuple[bytes, str]:
        """Return the file of a restored picture, in no other format than was asked for; raises InvalidOption."""
        shown = turned(picture, self.degrees, mirrored=self.mirrored)
        if self.tone == "bitonal" or not writing.carries_alpha(self.form):
            shown = on_white(shown)
        shown = in_tone(shown, self.tone)
        bare = replace(shown, orientation=1, icc=shown.profile, exif=None, xmp=None, parts=())
        try:
            return writing.encode(bare, format=self.form, quality=self.quality), self.form
        except UnwritableImage as error:
            raise InvalidOption("format", self.form, f"{error.detail}; ask for another, or for less.") from None


def is_given(entry: Entry, asked: ImageRequest, limits: Limits, pixel_limit: int) -> bool:
    """Return whether a view of an entry is within a service's limits; raises DamagedEntry."""
    try:
        asked.check(entry, limits, pixel_limit)
    except (InvalidOption, SizeNotReachable):
        return False
    return True


def turned(picture: Picture, degrees: int, *, mirrored: bool) -> Picture:
    """Return a picture reflected left and right where ``mirrored``, then turned clockwise by quarters; both are views."""

    def turn(pixels: Pixels) -> Pixels:
        return np.rot90(pixels[:, ::-1] if mirrored else pixels, -(degrees // 90))

    return replace(picture, pixels=turn(picture.pixels), alpha=None if picture.alpha is None else turn(picture.alpha))


def on_white(picture: Picture) -> Picture:
    """Return a picture without alpha: what shows through it is white."""
    if picture.alpha is None:
        return picture
    most = np.uint32(peak(picture.pixels))
    found = np.empty_like(picture.pixels)
    for rows in _strips(picture.pixels):
        alpha = picture.alpha[rows, :, None].astype(np.uint32)
        mixed = picture.pixels[rows] * alpha + most * (most - alpha)
        found[rows] = (mixed + most // 2) // most
    return replace(picture, pixels=found, alpha=None)


def in_tone(picture: Picture, tone: str) -> Picture:
    """Return a picture in a quality of 4.4: as it is, in grey, or in black and white, parted at half in every tile."""
    if tone in ("default", "color"):
        return picture
    pixels = picture.pixels if tone == "gray" else in_8_bits(picture.pixels)
    grey = np.empty(pixels.shape[:2], pixels.dtype)
    for rows in _strips(pixels):
        weighted = sum(pixels[rows, :, channel] * np.uint32(weight) for channel, weight in enumerate(_LUMA))
        grey[rows] = (weighted + np.uint32(500)) // np.uint32(1000)
    if tone == "bitonal":
        grey = np.where(grey > peak(grey) // 2, grey.dtype.type(peak(grey)), grey.dtype.type(0))
    shown = np.broadcast_to(grey[..., None], (*grey.shape, 3))
    icc = picture.profile if is_for_grey(picture.profile) else None
    return replace(picture, pixels=shown, grey=True, mode="L", icc=icc, parts=())


def _strips(pixels: Pixels) -> list[slice]:
    return [slice(start, start + _STRIP) for start in range(0, pixels.shape[0], _STRIP)]
