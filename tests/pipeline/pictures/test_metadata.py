"""EXIF, profiles and XMP of files: found wherever they stand, and written back as they were."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from pipeline.pictures import writing
from pipeline.pictures.picture import is_grey
from tests.support import pictures
from tests.support.pictures import METADATA_FORMATS, ORIENTATIONS, decoded

SOURCE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 95, "subsampling": 0},
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "speed": 9},
}  # fmt: skip
MODES = {
    "PNG": ("L", "LA", "RGB", "RGBA"),
    "TIFF": ("L", "LA", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "JPEG": ("L", "RGB"),
    "AVIF": ("L", "RGB", "RGBA"),
}


def shown_by_pillow(data: bytes) -> NDArray[np.uint8]:
    """What a viewer shows: Pillow's own transpose is the judge of ours."""
    with Image.open(BytesIO(data)) as source:
        return np.asarray(ImageOps.exif_transpose(source))


def assert_close(found: NDArray[np.uint8], expected: NDArray[np.uint8], *, lossless: bool) -> None:
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() == 0 if lossless else difference.mean() < 5


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(("format", "mode"), [(format, mode) for format in METADATA_FORMATS for mode in MODES[format]])
def test_round_trip_keeps_pixels_orientation_and_metadata(format: str, mode: str, orientation: int) -> None:
    """Nothing a file holds gets lost or turned on its way to upright pixels and back, in any format that carries it all."""
    icc = pictures.grey_profile() if mode in {"L", "LA"} else pictures.swapped_profile()
    block = pictures.exif(orientation, big_endian=orientation % 2 == 0)
    options = SOURCE_OPTIONS[format] | ({"subsampling": "4:0:0"} if (format, mode) == ("AVIF", "L") else {})
    source = pictures.with_metadata(pictures.photo(13, 22, len(mode)), format, exif=block, icc=icc, xmp=pictures.XMP, **options)
    picture = decoded(source)
    shown = shown_by_pillow(source)
    channels = shown.reshape(*shown.shape[:2], -1)
    assert picture.orientation == orientation
    assert picture.format == format
    assert picture.mode == mode
    assert picture.grey == is_grey(mode) == (mode in {"L", "LA"})
    assert picture.icc == icc
    assert picture.xmp == pictures.XMP
    np.testing.assert_array_equal(
        picture.pixels, np.broadcast_to(channels[..., : 3 if "RGB" in mode else 1], picture.pixels.shape)
    )
    assert (picture.alpha is not None) == mode.endswith("A")
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, channels[..., -1])

    back_bytes = writing.encode(picture, format=format, quality=95)
    back = decoded(back_bytes)
    assert_close(back.pixels, picture.pixels, lossless=format in {"PNG", "TIFF"})
    if picture.alpha is not None and back.alpha is not None:
        assert_close(back.alpha, picture.alpha, lossless=format in {"PNG", "TIFF", "WEBP"})
    assert (back.mode, back.orientation, back.icc, back.xmp) == (mode, orientation, icc, pictures.XMP)
    assert (back.alpha is None, back.grey) == (picture.alpha is None, picture.grey)
    assert back.exif == picture.exif
    with Image.open(BytesIO(source)) as before, Image.open(BytesIO(back_bytes)) as after:
        assert after.size == before.size
        assert after.getexif().get(0x010F) == "Maker"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exif_comes_back_byte_for_byte(format: str) -> None:
    """The EXIF block of formats that keep one as such is handed through unread, maker notes and all."""
    block = pictures.exif(6) + bytes(range(256))
    picture = decoded(pictures.with_metadata(pictures.photo(5, 9), format, exif=block, icc=None, xmp=None))
    assert picture.exif == block
    assert decoded(writing.encode(picture, format=format, quality=90)).exif == block


@pytest.mark.parametrize("format", METADATA_FORMATS)
def test_a_file_without_metadata_gets_none(format: str) -> None:
    """Restoring invents no metadata."""
    picture = decoded(pictures.saved(pictures.photo(9, 7), format))
    assert (picture.icc, picture.xmp, picture.orientation) == (None, None, 1)
    back = decoded(writing.encode(picture, format=format, quality=90))
    assert (back.icc, back.exif, back.xmp) == (None, picture.exif, None)


