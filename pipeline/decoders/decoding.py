"""A source's bytes to a picture: upright RGB, alpha apart, metadata as found; one policy for modes and metadata.

8-bit grey, RGB and palette pictures of one frame are all that their files hold, and so are 16-bit ones of grey and RGB in PNG,
TIFF, PPM and JPEG 2000, which keep their depth. Of others the picture is what a viewer shows in 8-bit RGB, of the first frame,
and says how its file is more (``beyond``). Colours are converted only where RGB has no numbers for them: else the numbers
stay, and their profile travels beside them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from pipeline.containers.account import account
from pipeline.containers.psd import is_flat, is_large
from pipeline.core.errors import ImageTooLarge, UndecodableImage, UnsupportedImage
from pipeline.core.records import Pixels
from pipeline.decoders import bounds, headers, raw, unusual
from pipeline.decoders.eight_bits import shown
from pipeline.decoders.foreign import SIGNED, kind_of
from pipeline.decoders.sixteen_bits import MODES, samples_of, unpacked
from pipeline.decoders.unusual import is_unusual
from pipeline.pictures.orientation import JPEG_PREFIX, as_stored, orientation_of
from pipeline.pictures.picture import Picture, is_grey
from pipeline.pictures.pillow import admit, inner_size, open_header, translated
from pipeline.pictures.tags import NESTED, keep_descriptive, keep_text

# A fixed list decides alike in every process, whatever else is registered with Pillow, and keeps out what is no photograph
# or starts other programs (EPS runs Ghostscript). TGA has no signature, so it is tried last.
_FORMATS = (
    "JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "QOI", "PSD", "ICO", "ICNS", "SGI", "SUN", "PCX",
    "XPM", "TGA",
)  # fmt: skip

_SUPPORTED_MODES = {"L", "LA", "P", "PA", "RGB", "RGBA"}
_MODE_NAMES = {"1": "1-bit", "F": "floating-point", "I": "of 32 bits per channel"}
_DEEP_RAW_MODE = re.compile(r"(I|L|LA|RGB[AXa]?|CMYK);16")  # but "BGR;16" is 5, 6 and 5 bits
_SIGNED = 2  # of SampleFormat
_DEEP_ELSEWHERE = {"TIFF", "JPEG2000"}  # Pillow mixes up the planes of deep TIFFs, and lets deep JPEG 2000 overflow
_SIXTEEN_BITS = "it has 16 bits per channel"
_PALETTE, _CROPPED = "it is JPEG 2000 with a palette", "its container crops or stretches it"
_PSD, _PLAIN_PSDS = b"8BPS", {1, 2, 3}  # grey, indexed, RGB
_WORDS = {
    "frames": r"frames|pictures",
    "depth": r"bits per channel|1-bit|floating|deep|signed",
    "colours": r"CMYK|LAB|YCbCr|HSV",
    "layers": "layers",
}
_METADATA = {
    "profile": {"ICC", "iCCP", "ICCP", "tag-34675"},
    "exif": {"EXIF", "eXIf", "item-Exif"},
    "xmp": {"XMP", "iTXt", "tag-700", "item-mime"},
}
"""What the parts are called that hold a profile, EXIF, or XMP."""
_STRIP_PIXELS = 1 << 22


def image_extensions() -> frozenset[str]:
    """Return the lower-case extensions, without dot, of files that ``decode`` reads; files of any other are sidecars."""
    known = {ext.removeprefix(".") for ext, name in Image.EXTENSION.items() if name in {*_FORMATS, "MPO"}}
    return unusual.extensions() | known


def pixel_count(data: bytes) -> int | None:
    """Return width times height, in pixels, from the header alone, or None where it cannot be read."""
    try:
        with translated():
            admit(0)
            bounds.check(data)
            if icons := headers.icon_sizes(data):
                return max(map(math.prod, icons))
            image = open_header(data, _FORMATS)
    except UnsupportedImage:
        return None
    except UndecodableImage:
        return unusual.pixel_count(data)
    return image.width * image.height


def decode(data: bytes, *, pixel_limit: int) -> Picture:
    """Return the picture in a file's bytes, whatever the file's name says: of several frames the first.

    Raises UndecodableImage (damaged, truncated, empty, no image), ImageTooLarge (over ``pixel_limit``, told before anything is
    decoded) and UnsupportedImage (sound, and of a kind that no decoder here takes).
    """
    bounds.check(data)
    bounds.check_tiles(data, pixel_limit)
    try:
        if data.startswith(_PSD) and (kind := _psd_kind(data)):  # which Pillow would take with false colours, or not at all
            return _unusual(data, kind, pixel_limit)
        if raw.is_raw(data):  # many begin as a TIFF of their thumbnail
            return _unusual(data, raw.KIND, pixel_limit)
        return _decode(data, pixel_limit)
    except UndecodableImage as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):  # a picture inside, larger than the file's header says
            width, height = inner_size(error.__cause__)
            raise ImageTooLarge(width, height, pixel_limit) from None
        if kind := is_unusual(data):
            return _unusual(data, kind, pixel_limit)
        if kind := kind_of(data, error.detail):
            try:
                return _unusual(data, kind, pixel_limit)
            except UndecodableImage:  # it is sound, by its container
                raise UnsupportedImage(kind) from None
        raise


def _psd_kind(data: bytes) -> str | None:
    """Return how a PSD is more than Pillow decodes rightly; None where it is not, or is cut off, as Pillow will say."""
    try:
        depth, mode = struct.unpack_from(">HH", data, 22)
        if is_large(data):
            return "it is a PSB"
        plain = depth == 8 and mode in _PLAIN_PSDS and is_flat(data)
    except struct.error:
        return None
    return None if plain else "it has layers, deep or further channels"


def _decode(data: bytes, pixel_limit: int) -> Picture:
    with translated():
        admit(pixel_limit)
        for size in headers.icon_sizes(data):  # icons are decoded when they are opened
            bounds.check_size(size, pixel_limit)
        image = open_header(data, _FORMATS)
        bounds.check_size(image.size, pixel_limit)
        beyond = _beyond(image, data, frames := _frames(image, data))
        deep = samples_of(image, data, pixel_limit) if beyond == _SIXTEEN_BITS else None
        beyond = None if deep is not None else beyond
        elsewhere = beyond in (SIGNED, _PALETTE) or (image.format in _DEEP_ELSEWHERE and _sample_bits(image, data) > 8)
        if beyond and elsewhere:
            return replace(_unusual(data, beyond, pixel_limit), frames=frames)
        mode = image.mode if deep is None else MODES[deep.shape[2]]
        format_name, info = image.format or "", image.info
        # Pillow turns a TIFF upright itself, and by its XMP where it has no tag: so the tags are read first, and XMP hidden.
        tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
        xmp = info.pop("xmp", None) if tiff else None
        exif = _tiff_exif(image) if tiff else None
        _scale_grey_key(image)
        if deep is None or format_name == "PNG":
            image.load()
            bounds.check_size(image.size, pixel_limit)  # an icon's is what is in it
        exif = exif or _exif_block(info)  # after loading: a PNG may have its metadata behind its pixels
        xmp = xmp or info.get("xmp")
        icc = headers.jpeg2000_profile(data) if format_name == "JPEG2000" else info.get("icc_profile")
        xmp = xmp.encode() if isinstance(xmp, str) else xmp  # of a TIFF whose tag says that it is text
        xmp = xmp if isinstance(xmp, bytes) and xmp else None
        orientation = orientation_of(exif, None if format_name == "AVIF" else xmp)  # whose own boxes are all that counts
        turned = tiff and orientation_of(exif) == orientation
        if deep is not None:
            pixels, alpha = unpacked(deep, orientation)
        else:
            whole = beyond != _CROPPED
            plain, icc = shown(image if whole else image.crop(headers.clean_aperture(data, image.size)), icc)
            pixels, alpha = _unpack(plain, 1 if turned else orientation)
    found = account(data, format_name)
    read = {"profile": icc, "exif": exif, "xmp": xmp}
    unread = {word for word, names in _METADATA.items() if not read[word] and names & found.understood}  # damaged, or empty
    return Picture(
        pixels=pixels,
        alpha=alpha,
        grey=is_grey(mode) or _is_grey_throughout(pixels),
        orientation=orientation,
        mode=mode,
        format=format_name,
        icc=icc or None,
        exif=exif,
        xmp=xmp,
        parts=found.carried,
        lost=tuple(sorted({*found.lost, *unread, *_lacking(beyond)})),
        beyond=beyond,
        frames=frames,
    )


def _unusual(data: bytes, kind: str, pixel_limit: int) -> Picture:
    """Return the picture of a file that Pillow does not decode; it has no metadata, for the file itself is kept."""
    with translated():
        found = unusual.decode(data, kind, pixel_limit)
        plain, icc = shown(found.image, found.icc)
        pixels, alpha = _unpack(plain, found.orientation)
    return Picture(
        pixels=pixels,
        alpha=alpha,
        grey=_is_grey_throughout(pixels),
        orientation=found.orientation,
        mode=found.image.mode,
        format=found.format,
        icc=icc,
        exif=None,
        xmp=None,
        lost=tuple(sorted({"metadata", *_lacking(found.beyond)})),
        beyond=found.beyond,
        frames=found.frames,
    )


def _lacking(beyond: str | None) -> set[str]:
    """Return the words for what a file of 8-bit RGB made of a picture lacks of one that is more."""
    return {word for word, told in _WORDS.items() if re.search(told, beyond or "")}


def _is_grey_throughout(pixels: Pixels) -> bool:
    """Return whether all channels are equal; most pictures of colour are told by a few of their pixels."""
    return all(
        np.array_equal(some[..., 0], some[..., 1]) and np.array_equal(some[..., 1], some[..., 2])
        for some in (pixels[::37, ::41], pixels)
    )


def _beyond(image: ImageFile.ImageFile, data: bytes, frames: int) -> str | None:
    """Return how a file, of ``frames`` frames, is more than one picture of 8-bit grey or RGB; None where it is not."""
    if image.format == "JPEG2000" and headers.palette_depths(data):
        return _PALETTE
    if image.format == "AVIF" and headers.is_cropped(data):
        return _CROPPED
    if frames > 1:
        return f"it holds {frames} frames or pictures"
    bits = _sample_bits(image, data)
    if bits > 8 and image.mode not in {"F", "CMYK"}:
        return _SIXTEEN_BITS if bits == 16 else f"it has {bits} bits per channel"
    if isinstance(image, TiffImagePlugin.TiffImageFile) and _SIGNED in image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        return SIGNED
    return None if image.mode in _SUPPORTED_MODES else f"it is {_MODE_NAMES.get(image.mode, image.mode)}"


def _frames(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return how many frames, pages or sizes a file has; further pictures of a JPEG are none, but parts of its file."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return len(headers.tiff_pages(data))
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return min(int(getattr(image, "n_frames", 2)), len(data))  # a header may tell of 2^31
    return max(1, len(image.info.get("sizes", ())))


def _sample_bits(image: ImageFile.ImageFile, data: bytes) -> int:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    if image.format == "AVIF":
        return headers.avif_bits(data)
    if image.format == "JPEG2000":
        return headers.jpeg2000_bits(data)
    raw_mode, *rest = _tile_arguments(image)
    if image.format == "PPM" and rest:  # scales down whatever its largest value is
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
    keep_descriptive(exif)
    for tag in NESTED & set(exif):
        exif.get_ifd(tag)
    keep_text(exif)
    exif.bigtiff = False  # an EXIF block never is
    return exif.tobytes().removeprefix(JPEG_PREFIX) if len(exif) else None


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
