"""Sound files of kinds that the decoders do not take, told by their headers: what is unsupported is not damaged.

Source: ITU-T T.81, Table B.1 (frames); TIFF 6.0, 8 and 19; Adobe, Photoshop File Formats; Microsoft, BITMAPV5HEADER.
"""

from __future__ import annotations

import struct
from itertools import islice

from pipeline.containers import jpeg, psd
from pipeline.containers.boxes import boxes
from pipeline.containers.parts import MOST_PARTS
from pipeline.containers.tiff import SIGNATURES, Directory

_FRAMES = {
    **dict.fromkeys((0xC3, 0xCB), "it is lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "it is hierarchical JPEG"),
}
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _FORMAT = 258, 259, 262, 277, 339
_STRIPS = {273: 279, 324: 325}
_SIGNED, _FLOAT = 2, 3
SIGNED = "its samples are signed"
"""What a TIFF of 8 bits is whose samples go below zero, which Pillow takes for brighter ones."""
_BMP_FIELDS = {3: "its colours are in bit fields of their own", 4: "a JPEG is inside", 5: "a PNG is inside"}
_BMP_FIELDS[6] = _BMP_FIELDS[3]


def kind_of(data: bytes, refusal: str) -> str | None:
    """Return what a whole file is that a decoder refused with ``refusal``; None where it is cut off, damaged or no picture."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(SIGNATURES):
            return _tiff(data)
        if data.startswith(b"8BPS"):
            return _psd(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith(b"\x89PNG") and "Decompressed data too large" in refusal:
            return "a text or profile in it is larger than its decoder takes"
        if data[4:12] in (b"ftypavif", b"ftypavis"):
            return _avif(data, refusal)
    except (struct.error, IndexError, ValueError, OverflowError):
        pass
    return None


def _jpeg(data: bytes) -> str | None:
    kind, ended = None, False
    for part in islice(jpeg.walk(data), MOST_PARTS):
        marker = data[part.start + 1] if part.start + 1 < len(data) else 0
        if part.name == "coding" and marker in _FRAMES:
            kind = kind or _FRAMES[marker]
        elif part.name == "coding" and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xCC) and data[part.start + 4] != 8:
            kind = kind or f"it has {data[part.start + 4]} bits per channel"
        ended |= part.name == "marker" and data[part.start : part.end] == b"\xff\xd9"
    return kind if ended else None


def _tiff(data: bytes) -> str | None:
    directory = Directory(data)
    for starts, lengths in _STRIPS.items():
        pairs = zip(directory.numbers(starts), directory.numbers(lengths), strict=True)
        if any(start + length > len(data) for start, length in pairs):
            return None
    bits, samples = directory.numbers(_BITS) or [1], (directory.numbers(_SAMPLES) or [1])[0]
    if _FLOAT in directory.numbers(_FORMAT):
        return f"it is floating-point, of {samples} channels"
    if max(bits) != 8:
        return f"it has {max(bits)} bits per channel"
    if _SIGNED in directory.numbers(_FORMAT):
        return SIGNED
    compression, photometric = directory.numbers(_COMPRESSION) or [1], directory.numbers(_PHOTOMETRIC)
    usual = compression[0] in (1, 5, 7, 8, 32773, 32946) and photometric and photometric[0] in (0, 1, 2, 3)
    return None if usual and samples <= 4 else f"it is a TIFF of compression {compression[0]}, {samples} channels"


def _psd(data: bytes) -> str | None:
    channels, depth, mode = (struct.unpack_from(">H", data, at)[0] for at in (12, 22, 24))
    if not psd.is_whole(data):
        return None
    if depth == 8 and mode in (1, 2, 3):
        return None if psd.is_flat(data) else "it has layers or further channels"
    return f"it is a PSD of {depth} bits, colour mode {mode}, {channels} channels"


def _bmp(data: bytes) -> str | None:
    size, header = struct.unpack_from("<I", data, 2)[0], struct.unpack_from("<I", data, 14)[0]
    (compression,) = struct.unpack_from("<I", data, 30)
    return _BMP_FIELDS.get(compression) if header >= 40 and size <= len(data) else None


def _avif(data: bytes, refusal: str) -> str | None:
    *_, (_, _, _, end) = boxes(data, 0, len(data))
    return "its transparency cannot be decoded" if end == len(data) and "alpha" in refusal.lower() else None
