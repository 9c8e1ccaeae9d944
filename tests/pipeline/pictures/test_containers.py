"""Every byte of a file is accounted for: it is understood, carried into the restored file as it was, or named as lost."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pictures import decoding, writing
from pipeline.pictures.containers.account import UNKNOWN, WALKERS, account, put_back
from tests.support import containers, pictures
from tests.support.containers import IPTC, chunk, segment

MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(range(256)) * 4
GEO = {33550: (12, (0.5, 0.5, 0.0)), 34735: (3, (1, 1, 0, 1, 1024, 0, 1, 2)), 42112: (2, "<GDALMetadata/>")}
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + bytes(8) + b"depth"

CARRIED = {
    "JPEG with credits, a comment, a density": (
        containers.with_density(containers.jpeg(segment(0xED, IPTC), segment(0xFE, b"scan 117")), 1, 300, 300),
        ["JFIF", "APP13", "COM"],
    ),
    "JPEG with a film behind its end": (containers.jpeg(behind=MP4), ["trailer"]),
    "JPEG with a heat map and a depth map": (
        containers.jpeg(segment(0xE1, b"FLIR\0" + bytes(40)), segment(0xE1, EXTENSION), segment(0xE1, EXTENSION)),
        ["APP1", "XMP-extension", "XMP-extension"],
    ),
    "progressive JPEG with a comment": (containers.jpeg(segment(0xFE, b"a"), progressive=True), ["COM"]),
    "PNG with texts, a density, a date": (
        containers.png(
            chunk(b"tEXt", b"parameters\0Steps: 30"),
            chunk(b"zTXt", b"Comment\0\0x\x9c\x03\0\0\0\0\x01"),
            chunk(b"iTXt", b"Title\0\0\0de\0Titel\0\xc3\x84"),
            chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
            last=chunk(b"tIME", struct.pack(">H5B", 2001, 2, 3, 4, 5, 6)),
        ),
        ["tEXt", "zTXt", "iTXt", "pHYs", "tIME"],
    ),
    "PNG with colours in numbers": (
        containers.png(
            chunk(b"gAMA", struct.pack(">I", 100_000)),
            chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        ),
        ["gAMA", "cHRM"],
    ),
    "PNG with a chunk that nobody knows": (containers.png(chunk(b"prVt", b"?"), behind=MP4), ["prVt", "trailer"]),
    "PNG with a background": (containers.png(chunk(b"bKGD", struct.pack(">3H", 255, 0, 9))), ["bKGD"]),
    "WebP with bytes behind its end": (containers.webp(behind=MP4), ["trailer"]),
    "TIFF with a place": (containers.tiff(GEO), [f"tag-{tag}" for tag in GEO]),
    "big-endian TIFF with a place": (containers.tiff(GEO, big_endian=True), [f"tag-{tag}" for tag in GEO]),
    "BMP with a density": (containers.bmp(density=(11811, 11811)), ["density"]),
    "AVIF of Display P3": (containers.avif(code_points=(12, 13)), ["nclx"]),
}
LOST = {
    "JPEG with an index of pictures": (containers.jpeg(segment(0xE2, b"MPF\0" + bytes(20)), behind=MP4), ["mpf", "trailer"]),
    "JPEG with a signature": (containers.jpeg(segment(0xEB, b"JP\0\1" + bytes(20))), ["jumbf"]),
    "PNG with a chunk that is not to be copied": (containers.png(chunk(b"prVT", b"?")), ["prVT"]),
    "PNG with a signature": (containers.png(chunk(b"caBX", b"?")), ["caBX"]),
    "WebP with a chunk that nobody knows": (containers.webp((b"abcd", b"x")), ["abcd"]),
    "TIFF with layers": (containers.tiff({37724: (7, b"Adobe Photoshop Document Data Block\0")}), ["layers"]),
    "TIFF with a channel that is no alpha": (
        pictures.tiff(9, 8, bits=8, samples=4, photometric=2, body=bytes(9 * 8 * 4)), ["channels"]
    ),
    "GIF with a comment": (containers.gif(comment=b"hello"), ["comment"]),
    "GIF with bytes behind its end": (containers.gif(behind=MP4), ["trailer"]),
    "AVIF with bytes behind its end": (containers.avif(behind=b"\0\0\0\x10mpvdabcdefgh"), ["mpvd"]),
    "PSD with resources": (containers.psd(resources=b"8BIM\x04\x04\0\0\0\0\0\4abcd"), ["iptc"]),
    "PPM with a comment": (b"P6 # by hand\n2 1 255\n" + bytes(6), ["comment"]),
    "SGI": (pictures.saved(pictures.photo(8, 9), "SGI"), [UNKNOWN]),
}  # fmt: skip
PLAIN = {
    name: pictures.saved(pictures.photo(24, 31), name)
    for name in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM", "TGA")
} | {
    "GIF": containers.gif(),
    "PSD": containers.psd(),
    "JPEG with metadata": pictures.with_metadata(
        pictures.photo(8, 9), "JPEG", exif=pictures.exif(), icc=pictures.srgb_profile(), xmp=pictures.XMP
    ),
    "PNG with metadata": pictures.with_metadata(
        pictures.photo(8, 9), "PNG", exif=pictures.exif(), icc=pictures.srgb_profile(), xmp=pictures.XMP
    ),
    "TIFF with metadata": pictures.with_metadata(
        pictures.photo(8, 9), "TIFF", exif=pictures.exif(), icc=pictures.srgb_profile(), xmp=pictures.XMP
    ),
    "AVIF with metadata": pictures.with_metadata(
        pictures.photo(8, 9), "AVIF", exif=pictures.exif(), icc=pictures.srgb_profile(), xmp=pictures.XMP
    ),
    "WebP with metadata": pictures.with_metadata(
        pictures.photo(8, 9, 4), "WEBP", exif=pictures.exif(), icc=pictures.srgb_profile(), xmp=pictures.XMP
    ),
}


def decoded(data: bytes) -> decoding.Picture:
    """Return the picture in a file."""
    return decoding.decode(data, pixel_limit=10**6)


@pytest.mark.parametrize("what", [*CARRIED, *LOST, *PLAIN])
def test_parts_cover_the_file(what: str) -> None:
    """Protects the account: there is no byte of a file that belongs to no part."""
    data = (CARRIED | LOST)[what][0] if what in CARRIED or what in LOST else PLAIN[what]
    walk = WALKERS.get(decoded(data).format)
    if walk is None:
        pytest.skip("a format without a walker is kept whole")
    end = 0
    for part in walk(data):
        assert part.start <= end
        end = max(end, part.end)
    assert end == len(data)


@pytest.mark.parametrize("what", CARRIED)
def test_what_is_carried_comes_back(what: str) -> None:
    """Protects credits, texts, places, films: the restored file has the part as it was, and is a sound file."""
    data, names = CARRIED[what]
    picture = decoded(data)
    assert ([part.name for part in picture.parts], picture.lost) == (names, ())
    again = decoded(writing.encode(picture, format=picture.format, quality=95))
    assert sorted((part.name, part.data) for part in again.parts) == sorted((part.name, part.data) for part in picture.parts)
    assert (again.pixels.shape, again.icc, again.lost) == (picture.pixels.shape, picture.icc, ())


@pytest.mark.parametrize("what", CARRIED)
def test_another_format_is_said_to_lack_them(what: str) -> None:
    """Protects whoever asks for another format: what only the source's own could hold is told by name."""
    picture = decoded(CARRIED[what][0])
    other = "WEBP" if picture.format != "WEBP" else "PNG"
    assert writing.lacking(picture, other) == tuple(sorted({part.name for part in picture.parts}))
    assert writing.lacking(picture, picture.format) == ()


