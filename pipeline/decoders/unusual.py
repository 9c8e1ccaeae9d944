"""Pictures that Pillow does not decode, or not rightly: JPEG XL, HEIC, camera raw, and familiar formats in rare codings.

They are taken as they are shown, for their LRs; their files are kept. Source: ISO/IEC 18181-2 (JPEG XL); ISO/IEC 23008-12, 10
(brands of HEIF); TIFF 6.0, 8 and 2 (SMinSampleValue); ITU-T T.81, B.2.2 (precision).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.containers import avif, jpeg, jxl
from pipeline.containers.parts import MOST_PARTS
from pipeline.containers.tiff import SIGNATURES, Directory
from pipeline.core.errors import UndecodableImage, UnsupportedImage
from pipeline.decoders import headers, psd, raw
from pipeline.decoders.bounds import check_size
from pipeline.decoders.eight_bits import of_samples
from pipeline.pictures import codecs, colour
from pipeline.pictures.orientation import JPEG_PREFIX, orientation_of

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif"}
_JPEG, _PNG, _PSD = b"\xff\xd8\xff", b"\x89PNG", b"8BPS"
_JPEG2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_WIDTH, _LENGTH, _BITS, _PHOTOMETRIC, _ORIENTATION, _PROFILE = 256, 257, 258, 262, 274, 34675
_MIN_SAMPLE, _MAX_SAMPLE, _FLOATS = 340, 341, {11: "f", 12: "d"}
_SAMPLES, _EXTRA, _DEPTH = 277, 338, 32997
# Told once, in numbers: what is read here otherwise than libtiff does is no bound of what it takes.
_MEASURES = (_WIDTH, _LENGTH, _BITS, _SAMPLES, _DEPTH)
_WHITE_IS_ZERO, _SEPARATED = 0, 5
_COLOURS = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3, _SEPARATED: 4}
_ASSOCIATED, _ALPHA = 1, 2
_MOST_BITS = 8 * 64
"""Of all samples of a TIFF's pixel: what is decoded at once takes no more memory than that."""
_MOST_COMPONENTS = _MOST_BITS // 32  # of a JPEG 2000, which are decoded to 32 bits each


@dataclass(frozen=True, kw_only=True)
class Unusual:
    """A picture by its format, its colours as L, LA, RGB, RGBA, CMYK or LAB, and what is beyond them in its file."""

    image: Image.Image
    format: str
    beyond: str
    orientation: int = 1
    icc: bytes | None = None
    frames: int = 1


def extensions() -> frozenset[str]:
    """Return the lower-case extensions, without dot, of the formats that Pillow does not know."""
    return frozenset({"jxl", "heic", "heif", "hif", "psb"}) | raw.EXTENSIONS


def is_unusual(data: bytes) -> str | None:
    """Return what a file is, by its first bytes, of a format that Pillow does not know; None for all others."""
    if codecs.is_jxl(data):
        return "it is JPEG XL"
    if raw.is_raw(data):
        return raw.KIND
    heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and b"avif" not in data[16:64]
    return "it is HEIC" if heif else None


def pixel_count(data: bytes) -> int | None:
    """Return width times height, in pixels, from the header alone, or None where it cannot be read."""
    try:
        if codecs.is_jxl(data):
            return math.prod(jxl.size(data)) or None
        if data.startswith(_PSD):
            return int(math.prod(struct.unpack_from(">II", data, 14)))
        if data.startswith(_JPEG):
            return max((math.prod(struct.unpack_from(">HH", data, at + 5)) for at in _frames(data)), default=None)
        if data.startswith(SIGNATURES):
            directory = Directory(data)
            return math.prod((directory.numbers(tag) or [0])[0] for tag in (_WIDTH, _LENGTH)) or None
        if is_unusual(data):
            sizes = (body + 4 for kind, body, _ in avif.properties(data) if kind == b"ispe")
            return max((math.prod(struct.unpack_from(">II", data, at)) for at in sizes), default=None)
    except (struct.error, IndexError, ValueError, OverflowError):
        pass
    return None


