"""What Pillow does not tell of a file and an archive must know: sample depth, crops, palettes, a JP2's profile."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction

from pipeline.containers import avif, jpeg2000
from pipeline.containers.boxes import boxes
from pipeline.containers.parts import MOST_PARTS
from pipeline.containers.tiff import Directory
from pipeline.core.errors import UndecodableImage, UnsupportedImage

_SIZ = b"\xff\x4f\xff\x51"
_ICO, _ICNS = b"\0\0\1\0", b"icns"
_PNG, _JP2, _DIB = b"\x89PNG\r\n\x1a\n", b"\0\0\0\x0cjP  \r\n\x87\n", b"\x28\0\0\0"
_INNER_HEADER = 1 << 14  # bytes within which a JPEG 2000 inside an icon tells its size: room for a profile


def avif_bits(data: bytes) -> int:
    """Return the bits per sample, 8, 10 or 12, of an AVIF file; Pillow decodes all to 8.

    Source: AV1 codec ISO media file format binding, 2.3, AV1CodecConfigurationBox; 8 where there is none.
    """
    box = data.find(b"av1C")
    flags = data[box + 6] if 0 <= box < len(data) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def jpeg2000_frame(data: bytes) -> tuple[tuple[int, int], list[bytes]]:
    """Return width and height of a JPEG 2000 codestream, and three bytes of each component: its bits less one, with 80 where
    they are signed, and how many pixels stand for one of its samples, across and down.

    Source: ISO/IEC 15444-1, A.5.1 (SIZ). Raises UndecodableImage where it cannot be read.
    """
    start = next((body for kind, _, body, _ in boxes(data, 0, len(data)) if kind == b"jp2c"), 0)
    try:
        width, height, left, top = struct.unpack_from(">4I", data, start + 8)
        (count,) = struct.unpack_from(">H", data, start + 40)
    except struct.error:
        count = 0
    components = [data[at : at + 3] for at in range(start + 42, start + 42 + 3 * count, 3)]
    if not count or not data.startswith(_SIZ, start) or len(components[-1]) < 3:
        raise UndecodableImage("JPEG2000: its codestream has no size")
    return (width - left, height - top), components


def jpeg2000_bits(data: bytes) -> int:
    """Return the most bits per component of a JPEG 2000 file; signed components, which 8 bits cannot hold, count as 16."""
    try:
        _, components = jpeg2000_frame(data)
    except UndecodableImage:
        return 8
    return max(16 if depth & 0x80 else depth + 1 for depth, _, _ in components)


def tiff_pages(data: bytes) -> list[int]:
    """Return where the directories begin that follow one another, up to one that is not there, was before, or is one too many.

    Raises struct.error, ValueError where there is none.
    """
    first = Directory(data)
    width, count, step, pointer = (8, "Q", 20, "Q") if first.big else (2, "H", 12, "I")
    found, start = dict[int, None](), first.start
    while start and start not in found and start + width <= len(data) and len(found) < MOST_PARTS:
        found[start] = None
        end = start + width + step * struct.unpack_from(first.order + count, data, start)[0]
        if end + struct.calcsize(pointer) > len(data):
            break
        (start,) = struct.unpack_from(first.order + pointer, data, end)
    return list(found)


def icon_entries(data: bytes) -> Iterator[int]:
    """Yield where the entries of an ICO or ICNS begin, most of them pictures, and none of other files.

    Source: Microsoft, ICONDIRENTRY; Apple, icns.
    """
    if data.startswith(_ICO):
        end = 6 + 16 * int.from_bytes(data[4:6], "little")
        for at in range(6, min(end, len(data) - 15), 16):
            yield int.from_bytes(data[at + 12 : at + 16], "little")
    elif data.startswith(_ICNS):
        at = 8
        while at + 8 <= len(data):
            yield at + 8
            at += max(8, int.from_bytes(data[at + 4 : at + 8], "big"))


def icon_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return width and height of the pictures inside an ICO or ICNS, whose directory may tell others, and none of other files.

    Source: Microsoft, BITMAPINFOHEADER (of colours and mask, one above the other). Raises struct.error, UndecodableImage.
    """
    return [size for at in icon_entries(data) if (size := _inner_size(data, at))]


