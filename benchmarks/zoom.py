"""A viewer's zoom into a large entry: the tiles that it asks for, as a replica answers them, with and without what it keeps.

    python -m benchmarks.zoom                              # 50 megapixels, x2, balanced
    python -m benchmarks.zoom --archive FOLDER             # one that is there

The requests are those of an image server's tiles of 512 pixels (IIIF Image API 3.0, 5.4) that cover a window of 1,280 x 800
around two places of the picture, at every scale factor from the whole picture to single pixels; each tile once, as a browser
keeps them. They are answered one after the other in this process, as JPEG files, without HTTP. Counted are seconds, bytes read
from the store, bytes of latents' tiles decoded, and LRs decoded.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import region as regions
from benchmarks.support.machine import described
from pipeline.core.options import Limits
from pipeline.core.records import Size
from pipeline.pictures.region import Region
from pipeline.reading.service import ImageRequest, Restorer
from pipeline.serving.shelf import Shelf
from pipeline.stores.local import LocalStore

WINDOW = (800, 1280)
"""Height and width of what a viewer shows, in pixels of its screen."""

PLACES = ((0.3, 0.4), (0.72, 0.61))
"""Where it zooms in, in shares of the height and of the width."""


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure as the command line asks; print and return the figures, a row for each way."""
    options = parser().parse_args(arguments)
    print(described(platform.machine()))
    with tempfile.TemporaryDirectory() as folder:
        uri = options.archive or regions.rescaled(Path(folder), options)
        rows = [measured(uri, options, kept) for kept in ((0, None) if options.keeping is None else (options.keeping,))]
    for row in rows:
        print(json.dumps(row))
    return rows


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = regions.parser()
    found.add_argument("--keeping", type=int, help="bytes that are kept between requests; none and then as many as usual")
    return found


def session(size: Size) -> Iterator[ImageRequest]:
    """Yield the requests of a zoom into a picture of a size, (height, width), each once."""
    factors, asked = [1], set()
    while max(size) > regions.TILE * factors[-1]:
        factors.append(2 * factors[-1])
    for place in PLACES:
        for factor in reversed(factors):
            for tile in tiles(size, place, factor):
                if (tile, factor) not in asked:
                    asked.add((tile, factor))
                    wanted = -(-tile.height // factor), -(-tile.width // factor)
                    yield ImageRequest(form="jpeg", region=tile, size=wanted)


def tiles(size: Size, place: tuple[float, float], factor: int) -> Iterator[Region]:
    """Yield the tiles that a window around a place shows of a picture reduced by a factor."""
    side, spans = regions.TILE * factor, []
    for length, share, window in zip(size, place, WINDOW, strict=True):
        first = max(0, min(round(share * length) - window * factor // 2, length - window * factor))
        spans.append(range(first // side * side, min(length, first + window * factor), side))
    for y in spans[0]:
        for x in spans[1]:
            yield Region(x, y, min(side, size[1] - x), min(side, size[0] - y))


def measured(uri: str, options: argparse.Namespace, kept: int | None) -> dict[str, Any]:
    """Return what a session takes where ``kept`` bytes stay between requests, None for as many as usual."""
    limits = Limits(most_pixels=10**9, largest_side=10**6)
    named = {} if kept is None else {"kept_bytes": kept}
    restorer = Restorer([uri], device=options.device, limits=limits, **named)  # type: ignore[arg-type]
    with closing(Shelf("zoom", uri)) as shelf:
        place = shelf.place(regions.LARGE)
        figures = shelf.figures(place)
        restorer.restore(shelf.place(regions.SMALL), ImageRequest())  # warms the network
        asked, times, read = list(session((figures.height or 0, figures.width or 0))), [], []
        with regions.Decoded() as decoded, Read() as store:
            for request in asked:
                before = store.bytes
                times.append(regions.seconds(lambda request=request: restorer.restore(place, request)))  # type: ignore[misc]
                read.append(store.bytes - before)
    single = [
        each for each, request in zip(times, asked, strict=True) if request.region and request.region.size == request.size
    ]
    return {
        "kept_bytes": kept,
        "requests": len(asked),
        "seconds": round(sum(times), 2),
        "first_s": round(times[0], 3),
        "at_single_pixels": len(single),
        "single_pixel_tile_s": round(sum(single) / len(single), 3),
        "bytes_read": sum(read),
        "first_bytes_read": read[0],
        "latent_bytes_decoded": decoded.bytes,
    }


class Read:
    """Counts the bytes that are read from local stores while it is entered."""

    def __enter__(self) -> Read:
        self.bytes, self._own = 0, LocalStore.read
        own = self._own

        def counted(store: LocalStore, *arguments: Any, **named: Any) -> bytes:
            data = own(store, *arguments, **named)
            self.bytes += len(data)
            return data

        LocalStore.read = counted  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        LocalStore.read = self._own  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
