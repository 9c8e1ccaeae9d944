"""Encoded bytes to uint8 pixels and back, with one policy for modes, EXIF and ICC; the only importer of Pillow.

    decode     bytes of a source  ──►  Picture: upright RGB, alpha apart, metadata as found
    encode     Picture            ──►  bytes of a restored file, in the source's own orientation
    encode_lr, decode_lr               the small picture: upright, with its colour profile; lossless, or a clean one as AVIF
    encode_plane, decode_plane         the full-size alpha: lossless

8-bit grey, RGB and palette pictures of one frame pass; what 8-bit RGB with alpha cannot stand for is refused rather than
changed in silence. Colours are never converted: the numbers stay, and their profile travels beside them. Every function may
run in many threads at once.
"""

from __future__ import annotations

import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import (  # each plugin enters itself into Pillow's lists of formats and extensions
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    IcnsImagePlugin,  # noqa: F401
    IcoImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    ImageDraw,
    ImageFile,
    ImageFont,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PcxImagePlugin,  # noqa: F401
    PngImagePlugin,
    PpmImagePlugin,  # noqa: F401
    PsdImagePlugin,  # noqa: F401
    QoiImagePlugin,  # noqa: F401
    SgiImagePlugin,  # noqa: F401
    SunImagePlugin,  # noqa: F401
    TgaImagePlugin,  # noqa: F401
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401
    XpmImagePlugin,  # noqa: F401
)

from pipeline import codecs, headers
from pipeline.errors import ImageTooLarge, UndecodableImage, UnsupportedImage, UnwritableImage
from pipeline.orientation import JPEG_PREFIX, as_stored, orientation_of
from pipeline.records import LrCodec, Pixels, Size

# A fixed list decides alike in every process, whatever else is registered with Pillow, and keeps out what is no photograph
# or starts other programs (EPS runs Ghostscript). TGA has no signature, so it is tried last.
_FORMATS = (
    "JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "QOI", "PSD", "ICO", "ICNS", "SGI", "SUN", "PCX",
    "XPM", "TGA",
)  # fmt: skip
_LR_FORMATS = ("WEBP", "PNG", "AVIF")

_SUPPORTED_MODES = {"L", "LA", "P", "PA", "RGB", "RGBA"}
_MODE_NAMES = {"1": "1-bit", "F": "floating-point"}
_DEEP_RAW_MODE = re.compile(r"(I|L|LA|RGB[AXa]?|CMYK);16")  # but "BGR;16" is 5, 6 and 5 bits

# What Pillow's plugins raise on damaged bytes, which is far more than OSError.
_PILLOW_RAISES = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

_STRIP_PIXELS = 1 << 22
_WEBP_MAX_SIDE = 16383
_WEBP_MAX_PIXELS = 16_000_000  # of an LR: coding takes 35 bytes a pixel (measured), PNG next to none
_PNG_XMP = "XML:com.adobe.xmp"
_TIFF_XMP = 700

# Tags of a TIFF that describe the picture; all others describe the file's own layout.
_NESTED = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
_TIFF_EXIF_TAGS = _NESTED | {
    ExifTags.Base.DocumentName, ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model,
    ExifTags.Base.Orientation, ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright, ExifTags.Base.Rating, ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject,
}  # fmt: skip

# Measured on eight photographs at 800 pixels, one thread. WebP: method 2, 3, 6 take 10.95, 10.72, 10.65 bits per pixel in
# 0.19, 0.35, 0.91 s/MP. PNG: level 3, 4, 6 take 14.4, 13.7, 13.6 in 0.10, 0.13, 0.23.
_LR_WEBP = {"lossless": True, "method": 3, "quality": 25, "exact": True}  # exact: RGB under full transparency stays
_PNG = {"compress_level": 4}
_LR_AVIF: dict[str, Any] = {
    **{"subsampling": "4:4:4", "speed": 6, "max_threads": 1, "quality": 80},
    **{"codec": "aom", "advanced": {"tune": "psnr"}},
}