@pytest.mark.parametrize("what", LOST)
def test_what_cannot_be_carried_is_named(what: str) -> None:
    """Protects against silence: offsets, signatures, layers, comments of formats that are not written are named as lost."""
    data, words = LOST[what]
    assert decoded(data).lost == tuple(sorted(words))


@pytest.mark.parametrize("what", PLAIN)
def test_plain_files_lose_nothing(what: str) -> None:
    """Protects bytes: a file of pixels, EXIF, ICC and XMP carries nothing and is not kept."""
    picture = decoded(PLAIN[what])
    assert (picture.parts, picture.lost) == ((), ())


@given(data=st.binary(max_size=300), name=st.sampled_from(sorted(WALKERS)), keep=st.integers(0, 400))
def test_walkers_take_anything(data: bytes, name: str, keep: int) -> None:
    """Protects the worker: damaged containers are unknown, never an exception, and never parts outside the file."""
    start = PLAIN.get(name, PLAIN["JPEG"])[:keep]
    for file in (data, start + data):
        found = account(file, name)
        assert all(len(part.data) <= len(file) + 8 for part in found.carried)


def test_nothing_is_put_into_a_format_that_is_not_written() -> None:
    """Protects files: what is put back goes into a file of its own format alone."""
    assert put_back(b"x", "GIF", decoded(containers.jpeg(behind=MP4)).parts) == b"x"
