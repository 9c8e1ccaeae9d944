"""Originals: every file comes back byte for byte, smaller where it can be, and damage is refused, never a crash."""

from __future__ import annotations

import random
import struct
import tracemalloc
from functools import cache
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.containers import jxl
from pipeline.core.errors import UndecodableImage, UnwritableImage
from pipeline.core.records import OriginalCoding
from pipeline.pictures import codecs, originals
from pipeline.pictures.originals import pack, pack_pixels, unpack, unpack_pixels
from tests.support.pictures import damaged, exif, harmed, photo, saved, srgb_profile, unsupported

BYTES, JXL, ZSTD, PIXELS = OriginalCoding
SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*.jpg"))


def segment(marker: int, body: bytes) -> bytes:
    """Return one segment of a JPEG (ITU-T T.81, B.1.1.4)."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def inserted(jpeg: bytes, *parts: bytes) -> bytes:
    """Return a JPEG with parts between its first marker and the rest."""
    return jpeg[:2] + b"".join(parts) + jpeg[2:]


def arithmetic(side: int, data: bytes) -> bytes:
    """Return a grey JPEG in arithmetic coding, put together by hand: whatever bytes follow its headers are some picture."""
    frame = struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
    quantisation = b"\0" + bytes([16]) * 64
    return (
        b"\xff\xd8" + segment(0xDB, quantisation) + segment(0xC9, frame) + segment(0xDA, b"\1\1\0\0\x3f\0") + data + b"\xff\xd9"
    )


@cache
def plain() -> bytes:
    """Return an ordinary small JPEG."""
    return saved(photo(203, 301), "JPEG", quality=90)


def mpo() -> bytes:
    """Return two pictures in one file, with the table that says so."""
    file = BytesIO()
    Image.fromarray(photo(203, 301)).save(file, "MPO", save_all=True, append_images=[Image.fromarray(photo(90, 70, seed=1))])
    return file.getvalue()


@cache
def ordinary() -> dict[str, bytes]:
    """Return JPEGs that recompression takes, by what they are."""
    picture, jpeg = photo(203, 301), plain()
    return {
        "baseline": jpeg,
        "optimised": saved(picture, "JPEG", optimize=True),
        "progressive": saved(picture, "JPEG", progressive=True),
        "grey": saved(picture[..., 0], "JPEG"),
        "RGB": saved(picture, "JPEG", keep_rgb=True),
        "4:4:4": saved(picture, "JPEG", subsampling="4:4:4"),
        "4:2:2": saved(picture, "JPEG", subsampling="4:2:2"),
        "4:4:0": bytes(imagecodecs.jpeg8_encode(picture, level=90, subsampling="440")),
        "quality 1": saved(picture, "JPEG", quality=1),
        "quality 100": saved(picture, "JPEG", quality=100),
        "restart markers": saved(picture, "JPEG", restart_marker_blocks=3),
        "trailing text": jpeg + b"left by a camera" * 30,
        "trailing noise": jpeg + random.Random(0).randbytes(2000),
        "trailing JPEG": jpeg + saved(picture[:40], "JPEG"),
        "MPO": mpo(),
        "EXIF": saved(picture, "JPEG", exif=b"Exif\0\0" + exif(orientation=6)),
        "large EXIF": saved(picture, "JPEG", exif=b"Exif\0\0" + exif(make=b"M" * 60_000)),
        "ICC": saved(picture, "JPEG", icc_profile=srgb_profile()),
        "comment": inserted(jpeg, segment(0xFE, b"taken by hand")),
        "large application segments": inserted(jpeg, *[segment(0xE5, bytes(65_000))] * 20),
        "fill bytes": inserted(jpeg, b"\xff\xff\xff"),
    }


@cache
def odd() -> dict[str, bytes]:
    """Return files that recompression refuses, gains nothing on, or is never asked about, by what they are."""
    picture, jpeg = photo(203, 301), plain()
    noise = random.Random(1)
    return {
        "CMYK": saved(Image.fromarray(picture).convert("CMYK"), "JPEG"),
        "4:1:1": bytes(imagecodecs.jpeg8_encode(picture, level=90, subsampling="411")),
        "arithmetic, no data": arithmetic(8, b""),
        "arithmetic": arithmetic(64, bytes(noise.randrange(255) for _ in range(600))),
        "lossless": bytes(imagecodecs.jpeg8_encode(picture, lossless=True)),
        "12 bits": bytes(imagecodecs.jpeg8_encode(picture.astype(np.uint16) << 4, level=90, bitspersample=12)),
        "cut in half": jpeg[: len(jpeg) // 2],
        "end marker missing": jpeg[:-2],
        "end marker cut": jpeg[:-1],
        "1 x 1": saved(picture[:1, :1], "JPEG"),
        "noise in application segments": inserted(jpeg, *(segment(0xE5, noise.randbytes(65_000)) for _ in range(5))),
        "two beginnings": b"\xff\xd8" + jpeg,
        "only the magic": b"\xff\xd8\xff",
        "only a start": b"\xff\xd8",
        "start and end": b"\xff\xd8\xff\xd9",
        "PNG": saved(picture, "PNG"),
        "WebP": saved(picture, "WEBP"),
        "PNG, not compressed": saved(picture, "PNG", compress_level=0),
        "BMP": saved(picture, "BMP"),
        "TIFF": saved(picture, "TIFF"),
        "GIF": saved(picture, "GIF"),
        "AVIF": saved(picture, "AVIF"),
        "JPEG 2000": saved(picture, "JPEG2000"),
        "JPEG XL": codecs.encode_jxl_lossless(picture),
        "Zstandard": codecs.compress_zstd(bytes(5000), level=3),
        **unsupported(),
        **damaged(),
    }


def checked(data: bytes) -> tuple[bytes, OriginalCoding]:
    """Return the coding of a file after having had the file back from it."""
    packed, coding = pack(data)
    assert unpack(packed, coding, size=len(data)) == data
    assert len(packed) <= len(data)
    assert (packed is data) == (coding is BYTES)
    return packed, coding


@pytest.mark.slow
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_photograph_is_stored_smaller_and_comes_back(path: Path) -> None:
    """Protects tier exact on ordinary JPEGs: the identical file, for 15 to 25 % less."""
    data = path.read_bytes()
    packed, coding = checked(data)
    assert coding is JXL
    assert 0.75 < len(packed) / len(data) < 0.85


@pytest.mark.parametrize("name", ordinary())
def test_every_usual_kind_of_jpeg_is_recompressed(name: str) -> None:
    """Protects the saving: no usual kind of JPEG falls back to its own bytes without anybody knowing."""
    packed, coding = checked(ordinary()[name])
    assert coding is JXL
    assert len(packed) < 0.97 * len(ordinary()[name])


@pytest.mark.parametrize("name", odd())
def test_every_odd_file_comes_back(name: str) -> None:
    """Protects tier exact on anything: what no coding takes is kept as it is."""
    _, coding = checked(odd()[name])
    assert coding in (BYTES, ZSTD)


def test_which_files_are_compressed_and_which_are_not() -> None:
    """Protects the choice by trial: Zstandard for what is not compressed yet, a file's own bytes for what is."""
    chosen = {name: pack(data)[1] for name, data in odd().items()}
    assert {chosen[name] for name in ("BMP", "TIFF", "PNG, not compressed", "zeros")} == {ZSTD}
    assert {chosen[name] for name in ("PNG", "WebP", "AVIF", "JPEG 2000", "random bytes")} == {BYTES}
    assert {chosen[name] for name in ("JPEG XL", "zero bytes", "only the magic")} == {BYTES}


