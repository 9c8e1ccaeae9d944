"""AVIF that is shown in part, and JPEG 2000 that looks its colours up: what a viewer shows of them, in hostile forms too."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from pipeline.decoders import decoding, headers
from pipeline.pictures.orientation import upright
from tests.support import pictures
from tests.support.pictures import decoded, paletted_jpeg2000, photo, saved, with_property

HEIGHT, WIDTH = 64, 128
PIXELS = photo(HEIGHT, WIDTH)
INDICES = photo(40, 50, 1) // 4
COLOURS = photo(8, 8, 4).reshape(64, 4)


def clap(*numbers: int) -> bytes:
    """Return what a clean aperture tells: four fractions, of width and height and of how far right and down its centre is."""
    return struct.pack(">8I", *(each & 0xFFFFFFFF for each in numbers))


def cropped(body: bytes, kind: bytes = b"clap", **options: Any) -> bytes:
    """Return an AVIF with a property."""
    return with_property(lambda icc: saved(PIXELS, "AVIF", quality=95, icc_profile=icc, **options), kind, body)


CROPS = {
    "in the middle": (30, 1, 20, 1, 0, 1, 0, 1),
    "right and up": (30, 1, 20, 1, 3, 1, -4, 1),
    "of odd sides": (31, 1, 21, 1, 1, 2, -3, 2),
    "all": (WIDTH, 1, HEIGHT, 1, 0, 1, 0, 1),
    "in twos": (60, 2, 40, 2, -98, 2, 44, 2),
}


@pytest.mark.parametrize("what", CROPS)
def test_a_crop_is_the_one_that_libheif_makes(what: str) -> None:
    """Protects LRs of cropped pictures: what is shown is what another reader of the same property shows."""
    heif = pytest.importorskip("pillow_heif")

    def heic(icc: bytes) -> bytes:
        image, file = Image.fromarray(PIXELS), BytesIO()
        image.info["icc_profile"] = icc
        heif.from_pillow(image).save(file, quality=95, chroma=444)
        return file.getvalue()

    def shown(data: bytes) -> NDArray[np.uint8]:
        return np.array(heif.open_heif(BytesIO(data)).to_pillow())

    data = with_property(heic, b"clap", clap(*CROPS[what]))
    left, top, right, bottom = headers.clean_aperture(data, (WIDTH, HEIGHT))
    assert np.array_equal(shown(data), shown(heic(bytes(28)))[top:bottom, left:right])


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_crop_comes_before_the_turn(orientation: int) -> None:
    """Protects pictures on their side: the stored pixels are cropped, and what is left is turned (ISO/IEC 23000-22, 7.3.6)."""
    exif = pictures.exif(orientation)
    found = decoded(cropped(clap(*CROPS["right and up"]), exif=exif))
    whole = decoded(saved(PIXELS, "AVIF", quality=95)).pixels
    assert np.array_equal(found.pixels, upright(whole[18:38, 52:82], orientation))
    assert (found.beyond, found.frames) == ("its container crops or stretches it", 1)
    assert "clap" in found.lost


@pytest.mark.parametrize(
    "numbers",
    [
        (30, 0, 20, 1, 0, 1, 0, 1),
        (30, 1, 20, 1, 0, 0, 0, 1),
        (31, 1, 20, 1, 0, 1, 0, 1),
        (61, 2, 20, 1, 0, 1, 0, 1),
        (0, 1, 20, 1, 0, 1, 0, 1),
        (30, 1, 20, 1, 50, 1, 0, 1),
        (30, 1, 20, 1, 0, 1, -23, 1),
        (2**32 - 1, 1, 2**32 - 1, 1, 0, 1, 0, 1),
        (2**32 - 1, 2**32 - 1, 1, 1, 2**31 - 1, 2**32 - 1, 0, 1),
    ],
)
def test_a_crop_that_cannot_be_is_kept_with_the_reason(numbers: tuple[int, ...]) -> None:
    """Protects jobs from forged crops: nothing by zero, between pixels, of no pixels, or outside is cut out."""
    with pytest.raises(UnsupportedImage, match="its container crops it"):
        decoded(cropped(clap(*numbers)))


def test_crops_of_one_file_that_differ_are_kept_with_the_reason() -> None:
    """Protects LRs from a crop that may be the thumbnail's."""
    data = cropped(clap(*CROPS["in the middle"]), kind=b"clap")
    at = data.index(b"pixi") - 4
    second = data[:at] + data[at:].replace(b"pixi", b"clap", 1)
    with pytest.raises((UnsupportedImage, UndecodableImage)):
        decoded(second)
    with pytest.raises(UnsupportedImage, match="in no way that can be told"):
        headers.clean_aperture(second, (WIDTH, HEIGHT))


