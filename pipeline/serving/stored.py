"""What an archive stores of an entry as a file to give: LRs and originals, the large ones in pieces.

A small file is read whole and compared with its digest before anything is given. A large one lies alone in its row group, as it
is or in Zstandard frames, and is read by ranges; its digest is compared before its last piece is given.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline.archives.archive import Archive
from pipeline.archives.entries import PARTS, check_lr, size_of_part, source_bytes
from pipeline.archives.shard_writer import damage_of, shard_key
from pipeline.core.errors import DamagedEntry
from pipeline.core.records import Entry, EntryKind, OriginalCoding
from pipeline.reading.errors import NotKept
from pipeline.reading.places import BINARY_COLUMNS, EntryPlace, entry_in, read_apart, read_entry, shard_of
from pipeline.stores.object_range import ObjectRange
from pipeline.tables.zstandard import decompressed

LARGE_BYTES = 8 * 2**20
"""Bytes of a file above which it is given in pieces."""

PIECE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to give: its bytes, its format (an extension, in lower case), and the digest that names those very bytes."""

    data: bytes
    form: str
    digest: str

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)


@dataclass(frozen=True, kw_only=True)
class FileFigures:
    """What is known of a stored file without reading it: its format, its bytes, and their SHA-256."""

    form: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class LargeFile(FileFigures):
    """A ``part`` of the entry of a ``key`` that is read when it is given; its ``value`` may be ``compressed`` by Zstandard.

    ``uri`` is that of the shard.
    """

    uri: str
    key: str
    part: str
    value: bytes | ObjectRange
    compressed: bool = False

    def pieces(self, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """Yield bytes ``start`` to ``stop``, a piece at a time, with memory for one; an empty one for each that is passed over.

        Of the whole file the last comes only where the digest is right: raises DamagedEntry there, and StoreError. A part
        cannot be compared with anything.
        """
        stop = self.size if stop is None else stop
        digest = hashlib.sha256() if (start, stop) == (0, self.size) else None
        for piece in self._inflated(start, stop) if self.compressed else self._read(start, stop):
            start += len(piece)
            if digest is not None:
                digest.update(piece)
                if start == stop and digest.hexdigest() != self.digest:
                    detail = f"SHA-256 {self.digest[:16]}… expected, {digest.hexdigest()[:16]}… found"
                    raise DamagedEntry(self.key, self.part, detail)
            yield piece

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        for first in range(start, stop, PIECE_BYTES):
            yield self.value[first : min(first + PIECE_BYTES, stop)]

    def _inflated(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield what is wanted of each piece of the frames, which have to be gone through from the first."""
        position = 0
        with damage_of(self.uri), self._coded() as file:
            for piece in decompressed(file, self.uri, size=stop, piece=PIECE_BYTES):
                yield piece[max(0, start - position) :]
                position += len(piece)

    def _coded(self) -> BinaryIO:
        return io.BytesIO(self.value) if isinstance(self.value, bytes) else self.value.open(PIECE_BYTES)


def part_sizes(archive: Archive, place: EntryPlace) -> tuple[Entry, dict[str, int]]:
    """Return an entry, and how many bytes each of ``PARTS`` has, of which large ones are not read; raises as read_entry."""
    with shard_of(archive, place) as reader:
        stored = reader.chunk_bytes(place.group)
        large = {part: column for part, column in BINARY_COLUMNS.items() if stored.get(part, 0) > LARGE_BYTES}
        ranges = {part: reader.value_range(place.group, column) for part, column in large.items()}
        told = {part: found[1] - found[0] for part, found in ranges.items() if found is not None}
        entry = entry_in(reader, place, PARTS - told.keys())
    return entry, {part: told[part] if part in told else size_of_part(entry, part) for part in PARTS}


def read_lr(archive: Archive, place: EntryPlace) -> File | LargeFile:
    """Return an LR's file, as it is stored; raises NotKept for an original, DamagedEntry, and as :func:`read_entry`."""
    entry, apart = read_apart(archive, place, ("lr",), "lr", LARGE_BYTES)
    form, digest = lr_figures(entry)
    if apart is not None:
        uri = _uri_of(archive, place)
        return LargeFile(uri=uri, key=place.key, part="LR", value=apart, size=len(apart), form=form, digest=digest)
    if entry.lr is None:
        raise DamagedEntry(entry.key, "LR", "it is missing")
    check_lr(entry)
    return File(data=entry.lr, form=form, digest=digest)


def read_original(archive: Archive, place: EntryPlace) -> File | LargeFile:
    """Return the source's own bytes; raises NotKept where they are not kept, DamagedEntry, and as :func:`read_entry`."""
    entry, apart = read_apart(archive, place, ("original",), "original", LARGE_BYTES)
    form, digest = original_figures(entry)
    told: dict[str, Any] = {"key": place.key, "part": "original", "form": form, "digest": digest, "size": entry.byte_size}
    told["uri"] = _uri_of(archive, place)
    compressed = entry.original_coding is OriginalCoding.ZSTD
    if apart is not None and (compressed or entry.original_coding is OriginalCoding.BYTES):
        if not compressed and len(apart) != entry.byte_size:
            raise DamagedEntry(place.key, "original", f"{len(apart)} bytes were found, {entry.byte_size} expected")
        return LargeFile(value=apart, compressed=compressed, **told)
    entry = entry if apart is None else read_entry(archive, place, ("original",))
    if compressed and entry.original is not None and entry.byte_size > LARGE_BYTES:
        return LargeFile(value=entry.original, compressed=True, **told)
    if (data := source_bytes(entry)) is None:
        raise DamagedEntry(entry.key, "original", "it is missing")
    return File(data=data, form=form, digest=digest)


def lr_figures(entry: Entry) -> tuple[str, str]:
    """Return the format and the digest of an entry's LR, told by its figures; raises NotKept, DamagedEntry."""
    if entry.kind is EntryKind.ORIGINAL:
        raise NotKept(entry.key, "LR", "the source's own bytes stand for it; its original has them")
    return _form_of(entry.lr_path or ""), _known(entry, "LR", entry.lr_sha256)


def original_figures(entry: Entry) -> tuple[str, str]:
    """Return the format and the digest of the source's own bytes, told by its figures; raises NotKept, DamagedEntry."""
    if entry.original_coding in (None, OriginalCoding.PIXELS):
        raise NotKept(entry.key, "original", f"its tier is {entry.tier}; its image is restored")
    return _form_of(entry.key), _known(entry, "original", entry.sha256)


def _uri_of(archive: Archive, place: EntryPlace) -> str:
    """Return the URI of the shard that an entry is in."""
    return f"{archive.store.uri}/{shard_key(place.shard)}"


def _known(entry: Entry, part: str, digest: str | None) -> str:
    if digest is None:
        raise DamagedEntry(entry.key, part, "it has no digest")
    return digest


def _form_of(name: str) -> str:
    return name.rpartition(".")[2].lower()