def test_the_arithmetic_jpegs_are_pictures() -> None:
    """Protects the test above: the files put together by hand are what they are said to be, and not merely damaged."""
    for name in ("arithmetic", "arithmetic, no data"):
        with Image.open(BytesIO(odd()[name])) as image:
            assert image.format == "JPEG"
            image.load()
    assert np.ptp(np.asarray(Image.open(BytesIO(odd()["arithmetic"])))) > 10


def test_the_same_file_gives_the_same_bytes() -> None:
    """Protects repeated shards: packing depends on nothing but the file."""
    for data in (plain(), odd()["BMP"]):
        assert pack(data) == pack(data)


@given(data=st.binary(max_size=4000), times=st.integers(1, 50))
def test_any_bytes_come_back(data: bytes, times: int) -> None:
    """Protects tier exact on files that are no picture at all, random or repetitive."""
    checked(data * times)
    checked(b"\xff\xd8\xff" + data)


@given(kind=st.sampled_from(sorted(ordinary())), seed=st.integers(0, 2**32))
def test_any_damaged_jpeg_comes_back(kind: str, seed: int) -> None:
    """Protects JPEGs that came damaged: they are stored as they came."""
    data = ordinary()[kind]
    for number in range(10):
        checked(harmed(data[:20_000], random.Random(seed + number)))


def test_large_files_are_compressed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects large sources: many frames are one file, and no more is taken than the coding and a part of the file."""
    monkeypatch.setattr(originals, "ZSTD_CHUNK", 10_000)
    data = saved(photo(400, 500), "BMP")
    packed, coding = checked(data)
    assert coding is ZSTD
    assert packed.count(b"\x28\xb5\x2f\xfd") == -(-len(data) // 10_000)
    tracemalloc.start()
    pack(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * len(packed)


def test_what_a_coder_gets_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a coder that loses a byte or gives up: the source's own bytes are stored."""
    bmp = odd()["BMP"]

    def wrong(data: bytes, *, size: int) -> bytes:  # noqa: ARG001 - as it is called
        return bytes(size)

    def refuses(data: bytes, **options: int) -> bytes:  # noqa: ARG001 - as it is called
        raise UnwritableImage("Zstandard", "out of memory")

    monkeypatch.setattr(codecs, "rebuild_jpeg", wrong)
    monkeypatch.setattr(codecs, "decompress_zstd", wrong)
    assert pack(plain()) == (plain(), BYTES)
    assert pack(bmp) == (bmp, BYTES)
    monkeypatch.setattr(codecs, "compress_zstd", refuses)
    monkeypatch.setattr(codecs, "encode_jxl_lossless", refuses)
    assert pack(bmp) == (bmp, BYTES)
    assert pack_pixels(bmp, photo(203, 301), grey=False) == (bmp, BYTES)


