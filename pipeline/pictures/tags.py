"""Tags of a TIFF that describe the picture, and not the layout of its file."""

from __future__ import annotations

from PIL import ExifTags, Image

from pipeline.containers.tiff import DESCRIPTIVE

NESTED = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
"""Tags whose values are tables of tags."""


def keep_descriptive(exif: Image.Exif) -> None:
    """Remove from the tags of a TIFF those that describe its layout."""
    for tag in set(exif) - DESCRIPTIVE:
        del exif[tag]


def keep_text(exif: Image.Exif) -> None:
    """Have text written byte for byte: Pillow reads it as Latin-1 and writes ASCII, with question marks for the rest."""
    for tags in (exif, *(exif.get_ifd(tag) for tag in NESTED & set(exif))):
        for tag, value in list(tags.items()):
            if isinstance(value, str) and not value.isascii():
                tags[tag] = value.encode("latin-1")
