"""JPEG XL of pictures and of JPEG files, PNG and JPEG 2000 of 16 bits, and Zstandard; the only importer of imagecodecs.

One thread per call, because many calls run side by side; the GIL is released inside. A colour profile cannot be embedded:
the library offers no way to, so what is written declares sRGB (or a grey of sRGB's gamma).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UndecodableImage, UnsupportedImage, UnwritableImage
from pipeline.core.records import Pixels

_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")

LOSSLESS_EFFORT = 3
"""Measured on eight photographs at 800 pixels, one thread: 10.23 bits per pixel in 0.16 s/MP (effort 1: 12.1 in 0.01; 7: 9.99
in 1.65)."""

PNG_LEVEL = 4
"""Measured in ``pipeline.pictures.pillow``, for 8 bits."""

_REFUSALS = (RuntimeError, ValueError, MemoryError, OverflowError, TypeError, IndexError)  # the library's own are RuntimeErrors


def _library() -> ModuleType:
    try:
        import imagecodecs  # not at the top: training decodes with Pillow alone, on machines without it
    except ImportError:
        raise UnsupportedImage("imagecodecs, which decodes it, is not installed") from None
    return imagecodecs


def is_jxl(data: bytes) -> bool:
    """Return whether bytes begin as JPEG XL does, bare or in a container (ISO/IEC 18181-2)."""
    return data.startswith(_SIGNATURES)


def encode_jxl_lossless(pixels: Pixels, *, effort: int = LOSSLESS_EFFORT) -> bytes:
    """Code uint8 or uint16 (H, W) or (H, W, C), C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA, so that the same values come back.

    ``effort`` is 1 (fast) to 9 (small). The same pixels give the same bytes. Raises UnwritableImage where it cannot.
    """
    try:
        return bytes(_library().jpegxl_encode(np.ascontiguousarray(pixels), lossless=True, effort=effort, numthreads=1))
    except _REFUSALS as error:
        raise UnwritableImage("JPEG XL", _sentence(error)) from error


def decode_jxl(data: bytes, *, shape: tuple[int, ...] | None = None, bits: int = 8) -> Pixels:
    """Return the pixels (H, W) or (H, W, C), of 8 or 16 ``bits``, of a JPEG XL picture; UndecodableImage where it is none.

    Where ``shape`` is given, one of another is refused before its pixels are decoded, and no more memory is taken than it says.
    """
    kind = np.dtype(f"u{bits // 8}")
    try:
        out = None if shape is None else np.empty(shape, kind)
        pixels = np.asarray(_library().jpegxl_decode(data, numthreads=1, out=out))
    except _REFUSALS as error:
        raise UndecodableImage(f"JPEG XL: {_sentence(error)}") from error
    if pixels.dtype != kind or pixels.ndim not in (2, 3) or 0 in pixels.shape or shape not in (None, pixels.shape):
        raise UndecodableImage(f"JPEG XL: pixels of {pixels.dtype} and shape {pixels.shape} are no {bits}-bit picture")
    return pixels


def recompress_jpeg(data: bytes) -> bytes:
    """Return a JPEG file as JPEG XL (a container, at the library's one effort) from which the same file is rebuilt.

    Raises UndecodableImage for what it does not take: CMYK, arithmetic coding, 12 bits, files cut off. Where memory runs out
    the library ends the process, so the caller has to know how large the picture is.
    """
    try:
        return bytes(_library().jpegxl_encode_jpeg(data, numthreads=1))
    except _REFUSALS as error:
        raise UndecodableImage(f"JPEG: {_sentence(error)}") from error


def rebuild_jpeg(data: bytes, *, size: int) -> bytes:
    """Return the JPEG file that ``recompress_jpeg`` was given, which may have ``size`` bytes at most.

    Raises UndecodableImage where the stream is damaged or the file longer. As there, large pictures are the caller's concern.
    """
    try:
        return bytes(_library().jpegxl_decode_jpeg(data, numthreads=1, out=size))
    except _REFUSALS as error:
        raise UndecodableImage(f"JPEG XL: {_sentence(error)}") from error


def compress_zstd(data: bytes, *, level: int) -> bytes:
    """Return bytes as one Zstandard frame (RFC 8878), without check sum; ``level`` is 1 (fast) to 22 (small).

    Raises UnwritableImage where it cannot.
    """
    try:
        return bytes(_library().zstd_encode(data, level=level))
    except _REFUSALS as error:
        raise UnwritableImage("Zstandard", _sentence(error)) from error


def decompress_zstd(data: bytes, *, size: int) -> bytes:
    """Return what one or more Zstandard frames hold, ``size`` > 0 bytes at most; raises UndecodableImage on damage or more."""
    try:
        return bytes(_library().zstd_decode(data, out=size))
    except _REFUSALS as error:
        raise UndecodableImage(f"Zstandard: {_sentence(error)}") from error


def encode_png(samples: Pixels) -> bytes:
    """Return a PNG of uint8 or uint16 samples (H, W) or (H, W, C), C as in ``encode_jxl_lossless``; raises UnwritableImage."""
    try:
        return bytes(_library().png_encode(np.array(samples, order="C"), level=PNG_LEVEL))
    except _REFUSALS as error:
        raise UnwritableImage("PNG", _sentence(error)) from error


def encode_jpeg2000(samples: Pixels) -> bytes:
    """Return a JP2 file of samples as ``encode_png`` takes them, coded without loss; raises UnwritableImage."""
    try:
        coded = _library().jpeg2k_encode(np.ascontiguousarray(samples), level=0, reversible=True, planar=False, numthreads=1)
    except _REFUSALS as error:
        raise UnwritableImage("JPEG2000", _sentence(error)) from error
    return bytes(coded)


def decode_samples(codec: str, data: bytes) -> NDArray[Any]:
    """Return the samples (H, W) or (H, W, C), or as the file has its planes; ``codec`` is one of those named here.

    Of several frames the first. Raises UndecodableImage where it is damaged.
    """
    one: dict[str, Any] = {"numthreads": 1}
    options = {"jpegxl": {"index": 0, **one}, "jpeg2k": one, "tiff": {"index": 0}, "jpeg": {}, "png": {}}
    try:
        samples = np.asarray(getattr(_library(), f"{codec}_decode")(data, **options[codec]))
    except _REFUSALS as error:
        raise UndecodableImage(f"{codec.upper()}: {_sentence(error)}") from error
    if samples.ndim not in (2, 3) or 0 in samples.shape:
        raise UndecodableImage(f"{codec.upper()}: samples of shape {samples.shape} are no picture")
    return samples


def unpack_bits(data: bytes) -> bytes:
    """Return what PackBits (TIFF 6.0, 9) coded, one line of a picture; raises UndecodableImage on damage."""
    try:
        return bytes(_library().packbits_decode(data))
    except _REFUSALS as error:
        raise UndecodableImage(f"PackBits: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
