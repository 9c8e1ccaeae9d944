"""Files to pixels: every mode and kind of transparency; and everything that is no sound picture."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import ImageError, ImageTooLarge, UndecodableImage
from pipeline.decoders import decoding
from tests.support import pictures
from tests.support.pictures import METADATA_FORMATS, decoded


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 160, 10))])
@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_palettes_come_out_as_colours(format: str, transparency: int | bytes | None) -> None:
    """A palette picture, opaque or transparent, becomes the RGB and alpha that a viewer shows."""
    if format == "GIF" and isinstance(transparency, bytes):
        pytest.skip("a GIF has one transparent colour only")
    indexed = Image.fromarray(pictures.photo(12, 17)).quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    source = pictures.saved(indexed, format, **options)
    picture = decoded(source)
    with Image.open(BytesIO(source)) as opened:
        expected = np.asarray(opened.convert("RGBA"))
    assert picture.mode == "P"
    assert not picture.grey
    np.testing.assert_array_equal(picture.pixels, expected[..., :3])
    assert (picture.alpha is None) == (transparency is None)
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, expected[..., 3])
        assert picture.alpha.min() < 255


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_grey_colour_key_becomes_alpha(depth: int) -> None:
    """The one transparent level of a grey PNG counts in the file's own bits, not in the eight it is decoded to."""
    levels = bytes([0b00011011]) if depth == 2 else bytes([0x01, 0x23]) if depth == 4 else bytes([0, 1, 2, 3])
    picture = decoded(pictures.png(4, 1, depth=depth, colour=0, rows=b"\0" + levels, chunks=((b"tRNS", b"\0\2"),)))
    assert picture.grey
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 255, 0, 255]]
    factor = {2: 85, 4: 17, 8: 1}[depth]
    assert picture.pixels[0, :, 0].tolist() == [0, factor, 2 * factor, 3 * factor]


def test_an_rgb_colour_key_becomes_alpha() -> None:
    """The one transparent colour of an RGB PNG is kept as alpha."""
    rows = b"\0" + bytes([1, 2, 3, 4, 5, 6])
    picture = decoded(pictures.png(2, 1, depth=8, colour=2, rows=rows, chunks=((b"tRNS", b"\0\4\0\5\0\6"),)))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0]]
    assert picture.pixels.tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_mislabelled_files_decode_by_content() -> None:
    """What a file is decides, for names lie; its true format is reported."""
    assert decoded(pictures.saved(pictures.photo(8, 9), "PNG")).format == "PNG"
    assert decoded(pictures.saved(pictures.photo(8, 9), "BMP")).format == "BMP"


@pytest.mark.parametrize("kind", pictures.unsupported())
def test_what_8_bits_cannot_hold_is_told(kind: str) -> None:
    """A picture that would lose frames, bits or channels says so, and what it lacks is named, never changed in silence."""
    picture = decoded(pictures.unsupported()[kind])
    assert re.search(r"frames or pictures|bits per channel|it is ", picture.beyond or "")
    assert picture.lost


def test_a_gain_map_whose_index_leads_nowhere_is_named() -> None:
    """A JPEG whose second picture brightens it for HDR would lose that picture."""
    hdr = pictures.with_metadata(
        pictures.photo(8, 9), "JPEG", exif=None, icc=None, xmp=b'<x hdrgm:Version="1.0"/>', extra=b"\xff\xe2\0\x06MPF\0"
    )
    assert b"MPF\0" in hdr
    assert "mpf" in decoded(hdr).lost


@pytest.mark.parametrize("kind", pictures.damaged())
def test_damaged_files_are_refused_in_one_line(kind: str) -> None:
    """What is no whole picture is named as such, in one short line without memory addresses."""
    with pytest.raises(UndecodableImage) as caught:
        decoded(pictures.damaged()[kind])
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "0x" not in sentence
    assert len(sentence) < 250


def test_a_bomb_is_refused_by_its_header() -> None:
    """A header that announces 900 megapixels costs nothing, whatever limit Pillow itself has, and the limit is a setting."""
    with pytest.raises(ImageTooLarge) as caught:
        decoding.decode(pictures.bomb(), pixel_limit=512_000_000)
    assert (caught.value.width, caught.value.height, caught.value.limit) == (30_000, 30_000, 512_000_000)
    with pytest.raises(ImageTooLarge):
        decoding.decode(pictures.bomb(300_000, 300_000), pixel_limit=512_000_000)
    with pytest.raises(UndecodableImage):
        decoding.decode(pictures.bomb(200, 200), pixel_limit=512_000_000)


