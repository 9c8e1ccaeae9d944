"""What restores for a service, as bytes, without HTTP and without Ray.

A restore is what ``iarn restore`` writes for the same request, by the same functions. A Restorer runs beside the service, in as
many processes as there are engines, and opens what it is asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from pipeline.archives.archive import Archive
from pipeline.archives.entries import PARTS
from pipeline.core.errors import PipelineError
from pipeline.core.options import Limits
from pipeline.core.records import Entry, EntryKind, Stored
from pipeline.engines.engine import Engine, choose_device
from pipeline.entry_picture import OpenEntry, restore_entry
from pipeline.pictures.picture import size_of
from pipeline.reading.open_archives import OpenArchives
from pipeline.reading.open_entries import KEPT_BYTES, OpenEntries
from pipeline.reading.places import EntryPlace, range_of, read_entry, read_small
from pipeline.reading.requests import ImageRequest, Restored
from pipeline.stores.object_range import ObjectRange
from pipeline.stores.store import Access

LARGE_LATENT = 2 * 2**20
"""Bytes of a latent above which only what is touched of it is read: up to there one request more costs as much."""

_RESTORED_PARTS = PARTS - {"sidecars"}


class Restorer:
    """Restores images of several archives on one device, in as many threads as call it; archives of one model share it.

    It starts without archives that cannot be opened, which are tried again when they are asked for; where none can be it raises
    the first error.

    What it has read and decoded of the entries that were asked for last is kept, ``kept_bytes`` of it at most: a viewer asks
    for dozens of parts of one.
    """

    def __init__(
        self,
        uris: Collection[str],
        *,
        device: str = "auto",
        limits: Limits | None = None,
        access: Access = Access.SIGNED,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._limits, self._open = limits or Limits(), OpenEntries(kept_bytes)
        self._device = choose_device(device)
        self._archives = OpenArchives(uris, lambda weights: Engine(weights, self._device), access=access)

    @property
    def device(self) -> str:
        """The kind of device."""
        return self._device.type

    def restore(self, place: EntryPlace, request: ImageRequest) -> Restored:
        """Return an image as a file; raises InvalidOption, SizeNotReachable, ImageError, ArchiveError, StoreError."""
        began = time.monotonic()
        archive = self._archives.of(place.archive, place.plan)
        reader, batcher = archive.reader, archive.batcher
        limit = reader.plan.settings.pixel_limit
        view = request.view(self._limits, limit)
        with self._open.entry(place, lambda: open_entry(reader.archive, place)) as opened:
            pixels = request.check(opened.entry, self._limits, limit)
            most = min(limit, self._limits.most_pixels) if opened.entry.kind is EntryKind.ORIGINAL else limit
            picture = restore_entry(opened, batcher.restore, view, span=batcher.span, pixel_limit=most)
        data, form = request.written(picture)
        pixels = pixels or math.prod(size_of(picture.pixels))
        return Restored(data=data, form=form, pixels=pixels, seconds=time.monotonic() - began)

    def attempt(self, place: EntryPlace, request: ImageRequest) -> Restored | PipelineError:
        """Return what :meth:`restore` does, or the error that it raises, for callers in another process."""
        try:
            return self.restore(place, request)
        except PipelineError as error:
            return error


def open_entry(archive: Archive, place: EntryPlace) -> OpenEntry:
    """Return an entry to restore, read when it is used; of a large latent what is touched; raises as :func:`read_entry`."""

    def latent(entry: Entry) -> bytes | ObjectRange | None:
        if entry.latent is not None or entry.stored is not Stored.LATENT:
            return entry.latent
        return range_of(archive, place, "latent") or read_entry(archive, place, ("latent",)).latent

    return OpenEntry(lambda: read_small(archive, place, _RESTORED_PARTS, {"latent": LARGE_LATENT}), latent)
