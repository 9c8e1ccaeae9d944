"""What reading and writing by Pillow share: opening by a fixed list of formats, one error for all it raises, bounds."""

from __future__ import annotations

import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from PIL import (  # each plugin enters itself into Pillow's lists of formats and extensions
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    IcnsImagePlugin,  # noqa: F401
    IcoImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PcxImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    PsdImagePlugin,  # noqa: F401
    QoiImagePlugin,  # noqa: F401
    SgiImagePlugin,  # noqa: F401
    SunImagePlugin,  # noqa: F401
    TgaImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
    XpmImagePlugin,  # noqa: F401
)

from pipeline.core.errors import UndecodableImage, UnwritableImage
from pipeline.core.records import Pixels

# What Pillow's plugins raise on damaged bytes, which is far more than OSError.
PILLOW_RAISES = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

WEBP_MAX_SIDE = 16383

# Measured on eight photographs at 800 pixels, one thread. WebP: method 2, 3, 6 take 10.95, 10.72, 10.65 bits per pixel in
# 0.19, 0.35, 0.91 s/MP. PNG: level 3, 4, 6 take 14.4, 13.7, 13.6 in 0.10, 0.13, 0.23.
LR_WEBP = {"lossless": True, "method": 3, "quality": 25, "exact": True}  # exact: RGB under full transparency stays
PNG_OPTIONS = {"compress_level": 4}

_guard = threading.Lock()


@contextmanager
def translated() -> Iterator[None]:
    """Turn what Pillow raises on bad bytes into UndecodableImage, and keep its warnings to ourselves."""
    # catch_warnings swaps global state and is not safe among threads; a filter for Pillow's modules, put back in front
    # whenever it is not there, is. A warning is never news here: a picture is decoded, or refused with a reason.
    quiet = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    if quiet not in warnings.filters[:1]:
        warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")
    try:
        yield
    except PILLOW_RAISES as error:
        raise UndecodableImage(_short_reason(error)) from error


def _short_reason(error: BaseException) -> str:
    """Return one short line without the memory addresses that Pillow puts into its messages."""
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", " ".join(str(error).split()))
    return text[:200] or type(error).__name__


def admit(pixel_limit: int) -> None:
    """See that Pillow's own guard against bombs lets through what our limit does.

    The guard is one value for the whole process, so it is only ever raised: a thread never sees it flip back. It refuses above
    twice its value, here never below the largest WebP, whose size Pillow would not tell otherwise. It stays on for what a
    header does not show, such as a picture inside an icon.
    """
    wanted = max(pixel_limit, (WEBP_MAX_SIDE**2 + 1) // 2)
    with _guard:
        if Image.MAX_IMAGE_PIXELS is not None and wanted > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = wanted


def inner_size(error: Image.DecompressionBombError) -> tuple[int, int]:
    """Return a width and height of as many pixels as Pillow's guard tells that it refused."""
    found = re.search(r"\((\d+) pixels\)", str(error))
    return (int(found[1]) if found else 0), 1


def open_header(data: bytes, formats: Sequence[str]) -> ImageFile.ImageFile:
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
        except Image.DecompressionBombError:
            raise  # it is in this format, and no other need be asked
        except PILLOW_RAISES as error:
            reason = reason if accept is None else f"{name}: {_short_reason(error)}"
    raise UndecodableImage(reason)


def stacked(pixels: Pixels, alpha: Pixels | None, *, grey: bool) -> Pixels:
    """Return (H, W) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB or (H, W, 4) RGBA."""
    if alpha is None:
        return pixels[..., 0] if grey else pixels
    return np.dstack([pixels[..., :1] if grey else pixels, alpha])


def saved(format: str, array: Pixels, options: Mapping[str, Any]) -> bytes:
    """Return a file of an array as ``stacked`` gives it, with Pillow's options that are not None; raises UnwritableImage."""
    file = BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(
            file, format, **{name: value for name, value in options.items() if value is not None}
        )
    except PILLOW_RAISES as error:
        raise UnwritableImage(format, _short_reason(error)) from error
    return file.getvalue()
