"""A source's own bytes, stored as small as they can be without loss, and given back identical.

A JPEG is recompressed as JPEG XL, other files by Zstandard where that pays, and where only the pixels are wanted they are
lossless JPEG XL. Everything is decoded again and compared before it is taken, and the source's bytes are always good enough.
"""

from __future__ import annotations

import math
import struct
import threading

import numpy as np

from pipeline.containers import jxl
from pipeline.core.errors import UndecodableImage, UnwritableImage
from pipeline.core.records import OriginalCoding, Pixels, Size
from pipeline.pictures import codecs

MIN_SAVING = 0.03
"""Part of the source that a coding has to save. Measured on the eight samples: JPEG XL saves 15.5 to 22.2 %, 17.3 % of their
total. Of a JPEG whose bytes are nearly all in application segments it saves 0.2 %, not worth a form that few programs read."""

ZSTD_LEVEL = 9
"""Measured on three photographs of 1.7 megapixels as BMP, one thread: level 9 leaves 0.80, 0.72 and 0.89 of the bytes at
46 MB/s (3: 0.83, 0.78, 0.93 at 220 to 320; 12: 0.79, 0.72, 0.89 at 23; 19: 0.74, 0.67, 0.82 at 3). That is some 0.07 s/MP, as
much as recompressing a JPEG.

Nothing probes beforehand whether a file is compressed already. Up to this level the coder passes over such data by itself:
JPEG, PNG, WebP, AVIF and JPEG 2000 at 490 to 1,500 MB/s, where a JPEG's recompression runs at 4 to 10. And a probe errs: by
level 1 on 16 pieces of 4 KiB one of the BMPs could not be compressed at all."""

ZSTD_CHUNK = 1 << 24
"""Bytes of the source in one Zstandard frame, four of its windows: bounds what is taken beside the source and its coding."""

JPEG_PIXELS = 64_000_000
"""Largest JPEG that is recompressed: that takes 20 to 27 bytes a pixel (measured at 6 to 96 megapixels), so some 1.7 GB here,
and rebuilding it 3 to 5; one at a time, whatever the threads. Where memory runs out, libjxl 0.11 ends the process
(std::bad_alloc), so that sizes are told from the headers before it sees either file. May grow, never shrink: what was
recompressed has to be rebuilt."""

PIXEL_EFFORT = 7
"""Measured on four BSD100 pictures: 0.55 to 0.59 of the PNG at 1.0 to 1.3 s/MP and 0.2 back (5: 0.57 to 0.61 at 0.8; 3: 0.60 to
0.65 at 0.15); on drawings the difference is larger still. It takes 170 MB at 6 megapixels, 260 at 24; effort 3 560 at 96."""

LARGE_PIXELS = 16_000_000
"""Pixels above which ``codecs.LOSSLESS_EFFORT`` is used instead, so that one picture never takes much more than 20 seconds."""

FAST_RATIO = 3.0
"""How many times the recompressed JPEG its pixels at effort 1 (0.01 s/MP) may take for effort 7 to be tried on them. On the
samples they take 3.9 to 5.2 times; on three drawings where effort 7 then took less than the JPEG, 0.3 to 1.9."""

_recompressing = threading.Lock()
_JPEG = b"\xff\xd8\xff"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # Huffman-coded: baseline, extended, progressive
_SEGMENTS = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})  # what may stand before a frame


def pack(data: bytes) -> tuple[bytes, OriginalCoding]:
    """Return the smallest coding of a file that is known to give the same bytes back, by trial; ``data`` itself at worst.

    What does not save ``MIN_SAVING`` is not taken. Never raises. The same bytes give the same coding.
    """
    best, coding = data, OriginalCoding.BYTES
    limit = int(len(data) * (1 - MIN_SAVING))
    recompressed = _recompressed(data)
    if recompressed is not None and len(recompressed) <= limit:
        best, coding, limit = recompressed, OriginalCoding.JXL, len(recompressed) - 1
    compressed = _compressed(data, limit)
    if compressed is not None:
        best, coding = compressed, OriginalCoding.ZSTD
    return best, coding


