"""Where an entry is in an archive, and what is read of it there."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.archives.archive import Archive
from pipeline.archives.entries import columns_of, from_row, there
from pipeline.archives.errors import ChecksumMismatch
from pipeline.archives.shard_writer import shard_key
from pipeline.core.records import Entry
from pipeline.reading.errors import NoSuchEntry, Replaced
from pipeline.stores.object_range import ObjectRange
from pipeline.stores.store import Access, open_store
from pipeline.tables.reader import RowReader
from pipeline.tables.seal import Footers

FOOTER_BYTES = 16 * 2**20
"""Of footers that are kept of an archive, as they are stored: of some 8,000 large entries, or 100,000 small ones."""

BINARY_COLUMNS = {"lr": "lr.bytes", **{part: part for part in ("latent", "alpha", "original", "icc", "exif", "xmp")}}
"""The parts of one binary value, and the column of each."""

_PLAN = "iarn.plan"  # what a shard's footer calls the digest of its plan


@dataclass(frozen=True, kw_only=True)
class EntryPlace:
    """Where an entry is: the archive's URI and plan digest, the shard, the row group, the key."""

    archive: str
    plan: str
    shard: str
    group: int
    key: str


def archive_at(uri: str, access: Access) -> Archive:
    """Return the archive at a URI, to read entries of it one by one.

    Raises NotAnArchive, NotFound, UnsupportedFormat, DamagedObject, StoreError.
    """
    return Archive.open(open_store(uri, access=access)).keeping(Footers(FOOTER_BYTES))


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
