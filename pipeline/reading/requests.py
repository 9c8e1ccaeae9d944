"""What a service is asked for, and what it gets for that: known without PyTorch, to whoever only passes it on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.errors import InvalidOption
from pipeline.core.options import FORMATS, SOURCE_FORMAT, Limits, RestoreOptions
from pipeline.core.records import Entry, Size
from pipeline.entry_picture import View, check_restored_size, encode_restored, output_format, pixels_to_restore
from pipeline.pictures.picture import Picture
from pipeline.pictures.region import Region

FORMS = tuple(form for form in FORMATS if form != SOURCE_FORMAT)
"""The formats of restored images."""

LEAST_SCALE, LARGEST_SCALE = 1e-5, 4.0


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Which image of an entry: a ``region`` of it, or all; at most one of ``max_side``, ``scale`` (0.5 is half) and ``size``.

    The region is (x, y, width, height) in pixels of the upright image. Raises InvalidOption.
    """

    form: str = "png"
    quality: int = 95
    max_side: int | None = None
    scale: float | None = None
    size: Size | None = None
    region: Region | None = None
    use_latent: bool = True

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InvalidOption("format", self.form, f"give one of {', '.join(FORMS)}.")
        if sum(value is not None for value in (self.max_side, self.scale, self.size)) > 1:
            raise InvalidOption("size", "given twice", "give one of max_side, scale and size.")
        if self.scale is not None and not LEAST_SCALE <= self.scale <= LARGEST_SCALE:
            raise InvalidOption("scale", f"{self.scale:g}", "give a number from 0.00001 to 4; 0.5 is half the original size.")
        if self.size is not None and min(self.size) < 1:
            raise InvalidOption("size", f"{self.size[1]}x{self.size[0]}", "give width x height in pixels, as in 640x480.")
        self.options()

    def options(self) -> RestoreOptions:
        """Return the same request to ``iarn restore``, ``size`` apart."""
        scale = None if self.scale is None else 1 / self.scale
        return RestoreOptions(
            format=self.form, quality=self.quality, scale=scale, max_side=self.max_side, use_latent=self.use_latent
        )

    def view(self, limits: Limits, pixel_limit: int) -> View:
        """Return what is asked of an entry's picture; its size raises InvalidOption above the limits, SizeNotReachable."""

        def size_for(own: Size) -> Size:
            wanted = self.size or self.options().size_for(own)
            if max(wanted) > limits.largest_side or wanted[0] * wanted[1] > limits.most_pixels:
                most = f"{limits.largest_side} pixels a side and {limits.most_pixels} in all"
                raise InvalidOption("size", f"{wanted[1]}x{wanted[0]}", f"the service gives {most}; ask for less by max_side.")
            return check_restored_size(own, wanted, pixel_limit)

        return View(size_for=size_for, region=self.region, use_latent=self.use_latent)

    def check(self, entry: Entry, limits: Limits, pixel_limit: int) -> int:
        """Return how many pixels are restored or decoded, 0 where an original tells that only when it is decoded.

        Raises InvalidOption above the limits and for a region that is not in the image, SizeNotReachable, DamagedEntry.
        """
        if entry.height is None or entry.width is None:
            return 0
        pixels = pixels_to_restore(entry, self.view(limits, pixel_limit))
        if pixels > limits.most_pixels:
            advice = f"the service restores {limits.most_pixels} pixels at most."
            raise InvalidOption("image", f"{entry.width}x{entry.height}", advice)
        return pixels

    def written(self, picture: Picture) -> tuple[bytes, str]:
        """Return the file of the picture that was asked for, and the format that it is in."""
        return encode_restored(picture, output_format(self.form, picture), self.quality)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """An image file, the format it is in, and how many pixels were restored in how many seconds."""

    data: bytes
    form: str
    pixels: int
    seconds: float
