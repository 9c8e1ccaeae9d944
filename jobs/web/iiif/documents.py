"""The documents of the IIIF: info.json (Image API 3.0, 5), manifests and collections (Presentation API 3.0, 5).

Addresses are absolute, as both ask for: ``base`` is an image's own, without a slash at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.web.iiif.parameters import QUALITIES, Bounds, fitted, most_of
from pipeline.core.options import Limits
from pipeline.core.records import Entry, Size
from pipeline.pictures.captions import Caption
from pipeline.pictures.region import Region

IMAGE_CONTEXT = "http://iiif.io/api/image/3/context.json"
PRESENTATION_CONTEXT = "http://iiif.io/api/presentation/3/context.json"
PROFILE = "http://iiif.io/api/image/3/level2.json"

TILE_SIDE = 512
SMALLEST_SIDE = 64
"""Down to about which longer side an image's ``sizes`` are told."""
THUMBNAIL_SIDE = 256
EXTRA_FEATURES = ("canonicalLinkHeader", "mirroring", "profileLinkHeader", "sizeUpscaling")
"""What is beyond level 2 (compliance document, 3 and 4)."""

Given = Callable[[Region, Size], bool]


@dataclass(frozen=True, kw_only=True)
class ImageFigures:
    """What is told of an entry's image: its size, its LR's, both (height, width), and whether it is grey."""

    size: Size
    lr_size: Size | None
    grey: bool

    @classmethod
    def of(cls, entry: Entry) -> ImageFigures | None:
        """Return the figures of an entry, None where it is no image, or none whose size is known."""
        if not entry.height or not entry.width:
            return None
        lr_size = (entry.lr_height, entry.lr_width) if entry.lr_height and entry.lr_width else None
        return cls(size=(entry.height, entry.width), lr_size=lr_size, grey=bool(entry.grey))

    def bounds(self, limits: Limits, pixel_limit: int) -> Bounds:
        """Return what a service gives of the image: of one with more pixels than it restores, what fits into the LR."""
        area = min(limits.most_pixels, pixel_limit)
        if math.prod(self.size) > limits.most_pixels and self.lr_size is not None:
            area = min(area, math.prod(fitted(self.size, self.lr_size)))
        return Bounds(side=limits.largest_side, area=area)


def info(base: str, figures: ImageFigures, bounds: Bounds, caption: Caption, given: Given) -> dict[str, Any]:
    """Return an image's info.json (5.2 to 5.7); ``given`` tells whether the service gives a region at a size."""
    (height, width), (tile, factors) = figures.size, tiling(figures.size, bounds, given)
    return {
        "@context": IMAGE_CONTEXT,
        "id": base,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level2",
        "width": width,
        "height": height,
        "maxWidth": bounds.side,
        "maxArea": bounds.area,
        "sizes": _sizes(figures, bounds),
        "tiles": [{"width": tile, "height": tile, "scaleFactors": factors}],
        "preferredFormats": ["webp", "jpg"],
        "extraFormats": ["webp", "avif"],
        "extraQualities": [name for name in QUALITIES[1:] if not (figures.grey and name == "color")],
        "extraFeatures": list(EXTRA_FEATURES),
        **_rights(caption),
    }


def tiling(size: Size, bounds: Bounds, given: Given) -> tuple[int, list[int]]:
    """Return the side of an image's tiles and their scale factors (5.4): the largest, by halves, of which all are given."""
    tile = min(TILE_SIDE, bounds.side, math.isqrt(bounds.area))
    while True:
        factors = scale_factors(size, tile)
        told = [factor for factor in factors if all(given(*each) for each in _unlike_tiles(size, tile, factor))]
        if told == factors or tile == 1:
            return tile, told
        tile //= 2