def test_jpegs_that_announce_too_many_pixels_never_reach_the_coder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the process, which the coder ends where memory runs out: sizes are told from headers, both ways."""
    jpeg = plain()
    packed, _ = pack(jpeg)
    frame = jpeg.index(b"\xff\xc0") + 5
    huge = jpeg[:frame] + struct.pack(">HH", 65_500, 65_500) + jpeg[frame + 4 :]
    hidden = inserted(huge, segment(0xE9, jpeg[frame - 5 : frame + 10]))  # a small frame where none is
    called: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "recompress_jpeg", called.append)
        patch.setattr(codecs, "rebuild_jpeg", called.append)
        for data in (huge, hidden):
            assert pack(data) == (data, BYTES)
        patch.setattr(originals, "JPEG_PIXELS", 203 * 301 - 1)
        assert pack(jpeg) == (jpeg, BYTES)
        with pytest.raises(UndecodableImage, match="61103 pixels"):
            unpack(packed, JXL, size=len(jpeg))
    assert not called
    monkeypatch.setattr(originals, "JPEG_PIXELS", 203 * 301)
    assert checked(jpeg)[1] is JXL


RATIOS = [(512, 512), (10, 12), (30, 40), (20, 30), (90, 160), (40, 50), (7, 14)]
"""Heights and widths that a JPEG XL header has a shorter way to write, with or without the one for multiples of 8."""


@pytest.mark.parametrize(("height", "width"), [*RATIOS, (1, 1), (8, 8), (256, 256), (264, 8), (513, 700), (3, 9000), (9000, 3)])
def test_sizes_are_told_from_the_header(height: int, width: int) -> None:
    """Protects that bound: every way in which a JPEG XL header writes a size is read."""
    for stream in (
        codecs.encode_jxl_lossless(np.zeros((height, width), np.uint8), effort=1),
        codecs.recompress_jpeg(saved(np.zeros((height, width), np.uint8), "JPEG")),
    ):
        assert jxl.size(stream) == (width, height)
    assert originals._jpeg_pixels(saved(np.zeros((height, width), np.uint8), "JPEG")) == height * width


def test_another_size_than_the_entrys_is_refused() -> None:
    """Protects memory against bombs: not one byte more than the entry says is made, and not one fewer is accepted."""
    bomb = codecs.compress_zstd(bytes(1 << 27), level=3)
    assert len(bomb) < 20_000
    tracemalloc.start()
    for size in (1, 1000, 100_000):
        with pytest.raises(UndecodableImage):
            unpack(bomb, ZSTD, size=size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000
    for data in (plain(), odd()["BMP"], odd()["PNG"]):
        packed, coding = pack(data)
        for size in (-1, 0, 1, len(data) - 1, len(data) + 1):
            with pytest.raises(UndecodableImage):
                unpack(packed, coding, size=size)


def test_nothing_stands_for_nothing() -> None:
    """Protects empty files, and entries whose coding is empty."""
    assert pack(b"") == (b"", BYTES)
    assert unpack(b"", BYTES, size=0) == b""
    for coding in (JXL, ZSTD):
        for size in (0, 5):
            with pytest.raises(UndecodableImage):
                unpack(b"", coding, size=size)
    with pytest.raises(UndecodableImage):
        unpack_pixels(b"", size=(4, 5), grey=False)


def test_a_stream_of_another_coding_is_refused() -> None:
    """Protects rows whose coding is wrong: it is damage, and no other error."""
    streams = {JXL: pack(plain())[0], ZSTD: pack(odd()["BMP"])[0], BYTES: plain()}
    for own, stream in streams.items():
        for coding in (JXL, ZSTD):
            if coding is not own:
                with pytest.raises(UndecodableImage):
                    unpack(stream, coding, size=len(plain()))
        with pytest.raises(UndecodableImage):
            unpack_pixels(stream, size=(20, 30), grey=False)
    with pytest.raises(UndecodableImage):
        unpack(codecs.encode_jxl_lossless(photo(20, 30)), JXL, size=1000)  # pixels, of which no JPEG can be made
    with pytest.raises(ValueError, match="unpack_pixels"):
        unpack(streams[JXL], PIXELS, size=len(plain()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "MPO", "BMP"])
def test_damaged_codings_are_refused_or_of_the_right_size(kind: str) -> None:
    """Protects readers of damaged archives: one error, or as many bytes as expected for the digest to tell; never a crash."""
    data = ordinary().get(kind) or saved(photo(40, 60), "BMP")
    packed, coding = pack(data)
    assert coding is not BYTES
    rng, refused = random.Random(kind), 0
    for _ in range(1000):
        try:
            found = unpack(harmed(packed, rng), coding, size=len(data))
        except UndecodableImage:
            refused += 1
        else:
            assert len(found) == len(data)
    assert refused > (900 if coding is JXL else 300)  # Zstandard's frames have no check sum here; the digest is the entry's
