"""A picture to a restored file, in the source's own orientation, with its metadata where the format holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from pipeline.containers import jpeg2000, png, tiff
from pipeline.containers.account import put_back
from pipeline.core.errors import UnwritableImage
from pipeline.core.records import Pixels
from pipeline.pictures import codecs
from pipeline.pictures.colour import fitting
from pipeline.pictures.depth import in_8_bits, is_deep
from pipeline.pictures.orientation import JPEG_PREFIX, as_stored
from pipeline.pictures.picture import Picture, is_grey
from pipeline.pictures.pillow import LR_WEBP, PILLOW_RAISES, PNG_OPTIONS, saved, stacked
from pipeline.pictures.tags import NESTED, keep_descriptive, keep_text

LOSSLESS = "VP8L"
"""The part of a WebP that says how its pixels were coded."""

_PNG_XMP = "XML:com.adobe.xmp"
_TIFF_XMP = 700


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """How a format is written: its extension, the modes it takes, whether it holds EXIF, ICC and XMP, Pillow's options."""

    extension: str
    modes: Sequence[str]
    metadata: bool = True
    options: Mapping[str, Any]
    has_quality: bool = False


# GIF is not among them: a restored picture has more than its 256 colours. AVIF's threads are one as other codecs' are.
_WRITERS = {
    "PNG": _Writer(extension="png", modes=("L", "LA", "RGB", "RGBA"), options=PNG_OPTIONS),
    "JPEG": _Writer(extension="jpg", modes=("L", "RGB"), options={"subsampling": 0}, has_quality=True),
    "WEBP": _Writer(extension="webp", modes=("RGB", "RGBA"), options={"exact": True}, has_quality=True),
    "AVIF": _Writer(
        extension="avif", modes=("L", "RGB", "RGBA"), options={"subsampling": "4:4:4", "max_threads": 1}, has_quality=True
    ),
    "TIFF": _Writer(extension="tif", modes=("L", "LA", "RGB", "RGBA"), options={}),
    "BMP": _Writer(extension="bmp", modes=("L", "RGB"), metadata=False, options={}),
    "JPEG2000": _Writer(extension="jp2", modes=("L", "LA", "RGB", "RGBA"), metadata=False, options={}),
    "PPM": _Writer(extension="ppm", modes=("L", "RGB"), metadata=False, options={}),
    "TGA": _Writer(extension="tga", modes=("L", "LA", "RGB", "RGBA"), metadata=False, options={}),
}

_DEEP = {"PNG", "TIFF", "JPEG2000", "PPM"}
"""The formats that are written with 16 bits a channel as well."""

_ALIASES = {"JPG": "JPEG", "MPO": "JPEG"}


def writable(format: str) -> bool:
    """Return whether ``encode`` writes a format, by Pillow's name for it in any case; a GIF's 256 colours will not do."""
    return _canonical(format) in _WRITERS


def lossless_format(format: str) -> str:
    """Return a writable format itself where it can be written without loss (WebP at quality 100), or PNG."""
    name = _canonical(format)
    return name if name == "WEBP" or not _WRITERS[name].has_quality else "PNG"


def carries_alpha(format: str) -> bool:
    """Return whether a writable format holds alpha."""
    return "RGBA" in _WRITERS[_canonical(format)].modes


def extension_of(format: str) -> str:
    """Return the extension, without dot, that a writable format's files have."""
    return _WRITERS[_canonical(format)].extension


def names_format(extension: str, format: str) -> bool:
    """Return whether files of a writable format may have ``extension`` (without dot, any case)."""
    own = Image.EXTENSION.get(f".{extension.lower()}", "")
    return _canonical(own) == _canonical(format)


