"""JPEG XL: lossless for LRs, lossy for the detail layer; the only importer of imagecodecs.

One thread per call, because many calls run side by side; the GIL is released inside. A colour profile cannot be embedded:
the library offers no way to, so what is written declares sRGB (or a grey of sRGB's gamma).
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from pipeline.errors import UndecodableImage
from pipeline.records import Pixels

_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")

LOSSLESS_EFFORT = 3
"""Measured on eight photographs at 800 pixels, one thread: 10.23 bits per pixel in 0.16 s/MP (effort 1: 12.1 in 0.01; 7: 9.99
in 1.65)."""


def _library() -> ModuleType:
    import imagecodecs  # not at the top: training decodes with Pillow alone, on machines without it

    return imagecodecs


def is_jxl(data: bytes) -> bool:
    """Return whether bytes begin as JPEG XL does, bare or in a container (ISO/IEC 18181-2)."""
    return data.startswith(_SIGNATURES)


def encode_jxl_lossless(pixels: Pixels, *, effort: int = LOSSLESS_EFFORT) -> bytes:
    """Code uint8 (H, W) or (H, W, C), C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA, so that the same values come back.

    ``effort`` is 1 (fast) to 9 (small). The same pixels give the same bytes.
    """
    return bytes(_library().jpegxl_encode(np.ascontiguousarray(pixels), lossless=True, effort=effort, numthreads=1))


def encode_jxl_lossy(pixels: Pixels, *, distance: float, effort: int) -> bytes:
    """Code uint8 (H, W, 3) RGB at a Butteraugli ``distance`` (1 is visually lossless, more is smaller) and effort 1 to 9."""
    return bytes(
        _library().jpegxl_encode(np.ascontiguousarray(pixels), lossless=False, distance=distance, effort=effort, numthreads=1)
    )


def decode_jxl(data: bytes) -> Pixels:
    """Return the uint8 pixels (H, W) or (H, W, C) of a JPEG XL picture; raises UndecodableImage where it is damaged."""
    try:
        pixels = np.asarray(_library().jpegxl_decode(data, numthreads=1))
    except (RuntimeError, ValueError, MemoryError, OverflowError, TypeError) as error:  # JpegxlError is a RuntimeError
        raise UndecodableImage(f"JPEG XL: {' '.join(str(error).split())}") from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise UndecodableImage(f"JPEG XL: pixels of {pixels.dtype} and shape {pixels.shape} are no 8-bit picture")
    return pixels