_guard = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded source: ``pixels`` (H, W, 3) RGB and ``alpha`` (H, W) or None, uint8, both upright.

    ``grey`` says that the source had no colour channels (the three are equal). ``orientation`` (1 to 8), ``mode`` and
    ``format`` (Pillow's names) are the source file's, ``icc`` and ``xmp`` its bytes. ``exif`` is its EXIF block with its
    orientation tag, without the prefix that JPEG puts before it; a TIFF, whose own tags these are, gets a block of them.
    """

    pixels: Pixels
    alpha: Pixels | None
    grey: bool
    orientation: int
    mode: str
    format: str
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None


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
    "PNG": _Writer(extension="png", modes=("L", "LA", "RGB", "RGBA"), options=_PNG),
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
_ALIASES = {"JPG": "JPEG", "MPO": "JPEG"}


def image_extensions() -> frozenset[str]:
    """Return the lower-case extensions, without dot, of files that ``decode`` reads; files of any other are sidecars."""
    return frozenset(ext.removeprefix(".") for ext, name in Image.EXTENSION.items() if name in {*_FORMATS, "MPO"})


def pixel_count(data: bytes) -> int | None:
    """Return width times height, in pixels, from the header alone, or None where it cannot be read."""
    try:
        with _translated():
            _admit(0)
            image = _open(data, _FORMATS)
    except UndecodableImage:
        return None
    return image.width * image.height


def decode(data: bytes, *, pixel_limit: int) -> Picture:
    """Return the picture in a file's bytes, whatever the file's name says.

    Raises UndecodableImage (damaged, truncated, empty, no image), ImageTooLarge (over ``pixel_limit``, told before anything is
    decoded) and UnsupportedImage (several frames, over 8 bits per channel, CMYK, floating point, 1-bit, Lab and the like).
    """
    with _translated():
        _admit(pixel_limit)
        image = _open(data, _FORMATS)
        if image.width * image.height > pixel_limit:
            raise ImageTooLarge(image.width, image.height, pixel_limit)
        _refuse_unfaithful(image, data)
        mode, format_name, info = image.mode, image.format or "", image.info
        # Pillow turns a TIFF upright itself, and by its XMP where it has no tag: so the tags are read first, and XMP hidden.
        tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
        xmp = info.pop("xmp", None) if tiff else None
        exif = _tiff_exif(image) if tiff else None
        _scale_grey_key(image)
        image.load()
        exif = exif or _exif_block(info)  # after loading: a PNG may have its metadata behind its pixels
        xmp = xmp or info.get("xmp")
        icc = headers.jpeg2000_profile(data) if format_name == "JPEG2000" else info.get("icc_profile")
        orientation = orientation_of(exif)
        pixels, alpha = _unpack(_plain(image), 1 if tiff else orientation)
    return Picture(
        pixels=pixels,
        alpha=alpha,
        grey=is_grey(mode),
        orientation=orientation,
        mode=mode,
        format=format_name,
        icc=icc or None,
        exif=exif,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
    )


def encode_lr(pixels: Pixels, *, codec: LrCodec, grey: bool, alpha: Pixels | None, icc: bytes | None) -> tuple[bytes, str]:
    """Code an LR, (h, w, 3) and alpha (h, w), without loss, with its profile and no EXIF; return bytes and extension.

    ``auto`` is WebP. JPEG XL holds no profile here but sRGB's, WebP no side above 16383, and above 16 megapixels it is not
    used: where the codec asked for does not do, WebP and then PNG stand in, and the extension tells.
    """
    if codec is LrCodec.JXL and (icc is None or _is_srgb(icc)):
        return codecs.encode_jxl_lossless(_stacked(pixels, alpha, grey=grey)), "jxl"
    if codec is not LrCodec.PNG and is_moderate((pixels.shape[0], pixels.shape[1])):
        profile = _fitting(icc, grey=False)
        return _saved("WEBP", _stacked(pixels, alpha, grey=False), {**_LR_WEBP, "icc_profile": profile}), "webp"
    return _saved("PNG", _stacked(pixels, alpha, grey=grey), {**_PNG, "icc_profile": _fitting(icc, grey=grey)}), "png"


def encode_clean_lr(pixels: Pixels, *, alpha: Pixels | None, icc: bytes | None) -> tuple[bytes, str]:
    """Code a moderate LR that hides nothing, (h, w, 3) and alpha (h, w), as AVIF of about 41 dB; return bytes and extension."""
    array = _stacked(pixels, alpha, grey=False)
    return _saved("AVIF", array, {**_LR_AVIF, "icc_profile": _fitting(icc, grey=False)}), "avif"


def is_moderate(lr_size: Size) -> bool:
    """Return whether WebP's and AVIF's coders take LRs of a size, (height, width), in moderate memory."""
    return max(lr_size) <= _WEBP_MAX_SIDE and lr_size[0] * lr_size[1] <= _WEBP_MAX_PIXELS


def decode_lr(data: bytes, *, size: Size | None = None) -> tuple[Pixels, Pixels | None]:
    """Return the pixels (h, w, 3) and alpha (h, w) of an LR in any of its codecs.

    Raises UndecodableImage on damage, and where it is not of ``size``, (h, w).
    """
    if codecs.is_jxl(data):
        array = codecs.decode_jxl(data)
        if size is not None and array.shape[:2] != size:
            raise UndecodableImage(f"it is {array.shape[1]} x {array.shape[0]} pixels, {size[1]} x {size[0]} were expected")
    else:
        with _translated():
            image = _open(data, _LR_FORMATS)
            _check_size(image, size)
            if image.mode not in {"L", "LA", "RGB", "RGBA"}:
                raise UndecodableImage(f"an LR is no picture of mode {image.mode}")
            array = np.asarray(image)
    channels = array if array.ndim == 3 else array[..., None]
    colours = channels.shape[2] - (channels.shape[2] + 1) % 2  # grey, RGB; and one less where alpha is the last
    pixels = np.ascontiguousarray(np.broadcast_to(channels[..., :colours], (*channels.shape[:2], 3)))
    return pixels, np.ascontiguousarray(channels[..., -1]) if channels.shape[2] % 2 == 0 else None


def is_grey(mode: str | None) -> bool:
    """Return whether a source of Pillow's ``mode`` had no colour channels."""
    return mode in {"L", "LA"}


def encode_plane(plane: Pixels) -> bytes:
    """Code a uint8 plane (H, W) of any size without loss, as JPEG XL: 15 to 30 % smaller than PNG on mattes, as fast."""
    return codecs.encode_jxl_lossless(plane)


def decode_plane(data: bytes) -> Pixels:
    """Return the plane (H, W) that ``encode_plane`` coded; raises UndecodableImage on damage."""
    plane = codecs.decode_jxl(data)
    if plane.ndim != 2:
        raise UndecodableImage(f"a plane has one channel, not {plane.shape[2]}")
    return plane


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

    ``quality``, 1 to 100, is for JPEG (at 4:4:4), WebP (100 is lossless) and AVIF.
    EXIF is written with its orientation tag, and the pixels turned to suit it; ICC, XMP and alpha where the format holds them.
    A format without EXIF gets upright pixels. Raises UnwritableImage for alpha, sides or metadata that the format cannot hold.
    """
    name = _canonical(format)
    writer = _WRITERS[name]
    if picture.alpha is not None and "RGBA" not in writer.modes:
        raise UnwritableImage(name, "it holds no transparency")
    grey = picture.grey and ("L" if picture.alpha is None else "LA") in writer.modes
    array = _stacked(picture.pixels, picture.alpha, grey=grey)
    options = {**writer.options, "quality": quality} if writer.has_quality else dict(writer.options)
    if name == "WEBP" and quality == 100:
        options |= {"lossless": True, "quality": _LR_WEBP["quality"], "method": _LR_WEBP["method"]}
    if name == "AVIF" and grey:
        options["subsampling"] = "4:0:0"  # a file of grey alone
    if writer.metadata:
        array = as_stored(array, orientation_of(picture.exif))
        options |= _metadata(name, exif=picture.exif, xmp=picture.xmp, icc=_fitting(picture.icc, grey=grey))
    return _saved(name, array, options)


def resize(pixels: Pixels, size: Size) -> Pixels:
    """Return pixels (H, W, 3), or a plane (H, W), at ``size`` (height, width) in pixels, by antialiased bicubic (a = -0.5)."""
    return np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def label(pixels: Pixels, text: str, *, left: int, top: int, size: int = 14, grey: int = 0) -> Pixels:
    """Return a copy of pixels (H, W, 3) with ``text`` on them, ``size`` pixels high, its upper left corner at (left, top)."""
    canvas = Image.fromarray(pixels)
    ImageDraw.Draw(canvas).text((left, top), text, fill=(grey, grey, grey), font=ImageFont.load_default(size=size))
    return np.array(canvas)


def _canonical(format: str) -> str:
    return _ALIASES.get(format.upper(), format.upper())


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what Pillow raises on bad bytes into UndecodableImage, and keep its warnings to ourselves."""
    # catch_warnings swaps global state and is not safe among threads; a filter for Pillow's modules, put back in front
    # whenever it is not there, is. A warning is never news here: a picture is decoded, or refused with a reason.
    quiet = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    if quiet not in warnings.filters[:1]:
        warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")
    try:
        yield
    except _PILLOW_RAISES as error:
        raise UndecodableImage(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """Return one short line without the memory addresses that Pillow puts into its messages."""
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    return text[:200] or type(error).__name__


def _admit(pixel_limit: int) -> None:
    """See that Pillow's own guard against bombs lets through what our limit does.

    The guard is one value for the whole process, so it is only ever raised: a thread never sees it flip back. It refuses above
    twice its value, here never below the largest WebP, whose size Pillow would not tell otherwise. It stays on for what a
    header does not show, such as a picture inside an icon.
    """
    wanted = max(pixel_limit, (_WEBP_MAX_SIDE**2 + 1) // 2)
    with _guard:
        if Image.MAX_IMAGE_PIXELS is not None and wanted > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = wanted


def _open(data: bytes, formats: Sequence[str]) -> ImageFile.ImageFile:
    """Read a header with the first of ``formats`` that takes it; raises UndecodableImage.

    ``Image.open`` is not used, because it refuses what is large before telling how large.
    """
    if not data:
        raise UndecodableImage("the file is empty")
    reason = "it is in no picture format known here"
    for name in formats:
        factory, accept = Image.OPEN[name]
        try:
            verdict = True if accept is None else accept(data[:16])
            if verdict and not isinstance(verdict, str):  # a string says why a plugin cannot work
                AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # or each decoder would start as many as there are cores
                return factory(BytesIO(data), "")
        except _PILLOW_RAISES as error:
            reason = reason if accept is None else f"{name}: {_reason(error)}"
    raise UndecodableImage(reason)


def _check_size(image: ImageFile.ImageFile, size: Size | None) -> None:
    """Raise UndecodableImage before a picture of another size, (height, width), is decoded."""
    if size is not None and (image.height, image.width) != size:
        raise UndecodableImage(f"it is {image.width} x {image.height} pixels, {size[1]} x {size[0]} were expected")


def _refuse_unfaithful(image: ImageFile.ImageFile, data: bytes) -> None:
    """Raise UnsupportedImage for what decoding to 8-bit RGB would change or leave out, though Pillow would do it in silence."""
    info = image.info
    gain_map = image.format == "JPEG" and "mp" in info and b"hdrgm:Version" in info.get("xmp", b"")
    if getattr(image, "is_animated", False) or len(info.get("sizes", ())) > 1 or gain_map:
        raise UnsupportedImage("it holds more than one frame or picture")
    bits = _sample_bits(image, data)
    if bits > 8 and image.mode not in {"F", "CMYK"}:
        raise UnsupportedImage(f"it has {bits} bits per channel")
    if image.mode not in _SUPPORTED_MODES:
        raise UnsupportedImage(f"it is {_MODE_NAMES.get(image.mode, image.mode)}")


def _sample_bits(image: ImageFile.ImageFile, data: bytes) -> int:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    if image.format == "AVIF":
        return headers.avif_bits(data)
    if image.format == "JPEG2000":
        return headers.jpeg2000_bits(data)
    raw_mode, *rest = _tile_arguments(image)
    if image.format == "PPM":  # scales down whatever its largest value is
        return max([8, *(int(value).bit_length() for value in rest)])
    return 16 if _DEEP_RAW_MODE.match(str(raw_mode)) else 8


def _tile_arguments(image: ImageFile.ImageFile) -> tuple[Any, ...]:
    arguments = image.tile[0].args if image.tile else None
    return arguments if isinstance(arguments, tuple) and arguments else (arguments,)


def _scale_grey_key(image: ImageFile.ImageFile) -> None:
    """Bring the transparent level of a 2- or 4-bit grey PNG to the 8 bits that its pixels are decoded to."""
    factor = {"L;2": 85, "L;4": 17}.get(str(_tile_arguments(image)[0]), 1)
    if image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] *= factor


def _exif_block(info: Mapping[str | tuple[int, int], Any]) -> bytes | None:
    block = info.get("exif")
    if block is None and "Raw profile type exif" in info:  # what ImageMagick wrote into PNGs before they had EXIF: hex lines
        with suppress(ValueError):  # broken text costs the block, not the picture
            block = bytes.fromhex("".join(info["Raw profile type exif"].split("\n")[3:]))
    while isinstance(block, bytes) and block.startswith(JPEG_PREFIX):
        block = block.removeprefix(JPEG_PREFIX)
    return block or None


def _tiff_exif(image: ImageFile.ImageFile) -> bytes | None:
    exif = image.getexif()
    _keep_descriptive(exif)
    for tag in _NESTED & set(exif):
        exif.get_ifd(tag)
    exif.bigtiff = False  # an EXIF block never is
    return exif.tobytes().removeprefix(JPEG_PREFIX) if len(exif) else None


def _keep_descriptive(exif: Image.Exif) -> None:
    for tag in set(exif) - _TIFF_EXIF_TAGS:
        del exif[tag]


def _plain(image: Image.Image) -> Image.Image:
    """Return a loaded picture as L, LA, RGB or RGBA; palettes are looked up, and transparency of any kind becomes alpha."""
    if image.mode in {"LA", "RGBA"}:
        return image
    if not image.has_transparency_data:
        return image if image.mode in {"L", "RGB"} else image.convert("RGB")
    return image.convert("LA" if image.mode == "L" else "RGBA")


def _unpack(image: Image.Image, orientation: int) -> tuple[Pixels, Pixels | None]:
    """Return upright pixels (H, W, 3) and alpha (H, W) or None, copied strip by strip so that no second copy stands."""
    width, height = image.size
    shape = (width, height) if orientation >= 5 else (height, width)
    pixels = np.empty((*shape, 3), np.uint8)
    alpha = np.empty(shape, np.uint8) if image.mode in {"LA", "RGBA"} else None
    stored, stored_alpha = as_stored(pixels, orientation), None if alpha is None else as_stored(alpha, orientation)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = np.asarray(image.crop((0, top, width, min(top + rows, height))))
        strip = strip.reshape(*strip.shape[:2], -1)
        stored[top : top + rows] = strip[..., : 3 if image.mode in {"RGB", "RGBA"} else 1]
        if stored_alpha is not None:
            stored_alpha[top : top + rows] = strip[..., -1]
    return pixels, alpha


def _stacked(pixels: Pixels, alpha: Pixels | None, *, grey: bool) -> Pixels:
    """Return (H, W) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA."""
    if alpha is None:
        return pixels[..., 0] if grey else pixels
    return np.dstack([pixels[..., :1] if grey else pixels, alpha])


def _saved(format: str, array: Pixels, options: Mapping[str, Any]) -> bytes:
    file = BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(
            file, format, **{name: value for name, value in options.items() if value is not None}
        )
    except _PILLOW_RAISES as error:
        raise UnwritableImage(format, _reason(error)) from error
    return file.getvalue()


def _metadata(format: str, *, exif: bytes | None, xmp: bytes | None, icc: bytes | None) -> dict[str, Any]:
    """Return Pillow's options for metadata, each format's own way."""
    options: dict[str, Any] = {"icc_profile": icc}
    if format == "TIFF":
        tags = Image.Exif()
        if exif is not None:
            tags.load(exif)
            _keep_descriptive(tags)
        if xmp is not None:
            tags[_TIFF_XMP] = xmp
        # libtiff, which compresses, cannot write the nested tables that Pillow's own writer can.
        return options | {"exif": tags, "compression": "raw" if _NESTED & set(tags) else "tiff_adobe_deflate"}
    options["exif"] = JPEG_PREFIX + exif if exif is not None and format == "JPEG" else exif
    if format == "PNG" and xmp is not None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt(_PNG_XMP, xmp)
        return options | {"pnginfo": text}
    return options | {"xmp": xmp}


def _fitting(icc: bytes | None, *, grey: bool) -> bytes | None:
    """Return a profile unless it is for grey and the pixels are written as RGB, where it would make the file invalid."""
    return None if icc is not None and not grey and icc[16:20] == b"GRAY" else icc


@lru_cache(maxsize=64)
def _is_srgb(icc: bytes) -> bool:
    """Return whether colours of a profile show as sRGB's would, within 2 of 255; so does one that no viewer could use."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = levels[None] if icc[16:20] == b"GRAY" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    image = Image.fromarray(grid)
    try:
        profile, srgb = ImageCms.ImageCmsProfile(BytesIO(icc)), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(profile, srgb, image.mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        shown = np.asarray(ImageCms.applyTransform(image, transform), dtype=np.int16)
    except (ImageCms.PyCMSError, OSError):
        return True
    return bool(np.abs(shown - grid.reshape(1, len(grid[0]), -1)).max() <= 2)
