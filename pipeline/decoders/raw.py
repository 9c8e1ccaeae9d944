"""Camera raw files: the preview that the camera put into them, the largest, is the picture.

Source: Adobe, DNG 1.7 (DNGVersion, PhotometricInterpretation); TIFF/EP; the first bytes that makers' formats have.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

from PIL import Image

from pipeline.containers.tiff import SIGNATURES, Directory
from pipeline.core.errors import UndecodableImage, UnsupportedImage
from pipeline.decoders import headers
from pipeline.decoders.bounds import check, check_size
from pipeline.pictures.pillow import admit, open_header

EXTENSIONS = frozenset({
    "dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "raf", "orf", "rw2", "rwl", "pef", "srw", "3fr", "fff",
    "iiq", "erf", "kdc", "dcr", "mos", "mrw", "x3f", "gpr",
})  # fmt: skip
"""What raw files are called, lower case."""

KIND = "it is a camera raw file"
"""What is said of them."""

_MAGICS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb")
_CANON = {(4, b"ftypcrx "), (6, b"HEAPCCDR"), (8, b"CR\2\0")}
_WIDTH, _LENGTH, _COMPRESSION, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION = 256, 257, 259, 262, 330, 50706
_KODAK = 65000
_BITMAPS = {0, 1, _KODAK}
"""Compressions of previews that do not say themselves how large they are, as JPEG does."""
_SENSOR = {32803, 34892}
"""Photometric interpretations of a colour filter array, and of linear raw."""
_MOST_DIRECTORIES = 16
_ORIENTATIONS = {3: 3, 5: 8, 6: 6}
"""How LibRaw says which way up, and EXIF."""


def is_raw(data: bytes) -> bool:
    """Return whether the bytes of a file, its name aside, are those of a camera raw file."""
    if data.startswith(_MAGICS) or any(data[at : at + len(magic)] == magic for at, magic in _CANON):
        return True
    if not data.startswith(SIGNATURES):
        return False
    with suppress(struct.error, IndexError, ValueError, OverflowError):
        first = Directory(data)
        if any(tag.number == _DNG_VERSION for tag in first.tags):
            return True
        inner = first.numbers(_SUB_DIRECTORIES)[:_MOST_DIRECTORIES]
        return any(_SENSOR.intersection(each.numbers(_PHOTOMETRIC)) for each in (first, *(Directory(data, at) for at in inner)))
    return False


def _check_previews(data: bytes, pixel_limit: int) -> None:
    """Refuse a preview of samples that the file has not: LibRaw makes room for it whatever its size is said to be."""
    with suppress(struct.error, IndexError, ValueError, OverflowError):
        starts = headers.tiff_pages(data)[:_MOST_DIRECTORIES]
        for start in starts:
            directory = Directory(data, start)
            starts += directory.numbers(_SUB_DIRECTORIES)[: _MOST_DIRECTORIES - len(starts)]  # which have their own
            told = tuple((directory.numbers(tag) or [1])[0] for tag in (_COMPRESSION, _PHOTOMETRIC, _WIDTH, _LENGTH))
            if told[0] in _BITMAPS and told[1] not in _SENSOR:
                check_size(told[2:], pixel_limit)
                if told[0] != _KODAK and told[2] * told[3] > len(data):
                    raise UndecodableImage("raw: its preview is cut off")


def preview(data: bytes, kind: str, pixel_limit: int) -> tuple[Image.Image, int]:
    """Return a raw file's largest preview, as it is stored, and the EXIF orientation that turns it upright.

    Raises UnsupportedImage, which begins with ``kind``, where LibRaw is not installed or finds no preview, UndecodableImage
    for damage, ImageTooLarge.
    """
    try:
        import rawpy  # an extra: not every archive needs it
    except ImportError:
        raise UnsupportedImage(f"{kind}, for which iarn[raw] is to be installed") from None
    _check_previews(data, pixel_limit)
    try:
        with rawpy.imread(BytesIO(data)) as opened:
            orientation = _ORIENTATIONS.get(opened.sizes.flip, 1)
            found = opened.extract_thumb()
    except (
        rawpy.LibRawFileUnsupportedError,
        rawpy.LibRawNoThumbnailError,
        rawpy.LibRawUnsupportedThumbnailError,
        rawpy.NotSupportedError,
    ):
        raise UnsupportedImage(f"{kind}, without a preview that LibRaw reads") from None
    except (rawpy.LibRawError, ValueError, OSError, MemoryError) as error:
        raise UndecodableImage(f"raw: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(found.data, bytes):
        check_size((found.data.shape[1], found.data.shape[0]), pixel_limit)
        return Image.fromarray(found.data), orientation
    admit(pixel_limit)
    check(found.data)
    image = open_header(found.data, ("JPEG",))
    check_size(image.size, pixel_limit)
    image.load()
    return image, orientation
