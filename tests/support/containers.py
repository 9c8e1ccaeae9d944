"""Files with more in them than a picture: a part put into a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or PSD."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, TiffImagePlugin

from tests.support import pictures
from tests.support.pictures import XMP, exif, jpeg2000, photo, saved, srgb_profile, with_metadata
from tests.support.pictures import tiff as hand_made_tiff

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


def avif_with(kind: bytes, body: bytes) -> bytes:
    """Return a small AVIF with a further box before the bytes of its item, whose place is told anew."""
    data, box = avif(), struct.pack(">I4s", 8 + len(body), kind) + body
    at, told = data.index(b"mdat") - 4, data.index(b"iloc") + 18  # behind version, sizes, count, number, reference, extents
    place = struct.pack(">I", int.from_bytes(data[told : told + 4], "big") + len(box))
    return data[:told] + place + data[told + 4 : at] + box + data[at:]


def avif_with_more_in_mdat(body: bytes) -> bytes:
    """Return a small AVIF whose last box has bytes behind those of its item."""
    data = avif()
    at = data.index(b"mdat") - 4
    return data[:at] + struct.pack(">I", len(data) - at + len(body)) + data[at + 4 :] + body


def tga_with_area() -> bytes:
    """Return a small TGA, coded in runs, with a developer's area of one field (TGA 2.0, developer directory)."""
    data = saved(photo(8, 9), "TGA", compression="tga_rle")[:-26]
    field = b"by hand"
    directory = struct.pack("<HHII", 1, 32768, len(data), len(field))
    return data + field + directory + struct.pack("<II", 0, len(data) + len(field)) + b"TRUEVISION-XFILE.\0"


def psd(*, channels: int = 3, layers: bytes = b"", resources: bytes = b"") -> bytes:
    """Return a small uncompressed PSD of RGB and further channels."""
    pixels = photo(40, 56)
    planes = [pixels[..., min(index, 2)] for index in range(channels)]
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, channels, 40, 56, 8, 3)
    sections = (struct.pack(">I", len(part)) + part for part in (b"", resources, layers))
    return head + b"".join(sections) + bytes(2) + np.stack(planes).tobytes()


FILM = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(range(256)) * 4
GEO = {33550: (12, (0.5, 0.5, 0.0)), 34735: (3, (1, 1, 0, 1, 1024, 0, 1, 2)), 42112: (2, "<GDALMetadata/>")}
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + bytes(8) + b"depth"

CARRIED: dict[str, tuple[bytes, list[str]]] = {
    "JPEG with credits, a comment, a density": (
        with_density(jpeg(segment(0xED, IPTC), segment(0xFE, b"scan 117")), 1, 300, 300),
        ["JFIF", "APP13", "COM"],
    ),
    "JPEG with a film behind its end": (jpeg(behind=FILM), ["trailer"]),
    "JPEG with a heat map and a depth map": (
        jpeg(segment(0xE1, b"FLIR\0" + bytes(40)), segment(0xE1, EXTENSION), segment(0xE1, EXTENSION)),
        ["APP1", "XMP-extension", "XMP-extension"],
    ),
    "progressive JPEG with a comment": (jpeg(segment(0xFE, b"a"), progressive=True), ["COM"]),
    "PNG with texts, a density, a date": (
        png(
            chunk(b"tEXt", b"parameters\0Steps: 30"),
            chunk(b"zTXt", b"Comment\0\0x\x9c\x03\0\0\0\0\x01"),
            chunk(b"iTXt", b"Title\0\0\0de\0Titel\0\xc3\x84"),
            chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
            last=chunk(b"tIME", struct.pack(">H5B", 2001, 2, 3, 4, 5, 6)),
        ),
        ["tEXt", "zTXt", "iTXt", "pHYs", "tIME"],
    ),
    "PNG with colours in numbers": (
        png(
            chunk(b"gAMA", struct.pack(">I", 100_000)),
            chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        ),
        ["gAMA", "cHRM"],
    ),
    "PNG with a chunk that nobody knows": (png(chunk(b"prVt", b"?"), behind=FILM), ["prVt", "trailer"]),
    "PNG with a background": (png(chunk(b"bKGD", struct.pack(">3H", 255, 0, 9))), ["bKGD"]),
    "WebP with bytes behind its end": (webp(behind=FILM), ["trailer"]),
    "TIFF with a place": (tiff(GEO), [f"tag-{tag}" for tag in GEO]),
    "big-endian TIFF with a place": (tiff(GEO, big_endian=True), [f"tag-{tag}" for tag in GEO]),
    "BMP with a density": (bmp(density=(11811, 11811)), ["density"]),
    "AVIF of Display P3": (avif(code_points=(12, 13)), ["nclx"]),
    "AVIF of Display P3 that has a profile as well": (avif(code_points=(12, 13), icc=srgb_profile()), ["nclx"]),
    "BMP with words of a program's own": (bmp()[:6] + b"made" + bmp()[10:], ["reserved"]),
}
"""Files by what is in them, with the names of the parts that are carried."""

