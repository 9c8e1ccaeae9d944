"""Every byte of a file is accounted for: it is understood, carried into the restored file as it was, or named as lost."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.containers.account import UNKNOWN, WALKERS, account, put_back
from pipeline.containers.parts import MOST_PARTS
from pipeline.core.errors import UndecodableImage, UnwritableImage
from pipeline.core.records import Carried
from pipeline.decoders import decoding
from pipeline.pictures import writing
from pipeline.pictures.colour import profile_of
from tests.support import containers, pictures
from tests.support.containers import CARRIED, FILM, LOST, PLAIN, chunk, jpeg, png, segment
from tests.support.pictures import photo, srgb_profile


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
    assert put_back(b"x", "GIF", decoded(containers.jpeg(behind=FILM)).parts) == b"x"


@pytest.mark.parametrize(
    "body",
    [chunk(b"gAMA", struct.pack(">I", 1)), chunk(b"cHRM", struct.pack(">8I", 31270, 0, 0, 0, 30000, 0, 15000, 6000))],
    ids=["gamma", "primaries"],
)
def test_colours_beyond_numbers_are_carried_and_no_profile(body: bytes) -> None:
    """Protects a shard from a PNG whose gamma or primaries mean nothing: it is as any other, and has them again."""
    picture = decoded(png(body))
    assert picture.profile is None
    assert [part.data for part in picture.parts] == [body]


@pytest.mark.parametrize("name", ["cHRM", "gAMA", "cICP", "nclx"])
def test_colours_that_are_cut_off_are_told_by_none(name: str) -> None:
    """Protects a shard from a PNG or AVIF that ends within what would tell its colours."""
    assert profile_of([Carried(name=name, data=bytes(9)[: 3 if name == "nclx" else 9])]) is None


def test_code_points_beyond_a_byte_are_no_profile() -> None:
    """Protects a shard from an AVIF of code points that an ICC profile has no room for."""
    assert decoded(containers.avif(code_points=(65535, 16))).profile is None


def tiff_of(*tags: tuple[int, int, int, int], behind: bytes = b"") -> bytes:
    """Return a TIFF of tags by number, kind, count and value alone."""
    told = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + told + bytes(4) + behind


BIG = struct.pack("<H", 10_000) + struct.pack("<HHII", 40965, 4, 1, 8) * 10_000 + bytes(4)
ENDLESS = {
    "tags that share all bytes": tiff_of(*((number, 7, 2**20, 0) for number in range(1000, 3000)), behind=bytes(2**20)),
    "tags of strips, each of 200,000": tiff_of(*[(273, 4, 200_000, 0), (279, 4, 200_000, 0)] * 5_000, behind=bytes(800_000)),
    "strips that are no numbers": tiff_of(*[(273, 1, 1, 0)] * 10_000),
    "tags of samples": tiff_of(*[(277, 3, 1, 1)] * 10_000),
    "directories of directories": tiff_of((34665, 4, 1, 26), behind=BIG),
    "a directory of a directory, over and over": tiff_of(
        (34665, 4, 190_000, 38), (40965, 4, 1, 38), behind=struct.pack("<I", 38) * 190_000
    ),
    "tags of unknown kinds": tiff_of(*((number, 99, 0, 0) for number in range(1000, 1100))),
    "a BigTIFF of countless tags": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**64 - 1) + bytes(1000),
    "packets of XMP": png(*[chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0")] * 10_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", ENDLESS)
def test_parts_that_repeat_one_another_end(what: str) -> None:
    """Protects time from files whose parts tell of the same bytes over and over: they are gone through once, or not at all."""
    found = account(ENDLESS[what], "PNG" if what.startswith("packets") else "TIFF")
    assert sum(len(part.data) for part in found.carried) <= len(ENDLESS[what])


def test_tags_that_share_bytes_take_no_memory() -> None:
    """Protects memory from two thousand tags of the same megabyte."""
    tracemalloc.start()
    try:
        assert account(ENDLESS["tags that share all bytes"], "TIFF").lost == (UNKNOWN,)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 20 * 2**20


def test_names_are_words_that_can_be_shown() -> None:
    """Protects terminals and counts: a chunk's name is told without control characters, and a thousand names are not told."""
    assert decoded(png(last=chunk(b"\x1b[2J", b""))).lost == ("_[2J",)
    assert account(containers.webp((b"\n\0x ", b"")), "WEBP").lost == ("__x",)
    names = [chunk(b"A%c%cB" % (65 + index % 26, 65 + index // 26), b"") for index in range(300)]
    assert decoded(png(*names)).lost == (UNKNOWN,)


def test_offsets_beyond_numbers_are_damage() -> None:
    """Protects a shard from a BigTIFF whose directory would begin behind all files."""
    with pytest.raises(UndecodableImage):
        decoded(b"II+\0\x08\0\0\0" + b"\xff" * 40)


def test_fill_bytes_are_one_part() -> None:
    """Protects memory and time: a million fill bytes, or bytes that are none, are a few parts."""
    plain = jpeg()
    filled = plain[:2] + b"\xff" * 1_000_000 + plain[2:]
    assert len(list(WALKERS["JPEG"](filled))) <= len(list(WALKERS["JPEG"](plain))) + 1
    assert len(list(WALKERS["JPEG"](plain[:2] + bytes(1_000_000) + plain[2:]))) <= len(list(WALKERS["JPEG"](plain))) + 2


@pytest.mark.slow
def test_a_file_of_countless_parts_is_kept() -> None:
    """Protects memory from a file that is made of nothing but parts."""
    assert account(b"\xff\xd8" + b"\xff\x01" * (MOST_PARTS + 1), "JPEG").lost == (UNKNOWN,)


def test_exif_that_no_tiff_can_hold_is_refused() -> None:
    """Protects a restore to TIFF from EXIF that is none: the picture falls back to PNG, as others do that cannot be written."""
    picture = decoded(jpeg(segment(0xE1, b"Exif\0\0garbage")))
    with pytest.raises(UnwritableImage, match="its EXIF cannot be read"):
        writing.encode(picture, format="TIFF", quality=90)


def test_code_points_go_before_a_profile() -> None:
    """Protects colours of HDR pictures, whose profile is for those who do not read code points (PNG, third edition)."""
    both = png(chunk(b"iCCP", b"x\0\0" + zlib.compress(srgb_profile())), chunk(b"cICP", bytes((9, 16, 0, 1))))
    alone = png(chunk(b"cICP", bytes((9, 16, 0, 1))))
    assert decoded(both).icc == srgb_profile()
    assert decoded(both).profile == decoded(alone).profile is not None


@pytest.mark.slow
def test_a_bomb_of_pixels_takes_little_memory() -> None:
    """Protects memory and time from a PNG whose stream goes on for 100 MB behind its pixels: only a piece is unpacked."""
    data = pictures.png(3, 2, depth=8, colour=2, rows=bytes(2 * 10 + 100_000_000))
    tracemalloc.start()
    try:
        assert account(data, "PNG").lost == ("IDAT",)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 10_000_000


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (9, 17)])
def test_interlaced_pixels_end_where_they_should(size: tuple[int, int]) -> None:
    """Protects interlaced PNGs from being taken for ones with something behind their pixels, and such from passing."""
    height, width = size
    pixels = photo(height, width)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[top::down, left::across] for top, left, down, across in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts for row in part if row.size)
    plain, more = (pictures.png(width, height, depth=8, colour=2, rows=each) for each in (rows, rows + b"?"))
    for data, lost in ((plain, ()), (more, ("IDAT",))):
        header = data[12:28] + b"\1"
        interlaced = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
        assert np.array_equal(decoded(interlaced).pixels, pixels)
        assert decoded(interlaced).lost == lost