def test_oblong_pixels_are_shown_as_they_are_stored() -> None:
    """Protects LRs of stretched pictures: they have the file's pixels; square ones are no reason to keep the file."""
    whole = decoded(saved(PIXELS, "AVIF", quality=95)).pixels
    oblong = decoded(cropped(struct.pack(">II", 4, 3), b"pasp"))
    assert np.array_equal(oblong.pixels, whole)
    assert oblong.beyond == "its container crops or stretches it"
    assert decoded(cropped(struct.pack(">II", 3, 3), b"pasp")).beyond is None


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_of_jpeg_2000_is_looked_up(channels: int, bits: int) -> None:
    """Protects LRs of maps and drawings: colours and alpha are the palette's, rounded to 8 bits."""
    palette = COLOURS[:, :channels]
    stored = palette if bits == 8 else (palette.astype(np.uint16) * 257).astype(">u2")
    found = decoded(paletted_jpeg2000(INDICES, stored, bits=bits, alpha=channels == 4))
    assert (found.format, found.beyond, found.bits) == ("JPEG2000", "it is JPEG 2000 with a palette", 8)
    assert np.array_equal(found.pixels, np.broadcast_to(palette[INDICES][..., :3], (40, 50, 3)))
    assert (found.alpha is None) if channels != 4 else np.array_equal(found.alpha, palette[INDICES][..., 3])


def test_palettes_that_are_no_colours_are_kept_with_the_reason() -> None:
    """Protects memory from palettes of many channels, and jobs from those whose channels differ."""
    plain = paletted_jpeg2000(INDICES, COLOURS[:, :3])
    at = plain.index(b"pclr") + 7
    for depths in (b"\x07\x07\x05", b"\x87\x87\x87", b"\x1f\x1f\x1f"):
        with pytest.raises(UnsupportedImage, match="palette"):
            decoded(plain[:at] + depths + plain[at + 3 :])
    with pytest.raises(UnsupportedImage, match="200 channels"):
        decoded(paletted_jpeg2000(INDICES, np.zeros((64, 200), np.uint8)))


def test_a_palette_without_its_pixels_is_an_image_s_own_error() -> None:
    """Protects jobs: sizes that are too large, places outside the palette, and files that are cut off are told."""
    plain = paletted_jpeg2000(INDICES, COLOURS[:, :3])
    at = plain.index(b"\xff\x4f\xff\x51") + 8
    with pytest.raises(ImageTooLarge):
        decoding.decode(plain[:at] + struct.pack(">II", 60_000, 60_000) + plain[at + 8 :], pixel_limit=10**9)
    for end in range(0, len(plain), 29):
        with suppress(ImageError):
            decoded(plain[:end])
    few = decoded(paletted_jpeg2000(INDICES, COLOURS[:2, :3]))
    assert {tuple(pixel) for pixel in few.pixels.reshape(-1, 3).tolist()} <= {tuple(each) for each in COLOURS[:2, :3].tolist()}


def test_any_damage_to_a_cropped_file_is_a_picture_or_a_reason() -> None:
    """Protects jobs from cropped files that are cut off."""
    data = cropped(clap(*CROPS["in the middle"]))
    for end in range(0, len(data), 29):
        with suppress(ImageError):
            decoded(data[:end])
