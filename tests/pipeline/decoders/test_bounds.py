"""Small files that would cost their decoders minutes or gigabytes: refused before they are decoded, or read in bounds."""

from __future__ import annotations

import importlib.util
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from pipeline.core.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from pipeline.decoders import decoding
from pipeline.decoders.unusual import tiff_samples
from pipeline.pictures import codecs
from tests.support import containers, pictures
from tests.support.containers import chunk, segment
from tests.support.pictures import decoded, photo, saved
from tests.support.raw import dng


def box(kind: bytes, body: bytes) -> bytes:
    """Return a box (ISO/IEC 14496-12, 4.2)."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def heif(brand: bytes, *, items: int, shared: int = 0, references: int = 0) -> bytes:
    """Return an AVIF or HEIF file without pictures: items, the first of ``shared`` bytes, which is said to describe others."""
    listed = b"".join(box(b"infe", struct.pack(">IHH4s", 2 << 24, 1 + index, 0, b"Exif")) for index in range(items))
    places = struct.pack(">IHHHHHII", 0, 0x4400, 1, 1, 0, 1, 0, shared)
    told = struct.pack(">HH", 1, references) + struct.pack(">H", 2) * references
    meta = (
        box(b"iinf", struct.pack(">IH", 0, items) + listed) + box(b"iloc", places) + box(b"iref", bytes(4) + box(b"cdsc", told))
    )
    return box(b"ftyp", brand + bytes(4)) + box(b"meta", bytes(4) + meta) + bytes(shared)


def progressive(scans: int) -> bytes:
    """Return a progressive JPEG with scans that say nothing (ITU-T T.81, B.2)."""
    table = bytes([1] + [0] * 15) + b"\0"
    head = segment(0xDB, bytes([0] + [1] * 64)) + segment(0xC2, struct.pack(">BHHB", 8, 64, 64, 1) + b"\1\x11\0")
    first = segment(0xC4, b"\0" + table) + segment(0xC4, b"\x10" + table) + segment(0xDA, b"\1\1\0\0\0\0") + bytes(64)
    return b"\xff\xd8" + head + first + segment(0xDA, b"\1\1\0\1\x3f\0") * scans + b"\xff\xd9"


JP2 = b"\0\0\0\x0cjP  \r\n\x87\n"
SIZ = b"\xff\x4f\xff\x51" + struct.pack(">HH8I", 41, 0, 16, 16, 0, 0, 16, 16, 0, 0) + b"\0\1\7\1\1"


def icns(*inner: bytes) -> bytes:
    """Return an ICNS of these entries."""
    body = b"".join(struct.pack(">4sI", b"ic07", 8 + len(each)) + each for each in inner)
    return b"icns" + struct.pack(">I", 8 + len(body)) + body


PNG = containers.png()
JPEG = saved(photo(40, 56), "JPEG")
ENDLESS = {
    "JPEG of a thousand scans": progressive(1000),
    "JPEG of fill bytes": JPEG[:2] + b"\xff" * 300_000 + JPEG[2:],
    "JPEG of segments": JPEG[:2] + segment(0xFE, b"") * 200_001 + JPEG[2:],
    "PNG of chunks": PNG[:33] + chunk(b"teSt", b"") * 200_001 + PNG[33:],
    "ICNS of JPEG 2000 that ends in its one size": icns(*[JP2] * 80_000, SIZ),
    "ICO of one JPEG 2000 over and over": struct.pack("<HHH", 0, 1, 65535)
    + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 0, 6 + 16 * 65535) * 65535
    + (JP2 + bytes(1_000_000) + SIZ),
    "AVIF of items": heif(b"avif", items=1001),
    "HEIC that describes a picture over and over": heif(b"heic", items=2, shared=9000, references=65535),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDLESS)
def test_what_would_take_its_decoder_too_long_is_refused(what: str) -> None:
    """Protects a worker's time and memory from files whose decoders go through them, or copy them, thousands of times."""
    with pytest.raises(UnsupportedImage):
        decoded(ENDLESS[what])
    assert decoding.pixel_count(ENDLESS[what]) is None


def test_what_is_within_the_bounds_is_decoded() -> None:
    """Protects progressive JPEGs of many scans."""
    assert decoded(progressive(400)).pixels.shape == (64, 64, 3)


