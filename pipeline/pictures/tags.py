"""Tags of a TIFF that describe the picture, and not the layout of its file."""

from __future__ import annotations

from PIL import (  # each plugin enters itself into Pillow's lists of formats and extensions
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    IcnsImagePlugin,  # noqa: F401
    IcoImagePlugin,  # noqa: F401
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PcxImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    PsdImagePlugin,  # noqa: F401
    QoiImagePlugin,  # noqa: F401
    SgiImagePlugin,  # noqa: F401
    SunImagePlugin,  # noqa: F401
    TgaImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
    XpmImagePlugin,  # noqa: F401
)

# Tags of a TIFF that describe the picture; all others describe the file's own layout.
NESTED = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}

_TIFF_EXIF_TAGS = NESTED | {
    ExifTags.Base.DocumentName, ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model,
    ExifTags.Base.Orientation, ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright, ExifTags.Base.Rating, ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject,
}  # fmt: skip


UNDERSTOOD_TAGS = frozenset({*map(int, _TIFF_EXIF_TAGS), ExifTags.Base.XMLPacket, ExifTags.Base.InterColorProfile})
"""Tags of a TIFF that are not its layout and come back by themselves: as EXIF, as XMP, as the profile."""


def keep_descriptive(exif: Image.Exif) -> None:
    for tag in set(exif) - _TIFF_EXIF_TAGS:
        del exif[tag]


def keep_text(exif: Image.Exif) -> None:
    """Have text written byte for byte: Pillow reads it as Latin-1 and writes ASCII, with question marks for the rest."""
    for tags in (exif, *(exif.get_ifd(tag) for tag in NESTED & set(exif))):
        for tag, value in list(tags.items()):
            if isinstance(value, str) and not value.isascii():
                tags[tag] = value.encode("latin-1")
