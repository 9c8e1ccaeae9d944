"""LRs and full-size alpha ⇄ bytes: an LR is upright, with its profile; lossless, or as AVIF where it is clean."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from pipeline.core.errors import UndecodableImage
from pipeline.core.records import LrCodec, Pixels, Size
from pipeline.pictures import codecs
from pipeline.pictures.colour import fitting, is_for_grey
from pipeline.pictures.picture import size_of
from pipeline.pictures.pillow import (
    LR_WEBP,
    PNG_OPTIONS,
    WEBP_MAX_SIDE,
    open_header,
    saved,
    stacked,
    translated,
)

_LR_FORMATS = ("WEBP", "PNG", "AVIF")
_WEBP_MAX_PIXELS = 16_000_000  # of an LR: coding takes 35 bytes a pixel (measured), PNG next to none

_LR_AVIF: dict[str, Any] = {
    "codec": "aom",
    "quality": 80,
    "subsampling": "4:4:4",
    "advanced": {  # what costs most time for fewest bytes is off (docs/bytes-tried.md)
        "tune": "psnr",
        "enable-rect-partitions": "0",
        "enable-ab-partitions": "0",
        "enable-1to4-partitions": "0",
        "disable-trellis-quant": "1",
    },
    "max_threads": 1,
}

AVIF_SPEED = 5
"""Of LRs as AVIF, unless they are small: a step slower takes a fifth more time, and 0.3 to 0.7 % off LR and latent."""


def encode_lr(pixels: Pixels, *, codec: LrCodec, grey: bool, alpha: Pixels | None, icc: bytes | None) -> tuple[bytes, str]:
    """Code an LR, (h, w, 3) and alpha (h, w), without loss, with its profile and no EXIF; return bytes and extension.

    ``auto`` is WebP. JPEG XL holds no profile here but sRGB's, WebP no side above 16383, and above 16 megapixels it is not
    used: where the codec asked for does not do, WebP and then PNG stand in, and the extension tells.
    """
    if codec is LrCodec.JXL and (icc is None or _is_srgb(icc)):
        return codecs.encode_jxl_lossless(stacked(pixels, alpha, grey=grey)), "jxl"
    if codec is not LrCodec.PNG and is_moderate(size_of(pixels)):
        profile = fitting(icc, grey=False)
        return saved("WEBP", stacked(pixels, alpha, grey=False), {**LR_WEBP, "icc_profile": profile}), "webp"
    grey = grey and is_for_grey(icc)
    return saved("PNG", stacked(pixels, alpha, grey=grey), {**PNG_OPTIONS, "icc_profile": fitting(icc, grey=grey)}), "png"


def encode_clean_lr(pixels: Pixels, *, alpha: Pixels | None, icc: bytes | None, speed: int = AVIF_SPEED) -> tuple[bytes, str]:
    """Code a moderate LR that hides nothing, (h, w, 3) and alpha (h, w), as AVIF of about 41 dB; return bytes and extension."""
    options = {**_LR_AVIF, "speed": speed, "icc_profile": fitting(icc, grey=False)}
    return saved("AVIF", stacked(pixels, alpha, grey=False), options), "avif"


def is_moderate(lr_size: Size) -> bool:
    """Return whether WebP's and AVIF's coders take LRs of a size, (height, width), in moderate memory."""
    return max(lr_size) <= WEBP_MAX_SIDE and lr_size[0] * lr_size[1] <= _WEBP_MAX_PIXELS


def decode_lr(data: bytes, *, size: Size | None = None) -> tuple[Pixels, Pixels | None]:
    """Return the pixels (h, w, 3) and alpha (h, w) of an LR in any of its codecs.

    Raises UndecodableImage on damage, and where it is not of ``size``, (h, w).
    """
    if codecs.is_jxl(data):
        array = codecs.decode_jxl(data)
        _check_size(size_of(array), size)
    else:
        with translated():
            image = open_header(data, _LR_FORMATS)
            _check_size((image.height, image.width), size)  # before it is decoded
            if image.mode not in {"L", "LA", "RGB", "RGBA"}:
                raise UndecodableImage(f"an LR is no picture of mode {image.mode}")
            array = np.asarray(image)
    channels = array if array.ndim == 3 else array[..., None]
    colours = channels.shape[2] - (channels.shape[2] + 1) % 2  # grey, RGB; and one less where alpha is the last
    pixels = np.ascontiguousarray(np.broadcast_to(channels[..., :colours], (*channels.shape[:2], 3)))
    return pixels, np.ascontiguousarray(channels[..., -1]) if channels.shape[2] % 2 == 0 else None


def encode_plane(plane: Pixels) -> bytes:
    """Code a plane (H, W), uint8 or uint16, without loss, as JPEG XL: 15 to 30 % smaller than PNG on mattes, as fast."""
    return codecs.encode_jxl_lossless(plane)


def decode_plane(data: bytes, *, bits: int = 8) -> Pixels:
    """Return the plane (H, W) of 8 or 16 ``bits`` that ``encode_plane`` coded; raises UndecodableImage on damage."""
    plane = codecs.decode_jxl(data, bits=bits)
    if plane.ndim != 2:
        raise UndecodableImage(f"a plane has one channel, not {plane.shape[2]}")
    return plane


def _check_size(found: Size, size: Size | None) -> None:
    """Raise UndecodableImage for a picture of another size, (height, width), than was expected."""
    if size is not None and found != size:
        raise UndecodableImage(f"it is {found[1]} x {found[0]} pixels, {size[1]} x {size[0]} were expected")


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
