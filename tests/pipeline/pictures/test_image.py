"""Files to pixels and back: every mode, orientation and kind of metadata; and everything that is no sound picture."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from pipeline.core.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedImage, UnwritableImage
from pipeline.core.records import LrCodec
from pipeline.pictures import codecs, decoding, lr_codec, writing
from pipeline.pictures.orientation import as_stored, orientation_of, upright
from pipeline.pictures.picture import Picture, is_grey, resize
from tests.support import pictures

LIMIT = 1_000_000
ORIENTATIONS = range(1, 9)
METADATA_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
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
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def decoded(data: bytes) -> Picture:
    return decoding.decode(data, pixel_limit=LIMIT)


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
    source = pictures.with_metadata(
        pictures.photo(13, 22, CHANNELS[mode]), format, exif=block, icc=icc, xmp=pictures.XMP, **options
    )
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
    plain = pictures.saved(pictures.photo(6, 11), "JPEG2000")
    assert decoded(plain).icc is None
    outer, inner = plain.index(b"jp2h") - 4, plain.index(b"colr") - 4
    old = int.from_bytes(plain[inner : inner + 4], "big")
    colr = (11 + len(icc)).to_bytes(4, "big") + b"colr\2\0\0" + icc
    size = int.from_bytes(plain[outer : outer + 4], "big") - old + len(colr)
    data = plain[:outer] + size.to_bytes(4, "big") + plain[outer + 4 : inner] + colr + plain[inner + old :]
    assert decoded(data).icc == icc


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


@pytest.mark.parametrize("format", ["BMP", "JPEG2000", "PPM", "TGA"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_formats_without_metadata_get_upright_pixels(format: str, mode: str) -> None:
    """A format that cannot say how to turn its pixels gets them as they are to be seen."""
    if mode.endswith("A") and not writing.carries_alpha(format):
        pytest.skip("no alpha in this format")
    picture = decoded(
        pictures.with_metadata(pictures.photo(9, 14, CHANNELS[mode]), "PNG", exif=pictures.exif(6), icc=None, xmp=None)
    )
    back = decoded(writing.encode(picture, format=format, quality=90))
    assert back.orientation == 1
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    if picture.alpha is not None:
        assert back.alpha is not None
        np.testing.assert_array_equal(back.alpha, picture.alpha)


def test_mislabelled_files_decode_by_content() -> None:
    """What a file is decides, for names lie; its true format is reported."""
    assert decoded(pictures.saved(pictures.photo(8, 9), "PNG")).format == "PNG"
    assert decoded(pictures.saved(pictures.photo(8, 9), "BMP")).format == "BMP"


@pytest.mark.parametrize("kind", pictures.unsupported())
def test_what_8_bits_cannot_hold_is_refused(kind: str) -> None:
    """A picture that would lose frames, bits or channels is refused with its reason, never changed in silence."""
    with pytest.raises(UnsupportedImage, match=r"frame or picture|bits per channel|it is "):
        decoded(pictures.unsupported()[kind])


def test_a_gain_map_is_refused() -> None:
    """A JPEG whose second picture brightens it for HDR would lose that picture."""
    hdr = pictures.with_metadata(
        pictures.photo(8, 9), "JPEG", exif=None, icc=None, xmp=b'<x hdrgm:Version="1.0"/>', extra=b"\xff\xe2\0\x06MPF\0"
    )
    assert b"MPF\0" in hdr
    with pytest.raises(UnsupportedImage, match="more than one"):
        decoded(hdr)


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


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "JPEG2000", "PPM", "TGA"])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4))
@quick
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
@quick
def test_random_bytes_raise_nothing_but_image_errors(noise: bytes, head: bytes) -> None:
    """Bytes from anywhere, also behind a familiar signature, end in an ImageError at worst."""
    try:
        decoded(head + noise)
    except ImageError:
        return


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


@pytest.mark.parametrize("codec", LrCodec)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (31, 46)])
def test_an_lr_comes_back_exactly(codec: LrCodec, grey: bool, transparent: bool, size: tuple[int, int]) -> None:
    """An LR is stored without loss, colours under full transparency too, whatever its codec and size."""
    pixels = pictures.photo(*size)
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels
    alpha = pictures.photo(*size, 1, seed=4) // 2 * 2 if transparent else None
    if alpha is not None:
        alpha[0, 0] = 0
    data, extension = lr_codec.encode_lr(pixels, codec=codec, grey=grey, alpha=alpha, icc=None)
    assert extension == ("webp" if codec is LrCodec.AUTO else codec.value)
    assert lr_codec.encode_lr(pixels, codec=codec, grey=grey, alpha=alpha, icc=None)[0] == data
    back, back_alpha = lr_codec.decode_lr(data)
    np.testing.assert_array_equal(back, pixels)
    assert (back_alpha is None) == (alpha is None)
    if alpha is not None and back_alpha is not None:
        np.testing.assert_array_equal(back_alpha, alpha)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (31, 46)])
def test_a_clean_lr_is_a_close_avif(grey: bool, transparent: bool, size: tuple[int, int]) -> None:
    """An LR that hides nothing may be lossy: close, of any size, grey stays grey, with its profile."""
    pixels = pictures.photo(*size)
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels
    alpha = pictures.photo(*size, 1, seed=4) if transparent else None
    icc = pictures.swapped_profile()
    data, extension = lr_codec.encode_clean_lr(pixels, alpha=alpha, icc=icc)
    assert extension == "avif"
    assert lr_codec.encode_clean_lr(pixels, alpha=alpha, icc=icc)[0] == data
    back, back_alpha = lr_codec.decode_lr(data)
    assert np.abs(back.astype(int) - pixels).mean() < 6
    assert not grey or (back == back[..., :1]).all()
    assert (back_alpha is None) == (alpha is None)
    with Image.open(BytesIO(data)) as lr:
        assert lr.info["icc_profile"] == icc
        assert lr.size == size[::-1]
    flipped = bytearray(data)
    flipped[len(data) * 2 // 3] ^= 0x55
    for damaged in (bytes(flipped), data[:-1], data[:40]):
        with contextlib.suppress(UndecodableImage):  # AVIF has no check sum of its own; the entry's digest finds the rest
            assert lr_codec.decode_lr(damaged)[0].shape == pixels.shape
    with pytest.raises(UndecodableImage, match="expected"):
        lr_codec.decode_lr(data, size=(size[0], size[1] + 1))


@pytest.mark.parametrize(("codec", "expected"), [(LrCodec.WEBP, "webp"), (LrCodec.PNG, "png"), (LrCodec.JXL, "webp")])
def test_an_lr_carries_its_profile(codec: LrCodec, expected: str) -> None:
    """A wide-gamut LR shows its true colours; JPEG XL, which here could not say what they are, gives way to WebP."""
    icc = pictures.swapped_profile()
    data, extension = lr_codec.encode_lr(pictures.photo(6, 7), codec=codec, grey=False, alpha=None, icc=icc)
    assert extension == expected
    with Image.open(BytesIO(data)) as lr:
        assert lr.info["icc_profile"] == icc
        assert not lr.getexif()


def test_a_profile_that_says_srgb_does_not_change_the_codec() -> None:
    """Most profiles say what JPEG XL says without one; those LRs stay JPEG XL."""
    for icc in (pictures.srgb_profile(), b"no profile at all" * 20):
        assert lr_codec.encode_lr(pictures.photo(6, 7), codec=LrCodec.JXL, grey=False, alpha=None, icc=icc)[1] == "jxl"


def test_a_grey_profile_becomes_one_of_rgb() -> None:
    """A grey profile inside an RGB file makes it invalid: a grey LR in WebP has one of RGB that shows the same."""
    grey = np.repeat(pictures.photo(6, 7)[..., :1], 3, axis=2)
    srgb, shown = ImageCms.createProfile("sRGB"), []
    for codec, mode in ((LrCodec.WEBP, "RGB"), (LrCodec.PNG, "L")):
        data, _ = lr_codec.encode_lr(grey, codec=codec, grey=True, alpha=None, icc=pictures.grey_profile(1.8))
        with Image.open(BytesIO(data)) as lr:
            assert lr.mode == mode
            profile = ImageCms.ImageCmsProfile(BytesIO(lr.info["icc_profile"]))
            shown.append(np.asarray(ImageCms.profileToProfile(lr, profile, srgb, outputMode="RGB")).astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 1
    assert np.abs(shown[0] - grey).max() > 5


def test_sides_beyond_webp_fall_back_to_png() -> None:
    """A very long LR is stored all the same, and says as what."""
    wide = np.zeros((2, 16384, 3), np.uint8)
    data, extension = lr_codec.encode_lr(wide, codec=LrCodec.WEBP, grey=False, alpha=None, icc=None)
    assert extension == "png"
    np.testing.assert_array_equal(lr_codec.decode_lr(data)[0], wide)
    assert lr_codec.encode_lr(wide[:, :16383], codec=LrCodec.WEBP, grey=False, alpha=None, icc=None)[1] == "webp"


@pytest.mark.parametrize("codec", LrCodec)
@given(cut=st.floats(0, 1, exclude_max=True), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@quick
def test_a_damaged_lr_raises_undecodable(codec: LrCodec, cut: float, place: float, bit: int) -> None:
    """Bit rot in an archive is reported as damage of its entry, never as a crash of a codec."""
    data, _ = lr_codec.encode_lr(pictures.photo(17, 19), codec=codec, grey=False, alpha=None, icc=None)
    flipped = bytearray(data)
    flipped[int(place * len(data))] ^= 1 << bit
    for damaged in (bytes(flipped), data[: int(cut * len(data))]):
        try:
            pixels, _ = lr_codec.decode_lr(damaged)
        except UndecodableImage:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 9))
@quick
def test_planes_come_back_exactly(height: int, width: int, seed: int) -> None:
    """Full-size alpha is stored without loss."""
    plane = pictures.photo(height, width, 1, seed)
    np.testing.assert_array_equal(lr_codec.decode_plane(lr_codec.encode_plane(plane)), plane)


def test_planes_have_no_side_limit_and_report_damage() -> None:
    """The alpha of a panorama fits; what is no plane is refused."""
    wide = np.tile(np.arange(256, dtype=np.uint8), (2, 80))
    np.testing.assert_array_equal(lr_codec.decode_plane(lr_codec.encode_plane(wide)), wide)
    for bad in (b"", b"\xff\x0a", lr_codec.encode_plane(wide)[:30], codecs.encode_jxl_lossless(pictures.photo(3, 4))):
        with pytest.raises(UndecodableImage):
            lr_codec.decode_plane(bad)


@given(height=st.integers(1, 33), width=st.integers(1, 33), channels=st.integers(1, 4), seed=st.integers(0, 9))
@quick
def test_jpeg_xl_is_exact_and_the_same_every_time(height: int, width: int, channels: int, seed: int) -> None:
    """Lossless JPEG XL gives the same values for 1 to 4 channels of any size, and the same bytes for the same values."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    data = codecs.encode_jxl_lossless(pixels)
    np.testing.assert_array_equal(codecs.decode_jxl(data).reshape(pixels.shape), pixels)
    assert codecs.encode_jxl_lossless(pixels) == data


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_turns_and_turns_back(orientation: int) -> None:
    """Turning upright and back is nothing at all, for planes and for colours."""
    for stored in (pictures.photo(5, 8, 1), pictures.photo(5, 8)):
        shown = upright(stored, orientation)
        assert shown.shape[:2] == ((8, 5) if orientation >= 5 else (5, 8))
        np.testing.assert_array_equal(as_stored(shown, orientation), stored)
        assert np.shares_memory(shown, stored)


