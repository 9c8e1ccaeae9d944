"""Pixels kept without loss, where that is smaller than the file: the same again, or refused."""

from __future__ import annotations

import random
import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.core.errors import UndecodableImage
from pipeline.core.records import OriginalCoding
from pipeline.pictures import codecs, originals
from pipeline.pictures.originals import pack, pack_pixels, unpack, unpack_pixels
from tests.support.pictures import harmed, photo, saved, tiff

BYTES, PIXELS = OriginalCoding.BYTES, OriginalCoding.PIXELS


@pytest.mark.slow
@pytest.mark.parametrize("grey", [False, True], ids=["RGB", "grey"])
def test_damaged_pixels_are_refused_or_of_the_right_shape(grey: bool) -> None:
    """Protects readers of damaged archives in tier exact-pixels: one error, or pixels of the expected shape; never a crash."""
    picture = photo(61, 93)
    coded = codecs.encode_jxl_lossless(picture[..., 0] if grey else picture, effort=originals.PIXEL_EFFORT)
    rng, refused = random.Random(4), 0
    for _ in range(1000):
        try:
            found = unpack_pixels(harmed(coded, rng), size=(61, 93), grey=grey)
        except UndecodableImage:
            refused += 1
        else:
            assert found.shape == (61, 93, 3)
    assert refused > 600


@pytest.mark.parametrize("grey", [False, True], ids=["RGB", "grey"])
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 9))
def test_pixels_come_back(grey: bool, height: int, width: int, seed: int) -> None:
    """Protects tier exact-pixels: the values themselves, three channels whatever is stored, from one pixel upwards."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if grey:
        picture[..., 1:] = picture[..., :1]
    source = tiff(width, height, bits=8, samples=3, photometric=2, body=picture.tobytes()) + bytes(range(256)) * 20
    packed, coding = pack_pixels(source, picture, grey=grey)
    assert len(packed) < len(source)
    if coding is PIXELS:
        assert np.array_equal(unpack_pixels(packed, size=(height, width), grey=grey), picture)
    else:
        assert unpack(packed, coding, size=len(source)) == source


def test_pixels_or_file_whichever_is_smaller() -> None:
    """Protects tier exact-pixels' bytes: a photograph's PNG shrinks, a JPEG is recompressed, a small file stays itself."""
    picture = photo(203, 301)
    png = saved(picture, "PNG")
    packed, coding = pack_pixels(png, picture, grey=False)
    assert coding is PIXELS
    assert len(packed) < 0.95 * len(png)
    jpeg = saved(photo(203, 301), "JPEG", quality=90)
    with Image.open(BytesIO(jpeg)) as image:
        assert pack_pixels(jpeg, np.asarray(image), grey=False) == pack(jpeg)
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[::2] = 255
    short = b"twenty bytes, no pixels"[:20]
    assert pack_pixels(short, lines, grey=False) == (short, BYTES)


def test_a_drawing_in_a_jpeg_may_be_smaller_as_pixels() -> None:
    """Protects the shortcut that leaves photographs' pixels alone: it leaves alone nothing that pixels would win."""
    image = Image.new("RGB", (400, 300), "white")
    ImageDraw.Draw(image).rectangle((50, 50, 200, 180), fill=(0, 0, 0))
    jpeg = saved(image, "JPEG", quality=95)
    with Image.open(BytesIO(jpeg)) as decoded:
        pixels = np.asarray(decoded)
    packed, coding = pack_pixels(jpeg, pixels, grey=False)
    assert len(packed) <= len(pack(jpeg)[0])
    if coding is PIXELS:
        assert np.array_equal(unpack_pixels(packed, size=(300, 400), grey=False), pixels)


def test_pixels_that_are_not_grey_are_never_stored_as_grey() -> None:
    """Protects against a wrong mode: where one channel does not stand for all, the file is stored."""
    picture = photo(50, 60)
    png = saved(picture, "PNG")
    assert pack_pixels(png, picture, grey=True) == pack(png)


def test_large_pictures_take_the_quick_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the time that one large picture takes: above a size its pixels are coded quickly, and come back as well."""
    picture = photo(61, 93)
    png = saved(picture, "PNG")
    monkeypatch.setattr(originals, "LARGE_PIXELS", 61 * 93 - 1)
    packed, coding = pack_pixels(png, picture, grey=False)
    assert (packed, coding) == (codecs.encode_jxl_lossless(picture), PIXELS)


def test_wrong_shapes_are_a_programming_error() -> None:
    """Protects callers: planes, floats and empty arrays are refused at once."""
    picture = photo(20, 30)
    for wrong in (picture[..., 0], picture.astype(np.float32), picture[:0]):
        with pytest.raises(ValueError, match="was expected"):
            pack_pixels(b"", wrong, grey=False)


def test_pixels_of_another_size_are_refused_before_they_are_decoded() -> None:
    """Protects memory: a stream that announces another shape than its entry's gets none of its own."""
    large = codecs.encode_jxl_lossless(np.zeros((3000, 3000, 3), np.uint8), effort=1)
    tracemalloc.start()
    for size in ((20, 30), (3000, 2999), (1, 1), (0, 0)):
        with pytest.raises(UndecodableImage):
            unpack_pixels(large, size=size, grey=size == (20, 30))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 3 + 100_000
    with pytest.raises(UndecodableImage):
        unpack_pixels(codecs.encode_jxl_lossless(photo(61, 93)), size=(61, 93), grey=True)
