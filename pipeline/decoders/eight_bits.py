"""Pictures that are more than 8-bit grey or RGB, as what a viewer shows of them in that.

Depth is rounded, floating point taken by the range that the file states, and the colours of ink and of CIELAB turned into
sRGB: by the embedded profile where there is one, of CMYK else by R = (1 - C)(1 - K) and so on, which is what programs take
that have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_PLAIN = {"L", "LA", "RGB", "RGBA"}
_STRIP_ROWS = 64


def shown(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Return a loaded picture as L, LA, RGB or RGBA, and the profile of its colours: None where they are sRGB's now.

    Palettes are looked up, and transparency of any kind becomes alpha.
    """
    if image.mode in {"CMYK", "LAB"}:
        return _in_srgb(image, icc), None
    if image.mode == "1" and not image.has_transparency_data:
        return image.convert("L"), icc
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(of_samples(np.asarray(image))), icc
    if image.has_transparency_data:
        return image if image.mode in {"LA", "RGBA"} else image.convert("LA" if image.mode == "L" else "RGBA"), icc
    return image if image.mode in _PLAIN else image.convert("RGB"), icc


def _in_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    profile: Any = None
    with suppress(ImageCms.PyCMSError, OSError):  # a damaged profile is none
        if image.mode == "LAB":
            profile = ImageCms.createProfile("LAB")
        elif icc is not None and icc[16:20] == b"CMYK":
            profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        if profile is not None:
            intent, kept = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
            to = ImageCms.createProfile("sRGB")
            found = ImageCms.profileToProfile(image, profile, to, renderingIntent=intent, outputMode="RGB", flags=kept)
            assert found is not None
            return found
    return image.convert("RGB")


def of_samples(
    samples: NDArray[Any], *, bits: int | None = None, stated: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Return samples (H, W) or (H, W, C) of any type at 0 to 255: grey, grey and alpha, RGB, RGBA; channels beyond are dropped.

    Unsigned ones are taken by their ``bits``, all that they have unless given, others by the range ``stated``, or 0 to 1 (whole
    numbers: to the most that 16 bits hold), or that of what is there.
    """
    if samples.ndim == 3:
        samples = samples[..., 0] if samples.shape[2] == 1 else samples[..., :4]
    if samples.dtype == np.uint8 and bits in (None, 8):
        return np.ascontiguousarray(samples)
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype.kind == "u" and samples.dtype.itemsize <= 2:
        most = (1 << (bits or 8 * samples.dtype.itemsize)) - 1
        table = np.rint(np.minimum(np.arange(1 << 8 * samples.dtype.itemsize), most) * (255 / most)).astype(np.uint8)
        found: NDArray[np.uint8] = table[samples]
        return found
    strips = [samples[top : top + _STRIP_ROWS] for top in range(0, len(samples), _STRIP_ROWS)]
    low, high = stated or _usual_range(strips, samples.dtype)
    shown = np.empty(samples.shape, np.uint8)
    for number, strip in enumerate(strips):
        scaled = (_finite(strip) - low) * (255 / (high - low) if high > low else 0)
        shown[number * _STRIP_ROWS : number * _STRIP_ROWS + len(strip)] = np.rint(np.clip(scaled, 0, 255))
    return shown


def _finite(samples: NDArray[Any]) -> NDArray[np.float64]:
    return np.nan_to_num(samples.astype(np.float64), posinf=0, neginf=0)


def _usual_range(strips: Sequence[NDArray[Any]], kind: np.dtype[Any]) -> tuple[float, float]:
    usual = 1.0 if kind.kind == "f" else float(min(np.iinfo(kind).max, 65535))
    least = min(float(_finite(strip).min()) for strip in strips)
    most = max(float(_finite(strip).max()) for strip in strips)
    return (0.0, usual) if least >= 0 and most <= usual else (least, most)