def _inner_size(data: bytes, at: int) -> tuple[int, int] | None:
    if data[at : at + 8] == _PNG:
        width, height = struct.unpack_from(">II", data, at + 16)
    elif data[at : at + 12] == _JP2 or data[at : at + 4] == _SIZ:
        return jpeg2000_frame(data[at : at + _INNER_HEADER])[0]
    elif data[at : at + 4] == _DIB:
        width, height = struct.unpack_from("<ii", data, at + 4)
        width, height = abs(width), abs(height) // 2
    else:
        return None
    return width, height


def palette_depths(data: bytes) -> list[int]:
    """Return the bits of each channel that a JPEG 2000 file looks up, 0 if signed; none where it has no palette.

    Source: ISO/IEC 15444-1, I.5.3.4.
    """
    at = next((part.start + 8 for part in jpeg2000.walk(data) if part.name == "pclr"), len(data))
    channels = data[at + 2 : at + 3]
    return [0 if depth & 0x80 else depth + 1 for depth in data[at + 3 : at + 3 + (channels[0] if channels else 0)]]


def has_straight_alpha(data: bytes, channels: int) -> bool:
    """Return whether a JP2 file says that the last of its channels is straight alpha, and the others are colours in order.

    Source: ISO/IEC 15444-1, I.5.3.6.
    """
    headers = (box for box in boxes(data, 0, len(data)) if box[0] == b"jp2h")
    inside = (box for _, _, body, end in headers for box in boxes(data, body, end))
    told = next((data[body:end] for kind, _, body, end in inside if kind == b"cdef"), b"")
    wanted = [*((channel, 0, channel + 1) for channel in range(channels - 1)), (channels - 1, 1, 0)]
    return told == struct.pack(f">{1 + 3 * channels}H", channels, *(number for each in wanted for number in each))


def is_cropped(data: bytes) -> bool:
    """Return whether an AVIF file is shown cut (clap) or stretched (pasp), which Pillow passes over; ISO/IEC 23008-12, 6.5."""
    return any(
        kind == b"clap" or (kind == b"pasp" and data[body : body + 4] != data[body + 4 : end])
        for kind, body, end in avif.properties(data)
    )


def clean_aperture(data: bytes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what an AVIF file shows of a picture that is stored in ``size``, width and height.

    Source: ISO/IEC 14496-12, 12.1.4 (clap). Raises UnsupportedImage for a crop between pixels or beyond the picture, and where
    pictures of the file have different ones.
    """
    found = {data[body:end] for kind, body, end in avif.properties(data) if kind == b"clap"}
    if not found:
        return 0, 0, *size
    try:
        (told,) = found
        numbers = struct.unpack(">IIIIiIiI", told)
        width, height, right, down = (Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2))
    except (ValueError, struct.error, ZeroDivisionError):
        raise UnsupportedImage("its container crops it in no way that can be told") from None
    left, top = (size[0] - width) / 2 + right, (size[1] - height) / 2 + down
    box = left, top, left + width, top + height
    if any(edge.denominator > 1 for edge in box) or not (0 <= left < box[2] <= size[0] and 0 <= top < box[3] <= size[1]):
        raise UnsupportedImage("its container crops it beyond its edges, or between pixels")
    return int(left), int(top), int(box[2]), int(box[3])


def jpeg2000_profile(data: bytes) -> bytes | None:
    """Return the ICC profile of a JP2 file, which Pillow passes over, or None. Source: ISO/IEC 15444-1, I.5.3.3."""
    box = data.find(b"colr")
    if box < 4 or data[box + 4 : box + 5] not in (b"\2", b"\3"):
        return None
    (length,) = struct.unpack_from(">I", data, box - 4)
    return data[box + 7 : box - 4 + length] or None
