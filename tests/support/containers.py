"""Files with more in them than a picture: a part put into a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or PSD."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, TiffImagePlugin

from tests.support.pictures import photo, saved

IPTC = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x10\x1c\x02\x50\0\x0bMara Quill!"
"""What an APP13 segment holds: a by-line."""


def segment(marker: int, body: bytes) -> bytes:
    """Return a JPEG segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def jpeg(*segments: bytes, behind: bytes = b"", seed: int = 0, **options: object) -> bytes:
    """Return a small JPEG with segments put behind its JFIF segment, and bytes behind its end."""
    data = saved(photo(40, 56, seed=seed), "JPEG", **options)
    return data[:20] + b"".join(segments) + data[20:] + behind


def with_density(jpeg: bytes, unit: int, x: int, y: int) -> bytes:
    """Return a JPEG whose JFIF segment tells a density."""
    return jpeg[:13] + struct.pack(">BHH", unit, x, y) + jpeg[18:]


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, behind: bytes = b"", last: bytes = b"", channels: int = 3) -> bytes:
    """Return a small PNG with chunks put behind its header, ``last`` ones before its end, and bytes behind it."""
    data = saved(photo(40, 56, channels), "PNG")
    return data[:33] + b"".join(chunks) + data[33:-12] + last + data[-12:] + behind


def webp(*chunks: tuple[bytes, bytes], behind: bytes = b"", **options: object) -> bytes:
    """Return a small WebP with further chunks at its end, and bytes behind it."""
    data = saved(photo(40, 56), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", **options)
    body = data[12:] + b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for kind, content in chunks
    )
    return data[:4] + struct.pack("<I", 4 + len(body)) + b"WEBP" + body + behind


def tiff(tags: dict[int, tuple[int, object]], *, big_endian: bool = False, channels: int = 3) -> bytes:
    """Return a small TIFF with tags, each of a type and its values."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"MM\0*\0\0\0\0" if big_endian else b"II*\0\0\0\0\0")
    for tag, (kind, value) in tags.items():
        directory.tagtype[tag] = kind
        directory[tag] = value
    file = BytesIO()
    Image.fromarray(photo(40, 56, channels)).save(file, "TIFF", tiffinfo=directory)
    return file.getvalue()


def bmp(*, density: tuple[int, int] | None = None, behind: bytes = b"") -> bytes:
    """Return a small BMP with a density in pixels a metre, and bytes behind its end."""
    data = saved(photo(40, 56), "BMP")
    return (data if density is None else data[:38] + struct.pack("<ii", *density) + data[46:]) + behind


def gif(*, comment: bytes | None = None, behind: bytes = b"") -> bytes:
    """Return a small GIF with a comment, and bytes behind its end."""
    image = Image.fromarray(photo(40, 56)).quantize(64)
    return saved(image, "GIF", **({} if comment is None else {"comment": comment})) + behind


def avif(*, code_points: tuple[int, int] | None = None, behind: bytes = b"", icc: bytes | None = None) -> bytes:
    """Return a small AVIF whose ``nclx`` tells code points of primaries and transfer, and bytes behind its end."""
    data = saved(photo(40, 56), "AVIF", quality=90, icc_profile=icc)
    if code_points is not None:
        at = data.index(b"colrnclx") + 8
        data = data[:at] + struct.pack(">HH", *code_points) + data[at + 4 :]
    return data + behind


def psd(*, channels: int = 3, layers: bytes = b"", resources: bytes = b"") -> bytes:
    """Return a small uncompressed PSD of RGB and further channels."""
    pixels = photo(40, 56)
    planes = [pixels[..., min(index, 2)] for index in range(channels)]
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, channels, 40, 56, 8, 3)
    sections = (struct.pack(">I", len(part)) + part for part in (b"", resources, layers))
    return head + b"".join(sections) + bytes(2) + np.stack(planes).tobytes()
