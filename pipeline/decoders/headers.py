"""What Pillow does not tell of a file and an archive must know: sample depth, crops, palettes, a JP2's profile."""

from __future__ import annotations

import struct

from pipeline.containers import avif, jpeg2000

_SIZ = b"\xff\x4f\xff\x51"
_ICO, _ICNS = b"\0\0\1\0", b"icns"
_PNG, _JP2, _DIB = b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cjP  \r\n\x87\n", b"\x28\0\0\0"


def avif_bits(data: bytes) -> int:
    """Return the bits per sample, 8, 10 or 12, of an AVIF file; Pillow decodes all to 8.

    Source: AV1 codec ISO media file format binding, 2.3, AV1CodecConfigurationBox; 8 where there is none.
    """
    box = data.find(b"av1C")
    flags = data[box + 6] if 0 <= box < len(data) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def jpeg2000_bits(data: bytes) -> int:
    """Return the most bits per component of a JPEG 2000 file; signed components, which 8 bits cannot hold, count as 16.

    Source: ISO/IEC 15444-1, A.5.1 (SIZ); 8 where it cannot be read.
    """
    start = data.find(_SIZ) + len(_SIZ)
    try:
        (count,) = struct.unpack_from(">H", data, start + 36)
        depths = [data[start + 38 + 3 * index] for index in range(count)]
    except (struct.error, IndexError):
        return 8
    return max((16 if depth & 0x80 else depth + 1 for depth in depths), default=8)


def icon_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return width and height of the pictures inside an ICO or ICNS, whose directory may tell others, and none of other files.

    Source: Microsoft, ICONDIRENTRY and BITMAPINFOHEADER (of colours and mask, one above the other); Apple, icns.
    """
    if data.startswith(_ICO):
        (count,) = struct.unpack_from("<H", data, 4)
        starts = [struct.unpack_from("<I", data, 6 + 16 * index + 12)[0] for index in range(count)]
    elif data.startswith(_ICNS):
        starts, at = [], 8
        while at + 8 <= len(data):
            starts.append(at + 8)
            at += max(8, struct.unpack_from(">I", data, at + 4)[0])
    else:
        return []
    return [size for at in starts if (size := _inner_size(data, at))]


def _inner_size(data: bytes, at: int) -> tuple[int, int] | None:
    if data[at : at + 8] == _PNG:
        width, height = struct.unpack_from(">II", data, at + 16)
    elif data[at : at + 12] == _JP2 or data[at : at + 4] == _SIZ:
        width, height = struct.unpack_from(">II", data, data.index(_SIZ, at) + 8)
    elif data[at : at + 4] == _DIB:
        width, height = struct.unpack_from("<ii", data, at + 4)
        width, height = abs(width), abs(height) // 2
    else:
        return None
    return width, height


def has_palette(data: bytes) -> bool:
    """Return whether a JPEG 2000 file looks its colours up, which Pillow gets wrong. Source: ISO/IEC 15444-1, I.5.3.4."""
    return any(part.name == "pclr" for part in jpeg2000.walk(data))


def is_cropped(data: bytes) -> bool:
    """Return whether an AVIF file is shown cut (clap) or stretched (pasp), which Pillow passes over; ISO/IEC 23008-12, 6.5."""
    return any(
        kind == b"clap" or (kind == b"pasp" and data[body : body + 4] != data[body + 4 : end])
        for kind, body, end in avif.properties(data)
    )


def jpeg2000_profile(data: bytes) -> bytes | None:
    """Return the ICC profile of a JP2 file, which Pillow passes over, or None. Source: ISO/IEC 15444-1, I.5.3.3."""
    box = data.find(b"colr")
    if box < 4 or data[box + 4 : box + 5] not in (b"\2", b"\3"):
        return None
    (length,) = struct.unpack_from(">I", data, box - 4)
    return data[box + 7 : box - 4 + length] or None
