"""Small pictures, sound and odd, as the bytes of their files."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from pipeline.containers import avif
from pipeline.decoders import decoding
from pipeline.pictures.picture import Picture

ORIENTATIONS = range(1, 9)
METADATA_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
"""Formats that carry EXIF, a profile and XMP."""

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description tiff:Orientation="1" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Return a picture with smooth parts, an edge and a little noise, different in every corner; (H, W) for one channel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    planes = [
        128 + 90 * np.sin(3 * x + 5 * y + c) + 30 * (x > 0.6) + 20 * x + rng.normal(0, 2, x.shape) for c in range(channels)
    ]
    picture = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    return picture[..., 0] if channels == 1 else picture


def exif(orientation: int = 1, *, big_endian: bool = False, make: bytes = b"Maker\0") -> bytes:
    """Return an EXIF block, without JPEG's prefix: an orientation, and a maker's name of 5 letters or more."""
    order = ">" if big_endian else "<"
    entries = struct.pack(order + "HHII", 0x010F, 2, len(make), 8 + 2 + 24 + 4)
    entries += struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    head = (b"MM" if big_endian else b"II") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", 2) + entries + struct.pack(order + "I", 0) + make


@cache
def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB, the same bytes always: it has the second in it when it was made."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """Return an ICC profile that is not sRGB at all: its red is blue and its blue is red."""
    return srgb_profile().replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")


def grey_profile(gamma: float = 2.2) -> bytes:
    """Return an ICC profile for grey (ICC.1:2001-04: a white point and one curve)."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    start = 128 + 4 + 2 * 12
    table = struct.pack(">I4sII4sII", 2, b"wtpt", start, len(white), b"kTRC", start + len(white), len(curve))
    size = start + len(white) + len(curve)
    head = struct.pack(">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ", bytes(12), b"acsp")
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + table + white + curve


def saved(pixels: NDArray[Any] | Image.Image, format: str, **options: Any) -> bytes:
    """Return what Pillow writes."""
    file = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, format, **options)
    return file.getvalue()


def decoded(data: bytes) -> Picture:
    """Return the picture of a file, of a million pixels at most."""
    return decoding.decode(data, pixel_limit=1_000_000)


def with_metadata(
    pixels: NDArray[Any], format: str, *, exif: bytes | None, icc: bytes | None, xmp: bytes | None, **options: Any
) -> bytes:
    """Return a file that carries an EXIF block, a profile and XMP, each where given."""
    if exif is not None:
        options["exif"] = b"Exif\0\0" + exif
    if icc is not None:
        options["icc_profile"] = icc
    if xmp is not None and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
    elif xmp is not None and format == "TIFF":
        tags = Image.Exif()
        tags.load(exif or b"")
        tags[700] = xmp
        options["exif"] = tags
    elif xmp is not None:
        options["xmp"] = xmp
    return saved(pixels, format, **options)


