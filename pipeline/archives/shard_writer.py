"""The writing of one shard: entries in order, and at the end its object, or the one that an earlier attempt left."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.archives import commits
from pipeline.archives.entries import COLUMNS, to_row
from pipeline.core.errors import AlreadyExists, DamagedObject, DamagedShard
from pipeline.core.records import Commit, Entry, ShardReport
from pipeline.stores.base import local_errors
from pipeline.stores.store import Store
from pipeline.tables.reader import RowReader
from pipeline.tables.writer import RowWriter

HASH_CHUNK = 2**20
"""Bytes of an object that are read at a time where all of it is."""


class ShardWriter:
    """Takes the entries of one source shard in order; memory is one row group, the rest is on the local disk.

    ``metadata`` is what the footer holds; ``iarn.plan`` is the digest of the plan. Used as a context manager it removes its
    file, whatever happens.
    """

    def __init__(self, store: Store, shard_id: str, directory: Path, metadata: Mapping[str, str]) -> None:
        self._store, self._shard_id, self._directory = store, shard_id, directory
        self._plan = metadata["iarn.plan"]
        self._path = directory / f"{shard_id}.parquet"
        self._rows = RowWriter(self._path, COLUMNS, metadata)
        self._count = 0
        self._begun = time.time()

    def append(self, entry: Entry) -> None:
        """Add an entry; raises StoreUnavailable where the local disk is full."""
        self._rows.append(to_row(entry))
        self._count += 1

    def finish(self, report: ShardReport) -> Commit:
        """Write the shard object, and return the commit that is now due; its ``report.bytes_out`` is the object's size.

        An object that is there already, left by an attempt that died before its commit or just written by another worker, is
        adopted: the commit describes it. Raises AlreadyExists where it is none of this plan, DamagedObject where it is broken.
        """
        if report.entries != self._count:
            raise ValueError(f"the report is about {report.entries} entries, {self._count} were written")
        self._rows.add_metadata({"iarn.report": commits.encode_report(report)})
        self._rows.close()
        size = self._path.stat().st_size
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            self._store.create(shard_key(self._shard_id), self._path)
        except AlreadyExists:
            return self._adopt()
        finally:
            self._path.unlink()
        report = replace(report, bytes_out=size)
        return Commit(
            shard_id=self._shard_id,
            plan=self._plan,
            sha256=digest,
            byte_size=size,
            report=report,
            begun=round(self._begun, 3),
            ended=round(time.time(), 3),
        )

    def _adopt(self) -> Commit:
        """Return the commit of a shard object that is there without one: whole, and of this plan."""
        key = shard_key(self._shard_id)
        uri, path = f"{self._store.uri}/{key}", self._directory / "standing.parquet"
        digest, size = hashlib.sha256(), 0
        try:
            # What the store raises is no OSError any more, so what is one here is the local file's.
            with local_errors(str(path)), self._store.open(key) as file, path.open("wb") as copy:
                while chunk := file.read(HASH_CHUNK):
                    digest.update(chunk)
                    size += copy.write(chunk)
            with path.open("rb") as file, damage_of(uri):
                reader = RowReader(file, uri, sealed=True)
                if reader.metadata.get("iarn.plan") != self._plan or reader.metadata.get("iarn.shard") != self._shard_id:
                    raise AlreadyExists(uri)
                report = commits.decode_report(json.loads(reader.metadata["iarn.report"]))
                rows = sum(1 for _ in reader.rows())  # reads every page, whose check sums are tested on the way
                if rows != report.entries:
                    raise DamagedShard(uri, f"{rows} entries are there, {report.entries} were written")
        except (DamagedObject, KeyError, TypeError, ValueError) as error:
            detail = error.detail if isinstance(error, DamagedObject) else f"its report cannot be read: {error}"
            raise DamagedObject(uri, f"{detail}; it is not committed: remove it and repeat the command") from None
        finally:
            path.unlink(missing_ok=True)
        report = replace(report, bytes_out=size)
        return Commit(shard_id=self._shard_id, plan=self._plan, sha256=digest.hexdigest(), byte_size=size, report=report)

    def discard(self) -> None:
        """Give up: remove the local file."""
        self._rows.discard()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


def shard_key(shard_id: str) -> str:
    """Return the key of a shard's object."""
    return f"shards/{shard_id}.parquet"


@contextmanager
def damage_of(uri: str) -> Iterator[None]:
    """Say of a shard of an archive what is true of one: it was written here, and can be written again."""
    try:
        yield
    except DamagedShard as error:
        raise DamagedObject(uri, error.detail) from None