@given(noise=st.binary(max_size=80), head=st.sampled_from([b"", b"Exif\0\0", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0"]))
@quick
def test_damaged_exif_means_upright(noise: bytes, head: bytes) -> None:
    """EXIF that cannot be read turns nothing and stops nothing."""
    assert orientation_of(head + noise) in ORIENTATIONS
    assert orientation_of(None) == 1
    assert orientation_of(pictures.exif(9)) == 1


def test_a_picture_with_damaged_exif_decodes_and_keeps_it() -> None:
    """Odd metadata is no reason to refuse a good picture, and none to drop the metadata."""
    for format in ("JPEG", "PNG", "WEBP"):
        block = pictures.exif(6)[:20] + b"\xff" * 40
        picture = decoded(pictures.with_metadata(pictures.photo(6, 9), format, exif=block, icc=None, xmp=None))
        assert picture.exif == block
        assert decoded(writing.encode(picture, format=format, quality=80)).exif == block


def test_alpha_needs_a_format_that_holds_it() -> None:
    """Transparency is never dropped in silence: the caller is told, and can ask first."""
    picture = decoded(pictures.saved(pictures.photo(6, 9, 4), "PNG"))
    for format in ("jpeg", "BMP", "MPO", "PPM"):
        assert not writing.carries_alpha(format)
        with pytest.raises(UnwritableImage, match="transparency"):
            writing.encode(picture, format=format, quality=90)
    assert all(writing.carries_alpha(format) for format in ("png", "webp", "AVIF", "TIFF", "JPEG2000"))


def test_what_a_format_cannot_hold_is_said() -> None:
    """Sides and metadata beyond a format's limits end in one sentence that names the way out."""
    wide = decoded(pictures.saved(np.zeros((1, 16384, 3), np.uint8), "PNG"))
    with pytest.raises(UnwritableImage, match=r"WEBP.*PNG"):
        writing.encode(wide, format="webp", quality=90)
    long = decoded(
        pictures.with_metadata(pictures.photo(4, 4), "PNG", exif=pictures.exif() + bytes(70_000), icc=None, xmp=None)
    )
    with pytest.raises(UnwritableImage, match="too long"):
        writing.encode(long, format="jpeg", quality=90)


def test_formats_are_known_by_either_name() -> None:
    """Options say png, sources say PNG or MPO; and what cannot be written well is not claimed to be."""
    assert [writing.extension_of(name) for name in ("png", "jpeg", "MPO", "WEBP", "TIFF")] == [
        "png",
        "jpg",
        "jpg",
        "webp",
        "tif",
    ]
    assert writing.writable("JPEG2000")
    assert not any(writing.writable(name) for name in ("GIF", "PSD", "ICO", "nonsense"))


def test_a_files_own_extension_is_known_to_name_its_format() -> None:
    """A restored file keeps its name where its extension says the right thing already, whichever spelling it has."""
    assert all(writing.names_format(extension, "JPEG") for extension in ("jpg", "JPEG", "jpe", "mpo"))
    assert not any(writing.names_format(extension, "png") for extension in ("jpg", "txt", ""))


def test_a_webp_of_quality_100_is_lossless() -> None:
    """The best quality of WebP is the picture itself."""
    picture = decoded(pictures.saved(pictures.photo(20, 30, 4), "PNG"))
    back = decoded(writing.encode(picture, format="webp", quality=100))
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    assert back.alpha is not None
    assert picture.alpha is not None
    np.testing.assert_array_equal(back.alpha, picture.alpha)


def test_extensions_are_those_of_pictures() -> None:
    """Sidecars are never taken for pictures, and all usual pictures are found."""
    found = decoding.image_extensions()
    assert {"jpg", "jpeg", "png", "webp", "avif", "tif", "tiff", "gif", "bmp", "jp2", "mpo"} <= found
    assert not {"txt", "json", "pdf", "mpg", "eps", "ps", "h5", "hdf", "fits", "grib", "cls", "npy"} & found
    assert all(extension == extension.lower() and "." not in extension for extension in found)


def test_jpegs_are_written_without_chroma_subsampling() -> None:
    """A restored JPEG keeps the colour resolution that was restored."""
    picture = decoded(pictures.saved(pictures.photo(16, 16), "PNG"))
    data = writing.encode(picture, format="jpeg", quality=90)
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == 0x11


def test_resizing_is_antialiased_and_keeps_flat_areas() -> None:
    """Restoring at another size averages what it shrinks, and a flat picture stays what it is."""
    checker = np.indices((40, 60)).sum(0) % 2 * 255
    small = resize(checker.astype(np.uint8), (10, 15))
    assert small.shape == (10, 15)
    assert np.abs(small.astype(int) - 127).max() <= 4
    flat = np.full((31, 17, 3), 77, np.uint8)
    for size in ((1, 1), (10, 5), (62, 40)):
        resized = resize(flat, size)
        assert resized.shape == (*size, 3)
        assert (resized == 77).all()
