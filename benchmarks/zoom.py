"""A viewer's zoom into a large entry, as a replica answers it: with and without what it keeps, and before there were regions.

    python -m benchmarks.zoom                              # 50 megapixels, x2, balanced
    python -m benchmarks.zoom --archive FOLDER             # one that is there

The requests are those of a recorded session (`benchmarks.record_zoom`), each understood as the service does. They are answered
one after the other in this process, without HTTP. Counted are seconds, bytes of the answers, bytes read from the store, and
bytes of latents' tiles decoded. The row *before* is the service without regions: one request, for the whole picture as a JPEG;
it says nothing of bytes read, which it would read as the service does now.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import region as regions
from benchmarks.record_zoom import SESSION, header, understood
from benchmarks.support.machine import described
from jobs.web.iiif.documents import ImageFigures
from jobs.web.iiif.request import TurnedRequest
from pipeline.core.options import Limits
from pipeline.core.records import Entry
from pipeline.reading.open_entries import KEPT_BYTES
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import ImageRequest
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from pipeline.stores.local import LocalStore

LIMITS = Limits(most_pixels=10**9, largest_side=10**6)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure as the command line asks; print and return the figures, a row for each way."""
    options = parser().parse_args(arguments)
    print(described(platform.machine()))
    with tempfile.TemporaryDirectory() as folder:
        uri = options.archive or regions.rescaled(Path(folder), options)
        with closing(Shelf("zoom", uri)) as shelf:
            large, small = shelf.place(regions.LARGE), shelf.place(regions.SMALL)
            session = requests(options.session, shelf.figures(large), shelf.archive.plan.settings.pixel_limit)
        whole = [ImageRequest(form="jpeg")]
        rows = []
        for way, asked, kept in (("before", whole, 0), ("nothing kept", session, 0), ("as it is", session, KEPT_BYTES)):
            restorer = Restorer([uri], device=options.device, limits=LIMITS, kept_bytes=kept)
            restorer.restore(small, ImageRequest())  # warms the network
            rows.append({"way": way, **measured(restorer, large, asked)})
            if way == "before":
                del rows[-1]["bytes_read"]
            print(json.dumps(rows[-1]))
    return rows


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = regions.parser()
    found.add_argument("--session", type=Path, default=SESSION, help="recorded over a picture of the same size")
    return found


def requests(path: Path, entry: Entry, pixel_limit: int) -> list[ImageRequest]:
    """Return what a recorded session asks of an entry; ends the program where it was recorded over one of another size."""
    figures = ImageFigures.of(entry)
    assert figures is not None
    lines = path.read_text(encoding="ascii").splitlines()
    if lines[0] != header(figures.size):
        raise SystemExit(f"{path} is not for this archive: it should begin with {header(figures.size)!r}")
    bounds = figures.bounds(LIMITS, pixel_limit)
    return [TurnedRequest.of(understood(line, figures.size, bounds)) for line in lines if not line.startswith("#")]


def measured(restorer: Restorer, place: EntryPlace, asked: Sequence[ImageRequest]) -> dict[str, Any]:
    """Return what it takes to answer some requests, one after the other."""
    times, sent = [], 0
    with regions.Decoded() as decoded, Read() as store:
        for request in asked:
            restored = restorer.restore(place, request)
            times.append(restored.seconds)
            sent += len(restored.data)
    return {
        "requests": len(asked),
        "seconds": round(sum(times), 2),
        "first_s": round(times[0], 3),
        "median_s": round(median(times), 3),
        "bytes_sent": sent,
        "bytes_read": store.bytes,
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
