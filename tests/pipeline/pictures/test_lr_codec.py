"""LRs and planes as files: exact or close, as was asked for, small, with their profile, and damage told."""

from __future__ import annotations

import contextlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pipeline.core.errors import UndecodableImage
from pipeline.core.records import LrCodec
from pipeline.pictures import codecs, lr_codec
from tests.support import pictures


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


@pytest.mark.slow
@pytest.mark.parametrize("codec", LrCodec)
@given(cut=st.floats(0, 1, exclude_max=True), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=100)
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
@settings(max_examples=100)
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
