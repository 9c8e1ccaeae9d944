"""What there is to rescale under a URI: the listing grouped into source shards, which is what a plan is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from pipeline.assets.names import has_image_name, is_hidden, split_stem
from pipeline.core.errors import EmptySource, InvalidOption, NotFound
from pipeline.core.records import ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import Store, open_store, split_uri

GROUP_COUNT = 256
"""Images of one shard of loose files: some minutes of work, so that little is repeated after a crash."""

GROUP_BYTES = 256 * 2**20
"""Bytes of one shard of loose files, sidecars included."""

_TAR = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_PARQUET = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
_PLAN_PART = re.compile(r"(.*/)?plan/[0-9a-f]{64}\.parquet")
_HINT_LENGTH = 40
_MOST_SHARDS = 10**9


class Source:
    """What there is in a store: its source shards in order of their ids, made from the listing as they are asked for."""

    def __init__(self, store: Store, shards: Iterator[SourceShard], grouping: _Grouping | None = None) -> None:
        first = next(shards, None)
        if first is None:
            raise EmptySource(store.uri)
        self.store = store
        self.shards = chain((first,), shards)
        """To be gone through once: nothing of them is held. Raises InvalidOption beyond a billion, StoreError."""
        self._grouping = grouping

    @property
    def ignored(self) -> int:
        """How many objects are no part of any shard, hidden ones included, as far as the listing has been read."""
        return 0 if self._grouping is None else self._grouping.ignored


def find_source(uri: str, *, group_count: int = GROUP_COUNT, group_bytes: int = GROUP_BYTES) -> Source:
    """Find the source shards of a folder or prefix, or of one image, tar or Parquet file.

    The store of a single file is the folder it is in. Raises EmptySource where there is nothing to rescale, InvalidOption for
    an archive, NotFound and the other StoreErrors.
    """
    try:
        parent, key = split_uri(uri)
    except InvalidOption:  # a bucket, the root folder; what makes no sense at all is refused below
        return find_shards(open_store(uri), group_count=group_count, group_bytes=group_bytes)
    try:
        if uri.endswith("/"):
            raise NotFound(uri)
        store = open_store(parent)
        info = store.stat(key)
    except NotFound:
        return find_shards(open_store(uri), group_count=group_count, group_bytes=group_bytes)
    kind = _kind(key)
    if kind is None:
        raise EmptySource(uri)
    return Source(store, iter((_shard(0, kind, (info,)),)))


def find_shards(store: Store, *, group_count: int = GROUP_COUNT, group_bytes: int = GROUP_BYTES) -> Source:
    """Group everything in ``store`` into source shards; the same listing gives the same shards.

    Every tar and every Parquet file is a shard. Loose images are grouped in key order up to ``group_count`` images or
    ``group_bytes``; images of one stem (WebDataset's: the name up to the first dot of its base name) stay together with the
    other files of that stem, their sidecars, unless there are more than ``group_count`` of them. Other files, hidden ones, and
    archives of this program below ``store`` are ignored and counted. Ids are a running number of nine digits, by the key that
    completed the shard, and a part of its name: they sort as the shards do up to a billion, which is the limit. Raises
    EmptySource, InvalidOption where ``store`` itself is an archive, StoreError.
    """
    if store.exists("plan.json") and any(
        next(iter(store.list(part)), None) for part in ("commits/", "plan/", "shards/", "model/")
    ):
        advice = "this is an archive, not a source; `iarn restore` brings its pictures back, and those can be rescaled."
        raise InvalidOption("source", store.uri, advice)
    grouping = _Grouping(group_count, group_bytes)
    return Source(store, grouping.shards(store.list()), grouping)


def _kind(key: str) -> ShardKind | None:
    if _TAR.search(key):
        return ShardKind.TAR
    if _PARQUET.search(key):
        return ShardKind.PARQUET
    return ShardKind.FILES if has_image_name(key) else None


def _shard(index: int, kind: ShardKind, objects: tuple[ObjectInfo, ...]) -> SourceShard:
    """Return a shard whose id is safe as a file name: at most 50 characters of ``A-Za-z0-9._-``."""
    first = objects[0].key
    folder, _, base = first.rpartition("/")
    if kind is ShardKind.FILES:
        hint = folder.rpartition("/")[2] if len(objects) > 1 and folder else split_stem(base)[0]
    else:
        hint = (_TAR if kind is ShardKind.TAR else _PARQUET).sub("", base)
    hint = re.sub(r"[^A-Za-z0-9._-]+", "-", hint)[:_HINT_LENGTH].strip(".-") or kind.value
    if index >= _MOST_SHARDS:
        raise InvalidOption("source", first, f"it is in shard {index + 1}; plan parts of the source by themselves.")
    shard_id = f"{index:09d}-{hint}"
    return SourceShard(id=shard_id, name=shard_id if kind is ShardKind.FILES else first, kind=kind, objects=objects)


@dataclass
class _Stem:
    """Loose files of one stem, while keys that begin with it may still come."""

    name: str
    objects: list[ObjectInfo] = field(default_factory=list)
    images: int = 0

    def add(self, info: ObjectInfo) -> None:
        self.objects.append(info)
        self.images += has_image_name(info.key)


class _Grouping:
    """Turns a sorted listing into shards, holding one group and, of each folder on the way down, one stem.

    Files of one stem are not adjacent in a listing where a folder's name begins like them (``a.jpg`` and ``a.d/x.jpg`` and
    ``a.txt``): a stem stays open for as long as keys begin with it and a dot.
    """

    def __init__(self, group_count: int, group_bytes: int) -> None:
        self.ignored = 0
        self._group_count, self._group_bytes = group_count, group_bytes
        self._index = 0
        self._open: list[_Stem] = []
        self._group: list[ObjectInfo] = []
        self._images = 0
        self._bytes = 0

    def shards(self, listing: Iterable[ObjectInfo]) -> Iterator[SourceShard]:
        for info in self._sources(listing):
            while self._open and not info.key.startswith(f"{self._open[-1].name}."):
                yield from self._close()
            kind = _kind(info.key)
            if kind in (ShardKind.TAR, ShardKind.PARQUET):
                yield self._next(kind, (info,))
                continue
            stem, suffix = split_stem(info.key)
            if not suffix:
                self.ignored += 1
                continue
            if self._open and self._open[-1].name == stem and kind and self._open[-1].images >= self._group_count:
                yield from self._close()  # frames of a film, say: no shard may grow without end
            if not self._open or self._open[-1].name != stem:
                self._open.append(_Stem(stem))
            self._open[-1].add(info)
        while self._open:
            yield from self._close()
        yield from self._flush()

    def _sources(self, listing: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        """Yield what may be a source: nothing hidden, and no shard of an archive that lies among the sources."""
        archive = None
        for info in listing:
            part = _PLAN_PART.fullmatch(info.key)
            if part:  # in an archive these come before its other Parquet files; a plan that died has nothing else
                archive = f"{part[1] or ''}shards/"
            if part or is_hidden(info.key) or (archive is not None and info.key.startswith(archive)):
                self.ignored += 1
            else:
                yield info

    def _close(self) -> Iterator[SourceShard]:
        stem = self._open.pop()
        if not stem.images:
            self.ignored += len(stem.objects)
            return
        size = sum(info.size for info in stem.objects)
        if self._group and (self._images + stem.images > self._group_count or self._bytes + size > self._group_bytes):
            yield from self._flush()
        self._group += stem.objects
        self._images += stem.images
        self._bytes += size
        if self._images >= self._group_count or self._bytes >= self._group_bytes:
            yield from self._flush()

    def _flush(self) -> Iterator[SourceShard]:
        if self._group:
            yield self._next(ShardKind.FILES, tuple(sorted(self._group, key=lambda info: info.key)))
        self._group, self._images, self._bytes = [], 0, 0

    def _next(self, kind: ShardKind, objects: tuple[ObjectInfo, ...]) -> SourceShard:
        self._index += 1
        return _shard(self._index - 1, kind, objects)