LOST: dict[str, tuple[bytes, list[str]]] = {
    "JPEG with an index of pictures": (jpeg(segment(0xE2, b"MPF\0" + bytes(20)), behind=FILM), ["mpf", "trailer"]),
    "JPEG with a signature": (jpeg(segment(0xEB, b"JP\0\1" + bytes(20))), ["jumbf"]),
    "PNG with a chunk that is not to be copied": (png(chunk(b"prVT", b"?")), ["prVT"]),
    "PNG with a signature": (png(chunk(b"caBX", b"?")), ["caBX"]),
    "WebP with a chunk that nobody knows": (webp((b"abcd", b"x")), ["abcd"]),
    "TIFF with layers": (tiff({37724: (7, b"Adobe Photoshop Document Data Block\0")}), ["layers"]),
    "TIFF with a channel that is no alpha": (
        hand_made_tiff(9, 8, bits=8, samples=4, photometric=2, body=bytes(9 * 8 * 4)), ["channels"]
    ),
    "GIF with a comment": (gif(comment=b"hello"), ["comment"]),
    "GIF with bytes behind its end": (gif(behind=FILM), ["trailer"]),
    "AVIF with a film behind its end": (avif(behind=FILM), ["trailer"]),
    "AVIF with a box behind its end": (avif(behind=b"\0\0\0\x10mpvdabcdefgh"), ["trailer"]),
    "AVIF with text where nothing should be": (avif_with(b"free", b"by hand"), ["free"]),
    "AVIF with bytes that belong to nothing": (avif_with(b"mdat", b"by hand"), ["mdat"]),
    "AVIF with bytes between those of its items": (avif_with_more_in_mdat(b"by hand"), ["mdat"]),
    "AVIF with a second picture": (saved(photo(24, 31, 4), "AVIF").replace(b"auxl", b"cdsc"), ["pictures"]),
    "PSD with resources": (psd(resources=b"8BIM\x04\x04\0\0\0\0\0\4abcd"), ["iptc"]),
    "JPEG 2000 with a profile": (jpeg2000(photo(24, 31), srgb_profile()), ["colours"]),
    "JPEG 2000 with a comment": (saved(photo(24, 31), "JPEG2000", comment="by hand"), ["comment"]),
    "JPEG 2000 codestream": (saved(photo(24, 31), "JPEG2000", no_jp2=True), ["codestream"]),
    "JPEG 2000 codestream with a comment": (
        saved(photo(24, 31), "JPEG2000", comment="by hand", no_jp2=True),
        ["codestream", "comment"],
    ),
    "JPEG 2000 codestream with bytes behind its end": (
        saved(photo(24, 31), "JPEG2000", no_jp2=True) + FILM,
        ["codestream", "trailer"],
    ),
    "PSD with bytes behind its end": (psd() + FILM, ["trailer"]),
    "QOI with another behind it": (2 * saved(photo(24, 31), "QOI"), ["colour", "trailer"]),
    "GIF of wide pixels": (gif()[:12] + b"\x71" + gif()[13:], ["aspect"]),
    "PNG with two packets of XMP": (png(*2 * [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)]), ["second-xmp"]),
    "PPM with a comment": (b"P6 # by hand\n2 1 255\n" + bytes(6), ["comment"]),
    "PNG with two EXIF blocks": (png(*(chunk(b"eXIf", exif(make=make)) for make in (b"Other\0", b"Maker\0"))), ["second-exif"]),
    "PNG with two profiles": (png(*2 * [chunk(b"iCCP", b"x\0\0" + zlib.compress(srgb_profile()))]), ["second-profile"]),
    "JPEG with two EXIF blocks": (
        jpeg(*(segment(0xE1, b"Exif\0\0" + exif(make=make)) for make in (b"Maker\0", b"Other\0"))), ["second-exif"]
    ),
    "PNG with a broken packet of XMP": (
        png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + b"no zlib")), ["xmp"]
    ),
    "BMP with transparency": (saved(photo(24, 31, 4), "BMP"), ["alpha"]),
    "AVIF that does not tell its colours": (avif().replace(b"colrnclx", b"freenclx"), ["colours", "free"]),
    "SGI": (saved(photo(8, 9), "SGI"), ["unknown-parts"]),
    "JPEG with half a profile": (jpeg(segment(0xE2, b"ICC_PROFILE\0\1\2" + srgb_profile()[:99])), ["profile"]),
    "WebP with EXIF that its header does not tell of": (
        webp()[:20] + bytes((webp()[20] & ~8,)) + webp()[21:], ["EXIF"]
    ),
    "PNG with a palette that only suggests": (png(chunk(b"PLTE", bytes(range(48)))), ["PLTE"]),
    "PNG with a palette by its name": (png(chunk(b"sPLT", b"x\0\x08" + bytes(6))), ["sPLT"]),
    "PNG with a frequency of colours": (png(chunk(b"PLTE", bytes(range(48))), chunk(b"hIST", bytes(32))), ["PLTE", "hIST"]),
    "PNG with bytes in its end": (png()[:-12] + chunk(b"IEND", b"by hand"), ["IEND"]),
    "PNG with a chunk behind its pixels' stream": (png(last=chunk(b"IDAT", b"by hand")), ["IDAT"]),
    "PNG with more pixels than it has room for": (
        pictures.png(3, 2, depth=8, colour=2, rows=bytes(2 * 10) + b"by hand"), ["IDAT"]
    ),
    "PNG with EXIF in hex that is damaged": (png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 3\n45x8\n")), ["exif"]),
    "TGA in runs with bytes behind its end": (saved(photo(8, 9), "TGA", compression="tga_rle") + b"by hand", ["trailer"]),
    "TGA with bytes behind its end": (saved(photo(8, 9), "TGA") + b"by hand", ["trailer"]),
    "TGA in runs with a developer's area": (tga_with_area(), ["extension"]),
    "BMP with bytes before its pixels": (
        bmp()[:10] + struct.pack("<I", 54 + 40) + bmp()[14:54] + b"x" * 40 + bmp()[54:], ["gap"]
    ),
}  # fmt: skip
"""Files by what is in them, with the words for what a restore would lack."""

PLAIN: dict[str, bytes] = {
    name: saved(photo(24, 31), name) for name in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM", "TGA")
} | {
    "GIF": gif(),
    "PSD": psd(),
    "JPEG with metadata": with_metadata(photo(8, 9), "JPEG", exif=exif(), icc=srgb_profile(), xmp=XMP),
    "PNG with metadata": with_metadata(photo(8, 9), "PNG", exif=exif(), icc=srgb_profile(), xmp=XMP),
    "TIFF with metadata": with_metadata(photo(8, 9), "TIFF", exif=exif(), icc=srgb_profile(), xmp=XMP),
    "AVIF with metadata": with_metadata(photo(8, 9), "AVIF", exif=exif(), icc=srgb_profile(), xmp=XMP),
    "WebP with metadata": with_metadata(photo(8, 9, 4), "WEBP", exif=exif(), icc=srgb_profile(), xmp=XMP),
}
"""Files of pixels, EXIF, ICC profile and XMP."""