def test_a_tiff_of_signed_samples_is_shown_and_kept() -> None:
    """Protects what goes below zero from being taken for what is bright: dark stays dark, and the file is kept."""
    samples = np.arange(-64, 64, dtype=np.int8).reshape(8, 16)
    for each in (samples, np.dstack(3 * [samples])):
        picture = decoded(bytes(imagecodecs.tiff_encode(each, photometric=1 if each.ndim == 2 else 2)))
        assert "depth" in picture.lost
        assert "signed" in (picture.beyond or "")
        assert (np.diff(picture.pixels[..., 0].ravel().astype(int)) > 0).all()


def test_runs_of_a_tga_end_with_its_pixels() -> None:
    """Protects TGAs coded in runs from being kept for nothing: flat and noisy ones end where their last run does."""
    flat = np.full((40, 300, 3), 7, np.uint8)
    noise = np.random.default_rng(1).integers(0, 256, (40, 300, 3), dtype=np.uint8)
    for pixels in (flat, noise, np.vstack((flat, noise))):
        data = pictures.saved(pixels, "TGA", compression="tga_rle")
        assert decoded(data).lost == decoded(data[:-26]).lost == ()
        assert decoded(data[:-26] + bytes(9) + b"?").lost == ("trailer",)


def test_a_profile_goes_before_an_avifs_code_points() -> None:
    """Protects colours of AVIFs that tell them twice (ISO/IEC 23000-22, 7.3.6.4): others are shown by the profile."""
    picture = decoded(containers.avif(code_points=(12, 13), icc=srgb_profile()))
    assert picture.profile == picture.icc == srgb_profile()


def test_endless_items_are_unknown() -> None:
    """Protects workers from an AVIF made to take for ever: countless places of nothing, or countless boxes."""
    plain = containers.avif()
    at = plain.index(b"iloc") + 8
    endless = plain[:at] + struct.pack(">HHHHH", 0, 1, 1, 0, 65535) + plain[at + 10 :]
    assert account(endless, "AVIF").lost == (UNKNOWN,)
    assert account(plain + b"\0\0\0\x08free" * 2000, "AVIF").lost == (UNKNOWN,)


def test_a_profile_beyond_the_decoders_limit_is_no_damage() -> None:
    """Protects sound scans with large profiles: they have a picture, and are kept."""
    picture = decoded(png(chunk(b"iCCP", b"x\0\0" + zlib.compress(srgb_profile() + bytes(3_000_000)))))
    assert "a text or profile in it is larger" in (picture.beyond or "")