def decode(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    """Return the picture of a sound file that is of a ``kind``, a sentence as in "it has 12 bits per channel".

    Raises UnsupportedImage where nothing here decodes it, UndecodableImage where it is damaged, ImageTooLarge.
    """
    for accepts, read in _READERS:
        if accepts(data):
            return read(data, kind, pixel_limit)
    raise UnsupportedImage(kind)


def _jxl(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    check_size(jxl.size(data), pixel_limit)
    samples = codecs.decode_samples("jpegxl", data)
    return Unusual(image=Image.fromarray(of_samples(samples, bits=jxl.bits(data))), format="JXL", beyond=kind)


def _heif(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    try:
        import pillow_heif  # an extra: not every archive needs it
    except ImportError:
        raise UnsupportedImage(f"{kind}, for which iarn[heif] is to be installed") from None
    try:
        file = pillow_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=True)
        check_size(file.size, pixel_limit)
        image = file.to_pillow()
    except (ValueError, OSError, RuntimeError, EOFError, SyntaxError, MemoryError) as error:
        raise UndecodableImage(f"HEIC: {' '.join(str(error).split())[:200]}") from error
    told = image.info.get("nclx_profile") or {}
    said = colour.of_code_points(told.get("color_primaries", 2), told.get("transfer_characteristics", 2))
    beyond = f"{kind}, of {len(file)} pictures" if len(file) > 1 else kind
    icc = image.info.get("icc_profile") or said
    return Unusual(image=image, format="HEIF", beyond=beyond, icc=icc, frames=len(file))


def _raw(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    image, orientation = raw.preview(data, kind, pixel_limit)
    return Unusual(image=image, format="RAW", beyond=kind, orientation=orientation, icc=image.info.get("icc_profile"))


def _frames(data: bytes) -> Iterator[int]:
    """Yield where the frame headers of a JPEG begin (ITU-T T.81, B.2.2)."""
    for part in islice(jpeg.walk(data), MOST_PARTS):
        if part.name == "coding" and 0xC0 <= data[part.start + 1] <= 0xCF and data[part.start + 1] not in (0xC4, 0xC8, 0xCC):
            yield part.start


def _rare_jpeg(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    frames = list(_frames(data))
    if not frames:
        raise UndecodableImage("JPEG: it has no frame")
    for at in frames:
        bits, height, width = struct.unpack_from(">BHH", data, at + 4)
        check_size((width, height), pixel_limit)
    found = {"EXIF": b"", "ICC": b""}
    for part in islice(jpeg.walk(data), MOST_PARTS):
        if part.name in found:
            body = data[part.start + 4 : part.end]
            found[part.name] += body[len(JPEG_PREFIX) :] if part.name == "EXIF" else body[14:]
    samples = codecs.decode_samples("jpeg", data)
    image = Image.fromarray(of_samples(samples, bits=bits))
    return Unusual(image=image, format="JPEG", beyond=kind, orientation=orientation_of(found["EXIF"]), icc=found["ICC"] or None)


def tiff_samples(data: bytes, pixel_limit: int) -> tuple[Directory, NDArray[Any]]:
    """Return the directory of a TIFF and its samples, (H, W) or (H, W, C), of any type; raises what ``decode`` does."""
    directory = Directory(data)
    if directory.numbers(_DEPTH) not in ([], [1]):
        raise UnsupportedImage("it is a TIFF of a body, not of a picture")
    for number in _MEASURES:
        told = sum(tag.number == number for tag in directory.tags)
        if told > 1 or (told == 0 and number in (_WIDTH, _LENGTH)) or (told and not directory.numbers(number)):
            raise UndecodableImage(f"TIFF: tag {number} is told twice, or not in numbers")
    (width, *_), (height, *_) = directory.numbers(_WIDTH) or [0], directory.numbers(_LENGTH) or [0]
    check_size((width, height), pixel_limit)
    bits, channels = max(directory.numbers(_BITS) or [1]), (directory.numbers(_SAMPLES) or [1])[0]
    photometric = (directory.numbers(_PHOTOMETRIC) or [1])[0]
    if photometric not in _COLOURS or channels < _COLOURS[photometric] or channels * bits > _MOST_BITS:
        raise UnsupportedImage(f"it is a TIFF of photometric interpretation {photometric}, {channels} channels of {bits} bits")
    samples = codecs.decode_samples("tiff", data)
    if samples.ndim == 3 and samples.shape[:2] != (height, width) and samples.shape[1:] == (height, width):
        samples = np.moveaxis(samples, 0, -1)  # planes
    if samples.shape[:2] != (height, width):
        raise UndecodableImage(f"TIFF: samples of shape {samples.shape}, {width} x {height} pixels were expected")
    return directory, samples


def _rare_tiff(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    directory, samples = tiff_samples(data, pixel_limit)
    bits, photometric = max(directory.numbers(_BITS) or [1]), (directory.numbers(_PHOTOMETRIC) or [1])[0]
    stated = _stated_range(directory) if samples.dtype.kind == "f" else None
    extra = (directory.numbers(_EXTRA) or [0])[0] if photometric != _SEPARATED else 0
    if samples.ndim == 3:  # further channels are no picture but alpha, and that only where it is called so
        samples = samples[..., : _COLOURS[photometric] + (extra in (_ASSOCIATED, _ALPHA))]
    shown = of_samples(samples, bits=bits, stated=stated)
    if photometric == _WHITE_IS_ZERO:
        shown = 255 - shown
    image = Image.fromarray(shown, "CMYK") if photometric == _SEPARATED else Image.fromarray(shown)
    if extra == _ASSOCIATED and image.mode == "RGBA":
        image = Image.frombytes("RGBa", image.size, image.tobytes()).convert("RGBA")
    icc = next((tag.values for tag in directory.tags if tag.number == _PROFILE), None)
    orientation = (directory.numbers(_ORIENTATION) or [1])[0]
    return Unusual(image=image, format="TIFF", beyond=kind, orientation=orientation if 1 <= orientation <= 8 else 1, icc=icc)


def _stated_range(directory: Directory) -> tuple[float, float] | None:
    """Return the range of floating-point samples that a TIFF states, one for all channels."""
    found = [
        struct.unpack_from(directory.order + _FLOATS[tag.kind], tag.values)[0]
        for number in (_MIN_SAMPLE, _MAX_SAMPLE)
        for tag in directory.tags
        if tag.number == number and tag.kind in _FLOATS
    ]
    return (found[0], found[1]) if len(found) == 2 and found[0] < found[1] else None


def jpeg2000_samples(data: bytes, pixel_limit: int) -> NDArray[Any]:
    """Return the samples of a JPEG 2000, (H, W) or (H, W, C), in the colours that its file has; raises what ``decode`` does."""
    size, components = headers.jpeg2000_frame(data)
    check_size(size, pixel_limit)
    if len(components) > _MOST_COMPONENTS:
        raise UnsupportedImage(f"it is JPEG 2000 of {len(components)} components")
    if headers.jpeg2000_profile(data):  # which would be applied: so it is called a number that stands for no colours
        method = data.find(b"colr") + 4
        data = data[:method] + b"\1" + data[method + 1 :]
    return codecs.decode_samples("jpeg2k", data)


def _rare_jpeg2000(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    depths = headers.palette_depths(data)
    bits = depths[0] if depths else headers.jpeg2000_bits(data)
    if depths and not (set(depths) == {bits} and 0 < bits <= 16 and len(depths) <= 4):
        raise UnsupportedImage(f"{kind}, of {len(depths)} channels of {max(depths)} bits")
    image = Image.fromarray(of_samples(jpeg2000_samples(data, pixel_limit), bits=bits))
    return Unusual(image=image, format="JPEG2000", beyond=kind, icc=headers.jpeg2000_profile(data))


def _rare_png(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    check_size(struct.unpack_from(">II", data, 16), pixel_limit)
    return Unusual(image=Image.fromarray(of_samples(codecs.decode_samples("png", data))), format="PNG", beyond=kind)


def _layered(data: bytes, kind: str, pixel_limit: int) -> Unusual:
    height, width = struct.unpack_from(">II", data, 14)
    check_size((width, height), pixel_limit)
    return Unusual(image=psd.merged(data), format="PSD", beyond=kind, icc=psd.profile(data))


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes, str, int], Unusual]], ...] = (
    (codecs.is_jxl, _jxl),
    (raw.is_raw, _raw),
    (lambda data: is_unusual(data) is not None, _heif),
    (lambda data: data.startswith(_JPEG), _rare_jpeg),
    (lambda data: data.startswith(SIGNATURES), _rare_tiff),
    (lambda data: data.startswith(_PNG), _rare_png),
    (lambda data: data.startswith(_JPEG2000), _rare_jpeg2000),
    (lambda data: data.startswith(_PSD), _layered),
)
