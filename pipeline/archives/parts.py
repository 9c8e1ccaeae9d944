"""Source shards <-> the parts of a plan: Parquet files of some 50,000 shards, a row for each object of the source.

    plan/<sha256>.parquet    shard  kind  key  key_bytes  size  etag  modified  permissions

A part is named by the SHA-256 of its bytes and plan.json lists them in order, so that planners never mix: parts that one left
who died are taken up by the next who would write the same, and are nobody's otherwise.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

from pipeline.archives.errors import ChecksumMismatch
from pipeline.assets.names import safe_key
from pipeline.core.errors import AlreadyExists, DamagedObject, DamagedShard, NotFound
from pipeline.core.records import ObjectInfo, PlanPart, ShardKind, SourceShard
from pipeline.stores.spool import spool
from pipeline.stores.store import Store
from pipeline.tables.reader import RowReader
from pipeline.tables.writer import RowWriter

PART_SHARDS = 50_000
"""Shards of a part."""

PART_BYTES = 64 * 2**20
"""Bytes of keys and ETags after which a part is closed sooner: a reader holds one part, compressed, and writes none."""

PREFIX = "plan/"

_COLUMNS = {"shard": "string", "kind": "string", "key": "string", "key_bytes": "binary", "size": "int64", "etag": "string"}
_COLUMNS |= {"modified": "float64", "permissions": "int32"}
_LATER = ("key_bytes", "modified", "permissions")  # columns that parts of earlier versions lack
_GROUP_ROWS = 8192

_Row = tuple[str, str, str, bytes | None, int, str, float | None, int | None]


def write_parts(store: Store, shards: Iterable[SourceShard], *, first: int = 0) -> tuple[PlanPart, ...]:
    """Write source shards, numbered from ``first`` on, as parts of a plan; holds one row group.

    Raises StoreError, and what ``shards`` raises.
    """
    parts = []
    left = _numbered(shards, first)
    with spool() as directory:
        while (shard := next(left, None)) is not None:
            path = directory / "part.parquet"
            shard_count, object_count = _fill(path, chain((shard,), left))
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            part = PlanPart(sha256=digest, shards=shard_count, objects=object_count)
            _put(store, part, path)
            path.unlink()
            parts.append(part)
    return tuple(parts)


def read_parts(store: Store, parts: Iterable[PlanPart], *, first: int = 0) -> Iterator[SourceShard]:
    """Yield the source shards of a plan in order, numbered from ``first`` on, with memory for one part's bytes.

    Raises DamagedObject for a part that is missing or is not what the plan says, ChecksumMismatch, StoreError.
    """
    number = first
    for part in parts:
        end = number + part.shards
        for shard in _read(store, part):
            if not shard.id.startswith(f"{number:09d}-"):
                raise DamagedObject(_uri(store, part), f"shard {shard.id} stands where number {number} belongs")
            number += 1
            yield shard
        if number != end:
            raise DamagedObject(_uri(store, part), f"{number - end + part.shards} shards are in it, {part.shards} in the plan")


def _numbered(shards: Iterable[SourceShard], first: int) -> Iterator[SourceShard]:
    for number, shard in enumerate(shards, first):
        if not shard.id.startswith(f"{number:09d}-"):
            raise ValueError(f"shard {shard.id} stands where number {number} belongs")
        yield shard


def _fill(path: Path, shards: Iterator[SourceShard]) -> tuple[int, int]:
    """Write shards to a part's file up to its limits; return how many, and of how many objects."""
    count = objects = size = 0
    rows: list[_Row] = []
    with RowWriter(path, _COLUMNS, {}) as writer:
        for shard in shards:
            rows += [
                (shard.id, shard.kind.value, *_stored_key(each.key), each.size, each.etag, each.modified, each.permissions)
                for each in shard.objects
            ]
            size += sum(len(each.key) + len(each.etag) for each in shard.objects)
            count, objects = count + 1, objects + len(shard.objects)
            ended = count >= PART_SHARDS or size >= PART_BYTES
            if ended or len(rows) >= _GROUP_ROWS:
                _append(writer, rows)
            if ended:
                break
        _append(writer, rows)
    return count, objects


def _stored_key(key: str) -> tuple[str, bytes | None]:
    """Return a key as text, and its own bytes where they are no UTF-8: the text is then only what it is shown as."""
    try:
        key.encode()
    except UnicodeEncodeError:  # a name of a local file, with bytes as Python escapes them
        return safe_key(key)[0], key.encode(errors="surrogateescape")
    return key, None


def _append(writer: RowWriter, rows: list[_Row]) -> None:
    if rows:
        writer.append_group(dict(zip(_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
        rows.clear()


def _put(store: Store, part: PlanPart, path: Path) -> None:
    """Create a part's object; one that is there has its name by the same bytes, unless it was damaged since."""
    try:
        store.create(_key(part), path)
    except AlreadyExists:
        if hashlib.sha256(store.read(_key(part))).hexdigest() != part.sha256:
            store.replace(_key(part), path.read_bytes())


def _read(store: Store, part: PlanPart) -> Iterator[SourceShard]:
    uri = _uri(store, part)
    try:
        data = store.read(_key(part))
    except NotFound as error:
        if error.uri != uri:
            raise
        raise DamagedObject(uri, "the plan names it, and it is missing") from None
    found = hashlib.sha256(data).hexdigest()
    if found != part.sha256:
        raise ChecksumMismatch(uri, "SHA-256", part.sha256, found)
    try:
        every = _rows(RowReader(io.BytesIO(data), uri, sealed=True))
        for shard_id, group in groupby(every, key=itemgetter(0)):
            members = list(group)
            kind = ShardKind(members[0][1])
            objects = tuple(map(_object, members))
            name = shard_id if kind is ShardKind.FILES else objects[0].key
            yield SourceShard(id=shard_id, name=name, kind=kind, objects=objects)
    except (DamagedShard, ValueError) as error:
        raise DamagedObject(uri, error.detail if isinstance(error, DamagedShard) else str(error)) from None


def _object(row: _Row) -> ObjectInfo:
    _, _, key, own, size, etag, modified, permissions = row
    key = key if own is None else own.decode(errors="surrogateescape")
    return ObjectInfo(key=key, size=size, etag=etag, modified=modified, permissions=permissions)


def _rows(reader: RowReader) -> Iterator[_Row]:
    """Yield the rows of a part, with None in columns that it lacks; holds one row group."""
    columns = [name for name in _COLUMNS if name in reader.columns or name not in _LATER]
    for lists in reader.column_lists(columns):
        found = dict(zip(columns, lists, strict=True))
        yield from zip(*(found.get(name) or [None] * len(lists[0]) for name in _COLUMNS), strict=True)


def _key(part: PlanPart) -> str:
    return f"{PREFIX}{part.sha256}.parquet"


def _uri(store: Store, part: PlanPart) -> str:
    return f"{store.uri}/{_key(part)}"
