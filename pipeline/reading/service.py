"""What a service is asked for and restores, as bytes, without HTTP and without Ray.

A restore is what ``iarn restore`` writes for the same request, by the same functions. A Restorer runs beside the service, in as
many processes as there are engines, and opens what it is asked for.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.archives.archive import Archive
from pipeline.archives.entries import PARTS, columns_of, from_row, there
from pipeline.archives.errors import ChecksumMismatch
from pipeline.archives.shard_writer import shard_key
from pipeline.core.errors import InvalidOption, PipelineError
from pipeline.core.options import FORMATS, SOURCE_FORMAT, Limits, RestoreOptions
from pipeline.core.records import Entry, EntryKind, Size, Stored
from pipeline.engines.engine import Engine, choose_device
from pipeline.entry_picture import (
    OpenEntry,
    View,
    check_restored_size,
    encode_restored,
    output_format,
    pixels_to_restore,
    restore_entry,
)
from pipeline.pictures.picture import Picture, size_of
from pipeline.pictures.region import Region
from pipeline.reading.errors import NoSuchEntry, Replaced
from pipeline.reading.open_archives import OpenArchives
from pipeline.reading.open_entries import KEPT_BYTES, OpenEntries
from pipeline.stores.object_range import ObjectRange
from pipeline.stores.store import Access
from pipeline.tables.reader import RowReader

FORMS = tuple(form for form in FORMATS if form != SOURCE_FORMAT)
"""The formats of restored images."""

LARGEST_SCALE = 4.0

LARGE_LATENT = 2 * 2**20
"""Bytes of a latent above which only what is touched of it is read: up to there one request more costs as much."""

BINARY_COLUMNS = {"lr": "lr.bytes", **{part: part for part in ("latent", "alpha", "original", "icc", "exif", "xmp")}}
"""The parts of one binary value, and the column of each."""

_RESTORED_PARTS = PARTS - {"sidecars"}
_PLAN = "iarn.plan"  # what a shard's footer calls the digest of its plan


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
        if self.scale is not None and not 0 < self.scale <= LARGEST_SCALE:
            raise InvalidOption("scale", f"{self.scale:g}", "give a number above 0, up to 4; 0.5 is half the original size.")
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
class EntryPlace:
    """Where an entry is: the archive's URI and plan digest, the shard, the row group, the key."""

    archive: str
    plan: str
    shard: str
    group: int
    key: str


@dataclass(frozen=True, kw_only=True)
class Restored:
    """An image file, the format it is in, and how many pixels were restored in how many seconds."""

    data: bytes
    form: str
    pixels: int
    seconds: float


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


def read_small(archive: Archive, place: EntryPlace, parts: Collection[str], most: Mapping[str, int]) -> Entry:
    """Return the entry at a place with ``parts`` of its bytes but those of ``most`` that take more, stored; as read_entry."""
    with shard_of(archive, place) as reader:
        stored = reader.chunk_bytes(place.group)
        return entry_in(reader, place, {part for part in parts if stored.get(part, 0) <= most.get(part, sys.maxsize)})


def range_of(archive: Archive, place: EntryPlace, part: str) -> ObjectRange | None:
    """Return where a part of an entry's bytes is to be read in pieces; None where it does not lie by itself; as read_entry."""
    etag = archive.store.stat(shard_key(place.shard)).etag  # before it is opened: reads by it then see that version or none
    with shard_of(archive, place) as reader:
        found = reader.value_range(place.group, BINARY_COLUMNS[part])
    if found is None:
        return None
    return ObjectRange(store=archive.store, key=shard_key(place.shard), etag=etag, start=found[0], stop=found[1])


def read_entry(archive: Archive, place: EntryPlace, parts: Collection[str]) -> Entry:
    """Return the entry at a place with ``parts`` of its bytes; raises NoSuchEntry, Replaced, DamagedObject, StoreError."""
    with shard_of(archive, place) as reader:
        return entry_in(reader, place, parts)


@contextmanager
def shard_of(archive: Archive, place: EntryPlace) -> Iterator[RowReader]:
    """Give the rows of the shard that a place is in; raises Replaced where it is of another plan, DamagedObject, StoreError."""
    try:
        with archive.shard_rows(place.shard) as reader:
            yield reader
    except ChecksumMismatch as error:
        if error.algorithm != _PLAN:
            raise
        raise Replaced(archive.store.uri) from None


def entry_in(reader: RowReader, place: EntryPlace, parts: Collection[str]) -> Entry:
    """Return the entry at a place of an open shard with ``parts`` of its bytes; raises NoSuchEntry, DamagedObject."""
    for row in reader.rows(there(columns_of(parts), reader), [place.group]):
        if row["key"] == place.key:
            return from_row(row)
    raise NoSuchEntry(place.archive, place.key)
