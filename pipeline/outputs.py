"""Where restored assets go: loose files, WebDataset tars or Parquet, one contract for the three.

Nothing is overwritten: an output that is there already is accepted where its bytes are the same, and refused otherwise.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from pipeline.errors import AlreadyExists
from pipeline.names import member_name
from pipeline.parquet import RowWriter
from pipeline.records import ShardKind, SourceShard
from pipeline.shards import source_row
from pipeline.store import Store

COMPARED_BYTES = 8 * 2**20


class OutputKind(StrEnum):
    """What a restore writes."""

    FILES = "files"
    TAR = "tar"
    PARQUET = "parquet"


class Output(Protocol):
    """Takes the assets of one source shard, in order."""

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], *, fallback: str) -> int:
        """Take one asset under its (possibly new) name ``key`` and its sidecars; return the bytes written.

        ``data`` is None for a sample that never had an image. ``fallback`` is the entry's own key, for a name that another
        asset of the shard has already (a.jpg and a.png, both as PNG). Raises AlreadyExists where the store has another file
        of the name.
        """
        ...

    def finish(self) -> int:
        """Complete the shard; return the bytes written beyond those that :meth:`add` told."""
        ...


def open_output(
    kind: OutputKind, store: Store, shard: SourceShard, directory: Path, source_schema: bytes | None, image_column: str | None
) -> Output:
    """Return the output of ``shard`` in ``store``; ``directory`` is a local place for what is not uploaded yet."""
    if kind is OutputKind.FILES:
        folder = "" if shard.kind is ShardKind.FILES else f"{_bare(shard.name)}/"
        return _Files(store, folder)
    name = shard.id if shard.kind is ShardKind.FILES else _bare(shard.name)
    if kind is OutputKind.TAR:
        return _Tar(store, f"{name}.tar", directory / "shard.tar")
    return _Parquet(store, f"{name}.parquet", directory / "shard.parquet", source_schema, image_column)


def _bare(name: str) -> str:
    """Return the name of a tar or Parquet file without its suffixes."""
    for suffix in (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".parquet"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


class _Names:
    """Names of the members that assets of one shard are written as, each given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def members(
        self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], fallback: str
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the image and its sidecars by name; a taken name becomes the fallback with the image's extension."""
        if data is not None:
            yield self._claim(key, f"{fallback}{PurePosixPath(key).suffix}"), data
        for suffix, content in sidecars.items():
            yield self._claim(member_name(key, suffix), f"{fallback}.{suffix}"), content

    def _claim(self, name: str, other: str) -> str:
        chosen = other if name in self._taken else name
        self._taken.add(chosen)
        return chosen


class _Files:
    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder, self._names = store, folder, _Names()

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], *, fallback: str) -> int:
        written = 0
        for name, content in self._names.members(key, data, sidecars, fallback):
            create_or_confirm(self._store, self._folder + name, content)
            written += len(content)
        return written

    def finish(self) -> int:
        return 0


class _Tar:
    """A deterministic tar: members in order, no times, owners or modes but 0644."""

    def __init__(self, store: Store, key: str, path: Path) -> None:
        self._store, self._key, self._path, self._names = store, key, path, _Names()
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by finish

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], *, fallback: str) -> int:
        for name, content in self._names.members(key, data, sidecars, fallback):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            self._tar.addfile(header, io.BytesIO(content))
        return 0

    def finish(self) -> int:
        self._tar.close()
        create_or_confirm(self._store, self._key, self._path)
        return self._path.stat().st_size


class _Parquet:
    """The source's own columns where it was Parquet; else key, image and sidecars."""

    def __init__(self, store: Store, key: str, path: Path, schema: bytes | None, image_column: str | None) -> None:
        self._store, self._key, self._path = store, key, path
        self._image_column = image_column
        if schema is not None and image_column is not None:
            self._rows = RowWriter.from_schema(path, schema)
        else:
            self._rows = RowWriter(path, {"key": "string", "image": "image", "sidecars": "sidecars"}, {})

    def add(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes], *, fallback: str) -> int:  # noqa: ARG002
        if self._image_column is None:
            self._rows.append({"key": key, "image": {"bytes": data, "path": key}, "sidecars": dict(sidecars)})
        else:
            self._rows.append(source_row(self._rows.columns, self._image_column, data, sidecars))
        return 0

    def finish(self) -> int:
        self._rows.close()
        create_or_confirm(self._store, self._key, self._path)
        return self._path.stat().st_size


def create_or_confirm(store: Store, key: str, data: bytes | Path) -> None:
    """Create an object; where it exists, accept it if its bytes are the same, and raise AlreadyExists if not."""
    try:
        store.create(key, data)
    except AlreadyExists:
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        if store.stat(key).size != size or _digest_object(store, key) != _digest(data):
            raise


def _digest_object(store: Store, key: str) -> bytes:
    with store.open(key) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").digest()


def _digest(data: bytes | Path) -> bytes:
    if isinstance(data, bytes):
        return hashlib.sha256(data).digest()
    with data.open("rb") as file:
        return hashlib.file_digest(cast(Any, file), "sha256").digest()
