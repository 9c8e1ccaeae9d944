"""Every byte of a file is accounted for: it is understood, carried into the restored file as it was, or named as lost."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.containers.account import UNKNOWN, WALKERS, account, put_back
from pipeline.containers.parts import MOST_PARTS
from pipeline.core.errors import UndecodableImage, UnwritableImage
from pipeline.decoders import decoding
from pipeline.pictures import writing
from tests.support import containers
from tests.support.containers import CARRIED, FILM, LOST, PLAIN, chunk, jpeg, png, segment
from tests.support.pictures import srgb_profile


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


def test_a_profile_beyond_the_decoders_limit_is_no_damage() -> None:
    """Protects sound scans with large profiles: they have a picture, and are kept."""
    picture = decoded(png(chunk(b"iCCP", b"x\0\0" + zlib.compress(srgb_profile() + bytes(3_000_000)))))
    assert "a text or profile in it is larger" in (picture.beyond or "")
