"""What Pillow does not decode, in hostile and odd forms: a picture or a reason, in bounded memory."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipeline.core.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage
from pipeline.decoders import decoding
from pipeline.pictures.depth import in_8_bits
from tests.support import pictures
from tests.support.pictures import decoded, photo
from tests.support.richer import deep, psd, rgb, richer

RICHER = richer()
WORDS = ("JPEG XL", "PSD", "12-bit", "HEIC", "float RGB")
CODES = {name: rich.data for name, rich in RICHER.items() if any(word in name for word in WORDS)}


def tiff(*, bits: int = 16, samples: int = 3, photometric: int = 2, width: int = 7, height: int = 6) -> bytes:
    """Return a TIFF by hand, of zeros."""
    body = bytes(width * height * samples * bits // 8)
    return pictures.tiff(width, height, bits=bits, samples=samples, photometric=photometric, body=body)


HOSTILE = {
    "a PSD cut off in its header": RICHER["CMYK PSD"].data[:20],
    "a PSD cut off in its lines": RICHER["PSD with masks"].data[:200],
    "a PSD without width": RICHER["CMYK PSD"].data[:18] + bytes(4) + RICHER["CMYK PSD"].data[22:],
    "a PSD without height": RICHER["CMYK PSD"].data[:14] + bytes(4) + RICHER["CMYK PSD"].data[18:],
    "a PSB with the lengths of a PSD": RICHER["CMYK PSD"].data[:5] + b"\2" + RICHER["CMYK PSD"].data[6:],
    "a JPEG of a frame that is none": bytes.fromhex("ffd8ffc100030cffd9"),
    "a TIFF without width": tiff(width=0),
    "a TIFF of signed sizes": tiff().replace(struct.pack("<HH", 256, 4), struct.pack("<HH", 256, 9)),
    "a TIFF of two widths": tiff().replace(struct.pack("<HH", 259, 3), struct.pack("<HH", 256, 3)),
    "a TIFF of Lab in 16 bits": tiff(photometric=8),
    "a TIFF of a hundred channels": tiff(samples=100),
    "JPEG XL without a size": b"\xff\x0a",
    "HEIC that is none": b"\0\0\0\x18ftypheic" + bytes(100),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_it_is_refused_with_a_reason(what: str) -> None:
    """Protects jobs: a forged file is an image's own error, whatever the decoder raises."""
    with pytest.raises((UndecodableImage, UnsupportedImage)):
        decoded(HOSTILE[what])


@pytest.mark.parametrize("name", CODES)
def test_the_limit_of_pixels_comes_before_the_pixels(name: str) -> None:
    """Protects memory: size is told by the header, to the limit and to the window of what is under way."""
    height, width = RICHER[name].shown.shape[:2]
    assert decoding.pixel_count(CODES[name]) == height * width
    with pytest.raises(ImageTooLarge):
        decoding.decode(CODES[name], pixel_limit=height * width - 1)


@given(st.sampled_from(sorted(CODES)), st.floats(0, 1), st.binary(max_size=8))
def test_any_damage_is_a_picture_or_a_reason(name: str, at: float, noise: bytes) -> None:
    """Protects jobs from damaged files of these formats."""
    data = CODES[name]
    place = int(at * len(data))
    for harmed in (data[:place], data[:place] + noise + data[place + len(noise) :]):
        with suppress(ImageError):
            decoded(harmed)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jpeg_xl_is_as_bright_as_its_depth_says(bits: int) -> None:
    """Protects the LRs of deep JPEG XL, whose samples come as they are stored."""
    samples = (deep(rgb()) >> (16 - bits)).astype(np.uint16)
    data = bytes(imagecodecs.jpegxl_encode(samples, lossless=True, bitspersample=bits))
    assert np.abs(decoded(data).pixels.astype(int) - rgb()).max() <= 1


def test_jpeg_xl_keeps_its_alpha() -> None:
    """Protects cut-outs."""
    pixels = photo(40, 50, 4)
    picture = decoded(bytes(imagecodecs.jpegxl_encode(pixels, lossless=True)))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, pixels[..., 3])


@pytest.mark.parametrize(("extra", "alpha"), [(0, False), (2, True)])
def test_a_fourth_channel_is_alpha_only_where_it_says_so(extra: int, alpha: bool) -> None:
    """Protects pictures of four bands, such as near infrared, from becoming transparent."""
    samples = np.dstack((deep(rgb()), deep(photo(132, 180, 1, seed=3)[..., None])))
    data = bytes(imagecodecs.tiff_encode(samples, photometric=2, extrasample=extra))
    picture = decoded(data)
    assert (picture.alpha is not None) is alpha
    assert np.abs(in_8_bits(picture.pixels).astype(int) - rgb()).max() <= 1


MASK = photo(132, 180, 1, seed=5)


@pytest.mark.parametrize("alpha", [False, True])
def test_a_grey_psd_has_alpha_where_its_layers_say_so(alpha: bool) -> None:
    """Protects cut-outs, and masks that are none."""
    grey = np.array(Image.fromarray(rgb()).convert("L"))
    layers = struct.pack(">Ihh", 4, -1, 0) + bytes(4)
    picture = decoded(psd(np.dstack((grey, MASK)), mode=1, layers=layers if alpha else b""))
    assert np.array_equal(picture.pixels[..., 0], grey)
    assert (picture.alpha is not None) is alpha
    assert picture.grey


def test_a_psd_of_indexed_colours() -> None:
    """Protects palettes, which a PSD has plane by plane."""
    few = Image.fromarray(rgb()).quantize(64)
    palette = np.frombuffer(bytes(few.getpalette() or b"").ljust(768, b"\0"), np.uint8).reshape(256, 3).T.tobytes()
    data = psd(np.dstack((np.array(few), MASK)), mode=2)
    data = data[:26] + struct.pack(">I", 768) + palette + data[30:]
    assert np.array_equal(decoded(data).pixels, np.array(few.convert("RGB")))


def test_a_psd_of_lab_colours() -> None:
    """Protects colours of Lab, whose a and b are unsigned in a PSD."""
    base, to = Image.fromarray(rgb()), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(base, ImageCms.createProfile("sRGB"), to, outputMode="LAB")
    assert lab is not None
    samples = np.array(lab) ^ np.array([0, 128, 128], np.uint8)
    picture = decoded(psd(np.dstack((samples, MASK)), mode=9))
    assert np.abs(picture.pixels.astype(int) - rgb()).mean() < 3


def test_floating_point_takes_little_memory() -> None:
    """Protects scans of heights and light: no wider copy of all samples stands beside them."""
    samples = np.zeros((1000, 1000, 3), np.float32)
    data = bytes(imagecodecs.tiff_encode(samples, photometric=2))
    tracemalloc.start()
    try:
        decoding.decode(data, pixel_limit=10**6)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 3 * samples.nbytes
