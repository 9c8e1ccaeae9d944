"""A decoded picture, and what is done with pixels whatever file they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.core.records import Carried, Pixels, Size
from pipeline.pictures import colour
from pipeline.pictures.depth import is_deep, peak

Box = tuple[float, float, float, float]
"""Left, top, right and lower edge of a part of a picture, between its pixels as well."""

_UNWEIGHTED = 2.0
"""Alpha, of 255, by which colours count unweighted: what is hardly shown keeps smooth colours, which code well."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded source: ``pixels`` (H, W, 3) RGB and ``alpha`` (H, W) or None, both uint8 or both uint16, upright.

    ``grey`` says that the three channels are equal, whatever the file's are. ``orientation`` (1 to 8), ``mode`` and
    ``format`` (Pillow's names; the modes are those of 8 bits) are the source file's, ``icc`` and ``xmp`` its bytes. ``exif``
    is its EXIF block with its orientation tag, without the prefix that JPEG puts before it; a TIFF, whose own tags these are,
    gets a block of them. ``parts`` are what a file of the same format gets back as it was, and ``lost``
    the words for what no file written from this picture will have. ``beyond`` says how the source is more than these pixels,
    as in "it has 10 bits per channel"; None where they are all of it. Of ``frames``, or pages, the first is shown.
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
    parts: tuple[Carried, ...] = ()
    lost: tuple[str, ...] = ()
    beyond: str | None = None
    frames: int = 1

    @property
    def bits(self) -> int:
        """Bits per channel of the pixels, 8 or 16."""
        return 8 * self.pixels.itemsize

    @property
    def profile(self) -> bytes | None:
        """The colour profile, or one that means what the source says of its colours in another way; None for sRGB."""
        first = any(part.name == "cICP" for part in self.parts)  # PNG, third edition, 4.3: it goes before a profile
        return (None if first else self.icc) or colour.profile_of(self.parts)


def is_grey(mode: str | None) -> bool:
    """Return whether a source of Pillow's ``mode`` had no colour channels."""
    return mode in {"L", "LA"}


def size_of(pixels: Pixels) -> Size:
    """Return the (height, width) of pixels (H, W, 3), or of a plane (H, W)."""
    return pixels.shape[0], pixels.shape[1]


def resize(pixels: Pixels, size: Size, box: Box | None = None) -> Pixels:
    """Return pixels (H, W, 3), or a plane (H, W), at ``size`` (height, width) in pixels, by antialiased bicubic (a = -0.5).

    Of ``box`` alone where it is given; what is beside it reaches its edges, as in the whole.
    """
    if not is_deep(pixels):
        return np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC, box))
    found = np.empty((*size, *pixels.shape[2:]), pixels.dtype)
    for channel in np.ndindex(pixels.shape[2:]):
        found[..., *channel] = _rounded(_resize_plane(pixels[..., *channel], size, box=box), pixels.dtype)
    return found


def resize_with_alpha(pixels: Pixels, alpha: Pixels | None, size: Size, box: Box | None = None) -> tuple[Pixels, Pixels | None]:
    """Return pixels and alpha as ``resize`` does, colours weighted by alpha, so that hidden ones do not reach the edges.

    Where nothing is shown the colours are those of ``resize``.
    """
    plain = resize(pixels, size, box)
    most = peak(pixels)
    if alpha is None or alpha.min() == most:
        return plain, None if alpha is None else resize(alpha, size, box)
    weights = alpha.astype(np.float32)
    shown, unweighted = np.maximum(_resize_plane(weights, size, box=box), 0), _UNWEIGHTED * most / 255
    for channel in range(3):
        weighted = _resize_plane(pixels[..., channel] * weights, size, box=box)
        colour = (weighted + unweighted * plain[..., channel]) / (shown + unweighted)
        plain[..., channel] = _rounded(colour, plain.dtype)
    return plain, resize(alpha, size, box)


def bled(pixels: Pixels, alpha: Pixels | None, reach: int) -> Pixels:
    """Return pixels whose hidden colours, where alpha is 0 and within some ``reach`` pixels of what is shown, go on from it.

    For resizing that knows no alpha.
    """
    if alpha is None or alpha.min() > 0:
        return pixels
    height, width = alpha.shape
    small = (max(1, height // max(1, reach)), max(1, width // max(1, reach)))
    weights = alpha.astype(np.float32)
    shown = _resize_plane(_resize_plane(weights, small, Image.Resampling.BOX), (height, width), Image.Resampling.BILINEAR)
    hidden = (alpha == 0) & (shown > 0)
    found = pixels.copy()
    for channel in range(3):
        weighted = _resize_plane(pixels[..., channel] * weights, small, Image.Resampling.BOX)
        weighted = _resize_plane(weighted, (height, width), Image.Resampling.BILINEAR)
        found[..., channel][hidden] = _rounded(weighted[hidden] / shown[hidden], found.dtype)
    return found


def _rounded(values: NDArray[Any], kind: np.dtype[Any]) -> Pixels:
    found: Pixels = np.clip(np.rint(values), 0, np.iinfo(kind).max).astype(kind)
    return found


def _resize_plane(
    plane: NDArray[Any], size: Size, by: Image.Resampling = Image.Resampling.BICUBIC, box: Box | None = None
) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(plane.astype(np.float32, copy=False)).resize((size[1], size[0]), by, box), np.float32)


def label(pixels: Pixels, text: str, *, left: int, top: int, size: int = 14, grey: int = 0) -> Pixels:
    """Return a copy of pixels (H, W, 3) with ``text`` on them, ``size`` pixels high, its upper left corner at (left, top)."""
    canvas = Image.fromarray(pixels)
    ImageDraw.Draw(canvas).text((left, top), text, fill=(grey, grey, grey), font=ImageFont.load_default(size=size))
    return np.array(canvas)