def pack_pixels(data: bytes, pixels: Pixels, *, grey: bool) -> tuple[bytes, OriginalCoding]:
    """Return the pixels' own lossless coding, or the file's by ``pack`` where that is no larger.

    ``pixels`` are the upright ones of the file ``data``, uint8 or uint16 (H, W, 3); where ``grey``, their first channel stands
    for all. Raises ValueError for another shape.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}; uint8 or uint16 (height, width, 3) was expected")
    packed, coding = pack(data)
    height, width = pixels.shape[:2]
    plane = np.ascontiguousarray(pixels[..., 0]) if grey else pixels
    effort = PIXEL_EFFORT if height * width <= LARGE_PIXELS else codecs.LOSSLESS_EFFORT
    try:
        if coding is OriginalCoding.JXL and len(codecs.encode_jxl_lossless(plane, effort=1)) > FAST_RATIO * len(packed):
            return packed, coding
        coded = codecs.encode_jxl_lossless(plane, effort=effort)
        if len(coded) >= len(packed):
            return packed, coding
        bits = 8 * pixels.itemsize
        if np.array_equal(unpack_pixels(coded, size=(height, width), grey=grey, bits=bits), pixels):
            return coded, OriginalCoding.PIXELS
    except (UnwritableImage, UndecodableImage):
        pass  # the file itself is there
    return packed, coding


def unpack(data: bytes, coding: OriginalCoding, *, size: int) -> bytes:
    """Return the file that ``pack`` was given, of ``size`` bytes.

    Raises UndecodableImage where the stream is damaged or gives another number of bytes, having allocated no more than ``size``
    (and 5 bytes a pixel of a JPEG's, which may have ``JPEG_PIXELS``); damage that leaves the number as it was is for the
    caller's digest to find. Raises ValueError for ``OriginalCoding.PIXELS``, from which no file can be had.
    """
    if coding is OriginalCoding.PIXELS:
        raise ValueError("the pixels alone are stored; unpack_pixels gives them back")
    if coding is OriginalCoding.BYTES:
        found = data
    elif size <= 0:
        raise UndecodableImage(f"a coding of {len(data)} bytes stands for a file of {size}")
    elif coding is OriginalCoding.ZSTD:
        found = codecs.decompress_zstd(data, size=size)
    else:
        pixels = math.prod(jxl.size(data))
        if not 0 < pixels <= JPEG_PIXELS:
            raise UndecodableImage(f"JPEG XL: a picture of {pixels} pixels; 1 to {JPEG_PIXELS} were expected")
        found = codecs.rebuild_jpeg(data, size=size)
    if len(found) != size:
        raise UndecodableImage(f"{len(found)} bytes were found, {size} expected")
    return found


def unpack_pixels(data: bytes, *, size: Size, grey: bool, bits: int = 8) -> Pixels:
    """Return the pixels (H, W, 3), of 8 or 16 ``bits``, that ``pack_pixels`` coded, ``size`` being (H, W).

    Raises UndecodableImage where the stream is damaged or of another shape, which is found before its pixels are decoded.
    """
    pixels = codecs.decode_jxl(data, shape=size if grey else (*size, 3), bits=bits)
    return np.repeat(pixels[..., None], 3, axis=2) if grey else pixels


def _recompressed(data: bytes) -> bytes | None:
    """Return a JPEG as JPEG XL, or None where that cannot be or the file does not come back."""
    if not 0 < _jpeg_pixels(data) <= JPEG_PIXELS:
        return None
    try:
        with _recompressing:
            coded = codecs.recompress_jpeg(data)
        return coded if unpack(coded, OriginalCoding.JXL, size=len(data)) == data else None
    except UndecodableImage:
        return None


def _compressed(data: bytes, limit: int) -> bytes | None:
    """Return a file as Zstandard frames of ``limit`` bytes at most, or None where that cannot be or it does not come back."""
    frames: list[bytes] = []
    try:
        for start in range(0, len(data), ZSTD_CHUNK):
            frames.append(codecs.compress_zstd(data[start : start + ZSTD_CHUNK], level=ZSTD_LEVEL))
            limit -= len(frames[-1])
            if limit < 0:
                return None
        for index, frame in enumerate(frames):
            chunk = data[index * ZSTD_CHUNK : (index + 1) * ZSTD_CHUNK]
            if codecs.decompress_zstd(frame, size=len(chunk)) != chunk:
                return None
    except (UnwritableImage, UndecodableImage):
        return None
    return b"".join(frames) or None


def _jpeg_pixels(data: bytes) -> int:
    """Return how many pixels a JPEG's frame header announces (ITU-T T.81, B.2); 0 for what need not be tried.

    Strict, so that no other reader finds another frame: whole segments up to a Huffman-coded frame of 8 bits.
    """
    position = 2 if data.startswith(_JPEG) else len(data)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length, depth, height, width = struct.unpack_from(">HBHH", data, position + 2)
        if marker in _FRAMES:
            return int(height * width) if depth == 8 else 0
        if marker not in _SEGMENTS or length < 2:
            break
        position += 2 + length
    return 0
