"""The archive: begin one, open one, write a shard, read one entry without the rest. FORMAT.md beside this describes it.

plan/<sha256>.parquet   model/<sha256>.safetensors   FORMAT.md   plan.json   plan/additions/<number>.json
shards/<id>.parquet   commits/<group>/<id>.json
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from importlib import resources
from itertools import chain
from pathlib import Path

from pipeline.archives import commits
from pipeline.archives.additions import Addition, check_takes_additions, create_addition, delete_additions, read_additions
from pipeline.archives.entries import (
    PARTS,
    Wanted,
    candidates,
    check_entry,
    columns_of,
    from_row,
    holder_test,
    matcher,
    there,
)
from pipeline.archives.errors import ChecksumMismatch, NotAnArchive, NothingSelected
from pipeline.archives.parts import read_parts, write_parts
from pipeline.archives.plans import (
    FORMAT_VERSION,
    check_version,
    decode_plan,
    encode_plan,
    plan_differences,
    plan_digest,
    shard_differences,
)
from pipeline.archives.shard_writer import HASH_CHUNK, ShardWriter, damage_of, shard_key
from pipeline.core.errors import AlreadyExists, DamagedObject, DamagedShard, InvalidWeights, NotFound, PlanConflict
from pipeline.core.records import Commit, Entry, Plan, Settings, SourceShard
from pipeline.stores.base import BUFFER_SIZE
from pipeline.stores.store import Store
from pipeline.tables.reader import RowReader
from pipeline.tables.seal import Footers

__all__ = ["FORMAT_VERSION", "PARTS", "Archive", "ShardWriter", "check_entry", "decode_plan", "encode_plan", "plan_digest"]

PLAN_KEY = "plan.json"
FORMAT_KEY = "FORMAT.md"

_FIND_BUFFER = 64 * 1024  # a row group is some 256 KiB, and what lies between two wanted ones must not be fetched


class Archive:
    """An archive in a store. ``digest`` is the SHA-256 of plan.json; holds no shards, and pickles.

    ``plan`` is frozen: what plan.json says, and behind its parts those of the ``additions`` that there were at the opening.
    """

    def __init__(self, store: Store, plan: Plan, digest: str, additions: Sequence[Addition] = ()) -> None:
        self.store, self.digest, self.additions = store, digest, tuple(additions)
        self.plan = replace(plan, parts=(*plan.parts, *chain.from_iterable(additions)))
        self._begun = plan
        self._footers: Footers | None = None

    def keeping(self, footers: Footers, store: Store | None = None) -> Archive:
        """Return this archive for whoever asks for one entry after the other: footers of its shards are kept.

        ``store`` is another one of the same place, for a process that must not use its parent's.
        """
        kept = copy(self)
        kept.store, kept._footers = store or self.store, footers
        return kept

    @property
    def begun_shards(self) -> int:
        """How many of the plan's source shards plan.json itself has; the others were added."""
        return self._begun.shard_count

    @classmethod
    def begin(cls, store: Store, *, source: str, settings: Settings, model: bytes, shards: Iterable[SourceShard]) -> Archive:
        """Begin an archive of ``shards`` below ``source``, or take up one that was begun so; ``model`` is the weights file.

        The plan is written last of what is written here, so where there is one its parts, model and FORMAT.md are there too.
        The shards are gone through once and not held. Raises PlanConflict where the store holds another plan, UnsupportedFormat
        or DamagedObject where one that cannot be read.
        """
        digest = hashlib.sha256(model).hexdigest()
        if store.exists(PLAN_KEY):
            return cls._resume(store, Plan(source=source, settings=settings, model=digest, parts=()), shards)
        plan = Plan(source=source, settings=settings, model=digest, parts=write_parts(store, shards))
        for key, content in ((_model_key(plan), model), (FORMAT_KEY, format_text().encode())):
            _create_if_absent(store, key, content)
        data = encode_plan(plan)
        try:
            store.create(PLAN_KEY, data)
        except AlreadyExists:  # another job began it in the meantime
            return cls._resume(store, plan, read_parts(store, plan.parts))
        return cls(store, plan, plan_digest(data))

    @classmethod
    def _resume(cls, store: Store, plan: Plan, shards: Iterable[SourceShard]) -> Archive:
        """Return the archive that stands, if it was begun with this plan's settings and these shards."""
        begun = cls.open(store)
        differences = plan_differences(begun.plan, plan)
        if not differences and plan.parts != begun._begun.parts:  # or another Parquet library wrote the same shards
            differences = shard_differences(read_parts(store, begun._begun.parts), shards)
        if differences:
            raise PlanConflict(store.uri, differences)
        return begun

    @classmethod
    def open(cls, store: Store) -> Archive:
        """Open an archive; raises NotAnArchive, UnsupportedFormat, DamagedObject, and NotFound where the store is missing."""
        uri = f"{store.uri}/{PLAN_KEY}"
        try:
            data = store.read(PLAN_KEY)
        except NotFound as error:
            if error.uri != uri:  # it is the folder or the bucket that is missing
                raise
            raise NotAnArchive(store.uri) from None
        digest = plan_digest(data)
        return cls(store, decode_plan(data, uri), digest, read_additions(store, digest))

    def add(self, shards: Iterable[SourceShard]) -> Archive:
        """Add source shards, numbered on from the plan's last, to the plan; return the archive as it is then.

        Where there are none nothing is written. The object that makes them part of the plan is written last. Raises
        AlreadyExists where another addition was made since the opening: what is added has to be what that one lacks, too.
        Raises InvalidOption where the archive's version of the format takes no additions.
        """
        check_takes_additions(self.store.uri, self.store.read(PLAN_KEY))
        parts = write_parts(self.store, shards, first=self.plan.shard_count)
        if not parts:
            return self
        create_addition(self.store, self.digest, len(self.additions) + 1, parts)
        return Archive(self.store, self._begun, self.digest, (*self.additions, parts))

    def give_up(self) -> None:
        """Remove the plan, for another one; to be asked for only where no shard was written and no other job is at work."""
        delete_additions(self.store, len(self.additions))
        self.store.delete(PLAN_KEY)

    def shards(self) -> Iterator[SourceShard]:
        """Yield the plan's source shards in order, read as they are asked for; raises DamagedObject, ChecksumMismatch."""
        return read_parts(self.store, self.plan.parts)

    def added_shards(self) -> Iterator[SourceShard]:
        """Yield those of them that were added to the plan."""
        return read_parts(self.store, self.plan.parts[len(self._begun.parts) :], first=self.begun_shards)

    def done(self) -> commits.ShardSet:
        """Return which shards are done, from listings alone."""
        return commits.done(self.store, self.plan.shard_count)

    def shards_done(self) -> Iterator[SourceShard]:
        """Yield the source shards that are done, in order."""
        done = self.done()
        return (shard for shard in self.shards() if shard.id in done)

    def commits(self) -> Iterator[Commit]:
        """Yield the commits in order, each of them read; raises what :func:`read_commit` does."""
        return commits.commits(self.store, self.digest, self.plan.shard_count)

    def model_bytes(self) -> bytes:
        """Return the weights file; raises InvalidWeights where it is missing, ChecksumMismatch where it is not the plan's."""
        key = _model_key(self.plan)
        try:
            data = self.store.read(key)
        except NotFound:
            raise InvalidWeights(self._uri(key), "the archive lacks its model; copy it back from where it was made") from None
        found = hashlib.sha256(data).hexdigest()
        if found != self.plan.model:
            raise ChecksumMismatch(self._uri(key), "SHA-256", self.plan.model, found)
        return data

    def writer(
        self, shard: SourceShard, directory: Path, *, source_schema: bytes | None = None, image_column: str | None = None
    ) -> ShardWriter:
        """Return a writer of a shard's entries that spools to ``directory``; a Parquet source's schema is kept where given."""
        metadata = {"iarn.format_version": str(FORMAT_VERSION), "iarn.plan": self.digest, "iarn.shard": shard.id}
        if source_schema is not None:
            metadata["iarn.source_schema"] = base64.b64encode(source_schema).decode("ascii")
        if image_column is not None:
            metadata["iarn.image_column"] = image_column
        return ShardWriter(self.store, shard.id, directory, metadata)

    def entries(
        self,
        shard_id: str,
        wanted: Wanted | None = None,
        *,
        parts: Collection[str] = PARTS,
        lost: Callable[[str | None, DamagedObject], None] | None = None,
    ) -> Iterator[Entry]:
        """Yield the entries of a shard in order, all or those wanted, with memory for one row group.

        Fields of ``PARTS`` that are not in ``parts`` are neither read nor set. Where only some are wanted, row groups that hold
        none are not read. Where ``lost`` is given, it is told the key of each wanted entry that damage took (None where
        the keys of a row group cannot be read either), and the row groups behind still come; else the first damage is raised.
        Raises NotFound where there is no such shard, DamagedObject, ChecksumMismatch.
        """
        matches = (lambda _: True) if wanted is None else matcher(wanted)
        with self._reader(shard_id, BUFFER_SIZE if wanted is None else _FIND_BUFFER) as reader:
            columns = there(columns_of(parts), reader)
            every = ((group, None, None) for group in range(reader.num_row_groups))
            for group, low, high in every if wanted is None else candidates(reader, wanted):
                given = 0
                try:
                    if wanted is not None:
                        # Where all keys of a group are one, the footer has told it.
                        keys = [low] if low is not None and low == high else _keys(reader, group)
                        if not any(map(matches, keys)):
                            continue
                    for row in reader.rows(columns, [group]):
                        if matches(row["key"]):
                            yield from_row(row)
                        given += 1
                except DamagedShard as error:
                    if lost is None:
                        raise
                    for key in _keys_behind(reader, group, given):
                        if key is None or matches(key):
                            lost(key, DamagedObject(reader.uri, error.detail))

    def keys(self, shard_id: str, *, sparing: bool = False) -> Iterator[str]:
        """Yield the keys of a shard; a damaged row group's are left out.

        ``sparing`` fetches them by themselves, for who reads few entries; else a shard is read as a stream. Raises NotFound.
        """
        with self._reader(shard_id, _FIND_BUFFER if sparing else BUFFER_SIZE) as reader:
            for group, told in enumerate(reader.key_ranges("key")):
                if told is not None and told[0] == told[1]:  # the footer has told it
                    yield told[0]
                    continue
                with suppress(DamagedShard):
                    yield from _keys(reader, group)

    def find(self, wanted: Wanted, *, parts: Collection[str] = PARTS) -> Iterator[tuple[str, Entry]]:
        """Yield (shard id, entry) for every wanted entry of the shards that are done, in the plan's order."""
        for shard in filter(holder_test(wanted), self.shards_done()):
            for entry in self.entries(shard.id, wanted, parts=parts):
                yield shard.id, entry

    def read_entry(self, shard_id: str, key: str, *, parts: Collection[str] = PARTS) -> Entry:
        """Return one entry, having read its row group, and the footer unless it is kept; raises NothingSelected."""
        for entry in self.entries(shard_id, (key,), parts=parts):
            return entry
        raise NothingSelected(self.store.uri, f"{key} in shard {shard_id}")

    @contextmanager
    def shard_rows(self, shard_id: str, *, buffer_size: int = _FIND_BUFFER) -> Iterator[RowReader]:
        """Give a shard's rows, its footer checked, to whoever goes by row groups; raises what :meth:`entries` does."""
        with self._reader(shard_id, buffer_size) as reader:
            yield reader

    def source_columns(self, shard_id: str) -> tuple[bytes | None, str | None]:
        """Return the serialised Arrow schema of a Parquet source and its image column, None where they were not kept."""
        with self._reader(shard_id, _FIND_BUFFER) as reader:
            schema = reader.metadata.get("iarn.source_schema")
            try:
                return base64.b64decode(schema, validate=True) if schema else None, reader.metadata.get("iarn.image_column")
            except ValueError as error:
                raise DamagedShard(reader.uri, f"its source schema is no base64: {error}") from None

    def check_shard(self, shard_id: str, commit: Commit) -> None:
        """Read a shard object whole; raises ChecksumMismatch where it is not the one that was committed, NotFound."""
        key = shard_key(shard_id)
        digest = hashlib.sha256()
        with self.store.open(key) as file:
            while chunk := file.read(HASH_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != commit.sha256:
            raise ChecksumMismatch(self._uri(key), "SHA-256", commit.sha256, digest.hexdigest())

    @contextmanager
    def _reader(self, shard_id: str, buffer_size: int = BUFFER_SIZE) -> Iterator[RowReader]:
        key = shard_key(shard_id)
        with self.store.open(key, buffer_size=buffer_size) as file, damage_of(self._uri(key)):
            reader = RowReader(file, self._uri(key), sealed=True, footers=self._footers)
            self._check_footer(reader, shard_id)
            yield reader

    def _check_footer(self, reader: RowReader, shard_id: str) -> None:
        version = reader.metadata.get("iarn.format_version")
        if version is None:
            raise DamagedShard(reader.uri, "it is a Parquet file, but no shard of an archive")
        check_version(int(version) if version.isdecimal() else version, reader.uri)
        for name, expected in (("iarn.plan", self.digest), ("iarn.shard", shard_id)):
            found = reader.metadata.get(name, "")
            if found != expected:
                raise ChecksumMismatch(reader.uri, name, expected, found)

    def _uri(self, key: str) -> str:
        return f"{self.store.uri}/{key}"


def format_text() -> str:
    """Return the description of the format that is put into every archive."""
    return resources.files("pipeline.archives").joinpath(FORMAT_KEY).read_text(encoding="utf-8")


def _model_key(plan: Plan) -> str:
    return f"model/{plan.model}.safetensors"


def _keys(reader: RowReader, group: int) -> list[str]:
    return [row["key"] for row in reader.row_group(group, ["key"])]


def _keys_behind(reader: RowReader, group: int, given: int) -> list[str] | list[None]:
    """Return the keys of a damaged row group from the row ``given`` on, or None for all where they cannot be read."""
    try:
        return _keys(reader, group)[given:]
    except DamagedShard:
        return [None]


def _create_if_absent(store: Store, key: str, data: bytes) -> None:
    try:
        store.create(key, data)
    except AlreadyExists:
        return  # by an attempt that died before its plan; model_bytes checks the digest when it is read