def encode(picture: Picture, *, format: str, quality: int) -> bytes:
    """Return a file of ``picture`` in a writable format.

    ``quality``, 1 to 100, is for JPEG (at 4:4:4), WebP (100 is lossless) and AVIF. PNG, TIFF, JPEG 2000 and PPM have the
    picture's depth, the others 8 bits a channel.
    EXIF is written with its orientation tag, and the pixels turned to suit it; ICC, XMP and alpha where the format holds them.
    A format without EXIF gets upright pixels. In the source's own format the parts that were carried are put back, and what
    was coded without loss is so again; in others colours that were told in another way are told by a profile. Raises
    UnwritableImage for alpha, sides or metadata that the format cannot hold.
    """
    name = _canonical(format)
    writer = _WRITERS[name]
    if picture.alpha is not None and "RGBA" not in writer.modes:
        raise UnwritableImage(name, "it holds no transparency")
    own = same_format(name, picture.format)
    grey = is_grey(picture.mode) and ("L" if picture.alpha is None else "LA") in writer.modes
    array = stacked(picture.pixels, picture.alpha, grey=grey)
    array = array if name in _DEEP else in_8_bits(array)
    options = {**writer.options, "quality": quality} if writer.has_quality else dict(writer.options)
    if name == "WEBP" and (quality == 100 or (own and any(part.name == LOSSLESS for part in picture.parts))):
        options |= {"lossless": True, "quality": LR_WEBP["quality"], "method": LR_WEBP["method"]}
    if name == "AVIF" and grey:
        options["subsampling"] = "4:0:0"  # a file of grey alone
    if writer.metadata:
        array = as_stored(array, picture.orientation)
        icc = fitting(picture.icc if own else picture.profile, grey=grey)
        options |= _metadata(name, exif=picture.exif, xmp=picture.xmp, icc=icc)
    data = _saved_deep(name, array, options) if is_deep(array) else saved(name, array, options)
    return put_back(data, name, picture.parts) if own else data


def same_format(one: str, other: str) -> bool:
    """Return whether two names, of any case, are of one format."""
    return _canonical(one) == _canonical(other)


def lacking(picture: Picture, format: str) -> tuple[str, ...]:
    """Return the words for what a file of a picture in ``format`` lacks of its source: no parts are put into another format."""
    kept_back = () if same_format(format, picture.format) else (part.name for part in picture.parts if part.data)
    depth = ("depth",) if is_deep(picture.pixels) and _canonical(format) not in _DEEP else ()
    return tuple(sorted({*picture.lost, *kept_back, *depth}))


def _saved_deep(format: str, array: Pixels, options: Mapping[str, Any]) -> bytes:
    """Return a file of 16 bits: of Pillow, which writes few of them, it has what stands beside the samples."""
    if format == "PPM":
        return _pnm(array)
    if format == "JPEG2000":
        coded = codecs.encode_jpeg2000(array)
        return jpeg2000.with_alpha(coded) if array.ndim == 3 and array.shape[2] % 2 == 0 else coded
    shell = saved(format, in_8_bits(array[:1, :1]), options)
    if format == "PNG":
        return png.with_samples_of(shell, codecs.encode_png(array))
    try:
        return tiff.with_samples(shell, array)
    except OverflowError as error:
        raise UnwritableImage(format, str(error)) from None


def _pnm(samples: Pixels) -> bytes:
    """Return a binary PGM of grey samples (H, W), or a PPM of RGB ones (H, W, 3), of 16 bits: see ppm(5)."""
    height, width = samples.shape[:2]
    head = b"%s\n%d %d\n65535\n" % (b"P5" if samples.ndim == 2 else b"P6", width, height)
    return b"".join((head, np.ascontiguousarray(samples, ">u2").data))


def _canonical(format: str) -> str:
    return _ALIASES.get(format.upper(), format.upper())


def _metadata(format: str, *, exif: bytes | None, xmp: bytes | None, icc: bytes | None) -> dict[str, Any]:
    """Return Pillow's options for metadata, each format's own way."""
    options: dict[str, Any] = {"icc_profile": icc}
    if format == "TIFF":
        tags = Image.Exif()
        if exif is not None:
            try:
                tags.load(exif)
                keep_descriptive(tags)
                keep_text(tags)
            except PILLOW_RAISES:
                raise UnwritableImage(format, "its EXIF cannot be read") from None
        if xmp is not None:
            tags[_TIFF_XMP] = xmp
        # libtiff, which compresses, cannot write the nested tables that Pillow's own writer can.
        return options | {"exif": tags, "compression": "raw" if NESTED & set(tags) else "tiff_adobe_deflate"}
    options["exif"] = JPEG_PREFIX + exif if exif is not None and format == "JPEG" else exif
    if format == "PNG" and xmp is not None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt(_PNG_XMP, xmp)
        return options | {"pnginfo": text}
    return options | {"xmp": xmp}