def png(
    width: int, height: int, *, depth: int, colour: int, rows: bytes, chunks: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """Return a PNG put together by hand (W3C PNG, 5 and 11): ``rows`` are its filtered rows, ``chunks`` stand before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def jpeg2000(pixels: NDArray[Any], icc: bytes) -> bytes:
    """Return a JP2 of 8 or 16 bits with a profile, put together by hand (ISO/IEC 15444-1, I.5.3.3): no library writes one."""
    plain = bytes(imagecodecs.jpeg2k_encode(pixels, level=0))
    outer, inner = plain.index(b"jp2h") - 4, plain.index(b"colr") - 4
    old = int.from_bytes(plain[inner : inner + 4], "big")
    colr = (11 + len(icc)).to_bytes(4, "big") + b"colr\2\0\0" + icc
    size = int.from_bytes(plain[outer : outer + 4], "big") - old + len(colr)
    return plain[:outer] + size.to_bytes(4, "big") + plain[outer + 4 : inner] + colr + plain[inner + old :]


def paletted_jpeg2000(indices: NDArray[np.uint8], palette: NDArray[Any], *, bits: int = 8, alpha: bool = False) -> bytes:
    """Return a JP2 that looks its colours up in a palette (entries, channels), put together by hand (I.5.3.4 to I.5.3.6)."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    (height, width), (entries, channels) = indices.shape, palette.shape
    told = [(each, 0, each + 1) for each in range(channels - alpha)] + [(channels - 1, 1, 0)] * alpha
    header = (
        box(b"ihdr", struct.pack(">IIHBBBB", height, width, 1, 7, 7, 0, 0)),
        box(b"colr", struct.pack(">BBBI", 1, 0, 0, 16)),
        box(b"pclr", struct.pack(">HB", entries, channels) + bytes([bits - 1] * channels) + palette.tobytes()),
        box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, channel) for channel in range(channels))),
        box(b"cdef", struct.pack(f">H{3 * channels}H", channels, *(each for one in told for each in one))),
    )
    stream = bytes(imagecodecs.jpeg2k_encode(indices, level=0, codecformat="J2K"))
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", b"".join(header)) + box(b"jp2c", stream)


def with_property(save: Callable[[bytes], bytes], kind: bytes, body: bytes) -> bytes:
    """Return an AVIF or HEIC with a property of its picture, put where ``save`` has put a profile of as many bytes."""
    profile = b"colrprof" + bytes(len(body) - 4)
    data = save(profile[8:])
    place = [data[start : start + 4] == b"prof" for _, start, _ in avif.properties(data)].index(True) + 1
    at = data.index(b"ipma") + 14  # behind version, count, and the item's number: so many properties it has
    told = bytes(place | 0x80 if each & 0x7F == place else each for each in data[at + 1 : at + 1 + data[at]])  # to be heeded
    return (data[: at + 1] + told + data[at + 1 + data[at] :]).replace(profile, kind + body)


def bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """Return a PNG of a few dozen bytes whose header announces a huge picture."""
    return png(width, height, depth=8, colour=2, rows=b"\0")


def tiff(width: int, height: int, *, bits: int, samples: int, photometric: int, body: bytes, layout: int = 1) -> bytes:
    """Return an uncompressed little-endian TIFF of one strip (of one per sample for ``layout`` 2), put together by hand."""
    strips = samples if layout == 2 else 1
    step = len(body) // strips
    tags: list[tuple[int, int, list[int]]] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * samples), (259, 3, [1]), (262, 3, [photometric]),
        (273, 4, [0] * strips), (277, 3, [samples]), (278, 4, [height]), (279, 4, [step] * strips), (284, 3, [layout]),
    ]  # fmt: skip
    extra = 8 + 2 + 12 * len(tags) + 4
    data = extra + sum(len(values) * (2 if kind == 3 else 4) for _, kind, values in tags if len(values) > 1)
    tags[5] = (273, 4, [data + step * index for index in range(strips)])
    entries, outside = b"", b""
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) <= 4:
            field = packed.ljust(4, b"\0")
        else:
            field, outside = struct.pack("<I", extra + len(outside)), outside + packed
        entries += struct.pack("<HHI", tag, kind, len(values)) + field
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return (head + entries + bytes(4) + outside).ljust(data, b"\0") + body


def _frames(format: str, **options: Any) -> bytes:
    first, second = (Image.fromarray(photo(8, 9, seed=seed)) for seed in (1, 2))
    return saved(first, format, save_all=True, append_images=[second], **options)