@pytest.mark.slow
def test_boxes_without_end_are_refused_in_bounds() -> None:
    """Protects memory from hundreds of thousands of empty boxes beside the items of an AVIF."""
    data = box(b"ftyp", b"avif" + bytes(4)) + box(b"meta", bytes(4) + box(b"free", b"") * 250_000)
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableImage, match="more boxes"):
            decoded(data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2 * len(data)


def test_an_icon_of_jpeg_2000_has_the_size_of_its_codestream() -> None:
    """Protects the limit of pixels from what looks like a size before it, and from a size far behind."""
    told = box(b"xml ", SIZ) + box(b"jp2c", SIZ.replace(struct.pack(">II", 16, 16), struct.pack(">II", 16_000, 16_000)))
    assert decoding.pixel_count(icns(JP2 + told)) == 16_000**2
    with pytest.raises(UndecodableImage, match="no size"):
        decoded(icns(JP2 + box(b"free", b"") * 10_000 + told))


def test_items_that_cannot_be_told_are_damage() -> None:
    """Protects the bound of items from files that hide them."""
    data = heif(b"heic", items=2)
    with pytest.raises(UndecodableImage, match="items cannot be told"):
        decoded(data.replace(struct.pack(">H", 0x4400) + b"\0\1", struct.pack(">H", 0x4400) + b"\xff\xff"))


def icon(inner: bytes) -> bytes:
    """Return an ICO that says it is of 16 x 16 pixels."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


HEADER = pictures.bomb(16_000, 16_000)
HIDDEN = {
    "PNG in an ICO": icon(HEADER),
    "BMP in an ICO": icon(struct.pack("<IiiHHIIiiII", 40, 16_000, -32_000, 1, 32, 0, 0, 0, 0, 0, 0)),
    "PNG in an ICNS": b"icns" + struct.pack(">I4sI", 16 + len(HEADER), b"ic07", 8 + len(HEADER)) + HEADER,
    "JPEG 2000 in an ICNS": b"icns" + struct.pack(">I4sI", 500, b"ic07", 500) + saved(photo(16, 16), "JPEG2000", no_jp2=True),
}
HIDDEN["JPEG 2000 in an ICNS"] = HIDDEN["JPEG 2000 in an ICNS"].replace(
    struct.pack(">II", 16, 16), struct.pack(">II", 16_000, 16_000)
)


@pytest.mark.parametrize("what", HIDDEN)
def test_a_picture_inside_counts_before_it_is_decoded(what: str) -> None:
    """Protects memory: icons are decoded when they are opened, and may hold what their directory does not say."""
    with pytest.raises(ImageTooLarge, match="16000 x 16000"):
        decoded(HIDDEN[what])
    assert decoding.pixel_count(HIDDEN[what]) == 16_000**2


def tiff(*tags: tuple[int, int, int, int], bits: int = 16) -> bytes:
    """Return a grey TIFF of 1000 x 1000 pixels by hand, with tags of a kind, count and value instead of its own, or besides."""
    body = bytes(2_000_000)
    own = {256: (4, 1000), 257: (4, 1000), 258: (3, bits), 259: (3, 1), 262: (3, 1), 277: (3, 1), 278: (4, 1000)}
    own |= {273: (4, 8), 279: (4, len(body))}
    told = [*tags, *((number, kind, 1, value) for number, (kind, value) in own.items() if (number, kind) != tags[0][:2])]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(told, key=lambda tag: tag[0]))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(told)) + entries + bytes(4)


FORGED = {
    "200 channels before its one": (277, 1, 1, 200),
    "200 bits before its 16": (258, 1, 1, 200),
    "a body 3000 pixels deep": (32997, 4, 1, 3000),
    "a width of two numbers": (256, 9, 1, 9),
}


@pytest.mark.parametrize("what", FORGED)
def test_tags_that_libtiff_reads_otherwise_are_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: what is counted against the limit of pixels is what the library makes room for, or it is not asked."""
    monkeypatch.setattr(codecs, "decode_samples", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises((UndecodableImage, UnsupportedImage)):
        tiff_samples(tiff(FORGED[what]), 1_000_000)


def test_tiles_have_the_limit_of_pictures() -> None:
    """Protects memory from tiles of which a picture fills a corner."""
    with pytest.raises(ImageTooLarge, match="30000 x 30000"):
        decoded(tiff((322, 4, 1, 30_000), (323, 4, 1, 30_000)))


def test_pages_are_counted_fast() -> None:
    """Protects jobs from TIFFs of pages without end, or that lead back: a hundred thousand are counted, or one is."""
    first = tiff((269, 2, 1, 0), bits=8)
    start = len(first)
    many = b"".join(struct.pack("<HI", 0, start + 6 * index) for index in range(1, 100_001))
    assert decoded(first[:-4] + struct.pack("<I", start) + many).frames == 100_001
    assert decoded(first[:-4] + first[4:8]).frames == 1
    assert decoded(first[:-4] + struct.pack("<I", 2**32 - 1)).frames == 1


@pytest.mark.parametrize("frames", [3, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_header_may_tell_of_any_frames(frames: int) -> None:
    """Protects tables, whose numbers have 32 bits."""
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 56, 40, 0, 0, 1, 1, 0, 0))
    told = chunk(b"acTL", struct.pack(">II", frames, 0))
    for data in (containers.png(told, control), containers.png(told)):
        assert 1 <= decoded(data).frames <= len(data)


def test_runs_of_a_psb_take_no_more_than_its_lines() -> None:
    """Protects memory from a line coded 64 times as long as it is."""
    runs = b"\x81\0" * 1_000_000
    head = b"8BPS\0\2" + bytes(6) + struct.pack(">HIIHH", 3, 1, 100, 8, 3) + bytes(16)
    data = head + b"\0\1" + struct.pack(">III", *[len(runs)] * 3) + runs * 3
    tracemalloc.start()
    try:
        assert decoded(data).pixels.shape == (1, 100, 3)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 10 * len(runs)


@pytest.mark.skipif(importlib.util.find_spec("rawpy") is None, reason="rawpy is an extra")
@pytest.mark.parametrize(("side", "error"), [(20_000, ImageTooLarge), (900, UndecodableImage)])
def test_a_preview_that_is_not_there_is_refused(side: int, error: type[ImageError]) -> None:
    """Protects memory: LibRaw makes room for a preview of samples whatever its size is said to be."""
    data = dng(saved(photo(60, 80), "JPEG"))
    for number, kind, own, forged in ((256, 4, 80, side), (257, 4, 60, side), (259, 3, 7, 1), (262, 3, 6, 2)):
        data = data.replace(struct.pack("<HHII", number, kind, 1, own), struct.pack("<HHII", number, kind, 1, forged))
    with pytest.raises(error):
        decoded(data)


def test_rows_beyond_a_picture_are_no_memory() -> None:
    """Protects memory from pixels that go on behind the picture's, in 16 bits as in 8."""
    samples = np.zeros((10, 10 * 6 + 1), np.uint8).tobytes() + bytes(50 * 2**20)
    data = pictures.png(10, 10, depth=16, colour=2, rows=b"")
    data = data[:33] + chunk(b"IDAT", zlib.compress(samples)) + data[-12:]
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        decoded(data)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 10 * 2**20