def _unlike_tiles(size: Size, tile: int, factor: int) -> Iterator[tuple[Region, Size]]:
    """Yield a region and its size for each shape that tiles of a scale factor have: the first, and those at the edges."""
    (height, width), step = size, tile * factor
    for y in {0, (height - 1) // step * step}:
        for x in {0, (width - 1) // step * step}:
            region = Region(x, y, min(step, width - x), min(step, height - y))
            yield region, (-(-region.height // factor), -(-region.width // factor))


def scale_factors(size: Size, tile: int) -> list[int]:
    """Return the powers of two, from 1 up to the first by which an image of a size is one tile."""
    factors = [1]
    while max(size) > tile * factors[-1]:
        factors.append(2 * factors[-1])
    return factors


def thumbnail_size(figures: ImageFigures, bounds: Bounds) -> Size:
    """Return the size of a thumbnail: the smallest of ``sizes`` that is not too small, or the image's own."""
    sizes = [(each["height"], each["width"]) for each in _sizes(figures, bounds)]
    return next((size for size in sizes if max(size) >= THUMBNAIL_SIDE), sizes[-1])


def manifest(
    base: str, service: str, key: str, figures: ImageFigures, bounds: Bounds, caption: Caption, *, collection: str, entry: str
) -> dict[str, Any]:
    """Return the manifest of one entry: a canvas of the image's size, painted with it (Presentation API 3.0, 5.2 to 5.6).

    Its label is the title that the source's file has, or the key's last part. ``service`` is the image's address by which it is
    shown, ``collection`` that of the archive's, ``entry`` that of all that is known of the entry.
    """
    canvas, (height, width) = f"{base}/canvas", figures.size
    most = most_of(figures.size, bounds, upscale=False)
    return {
        "@context": PRESENTATION_CONTEXT,
        "id": f"{base}/manifest.json",
        "type": "Manifest",
        "label": _label(caption.title or key.rpartition("/")[2] or key),
        "summary": _label(_plain(key)),
        **_rights(caption),
        **_required(caption),
        "thumbnail": [_image(service, figures, bounds, thumbnail_size(figures, bounds))],
        "seeAlso": [{"id": entry, "type": "Dataset", "label": {"en": ["What is known of it"]}, "format": "application/json"}],
        "partOf": [{"id": collection, "type": "Collection"}],
        "items": [
            {
                "id": canvas,
                "type": "Canvas",
                "label": _label(key),
                "height": height,
                "width": width,
                "items": [
                    {
                        "id": f"{canvas}/page",
                        "type": "AnnotationPage",
                        "items": [
                            {
                                "id": f"{canvas}/page/image",
                                "type": "Annotation",
                                "motivation": "painting",
                                "body": _image(service, figures, bounds, most),
                                "target": canvas,
                            }
                        ],
                    }
                ],
            }
        ],
    }


def collection(
    address: str, name: str, page: Sequence[tuple[str, str]], following: str | None, *, damaged: int = 0
) -> dict[str, Any]:
    """Return a page of an archive's collection (Presentation API 3.0, 5.1): manifests, then the collection of those after them.

    ``page`` are keys and the addresses of their manifests; ``following`` is the address of the next page, None for the last.
    Where shards are ``damaged`` the summary says that items are missing.
    """
    items = [{"id": manifest, "type": "Manifest", "label": _label(key)} for key, manifest in page]
    if following is not None:
        items.append(
            {"id": following, "type": "Collection", "label": {"en": [f"{name}, after {page[-1][0]}" if page else name]}}
        )
    found = {"@context": PRESENTATION_CONTEXT, "id": address, "type": "Collection", "label": _label(name)}
    if damaged:
        found["summary"] = {"en": [f"Some items are missing: {damaged} of the archive's shards cannot be read."]}
    return {**found, "items": items}


def _image(base: str, figures: ImageFigures, bounds: Bounds, size: Size) -> dict[str, Any]:
    """Return the whole image as a content resource (Presentation API 3.0, 5.7), with its service."""
    height, width = size
    part = "max" if size == most_of(figures.size, bounds, upscale=False) else f"{width},{height}"
    service = {"id": base, "type": "ImageService3", "profile": "level2", "sizes": _sizes(figures, bounds)}
    return {
        "id": f"{base}/full/{part}/0/default.jpg",
        "type": "Image",
        "format": "image/jpeg",
        "height": height,
        "width": width,
        "service": [service],
    }


def _sizes(figures: ImageFigures, bounds: Bounds) -> list[dict[str, int]]:
    """Return sizes of the whole image (5.3), the smallest first: divided by powers of two, and the LR's, which costs least."""
    (height, width), found = figures.size, {most_of(figures.size, bounds, upscale=False)}
    factor = 1
    while max(height, width) >= SMALLEST_SIDE * factor:
        found.add((-(-height // factor), -(-width // factor)))
        factor *= 2
    found |= {figures.lr_size} if figures.lr_size is not None else set()
    within = (size for size in found if max(size) <= bounds.side and size[0] * size[1] <= bounds.area)
    return [{"width": size[1], "height": size[0]} for size in sorted(within)]


def _rights(caption: Caption) -> dict[str, str]:
    """Return the licence (Image API 3.0, 5.6), where the source's file names one that the IIIF knows."""
    return {} if caption.licence is None else {"rights": caption.licence}


def _required(caption: Caption) -> dict[str, Any]:
    """Return what a viewer has to show of who made the picture and whose it is (Presentation API 3.0, 3.1)."""
    words = [text for text in (caption.artist, caption.copyright) if text is not None]
    return {"requiredStatement": {"label": {"en": ["Attribution"]}, "value": {"none": [*map(_plain, words)]}}} if words else {}


def _label(text: str) -> dict[str, list[str]]:
    return {"none": [text]}


def _plain(text: str) -> str:
    """Return a text that no viewer takes for HTML, which begins with ``<`` and ends with ``>`` (Presentation API 3.0, 4.5)."""
    return f" {text}" if text.startswith("<") else text
