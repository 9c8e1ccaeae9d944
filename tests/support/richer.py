"""Files that are more than 8-bit grey or RGB of one frame, each with what a viewer shows of it."""

from __future__ import annotations

import importlib.util
import struct
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from pipeline.containers import jpeg2000
from tests.support import pictures
from tests.support.pictures import photo, saved
from tests.support.raw import dng

HEIGHT, WIDTH = 132, 180
LEAST_DB = 35.0
"""What the first picture is to be like, beside a reduction of what the file was made of."""


@dataclass(frozen=True, kw_only=True)
class Rich:
    """A file of ``format`` (Pillow's name), the pixels (H, W, 3) that it shows, upright, and words of why it is kept.

    ``why`` is None where it is not: its picture comes back with its depth.
    """

    data: bytes
    shown: NDArray[np.uint8]
    why: str | None
    format: str


def rgb(seed: int = 0) -> NDArray[np.uint8]:
    """Return the picture that these files are made of."""
    return photo(HEIGHT, WIDTH, seed=seed)


def deep(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return 16-bit samples with something in the lower eight bits, which round to the pixels."""
    low = np.arange(pixels.size, dtype=np.int64).reshape(pixels.shape) % 200 - 100
    found: NDArray[np.uint16] = np.clip(pixels.astype(np.int64) * 257 + low, 0, 65535).astype(np.uint16)
    return found


def threefold(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey picture as RGB."""
    return np.repeat(plane[..., None], 3, axis=2)


@cache
def richer() -> dict[str, Rich]:
    """Return the files by what they are; HEIC and camera raw where their libraries are installed."""
    return {**_deep(), **_inks(), **_floating(), **_frames(), **_layered(), **_rare(), **_high_efficiency(), **_negatives()}


def _deep() -> dict[str, Rich]:
    base = rgb()
    many, alpha, grey = deep(base), np.full((HEIGHT, WIDTH, 1), 65535, np.uint16), deep(base[..., 0])
    beyond = "16 bits per channel"

    def by_hand(samples: NDArray[np.uint16], colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
        return pictures.png(WIDTH, HEIGHT, depth=16, colour=colour, rows=rows, chunks=chunks)

    keyed = by_hand(many, 2, (b"tRNS", bytes(6)))
    planes = many.transpose(2, 0, 1).astype("<u2").tobytes()
    little = many.astype("<u2").tobytes()
    strips = pictures.tiff(WIDTH, HEIGHT, bits=16, samples=3, photometric=2, body=little)
    planar = pictures.tiff(WIDTH, HEIGHT, bits=16, samples=3, photometric=2, body=planes, layout=2)
    tiled = bytes(imagecodecs.tiff_encode(many, tile=(16, 16)))
    head = b"%d %d 65535\n" % (WIDTH, HEIGHT)
    ten = (many >> 6).astype(np.uint16)
    return {
        "16-bit RGB PNG": Rich(data=by_hand(many, 2), shown=base, why=None, format="PNG"),
        "16-bit grey PNG": Rich(data=by_hand(grey, 0), shown=threefold(base[..., 0]), why=None, format="PNG"),
        "16-bit RGBA PNG": Rich(data=by_hand(np.dstack((many, alpha)), 6), shown=base, why=None, format="PNG"),
        "16-bit grey PNG with alpha": Rich(
            data=by_hand(np.dstack((grey, alpha)), 4), shown=threefold(base[..., 0]), why=None, format="PNG"
        ),
        "16-bit PNG with a transparent colour": Rich(data=keyed, shown=base, why=beyond, format="PNG"),
        "16-bit RGB TIFF": Rich(data=strips, shown=base, why=None, format="TIFF"),
        "16-bit RGBA TIFF": Rich(
            data=bytes(imagecodecs.tiff_encode(np.dstack((many, alpha)), photometric=2, extrasample=2)),
            shown=base,
            why=None,
            format="TIFF",
        ),
        "16-bit planar TIFF": Rich(data=planar, shown=base, why=None, format="TIFF"),
        "16-bit tiled TIFF": Rich(data=tiled, shown=base, why=None, format="TIFF"),
        "16-bit grey TIFF": Rich(
            data=saved(Image.fromarray(grey), "TIFF"), shown=threefold(base[..., 0]), why=None, format="TIFF"
        ),
        "16-bit PPM": Rich(data=b"P6 " + head + many.astype(">u2").tobytes(), shown=base, why=None, format="PPM"),
        "16-bit grey PGM": Rich(
            data=b"P5 " + head + grey.astype(">u2").tobytes(), shown=threefold(base[..., 0]), why=None, format="PPM"
        ),
        "10-bit PPM": Rich(
            data=b"P6 %d %d 1023\n" % (WIDTH, HEIGHT) + ten.astype(">u2").tobytes(),
            shown=base,
            why="10 bits per channel",
            format="PPM",
        ),
        "16-bit RGB JPEG 2000": Rich(
            data=bytes(imagecodecs.jpeg2k_encode(many, level=0)), shown=base, why=None, format="JPEG2000"
        ),
        "16-bit grey JPEG 2000": Rich(
            data=bytes(imagecodecs.jpeg2k_encode(grey, level=0)), shown=threefold(base[..., 0]), why=None, format="JPEG2000"
        ),
        "16-bit RGBA JPEG 2000": Rich(
            data=jpeg2000.with_alpha(bytes(imagecodecs.jpeg2k_encode(np.dstack((many, alpha)), level=0))),
            shown=base,
            why=None,
            format="JPEG2000",
        ),
        "12-bit JPEG 2000": Rich(
            data=bytes(imagecodecs.jpeg2k_encode(many >> 4, level=0, bitspersample=12)),
            shown=base,
            why="12 bits per channel",
            format="JPEG2000",
        ),
        "10-bit AVIF": Rich(
            data=bytes(imagecodecs.avif_encode(ten, level=95, speed=9, bitspersample=10)),
            shown=base,
            why="10 bits per channel",
            format="AVIF",
        ),
        "JPEG XL": Rich(data=bytes(imagecodecs.jpegxl_encode(base, lossless=True)), shown=base, why="JPEG XL", format="JXL"),
        "16-bit JPEG XL": Rich(
            data=bytes(imagecodecs.jpegxl_encode(many, lossless=True)), shown=base, why="JPEG XL", format="JXL"
        ),
    }


def _inks() -> dict[str, Rich]:
    base = Image.fromarray(rgb())
    inks = base.convert("CMYK")
    shown = np.array(inks.convert("RGB"))
    lab = ImageCms.profileToProfile(base, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    luma = base.convert("YCbCr")
    return {
        "CMYK JPEG": Rich(data=saved(inks, "JPEG", quality=95), shown=shown, why="CMYK", format="JPEG"),
        "CMYK TIFF": Rich(data=saved(inks, "TIFF"), shown=shown, why="CMYK", format="TIFF"),
        "Lab TIFF": Rich(data=saved(lab, "TIFF"), shown=np.array(base), why="LAB", format="TIFF"),
        "YCbCr TIFF": Rich(data=saved(luma, "TIFF"), shown=np.array(base), why="YCbCr", format="TIFF"),
    }


def _floating() -> dict[str, Rich]:
    base = rgb()
    unit = base.astype(np.float32) / 255
    plane, grey = unit[..., 0], threefold(base[..., 0])
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[340], tags[341] = -50.0, 205.0
    tags.tagtype[340] = tags.tagtype[341] = 11
    stated = saved(Image.fromarray(base[..., 0].astype(np.float32) - 50), "TIFF", tiffinfo=tags)
    whole = saved(Image.fromarray(deep(base[..., 0]).astype(np.int32)), "TIFF")
    pfm = b"Pf\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + plane[::-1].astype("<f4").tobytes()
    return {
        "float TIFF": Rich(data=saved(Image.fromarray(plane), "TIFF"), shown=grey, why="floating-point", format="TIFF"),
        "float TIFF of a stated range": Rich(data=stated, shown=grey, why="floating-point", format="TIFF"),
        "float RGB TIFF": Rich(
            data=bytes(imagecodecs.tiff_encode(unit, photometric=2)), shown=base, why="floating-point", format="TIFF"
        ),
        "32-bit TIFF": Rich(data=whole, shown=grey, why="32 bits", format="TIFF"),
        "PFM": Rich(data=pfm, shown=grey, why="floating-point", format="PPM"),
        "1-bit PNG": Rich(
            data=saved(Image.fromarray(base).convert("1"), "PNG"),
            shown=np.array(Image.fromarray(base).convert("1").convert("RGB")),
            why="1-bit",
            format="PNG",
        ),
        "1-bit TIFF": Rich(
            data=saved(Image.fromarray(base).convert("1"), "TIFF", compression="group4"),
            shown=np.array(Image.fromarray(base).convert("1").convert("RGB")),
            why="1-bit",
            format="TIFF",
        ),
    }


def _frames() -> dict[str, Rich]:
    first, second = (Image.fromarray(rgb(seed)) for seed in (0, 1))
    few = first.quantize(64, dither=Image.Dither.NONE)

    def moving(format: str, image: Image.Image = first, **options: Any) -> bytes:
        return saved(image, format, save_all=True, append_images=[second], **options)

    why = "2 frames or pictures"
    base = rgb()
    large = np.array(first.resize((64, 64)))
    return {
        "animated GIF": Rich(data=moving("GIF", few, duration=50), shown=np.array(few.convert("RGB")), why=why, format="GIF"),
        "animated WebP": Rich(data=moving("WEBP", duration=50, lossless=True), shown=base, why=why, format="WEBP"),
        "animated PNG": Rich(data=moving("PNG", duration=50), shown=base, why=why, format="PNG"),
        "animated AVIF": Rich(data=moving("AVIF", duration=50, quality=95), shown=base, why=why, format="AVIF"),
        "TIFF of two pages": Rich(data=moving("TIFF"), shown=base, why=why, format="TIFF"),
        "icon of two sizes": Rich(
            data=saved(Image.fromarray(large), "ICO", sizes=[(16, 16), (64, 64)]), shown=large, why=why, format="ICO"
        ),
    }


def psd(samples: NDArray[Any], *, mode: int = 3, layers: bytes = b"", packed: bool = False, large: bool = False) -> bytes:
    """Return a PSD of samples (H, W, C), or a PSB, by hand (Adobe, Photoshop File Formats); lines in runs where packed."""
    height, width, channels = samples.shape
    depth = 8 * samples.dtype.itemsize
    head = b"8BPS\0" + (b"\2" if large else b"\1") + bytes(6) + struct.pack(">HIIHH", channels, height, width, depth, mode)
    big = samples.astype(samples.dtype.newbyteorder(">"))
    rows = [big[row, :, channel].tobytes() for channel in range(channels) for row in range(height)]
    if packed:
        runs = [_runs(row) for row in rows]
        body = b"\0\1" + b"".join(struct.pack(">I" if large else ">H", len(run)) for run in runs) + b"".join(runs)
    else:
        body = b"\0\0" + b"".join(rows)
    return head + bytes(8) + struct.pack(">Q" if large else ">I", len(layers)) + layers + body


def _runs(row: bytes) -> bytes:
    """Return a line as PackBits that packs nothing (TIFF 6.0, 9)."""
    return b"".join(bytes((len(row[at : at + 128]) - 1,)) + row[at : at + 128] for at in range(0, len(row), 128))


def _layered() -> dict[str, Rich]:
    base, why = rgb(), "layers, deep or further channels"
    info = struct.pack(">hIIIIH", 1, 0, 0, 1, 1, 0) + b"8BIMnorm\xff\0\0\0" + bytes(4)
    layers = struct.pack(">I", len(info)) + info + bytes(4)
    mask = photo(HEIGHT, WIDTH, 1, seed=5)[..., None]
    inks = np.array(Image.fromarray(base).convert("CMYK"))
    return {
        "PSD with layers": Rich(data=psd(base, layers=layers), shown=base, why=why, format="PSD"),
        "PSD with masks": Rich(data=psd(np.dstack((base, mask, mask)), packed=True), shown=base, why=why, format="PSD"),
        "PSB": Rich(data=psd(base, packed=True, large=True), shown=base, why="PSB", format="PSD"),
        "16-bit PSD": Rich(data=psd(deep(base)), shown=base, why=why, format="PSD"),
        "CMYK PSD": Rich(
            data=psd(255 - inks, mode=4),
            shown=np.array(Image.fromarray(inks, "CMYK").convert("RGB")),
            why=why,
            format="PSD",
        ),
    }


def _rare() -> dict[str, Rich]:
    base = rgb()
    twelve = bytes(imagecodecs.jpeg8_encode((deep(base) >> 4).astype(np.uint16), level=95, bitspersample=12))
    few = Image.fromarray(base).quantize(64, dither=Image.Dither.NONE)
    palette = np.frombuffer(bytes(few.getpalette() or b""), np.uint8).reshape(-1, 3)
    high = partial(saved, base, "AVIF", quality=95)
    cut = pictures.with_property(lambda icc: high(icc_profile=icc), b"clap", struct.pack(">8i", 160, 1, 100, 1, -4, 1, 10, 1))
    wide = pictures.with_property(lambda icc: high(icc_profile=icc), b"pasp", struct.pack(">II", 4, 3))
    return {
        "12-bit JPEG": Rich(data=twelve, shown=base, why="12 bits per channel", format="JPEG"),
        "JPEG 2000 with a palette": Rich(
            data=pictures.paletted_jpeg2000(np.array(few), palette),
            shown=np.array(few.convert("RGB")),
            why="palette",
            format="JPEG2000",
        ),
        "AVIF that is cropped": Rich(data=cut, shown=base[26:126, 6:166], why="crops", format="AVIF"),
        "AVIF of oblong pixels": Rich(data=wide, shown=base, why="stretches", format="AVIF"),
    }


def _high_efficiency() -> dict[str, Rich]:
    if importlib.util.find_spec("pillow_heif") is None:
        return {}
    heif = importlib.import_module("pillow_heif")
    base = rgb()
    file = BytesIO()
    heif.from_pillow(Image.fromarray(base)).save(file, quality=95)
    return {"HEIC": Rich(data=file.getvalue(), shown=base, why="HEIC", format="HEIF")}


def _negatives() -> dict[str, Rich]:
    if importlib.util.find_spec("rawpy") is None:
        return {}
    base = rgb()
    return {"camera raw (DNG)": Rich(data=dng(saved(base, "JPEG", quality=98)), shown=base, why="camera raw", format="RAW")}
