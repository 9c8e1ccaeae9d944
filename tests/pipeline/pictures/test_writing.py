"""Restored pictures as files: what each format holds, how it is named, and what it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.errors import UnwritableImage
from pipeline.pictures import writing
from tests.support import pictures
from tests.support.pictures import decoded


@pytest.mark.parametrize("format", ["BMP", "JPEG2000", "PPM", "TGA"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_formats_without_metadata_get_upright_pixels(format: str, mode: str) -> None:
    """A format that cannot say how to turn its pixels gets them as they are to be seen."""
    if mode.endswith("A") and not writing.carries_alpha(format):
        pytest.skip("no alpha in this format")
    picture = decoded(
        pictures.with_metadata(pictures.photo(9, 14, len(mode)), "PNG", exif=pictures.exif(6), icc=None, xmp=None)
    )
    back = decoded(writing.encode(picture, format=format, quality=90))
    assert back.orientation == 1
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    if picture.alpha is not None:
        assert back.alpha is not None
        np.testing.assert_array_equal(back.alpha, picture.alpha)


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


def test_jpegs_are_written_without_chroma_subsampling() -> None:
    """A restored JPEG keeps the colour resolution that was restored."""
    picture = decoded(pictures.saved(pictures.photo(16, 16), "PNG"))
    data = writing.encode(picture, format="jpeg", quality=90)
    frame = data.index(b"\xff\xc0")
    assert data[frame + 11] == 0x11
