"""Files of 16 bits a channel, whose samples Pillow rounds to 8, or mixes up.

Source: TIFF 6.0, 8 (PhotometricInterpretation) and 18 (ExtraSamples, SampleFormat); W3C PNG, 11.3.1.1 (tRNS); Netpbm, ppm(5)
and pgm(5): of two bytes a sample the first is the higher one; ISO/IEC 15444-1, I.5.3.6 (cdef).
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, TiffImagePlugin

from pipeline.containers.tiff import Directory
from pipeline.core.errors import UndecodableImage, UnsupportedImage
from pipeline.core.records import Pixels
from pipeline.decoders import headers
from pipeline.decoders.unusual import jpeg2000_samples, tiff_samples
from pipeline.pictures import codecs
from pipeline.pictures.orientation import upright

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's name of a mode, by its channels."""

_BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _SAMPLE_FORMAT = 258, 262, 277, 338, 339
_WHITE_IS_ZERO, _ALPHA, _UNSIGNED = 0, 2, 1
_COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3}
_PNM: dict[Any, int] = {("raw", "I;16B"): 1, ("ppm", ("RGB", 65535)): 3}  # channels, by how Pillow would decode them
_COMPONENT = b"\x0f\1\1"  # of JPEG 2000: 16 bits, unsigned, a sample for each pixel


def samples_of(image: ImageFile.ImageFile, data: bytes, pixel_limit: int) -> NDArray[np.uint16] | None:
    """Return the samples (H, W, C), as they are stored, of a file of one picture of 16 bits whose header is open as ``image``.

    They are grey, grey and alpha, RGB, or RGBA. None for other formats than PNG, TIFF, binary PGM and PPM, and JPEG 2000, and
    for what is more than that: premultiplied, of signed or floating-point samples, with one transparent colour, or a channel
    that is not called alpha; and where it is damaged, which Pillow may bear, or will tell.
    """
    samples: NDArray[Any] | None = None
    with suppress(UndecodableImage, UnsupportedImage):  # where imagecodecs is not installed, Pillow's 8 bits will do
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            samples = _of_tiff(data, pixel_limit)
        elif image.format == "PNG" and "transparency" not in image.info:
            samples = codecs.decode_samples("png", data)
        elif image.format == "PPM":
            samples = _of_pnm(image, data)
        elif image.format == "JPEG2000":
            samples = _of_jpeg2000(data, pixel_limit)
    if samples is None or samples.dtype != np.uint16:
        return None
    return samples.reshape(*samples.shape[:2], -1)


def _of_tiff(data: bytes, pixel_limit: int) -> NDArray[Any] | None:
    numbers = Directory(data).numbers
    photometric, channels = (numbers(_PHOTOMETRIC) or [1])[0], (numbers(_SAMPLES) or [1])[0]
    colours = _COLOURS.get(photometric)
    if colours is None or set(numbers(_BITS)) != {16} or set(numbers(_SAMPLE_FORMAT)) - {_UNSIGNED}:
        return None
    if (channels, numbers(_EXTRA)) not in ((colours, []), (colours + 1, [_ALPHA])):
        return None
    samples = tiff_samples(data, pixel_limit)[1]
    if photometric == _WHITE_IS_ZERO:
        samples = samples.reshape(*samples.shape[:2], -1).copy()
        samples[..., 0] = np.invert(samples[..., 0])
    return samples


def _of_pnm(image: ImageFile.ImageFile, data: bytes) -> NDArray[Any] | None:
    coding, _, start, arguments = image.tile[0]
    shape = image.height, image.width, _PNM.get((coding, arguments), 0)
    body = memoryview(data)[start : start + 2 * math.prod(shape)]
    return np.frombuffer(body, ">u2").reshape(shape).astype(np.uint16) if 0 < len(body) == 2 * math.prod(shape) else None


def _of_jpeg2000(data: bytes, pixel_limit: int) -> NDArray[Any] | None:
    _, components = headers.jpeg2000_frame(data)
    channels = len(components)
    if channels not in MODES or set(components) != {_COMPONENT}:
        return None
    if channels % 2 == 0 and not headers.has_straight_alpha(data, channels):
        return None
    return jpeg2000_samples(data, pixel_limit)


def unpacked(samples: NDArray[np.uint16], orientation: int) -> tuple[Pixels, Pixels | None]:
    """Return upright pixels (H, W, 3) and alpha (H, W) or None of samples (H, W, C) that are stored in an ``orientation``."""
    shown = upright(samples, orientation)
    height, width, channels = shown.shape
    colours = shown[..., : channels - (channels % 2 == 0)]
    pixels = np.ascontiguousarray(np.broadcast_to(colours, (height, width, 3)))
    return pixels, np.ascontiguousarray(shown[..., -1]) if channels % 2 == 0 else None