def test_xmp_turns_a_picture_where_exif_says_nothing() -> None:
    """Orientation that XMP alone tells is orientation, and written back so; where EXIF tells one, that is it."""
    xmp = pictures.XMP.replace(b'Orientation="1"', b'Orientation="6"')
    for format in ("PNG", "TIFF"):
        pixels = pictures.photo(6, 11)
        picture = decoded(pictures.with_metadata(pixels, format, exif=None, icc=None, xmp=xmp))
        assert (picture.orientation, picture.xmp) == (6, xmp)
        np.testing.assert_array_equal(picture.pixels, np.rot90(pixels, -1))
        again = decoded(writing.encode(picture, format=format, quality=95))
        np.testing.assert_array_equal(again.pixels, picture.pixels)
        both = decoded(pictures.with_metadata(pixels, format, exif=pictures.exif(1), icc=None, xmp=xmp))
        np.testing.assert_array_equal(both.pixels, pixels)


def test_metadata_behind_the_pixels_of_a_png_is_found() -> None:
    """PNG allows EXIF after the pixels; a reader of headers alone would show such a picture lying on its side."""
    whole = pictures.with_metadata(pictures.photo(6, 11), "PNG", exif=pictures.exif(6), icc=None, xmp=None)
    start = whole.index(b"eXIf") - 4
    length = 12 + int.from_bytes(whole[start : start + 4], "big")
    chunk, rest = whole[start : start + length], whole[:start] + whole[start + length :]
    end = rest.index(b"IEND") - 4
    picture = decoded(rest[:end] + chunk + rest[end:])
    assert picture.orientation == 6
    assert picture.pixels.shape == (11, 6, 3)


def test_a_tiff_keeps_its_camera_and_place() -> None:
    """The nested EXIF and GPS tables of a TIFF come back, which its compressed form cannot write."""
    tags = Image.Exif()
    tags[0x0112] = 8
    tags.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    tags.get_ifd(0x8825)[1] = "N"
    picture = decoded(pictures.saved(pictures.photo(6, 11), "TIFF", exif=tags.tobytes()))
    back = writing.encode(picture, format="TIFF", quality=90)
    assert decoded(back).exif == picture.exif
    with Image.open(BytesIO(back)) as opened:
        found = opened.getexif()
        assert found[0x0112] == 8
        assert found.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        assert found.get_ifd(0x8825)[1] == "N"


def test_tags_of_a_tiffs_own_layout_are_not_taken_for_exif() -> None:
    """Strip offsets and widths of the source, written into a restored file, would ruin it."""
    picture = decoded(pictures.saved(pictures.photo(6, 11), "TIFF", compression="tiff_lzw"))
    assert picture.exif is None


def test_exif_that_imagemagick_wrote_into_a_png_counts() -> None:
    """Before PNG had EXIF it was kept as hexadecimal text, and pictures still turn by it."""
    block = pictures.exif(6)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block) + 6:8}\n{(b'Exif' + bytes(2) + block).hex()}\n", zip=True)
    picture = decoded(pictures.saved(pictures.photo(6, 11), "PNG", pnginfo=text))
    assert picture.exif == block
    assert picture.pixels.shape == (11, 6, 3)


@pytest.mark.parametrize("broken", ["", "no hex", "\nexif\n8\n4578zz", "\nexif\n8\n457"])
def test_broken_exif_text_costs_the_block_and_not_the_picture(broken: str) -> None:
    """Protects intact PNGs whose EXIF, written as hexadecimal text, is damaged."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", broken, zip=True)
    picture = decoded(pictures.saved(pictures.photo(6, 11), "PNG", pnginfo=text))
    assert picture.exif is None
    assert np.array_equal(picture.pixels, np.asarray(pictures.photo(6, 11)))


def test_the_profile_of_a_jpeg_2000_is_found() -> None:
    """Pillow passes it over; without it a wide-gamut LR would show wrong colours."""
    icc = pictures.swapped_profile()
    assert decoded(pictures.saved(pictures.photo(6, 11), "JPEG2000")).icc is None
    assert decoded(pictures.jpeg2000(pictures.photo(6, 11), icc)).icc == icc


def test_a_picture_with_damaged_exif_decodes_and_keeps_it() -> None:
    """Odd metadata is no reason to refuse a good picture, and none to drop the metadata."""
    for format in ("JPEG", "PNG", "WEBP"):
        block = pictures.exif(6)[:20] + b"\xff" * 40
        picture = decoded(pictures.with_metadata(pictures.photo(6, 9), format, exif=block, icc=None, xmp=None))
        assert picture.exif == block
        assert decoded(writing.encode(picture, format=format, quality=80)).exif == block
