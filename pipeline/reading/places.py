"""Where an entry is in an archive, and what is read of it there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.archives.archive import Archive
from pipeline.archives.entries import columns_of, from_row, there
from pipeline.archives.errors import ChecksumMismatch
from pipeline.archives.shard_writer import shard_key
from pipeline.core.records import Entry
from pipeline.reading.errors import NoSuchEntry, Replaced
from pipeline.stores.base import version_of
from pipeline.stores.object_range import ObjectRange
from pipeline.stores.store import Access, open_store
from pipeline.tables.reader import RowReader
from pipeline.tables.seal import Footers

FOOTER_BYTES = 16 * 2**20
"""Of footers that are kept of an archive, as they are stored: of some 8,000 large entries, or 100,000 small ones."""

HEAD_BYTES = 4096
"""Of a part that is read in pieces, fetched with the entry: what tells where its pieces are."""

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


def read_apart(
    archive: Archive, place: EntryPlace, parts: Collection[str], part: str, most: int
) -> tuple[Entry, ObjectRange | None]:
    """Return the entry at a place with ``parts`` of its bytes; a ``part`` that takes more than ``most`` stays where it is.

    That one is told as a range of the same version of the shard, unless it does not lie by itself. Raises as read_entry.
    """
    with shard_of(archive, place) as reader:
        found = None
        if reader.chunk_bytes(place.group).get(part, 0) > most:
            found = reader.value_range(place.group, BINARY_COLUMNS[part])
        if found is None:
            return entry_in(reader, place, parts), None
        (start, stop), source = found, reader.source
        source.seek(start)
        head, etag = source.read(min(HEAD_BYTES, stop - start)), version_of(source)
        apart = ObjectRange(store=archive.store, key=shard_key(place.shard), etag=etag, start=start, stop=stop, head=head)
        return entry_in(reader, place, set(parts) - {part}), apart


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
