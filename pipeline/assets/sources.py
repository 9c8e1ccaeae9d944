"""What there is to rescale under a URI: the listing grouped into source shards, which is what a plan is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice

from pipeline.assets.folders import loose_samples
from pipeline.assets.names import has_image_name, is_hidden, is_of_another_kind, split_stem
from pipeline.assets.samples import SNIFFED, begins_image
from pipeline.assets.takeout import end_of
from pipeline.core.errors import EmptySource, InvalidOption, NotFound, ShardError, SourceChanged
from pipeline.core.records import ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import LocalStore, Store, open_store, split_uri

GROUP_COUNT = 256
"""Images of one shard of loose files: some minutes of work, so that little is repeated after a crash."""

GROUP_BYTES = 256 * 2**20
"""Bytes of one shard of loose files, sidecars included."""

LOOKING_THREADS = 16
"""Objects of a remote store that are looked into at a time."""

LOOKING_AHEAD = 1000
"""Objects listed before those among them are looked into that have to be: a page of a listing."""

HIDDEN = "it is hidden: its name or a folder's begins with a dot"
IN_ARCHIVE = "it belongs to an archive of this program"
NO_IMAGE = "it is no image that is read, and beside none"
NOT_LOOKED_INTO = "its name tells of no image; --sniff looks at its first bytes"

_TAR = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_PARQUET = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
_PLAN_PART = re.compile(r"(.*/)?plan/[0-9a-f]{64}\.parquet")
_HINT_LENGTH = 40
_MOST_SHARDS = 10**9

LeaveOut = Callable[[ObjectInfo, str], None]
"""Told each object that is no part of a plan, and why."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a listing is taken for.

    ``sniff`` looks at the first bytes of files whose names do not tell whether they are images; None: in local folders alone.
    ``tables`` looks into Parquet files: one without images, as img2dataset writes them beside its tars, is no source then;
    ``image_column`` names the column of the others. ``all_files`` takes files that are no images as well. Groups of loose files
    close at ``group_count`` or ``group_bytes``.
    """

    sniff: bool | None = None
    tables: bool = True
    image_column: str | None = None
    all_files: bool = False
    group_count: int = GROUP_COUNT
    group_bytes: int = GROUP_BYTES
    left_out: LeaveOut = lambda _info, _why: None


class Source:
    """What there is in a store: its source shards in order of their ids, made from the listing as they are asked for."""

    def __init__(self, store: Store, shards: Iterator[SourceShard], grouping: _Grouping | None = None) -> None:
        first = next(shards, None)
        if first is None:
            raise EmptySource(store.uri) if grouping is None else EmptySource(store.uri, grouping.ignored, grouping.table)
        self.store = store
        self.shards = chain((first,), shards)
        """To be gone through once: nothing of them is held. Raises InvalidOption beyond a billion, StoreError."""
        self._grouping = grouping

    @property
    def ignored(self) -> int:
        """How many objects are no part of any shard, hidden ones included, as far as the listing has been read."""
        return 0 if self._grouping is None else self._grouping.ignored


def find_source(uri: str, listing: Listing | None = None) -> Source:
    """Find the source shards of a folder or prefix, or of one image, tar or Parquet file.

    The store of a single file is the folder it is in. Where an object is called like a prefix of others, those are the source.
    Raises EmptySource where there is nothing to rescale, InvalidOption for an archive, NotFound and the other StoreErrors.
    """
    listing = listing or Listing()
    try:
        parent, key = split_uri(uri)
    except InvalidOption:  # a bucket, the root folder; what makes no sense at all is refused below
        return find_shards(open_store(uri), listing)
    try:
        if uri.endswith("/"):
            raise NotFound(uri)
        store = open_store(parent)
        info = store.stat(key)
    except NotFound:
        return find_shards(open_store(uri), listing)
    if next(iter(store.list(f"{key}/")), None) is not None:
        return find_shards(open_store(uri), listing)
    kind, why = _Kinds(store, listing)(info)
    if kind is None and not listing.all_files:
        raise EmptySource(uri, why=why if _PARQUET.search(key) else "")
    return Source(store, iter((_shard(0, kind or ShardKind.FILES, (info,)),)))


def find_shards(store: Store, listing: Listing | None = None) -> Source:
    """Group everything in ``store`` into source shards; the same listing gives the same shards.

    Every tar and every Parquet file is a shard. Loose images are grouped in key order; images of one stem (WebDataset's: the
    name up to the first dot of its base name) stay together with the other files of that stem, their sidecars, unless there
    are more of them than a group may have, and so do those that Google Takeout may have cut to one name. Other files, hidden
    ones, and archives of this program below ``store`` are left out and counted. Ids are a running number of nine digits, by
    the key that completed the shard, and a part of its name: they sort as the shards do up to a billion, which is the limit.
    Raises EmptySource, InvalidOption where ``store`` itself is an archive, StoreError.
    """
    if store.exists("plan.json") and any(
        next(iter(store.list(part)), None) for part in ("commits/", "plan/", "shards/", "model/")
    ):
        advice = "this is an archive, not a source; `iarn restore` brings its pictures back, and those can be rescaled."
        raise InvalidOption("source", store.uri, advice)
    grouping = _Grouping(listing or Listing(), _Kinds(store, listing or Listing()))
    return Source(store, grouping.shards(store.list()), grouping)


class _Kinds:
    """What the objects of a listing are: FILES for an image, None for what is no source."""

    def __init__(self, store: Store, listing: Listing) -> None:
        self._store, self._listing = store, listing
        self._local = isinstance(store, LocalStore)
        self._sniffs = self._local if listing.sniff is None else listing.sniff

    def over(self, infos: Iterable[ObjectInfo]) -> Iterator[tuple[ObjectInfo, ShardKind | None, str]]:
        """Yield each object with its kind, and why it is of none, in order; remote ones are looked into several at once."""
        if self._local:
            yield from ((info, *self(info)) for info in infos)
            return
        source = iter(infos)
        with ThreadPoolExecutor(LOOKING_THREADS) as threads:
            while page := list(islice(source, LOOKING_AHEAD)):
                asked = [info for info in page if self._is_looked_into(info.key)]
                told = dict(zip(asked, threads.map(self, asked), strict=True)) if asked else {}
                yield from ((info, *(told.get(info) or self(info))) for info in page)

    def __call__(self, info: ObjectInfo) -> tuple[ShardKind | None, str]:
        """Return the kind of an object; None, and why, for what is no source by itself."""
        key = info.key
        if _TAR.search(key):
            return ShardKind.TAR, ""
        if _PARQUET.search(key):
            why = self._why_no_images(info) if self._listing.tables else None
            return (ShardKind.PARQUET, "") if why is None else (None, why)
        if has_image_name(key):
            return ShardKind.FILES, ""
        if is_of_another_kind(key):
            return None, NO_IMAGE
        if not self._sniffs:
            return None, NOT_LOOKED_INTO
        return (ShardKind.FILES, "") if self._begins_image(info) else (None, NO_IMAGE)

    def _is_looked_into(self, key: str) -> bool:
        if _PARQUET.search(key):
            return self._listing.tables
        return self._sniffs and not (has_image_name(key) or is_of_another_kind(key) or _TAR.search(key))

    def _why_no_images(self, info: ObjectInfo) -> str | None:
        from pipeline.assets.rows import why_no_images  # training reads tars where pyarrow is not installed

        try:
            return why_no_images(self._store, info, self._listing.image_column)
        except (ShardError, NotFound, SourceChanged):  # what reads the shard tells it
            return None

    def _begins_image(self, info: ObjectInfo) -> bool:
        return info.size > 0 and begins_image(self._store.read(info.key, 0, SNIFFED, etag=info.etag))


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
class _Unit:
    """Loose files that may belong together: those of one stem, or of several that Takeout may have cut or numbered.

    No key from ``end`` on belongs to it. It takes further stems of its ``folder``, where that is not None.
    """

    end: str
    folder: str | None
    stems: set[str] = field(default_factory=set)
    objects: list[ObjectInfo] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    whys: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def takes(self, stem: str) -> bool:
        """Whether a file of this stem goes here."""
        return stem in self.stems or (self.folder is not None and self.folder == stem[: stem.rfind("/") + 1])

    def add(self, stem: str, info: ObjectInfo, why: str) -> None:
        """Take an object: an image, or what is none and ``why``."""
        self.stems.add(stem)
        self.objects.append(info)
        self.size += info.size
        if why:
            self.whys[info.key] = why
        else:
            self.images.add(info.key)


class _Grouping:
    """Turns a sorted listing into shards, holding one group and, of each folder on the way down, one unit.

    Files of one stem are not adjacent in a listing where a folder's name begins like them (``a.jpg`` and ``a.d/x.jpg`` and
    ``a.txt``): a unit stays open for as long as keys come that may belong to it.
    """

    def __init__(self, listing: Listing, kinds: _Kinds) -> None:
        self.ignored = 0
        self.table = ""
        """A table that is no source, and why."""
        self._listing, self._kinds = listing, kinds
        self._index = 0
        self._open: list[_Unit] = []
        self._group: list[ObjectInfo] = []
        self._assets = 0
        self._bytes = 0

    def shards(self, listing: Iterable[ObjectInfo]) -> Iterator[SourceShard]:
        for info, kind, why in self._kinds.over(self._sources(listing)):
            while self._open and info.key >= self._open[-1].end:
                yield from self._close()
            if kind in (ShardKind.TAR, ShardKind.PARQUET):
                yield self._next(kind, (info,))
                continue
            if _PARQUET.search(info.key):
                self.table = self.table or f"{info.key}: {why}"
            stem = split_stem(info.key)[0]
            if kind and self._open and self._open[-1].takes(stem) and self._is_full(self._open[-1]):
                yield from self._close()  # frames of a film, say: no shard may grow without end
            if not self._open or not self._open[-1].takes(stem):
                end = end_of(stem)
                self._open.append(_Unit(end, None if end == f"{stem}/" else stem[: stem.rfind("/") + 1]))
            self._open[-1].add(stem, info, why)
        while self._open:
            yield from self._close()
        yield from self._flush()

    def _is_full(self, unit: _Unit) -> bool:
        listing = self._listing
        return len(unit.images) >= listing.group_count or (len(unit.stems) > 1 and unit.size >= listing.group_bytes)

    def _sources(self, listing: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        """Yield what may be a source: nothing hidden, and no shard of an archive that lies among the sources."""
        archive = None
        for info in listing:
            part = _PLAN_PART.fullmatch(info.key)
            if part:  # in an archive these come before its other Parquet files; a plan that died has nothing else
                archive = f"{part[1] or ''}shards/"
            if part or (archive is not None and info.key.startswith(archive)):
                self._leave_out(info, IN_ARCHIVE)
            elif is_hidden(info.key) and not self._listing.all_files:
                self._leave_out(info, HIDDEN)
            else:
                yield info

    def _leave_out(self, info: ObjectInfo, why: str) -> None:
        self.ignored += 1
        self._listing.left_out(info, why)

    def _close(self) -> Iterator[SourceShard]:
        unit = self._open.pop()
        objects, assets = unit.objects, len(unit.images)
        if not unit.images or len(unit.stems) > 1:
            _, others = loose_samples(objects, unit.images)
            if self._listing.all_files:
                assets += len(others)
            else:
                for info in others:
                    self._leave_out(info, unit.whys[info.key])
                apart = {info.key for info in others}
                objects = [info for info in objects if info.key not in apart]
        if not objects:
            return
        size = sum(info.size for info in objects)
        if self._group and (
            self._assets + assets > self._listing.group_count or self._bytes + size > self._listing.group_bytes
        ):
            yield from self._flush()
        self._group += objects
        self._assets += assets
        self._bytes += size
        if self._assets >= self._listing.group_count or self._bytes >= self._listing.group_bytes:
            yield from self._flush()

    def _flush(self) -> Iterator[SourceShard]:
        if self._group:
            yield self._next(ShardKind.FILES, tuple(sorted(self._group, key=lambda info: info.key)))
        self._group, self._assets, self._bytes = [], 0, 0

    def _next(self, kind: ShardKind, objects: tuple[ObjectInfo, ...]) -> SourceShard:
        self._index += 1
        return _shard(self._index - 1, kind, objects)
