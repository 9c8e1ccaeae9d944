"""Where restored assets go: loose files, WebDataset tars or Parquet, one contract for the three.

Nothing is overwritten: an output that is there already is accepted where its bytes are the same, and refused otherwise. No
name leads out of the destination, and no two assets of a shard share one.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from pipeline.assets.names import UniqueNames, digest_number, safe_key
from pipeline.assets.rows import source_row
from pipeline.core.errors import AlreadyExists, InvalidKey, NotFound
from pipeline.core.options import OutputKind
from pipeline.core.records import ShardKind, SourceShard
from pipeline.outputs.names import MemberNames
from pipeline.stores.base import UNSTAMPED, Stamp, local_errors
from pipeline.stores.store import Store, open_store
from pipeline.tables.writer import RowWriter

_SUFFIX = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz)|parquet|pq)$", re.IGNORECASE)
_LIKE_AN_ID = re.compile(r"\d{9}-")  # what loose files are written as

STATE_PREFIX = ".iarn"
"""Where a destination keeps which shards are done; hidden, so that it is no source. No asset is written there."""


def restore_state(destination: str, digest: str) -> Store:
    """Return the store that holds which shards of one restore are done."""
    return open_store(f"{destination.rstrip('/')}/{STATE_PREFIX}/{digest[:16]}", create=True)


class Output(Protocol):
    """Takes the assets of one source shard, in order."""

    place: str
    """What stands before the names of images, below the destination: a folder, or the one file that holds them."""
    name: str
    """What the image of the last asset is called there."""

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], stamp: Stamp = UNSTAMPED) -> int:
        """Take one asset under its (possibly new) name ``key`` and its sidecars; return the bytes written.

        Files, and members of a tar, get time and mode of ``stamp``, all of the asset's alike.

        ``data`` is None for a sample that never had an image. Where another asset of the shard has the name (a.jpg and a.png,
        both as PNG) it gets another, and its sidecars with it. Raises AlreadyExists where the store has another file of the
        name, InvalidKey where it cannot hold the name, both after whatever else of the asset could be written; DamagedEntry,
        and other StoreErrors at once.
        """
        ...

    def finish(self) -> int:
        """Complete the shard; return the bytes written beyond those that :meth:`add` told. Raises AlreadyExists, StoreError."""
        ...

    def close(self) -> None:
        """Let go of what was not finished."""
        ...


def named_outputs(
    shards: Iterable[SourceShard], begun: int | None = None, folders: Mapping[int, int] = MappingProxyType({})
) -> Iterator[SourceShard]:
    """Yield the shards of a plan, ``name`` now being what is written of each.

    That is its name without suffix, or in full where another has the same without, or one of the ``folders`` of loose files
    (:func:`loose_folders`), its id where that is one as well; of loose files the id. Those that were added, behind the first
    ``begun`` where that is given, leave the names of those before as they were, and have their id where an earlier one has
    their name without suffix.
    """
    if begun is None:
        yield from _named_in_order(shards, folders.keys())
        return
    taken, left = UniqueNames(), iter(shards)
    for shard in _named_in_order(islice(left, begun), {name for name, first in folders.items() if first < begun}):
        for name in {shard.name, _without_suffix(shard)}:
            taken.take(name)
        yield shard
    for shard in left:
        bare = _without_suffix(shard)
        free = taken.take(bare) and not _LIKE_AN_ID.match(bare) and digest_number(safe_key(bare)[0]) not in folders
        yield replace(shard, name=safe_key(bare)[0] if free else shard.id)


def loose_folders(shards: Iterable[SourceShard]) -> dict[int, int]:
    """Return the folders that loose files lie in, as numbers (``digest_number``), with that of the first shard of each."""
    found: dict[int, int] = {}
    for number, shard in enumerate(shards):
        last = ""
        for each in shard.objects if shard.kind is ShardKind.FILES else ():
            folder = each.key.rpartition("/")[0]
            if folder != last:
                parts = safe_key(each.key)[0].split("/")
                for name in accumulate(parts[:-1], lambda above, part: f"{above}/{part}"):
                    found.setdefault(digest_number(name), number)
            last = folder
    return found


def _without_suffix(shard: SourceShard) -> str:
    return shard.id if shard.kind is ShardKind.FILES else _SUFFIX.sub("", shard.objects[0].key)


def _named_in_order(shards: Iterable[SourceShard], folders: Collection[int]) -> Iterator[SourceShard]:
    """Name shards that come in the order of their keys: each is held only while keys that begin like its own may come."""
    held: deque[tuple[SourceShard, _Bare]] = deque()
    bares: dict[str, _Bare] = {}
    for shard in shards:
        name = _without_suffix(shard)
        reached = shard.objects[-1].key
        while held and (held[0][0].kind is ShardKind.FILES or held[0][1].is_over(reached)):
            yield _named(*held.popleft(), bares, folders)
        bare = bares.setdefault(name, _Bare(name))
        bare.shards, bare.held = bare.shards + 1, bare.held + 1
        held.append((shard, bare))
    while held:
        yield _named(*held.popleft(), bares, folders)


@dataclass
class _Bare:
    """A name without suffix: how many shards have it, and how many of them are held."""

    name: str
    shards: int = 0
    held: int = 0

    def is_over(self, key: str) -> bool:
        """Whether no name that begins like this one comes behind ``key`` in a sorted listing."""
        return key > f"{self.name}." and not key.startswith(f"{self.name}.")


def _named(shard: SourceShard, bare: _Bare, bares: dict[str, _Bare], folders: Collection[int]) -> SourceShard:
    bare.held -= 1
    if not bare.held:
        bares.pop(bare.name, None)
    if shard.kind is ShardKind.FILES:
        return replace(shard, name=shard.id)
    own = bare.shards == 1 and not _LIKE_AN_ID.match(bare.name)
    names = (safe_key(name)[0] for name in ([bare.name] if own else []) + [shard.name])
    return replace(shard, name=next((name for name in names if digest_number(name) not in folders), shard.id))


def open_output(
    kind: OutputKind,
    store: Store,
    shard: SourceShard,
    name: str,
    directory: Path,
    source_columns: tuple[bytes | None, str | None] = (None, None),
) -> Output:
    """Return the output of ``shard`` in ``store``, called ``name`` (see :func:`named_outputs`).

    ``directory`` is a local place for what is not uploaded yet; ``source_columns`` are schema and image column of a Parquet
    source. Raises StoreUnavailable where the local disk cannot be written.
    """
    if kind is OutputKind.FILES:
        folder = "" if shard.kind is ShardKind.FILES else _beside_state(f"{name}/")
        return _Files(store, folder, MemberNames(whole_names=shard.kind is ShardKind.PARQUET))
    if kind is OutputKind.TAR:
        return _Tar(
            store, _with_suffix(shard, name, ".tar"), directory / "shard.tar", MemberNames(own_stems=has_own_stems(kind, shard))
        )
    schema, image_column = source_columns
    key = _with_suffix(shard, name, ".parquet")
    if schema is not None and image_column is not None:
        return _SourceParquet(store, key, directory / "shard.parquet", schema, image_column)
    return _Parquet(store, key, directory / "shard.parquet")


def has_own_stems(kind: OutputKind, shard: SourceShard) -> bool:
    """Return whether each asset gets a stem of its own: those of a tar are told apart as they were there, others by stems."""
    return kind is OutputKind.TAR and shard.kind is not ShardKind.TAR


def _with_suffix(shard: SourceShard, name: str, suffix: str) -> str:
    """Return what an output is called: x.tar for the source x.tar also where x.parquet is another, which is x.parquet.tar."""
    own = name.endswith(suffix) and shard.kind is not ShardKind.FILES and name == safe_key(shard.objects[0].key)[0]
    return name if own else f"{name}{suffix}"


def _beside_state(key: str) -> str:
    """Return a key that is not among what a destination keeps of its restores."""
    return key if not key.startswith(f"{STATE_PREFIX}/") else f"%2E{key[1:]}"


class _Files:
    def __init__(self, store: Store, folder: str, names: MemberNames) -> None:
        self._store, self.place, self._names = store, folder, names
        self.name = ""

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], stamp: Stamp = UNSTAMPED) -> int:
        written = 0
        fault: AlreadyExists | InvalidKey | None = None
        key = key if self.place else _beside_state(key)
        members = self._names.members(key, data, sidecars)
        self.name = key if data is None else members[0][0]
        for name, content in members:
            try:
                create_or_confirm(self._store, self.place + name, content, stamp)
                written += len(content)
            except (AlreadyExists, InvalidKey) as error:
                fault = fault or error
        if fault is not None:
            raise fault
        return written

    def finish(self) -> int:
        return 0

    def close(self) -> None:
        pass


class _Tar:
    """A deterministic tar: members in order, without owners; times and modes as they are told, 1970 and 0644 where not."""

    def __init__(self, store: Store, key: str, path: Path, names: MemberNames) -> None:
        self._store, self._key, self._path, self._names = store, key, path, names
        self.place, self.name = f"{key}/", ""
        with local_errors(str(path)):
            self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by close

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], stamp: Stamp = UNSTAMPED) -> int:
        members = self._names.members(key, data, sidecars)
        self.name = key if data is None else members[0][0]
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            header.mtime = int(stamp.modified or 0)
            header.mode = header.mode if stamp.permissions is None else stamp.permissions
            with local_errors(str(self._path)):
                self._tar.addfile(header, io.BytesIO(content))
        self._tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header it has written
        return 0

    def finish(self) -> int:
        self.close()
        create_or_confirm(self._store, self._key, self._path)
        return self._path.stat().st_size

    def close(self) -> None:
        with local_errors(str(self._path)):
            self._tar.close()


class _Rows:
    """A Parquet file in the making."""

    def __init__(self, store: Store, key: str, path: Path, rows: RowWriter) -> None:
        self._store, self._key, self._path, self._rows = store, key, path, rows
        self.place, self.name = f"{key}/", ""

    def finish(self) -> int:
        self._rows.close()
        create_or_confirm(self._store, self._key, self._path)
        return self._path.stat().st_size

    def close(self) -> None:
        self._rows.discard()


class _Parquet(_Rows):
    """Columns of our own: key, image and sidecars."""

    def __init__(self, store: Store, key: str, path: Path) -> None:
        columns = {"key": "string", "image": "image", "sidecars": "sidecars"}
        super().__init__(store, key, path, RowWriter(path, columns, {}))
        self._names = UniqueNames()

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], stamp: Stamp = UNSTAMPED) -> int:  # noqa: ARG002
        name = self.name = self._names.claim(safe_key(key)[0])[0]
        self._rows.append({"key": name, "image": {"bytes": data, "path": name}, "sidecars": dict(sidecars)})
        return 0


class _SourceParquet(_Rows):
    """The columns of the Parquet file that the assets came from, its images replaced."""

    def __init__(self, store: Store, key: str, path: Path, schema: bytes, image_column: str) -> None:
        super().__init__(store, key, path, RowWriter.from_schema(path, schema))
        self._image_column = image_column

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], stamp: Stamp = UNSTAMPED) -> int:  # noqa: ARG002
        self.name = key
        self._rows.append(source_row(self._rows.columns, self._image_column, data, sidecars))
        return 0


def create_or_confirm(store: Store, key: str, data: bytes | Path, stamp: Stamp = UNSTAMPED) -> None:
    """Create an object; where it exists, accept it if its bytes are the same, and raise AlreadyExists if not."""
    try:
        store.create(key, data, stamp)
    except AlreadyExists:
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        try:
            same = store.stat(key).size == size and _digest_object(store, key) == _digest(data)
        except NotFound:  # a folder, say
            same = False
        if not same:
            raise


def _digest_object(store: Store, key: str) -> bytes:
    with store.open(key) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").digest()


def _digest(data: bytes | Path) -> bytes:
    if isinstance(data, bytes):
        return hashlib.sha256(data).digest()
    with data.open("rb") as file:
        return hashlib.file_digest(cast(Any, file), "sha256").digest()