def unsupported() -> dict[str, bytes]:
    """Return small sound files that 8-bit RGB of one frame cannot stand for, by what they are."""
    deep = np.arange(6 * 7 * 3, dtype=np.uint16).reshape(6, 7, 3) * 500
    rows = deep.astype(">u2")
    rgb = Image.fromarray(photo(8, 9))
    return {
        "animated GIF": _frames("GIF", duration=50),
        "animated WebP": _frames("WEBP", duration=50),
        "animated PNG": _frames("PNG", duration=50),
        "animated AVIF": _frames("AVIF", duration=50),
        "TIFF of two pages": _frames("TIFF"),
        "icon of two sizes": saved(rgb.resize((64, 64)), "ICO", sizes=[(16, 16), (32, 32)]),
        "16-bit PNG with a transparent colour": png(
            7, 6, depth=16, colour=2, rows=b"".join(b"\0" + row.tobytes() for row in rows), chunks=((b"tRNS", bytes(6)),)
        ),
        "16-bit TIFF of premultiplied alpha": bytes(
            imagecodecs.tiff_encode(np.dstack((deep, deep[..., :1] + 40000)), photometric=2, extrasample=1)
        ),
        "16-bit TIFF of signed samples": bytes(imagecodecs.tiff_encode(deep[..., 0].astype(np.int16), photometric=1)),
        "10-bit PPM": b"P6 7 6 1023\n" + (rows >> 6).astype(">u2").tobytes(),
        "10-bit PGM": b"P5 7 6 1023\n" + (rows[..., 0] >> 6).astype(">u2").tobytes(),
        "PPM of 65,534 levels": b"P6 7 6 65534\n" + rows.tobytes(),
        "12-bit JPEG 2000": bytes(imagecodecs.jpeg2k_encode(deep >> 4, level=0, bitspersample=12)),
        "JPEG 2000 of signed samples": bytes(imagecodecs.jpeg2k_encode(deep.astype(np.int16), level=0)),
        "10-bit AVIF": bytes(imagecodecs.avif_encode((deep >> 6).astype(np.uint16), bitspersample=10)),
        "CMYK JPEG": saved(rgb.convert("CMYK"), "JPEG"),
        "CMYK TIFF": saved(rgb.convert("CMYK"), "TIFF"),
        "float TIFF": saved(Image.fromarray(deep[..., 0].astype(np.float32)), "TIFF"),
        "32-bit TIFF": saved(Image.fromarray(deep[..., 0].astype(np.int32)), "TIFF"),
        "Lab TIFF": saved(Image.new("LAB", (9, 8)), "TIFF"),
        "YCbCr TIFF": saved(rgb.convert("YCbCr"), "TIFF"),
        "1-bit PNG": saved(rgb.convert("1"), "PNG"),
        "PFM": b"Pf\n7 6\n-1.0\n" + deep[..., 0].astype("<f4").tobytes(),
    }


def damaged() -> dict[str, bytes]:
    """Return bytes that are no whole picture, by what is wrong with them."""
    jpeg = saved(photo(200, 300), "JPEG")
    return {
        "zero bytes": b"",
        "one byte": b"\xff",
        "random bytes": np.random.default_rng(3).integers(0, 256, 4096, np.uint8).tobytes(),
        "text": b"this is a caption\n",
        "zeros": bytes(1000),
        "JPEG cut in half": jpeg[: len(jpeg) // 2],
        "PNG cut in half": (png := saved(photo(64, 80), "PNG"))[: len(png) // 2],
        "TIFF cut in half": (file := saved(photo(64, 80), "TIFF"))[: len(file) // 2],
        "page of a PDF": saved(photo(8, 9), "PDF"),
        "PostScript": saved(photo(8, 9), "EPS"),
    }


def harmed(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one random damage: flipped, overwritten, cut off, cut out or put in, often near the beginning."""
    result = bytearray(data)
    at = rng.randrange(min(len(data), 80) if rng.random() < 0.4 else len(data))
    match rng.randrange(5):
        case 0:
            result[at] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.randrange(1, 8)):
                result[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            del result[at:]
        case 3:
            del result[at : at + rng.randrange(1, 40)]
        case _:
            result[at:at] = rng.randbytes(rng.randrange(1, 40))
    return bytes(result)
