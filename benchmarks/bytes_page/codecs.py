"""Image codecs swept over their qualities: what each image takes, and how close it comes back."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import PIL
import torch
from PIL import Image, features

from benchmarks.bytes_page.bench import Bench, digest
from benchmarks.bytes_page.curves import DEFAULT, JPEG, JXL, TUNED, WEBP, Point
from iarn.metrics import luma, psnr, ssim
from pipeline.core.records import Pixels
from pipeline.pictures.picture import Picture

AVIF_SPEED = 6
JXL_EFFORT = 7


def compare(image: Pixels, other: Pixels) -> tuple[float, float, float]:
    """Return PSNR-RGB and PSNR-Y in dB and SSIM of two (H, W, 3) uint8 images, borders included."""
    x, y = (torch.from_numpy(np.array(i)).permute(2, 0, 1)[None].float() / 255 for i in (image, other))
    return psnr(x, y), psnr(luma(x), luma(y)), ssim(x, y)


def by_pillow(form: str, pixels: Pixels, setting: float, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=round(setting), **options)
    return buffer.getvalue()


def by_jxl(pixels: Pixels, setting: float) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(pixels, lossless=False, distance=setting, effort=JXL_EFFORT, numthreads=1))


avif = partial(by_pillow, "AVIF", subsampling="4:4:4", speed=AVIF_SPEED, max_threads=1)
CODECS: dict[str, tuple[Callable[[Pixels, float], bytes], tuple[float, ...]]] = {
    TUNED: (partial(avif, advanced={"tune": "psnr"}), (10, 25, 40, 50, 60, 68, 76, 84, 90, 96)),
    DEFAULT: (avif, (20, 40, 60, 72, 82, 90, 96)),
    JXL: (by_jxl, (8, 4, 2, 1.2, 0.7, 0.4, 0.2, 0.1)),
    WEBP: (partial(by_pillow, "WEBP", method=6), (20, 50, 70, 82, 90, 95, 100)),
    JPEG: (partial(by_pillow, "JPEG", subsampling="4:4:4", optimize=True, progressive=True), (20, 50, 70, 80, 90, 95, 98)),
}
"""Each codec and its settings: qualities, for JPEG XL distances. Against a sweep in steps of 2, ten qualities of AVIF and
straight lines between them gave 0.5 % fewer bytes on average, 2.8 % at most (six images, 30 to 44 dB)."""


def sweep(codec: str, pixels: Pixels) -> list[dict[str, float]]:
    """Code and decode an image (H, W, 3) at each of a codec's settings; return the fields of points."""
    encode, settings = CODECS[codec]
    points = []
    for setting in settings:
        data = encode(pixels, setting)
        decoded = imagecodecs.jpegxl_decode(data, numthreads=1) if codec == JXL else np.array(Image.open(io.BytesIO(data)))
        rgb, y, similarity = compare(pixels, decoded)
        points.append({"setting": setting, "bytes": len(data), "psnr": rgb, "psnr_y": y, "ssim": similarity})
    return points


def sweeps(bench: Bench, name: str, images: Mapping[str, Picture]) -> dict[str, list[list[Point]]]:
    """Return each codec's points, image by image."""
    found: dict[str, list[list[Point]]] = {}
    library = (imagecodecs.__version__, PIL.__version__, features.version("avif"))
    for codec, (encode, settings) in CODECS.items():
        found[codec], options = [], repr(getattr(encode, "keywords", JXL_EFFORT))
        for picture in images.values():
            pixels = picture.pixels
            what = [codec, options, settings, library, pixels.shape, digest(pixels.tobytes())]
            found[codec].append([Point(**each) for each in bench.remembered(what, partial(sweep, codec, pixels))])
        bench.say(f"{name}: {codec} swept")
    return found