def test_the_limit_counts_pixels_exactly() -> None:
    """A picture of just the limit passes, one more pixel does not; WebP tells its size before it is decoded, too."""
    for format in ("PNG", "WEBP"):
        data = pictures.saved(pictures.photo(10, 11), format)
        assert decoding.decode(data, pixel_limit=110).pixels.shape == (10, 11, 3)
        with pytest.raises(ImageTooLarge):
            decoding.decode(data, pixel_limit=109)


def test_pillows_own_limit_does_not_interfere() -> None:
    """A picture above Pillow's limit and below ours decodes, without a warning, and the guard is never lowered again."""
    tall = pictures.saved(Image.new("L", (1, 2)), "PNG")
    before = Image.MAX_IMAGE_PIXELS
    decoding.decode(tall, pixel_limit=600_000_000)
    decoding.decode(tall, pixel_limit=10)
    assert before is not None
    assert max(before, 600_000_000) == Image.MAX_IMAGE_PIXELS


def test_pixel_count_reads_headers_only() -> None:
    """The count that bounds memory comes from the header: a bomb has one, damage behind the header does not matter."""
    assert decoding.pixel_count(pictures.bomb()) == 900_000_000
    assert decoding.pixel_count(pictures.saved(pictures.photo(50, 60), "JPEG")[:800]) == 3000
    assert decoding.pixel_count(b"") is None
    assert decoding.pixel_count(b"no picture") is None


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "JPEG2000", "QOI", "PPM", "TGA", "ICO"]
)
def test_any_prefix_decodes_to_the_right_size_or_is_refused(format: str) -> None:
    """However a file is cut, the answer is the picture or UndecodableImage, never another exception or a smaller picture."""
    whole = pictures.with_metadata(pictures.photo(16, 18), format, exif=pictures.exif(), icc=pictures.srgb_profile(), xmp=None)
    shape = decoded(whole).pixels.shape
    for cut in sorted({*range(0, len(whole), max(1, len(whole) // 60)), *range(40), len(whole) - 1, len(whole) - 5}):
        try:
            picture = decoded(whole[:cut])
        except UndecodableImage:
            continue
        assert picture.pixels.shape == shape


@pytest.mark.slow
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "JPEG2000", "PPM", "TGA"])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4))
@settings(max_examples=100)
def test_flipped_bits_raise_nothing_but_image_errors(format: str, flips: list[tuple[float, int]]) -> None:
    """A shard of damaged pictures is read to its end: each gives pixels or an ImageError, and never stops the worker."""
    whole = bytearray(pictures.with_metadata(pictures.photo(12, 14), format, exif=pictures.exif(3), icc=None, xmp=None))
    for place, bit in flips:
        whole[int(place * min(len(whole), 700))] ^= 1 << bit
    decoding.pixel_count(bytes(whole))
    try:
        picture = decoded(bytes(whole))
    except ImageError:
        return
    assert picture.pixels.dtype == np.uint8


@given(
    noise=st.binary(max_size=300),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"GIF89a", b"BM"]),
)
@settings(max_examples=100)
def test_random_bytes_raise_nothing_but_image_errors(noise: bytes, head: bytes) -> None:
    """Bytes from anywhere, also behind a familiar signature, end in an ImageError at worst."""
    try:
        decoded(head + noise)
    except ImageError:
        return


@pytest.mark.slow
def test_decoding_is_safe_in_many_threads() -> None:
    """Sixteen threads over good, bad and odd files get what one thread gets, and no warning escapes."""
    files = [*pictures.unsupported().values(), *pictures.damaged().values()]
    files += [pictures.saved(pictures.photo(30, 40, seed=seed), format) for seed in range(4) for format in METADATA_FORMATS]

    def outcome(data: bytes) -> str:
        try:
            return str(decoded(data).pixels.sum())
        except ImageError as error:
            return str(error)

    barrier = threading.Barrier(16)

    def run(_: int) -> list[str]:
        barrier.wait()
        return [outcome(data) for data in files]

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(run, range(16)))
    assert all(result == [outcome(data) for data in files] for result in results)


def test_extensions_are_those_of_pictures() -> None:
    """Sidecars are never taken for pictures, and all usual pictures are found."""
    found = decoding.image_extensions()
    assert {"jpg", "jpeg", "png", "webp", "avif", "tif", "tiff", "gif", "bmp", "jp2", "mpo"} <= found
    assert not {"txt", "json", "pdf", "mpg", "eps", "ps", "h5", "hdf", "fits", "grib", "cls", "npy"} & found
    assert all(extension == extension.lower() and "." not in extension for extension in found)


def test_each_format_has_its_plugin() -> None:
    """Protects files of a new format: one whose plugin nobody imported would be taken for damaged, with all that are tried
    after it."""
    assert set(decoding._FORMATS) <= set(Image.OPEN)
