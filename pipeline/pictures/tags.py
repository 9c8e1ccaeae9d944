"""Tags of a TIFF that describe the picture, and not the layout of its file."""

from __future__ import annotations

from PIL import ExifTags, Image

NESTED = {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
"""Tags whose values are tables of tags."""

_TIFF_EXIF_TAGS = NESTED | {
    ExifTags.Base.DocumentName, ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model,
    ExifTags.Base.Orientation, ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer,
    ExifTags.Base.Copyright, ExifTags.Base.Rating, ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject,
}  # fmt: skip


def keep_descriptive(exif: Image.Exif) -> None:
    """Remove from the tags of a TIFF those that describe its layout."""
    for tag in set(exif) - _TIFF_EXIF_TAGS:
        del exif[tag]
