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
from pipeline.core.errors import AccessDenied, EmptySource, InvalidKey, InvalidOption, NotFound, ShardError, SourceChanged
from pipeline.core.records import ObjectInfo, ShardKind, SourceShard
from pipeline.planning.left_out import HIDDEN, IN_ARCHIVE, LATE, NO_IMAGE, NOT_LOOKED_INTO, NOT_TO_BE_READ
from pipeline.stores.store import Access, LocalStore, Store, open_store, split_uri

GROUP_COUNT = 256
"""Images of one shard of loose files: some minutes of work, so that little is repeated after a crash."""

GROUP_BYTES = 256 * 2**20
"""Bytes of one shard of loose files, sidecars included."""

LOOKING_THREADS = 16
"""Objects of a remote store that are looked into at a time."""

LOOKING_AHEAD = 1000
"""Objects listed before those among them are looked into that have to be: a page of a listing."""

_TAR = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_PARQUET = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
_PACKED = re.compile(f"{_TAR.pattern}|{_PARQUET.pattern}", re.IGNORECASE)
_PLAN_PART = re.compile(r"(.*/)?plan/[0-9a-f]{64}\.parquet")
_HINT_LENGTH = 40
_MOST_SHARDS = 10**9

_Kind = tuple[ShardKind | None, str]
"""What an object is: FILES for an image; None, and why, for what is no source by itself."""

_IMAGE: _Kind = (ShardKind.FILES, "")
_A_TAR: _Kind = (ShardKind.TAR, "")
_NO_IMAGE: _Kind = (None, NO_IMAGE)
_PLANNED: _Kind = (None, "a plan has it")
"""Of a loose file; tars and Parquet files that a plan has are passed over."""

LeaveOut = Callable[[ObjectInfo, str], None]
"""Told each object that is no part of a plan, and why."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a listing is taken for.

    ``sniff`` looks at the first bytes of files whose names do not tell whether they are images; None: in local folders alone.
    ``tables`` looks into Parquet files: one without images, as img2dataset writes them beside its tars, is no source then;
    ``image_column`` names the column of the others. ``all_files`` takes files that are no images as well. ``access`` is how a
    bucket is asked. Groups of loose files close at ``group_count`` or ``group_bytes``.

    For what is to be added to a plan, ``planned`` is asked once of each object whether the plan has it: such an object is in no
    shard again. Shards are numbered from ``first`` on. Keys that begin with ``own``, where that is not empty, are passed over:
    the archive is among its sources. ``watch`` passes on what the store lists, to show how far it is.
    """

    sniff: bool | None = None
    tables: bool = True
    image_column: str | None = None
    all_files: bool = False
    access: Access = Access.SIGNED
    group_count: int = GROUP_COUNT
    group_bytes: int = GROUP_BYTES
    left_out: LeaveOut = lambda _info, _why: None
    planned: Callable[[ObjectInfo], bool] | None = None
    first: int = 0
    own: str = ""
    watch: Callable[[Iterable[ObjectInfo]], Iterable[ObjectInfo]] = iter


class Source:
    """What there is in a store: its source shards in order of their ids, made from the listing as they are asked for."""

    def __init__(self, store: Store, shards: Iterator[SourceShard], grouping: _Grouping | None = None) -> None:
        self.store, self.shards = store, shards
        """To be gone through once: nothing of them is held. Raises InvalidOption beyond a billion, StoreError."""
        self._grouping = grouping

    def checked(self) -> Source:
        """Return this source if there is a shard in it; raises EmptySource."""
        first = next(self.shards, None)
        if first is None:
            raise EmptySource(self.store.uri, self.ignored, "" if self._grouping is None else self._grouping.table)
        self.shards = chain((first,), self.shards)
        return self

    @property
    def ignored(self) -> int:
        """How many objects are no part of any shard, hidden ones included, as far as the listing has been read."""
        return 0 if self._grouping is None else self._grouping.ignored


def find_source(uri: str, listing: Listing | None = None) -> Source:
    """Find the source shards of a folder or prefix, or of one image, tar or Parquet file.

    The store of a single file is the folder it is in. Where an object is called like a prefix of others, those are the source.
    Raises EmptySource where there is nothing to rescale (but not where only what is new was asked for), InvalidOption for an
    archive, NotFound and the other StoreErrors.
    """
    listing = listing or Listing()
    try:
        parent, key = split_uri(uri)
    except InvalidOption:  # a bucket, the root folder; what makes no sense at all is refused below
        return find_shards(open_store(uri, access=listing.access), listing)
    try:
        if uri.endswith("/"):
            raise NotFound(uri)
        store = open_store(parent, access=listing.access)
        info = store.stat(key)
    except NotFound:
        return find_shards(open_store(uri, access=listing.access), listing)
    if next(iter(store.list(f"{key}/")), None) is not None:
        return find_shards(open_store(uri, access=listing.access), listing)
    if listing.planned is not None and listing.planned(info):
        return Source(store, iter(()))
    kind, why = _Kinds(store, listing)(info)
    if kind is None and not listing.all_files:
        raise EmptySource(uri, why=why if _PARQUET.search(key) else "")
    return Source(store, iter((_shard(listing.first, kind or ShardKind.FILES, (info,)),)))


def find_shards(store: Store, listing: Listing | None = None) -> Source:
    """Group everything in ``store`` into source shards; the same listing gives the same shards.

    Every tar and every Parquet file is a shard. Loose images are grouped in key order; images of one stem (WebDataset's: the
    name up to the first dot of its base name) stay together with the other files of that stem, their sidecars, unless there
    are more of them than a group may have, and so do those that Google Takeout may have cut to one name. Other files, hidden
    ones, and archives of this program below ``store`` are left out and counted. Ids are a running number of nine digits, by
    the key that completed the shard, and a part of its name: they sort as the shards do up to a billion, which is the limit.
    Raises EmptySource as :func:`find_source` does, InvalidOption where ``store`` itself is an archive, StoreError.
    """
    listing = listing or Listing()
    if store.exists("plan.json") and any(
        next(iter(store.list(part)), None) for part in ("commits/", "plan/", "shards/", "model/")
    ):
        advice = "this is an archive, not a source; `iarn restore` brings its pictures back, and those can be rescaled."
        raise InvalidOption("source", store.uri, advice)
    grouping = _Grouping(listing, _Kinds(store, listing))
    source = Source(store, grouping.shards(listing.watch(_objects(store, grouping))), grouping)
    return source if listing.planned is not None else source.checked()


def _objects(store: Store, grouping: _Grouping) -> Iterator[ObjectInfo]:
    """Return what a store lists; of a folder is told as well what is in it and no object."""
    if not isinstance(store, LocalStore):
        return store.list()
    return store.list(passed_over=lambda key, why: grouping.leave_out(ObjectInfo(key=key, size=0, etag=""), why))


class _Kinds:
    """Tells what the objects of a listing are, by their names, and by what is in them where those do not tell."""

    def __init__(self, store: Store, listing: Listing) -> None:
        self._store, self._listing = store, listing
        self._local = isinstance(store, LocalStore)
        self._sniffs = self._local if listing.sniff is None else listing.sniff

    def over(self, infos: Iterable[tuple[ObjectInfo, bool]]) -> Iterator[tuple[ObjectInfo, _Kind]]:
        """Yield each object, given with whether it is planned, with its kind; remote ones are looked into several at once."""
        if self._local:
            for info, planned in infos:
                yield info, _PLANNED if planned else self._by_name(info.key) or self._by_content(info)
            return
        source = iter(infos)
        with ThreadPoolExecutor(LOOKING_THREADS) as threads:
            while page := list(islice(source, LOOKING_AHEAD)):
                told = [(info, _PLANNED if planned else self._by_name(info.key)) for info, planned in page]
                asked = threads.map(self._by_content, [info for info, kind in told if kind is None])
                for info, kind in told:
                    yield info, kind or next(asked)

    def __call__(self, info: ObjectInfo) -> _Kind:
        """Return the kind of one object."""
        return self._by_name(info.key) or self._by_content(info)

    def _by_name(self, key: str) -> _Kind | None:
        """Return the kind that a name tells, None where an object has to be looked into."""
        if key.endswith(".tar"):
            return _A_TAR
        if has_image_name(key):
            return _IMAGE
        if _TAR.search(key):
            return _A_TAR
        if _PARQUET.search(key):
            return None if self._listing.tables else (ShardKind.PARQUET, "")
        if is_of_another_kind(key):
            return _NO_IMAGE
        return None if self._sniffs else (None, NOT_LOOKED_INTO)

    def _by_content(self, info: ObjectInfo) -> _Kind:
        if not _PARQUET.search(info.key):
            try:
                return _IMAGE if self._begins_image(info) else _NO_IMAGE
            except (AccessDenied, InvalidKey, NotFound, SourceChanged) as error:  # it costs itself, and is listed
                return None, f"{NOT_TO_BE_READ}: {error}"
        why = self._why_no_images(info)
        return (ShardKind.PARQUET, "") if why is None else (None, why)

    def _why_no_images(self, info: ObjectInfo) -> str | None:
        from pipeline.assets.rows import why_no_images  # training reads tars where pyarrow is not installed

        try:
            return why_no_images(self._store, info, self._listing.image_column)
        except (ShardError, NotFound, SourceChanged):  # what reads the shard tells it
            return None
        except InvalidOption as error:
            if self._listing.planned is None:
                raise
            return str(error)  # the column was named once for all, and another would be refused

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


@dataclass(slots=True)
class _Unit:
    """Loose files that may belong together: those of one stem, or of several that Takeout may have cut or numbered.

    No key from ``end`` on belongs to it. It takes further stems of its ``folder``, where that is not None.
    """

    stem: str
    end: str
    folder: str | None
    objects: list[tuple[ObjectInfo, str]] = field(default_factory=list)
    """With why each is no source by itself; nothing for an image."""
    planned: list[ObjectInfo] = field(default_factory=list)
    """Those that a plan has already, the first of them: of a film's frames not all."""
    images: int = 0
    size: int = 0
    last: str = ""
    """The stem of the image that came last, and how many images of it there are."""
    run: int = 0

    def takes(self, stem: str) -> bool:
        """Whether a file of this stem goes here."""
        return stem == self.stem or (self.folder is not None and self.folder == stem[: stem.rfind("/") + 1])

    def add(self, info: ObjectInfo, why: str, stem: str) -> None:
        """Take an object of a stem."""
        if self.folder is not None:
            self.end = max(self.end, end_of(stem))
        if why is _PLANNED[1]:
            if len(self.planned) < GROUP_COUNT:
                self.planned.append(info)
            return
        self.objects.append((info, why))
        self.size += info.size
        if not why:
            self.run = self.run + 1 if stem == self.last else 1
            self.images, self.last = self.images + 1, stem


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
        self._index = listing.first
        self._open: list[_Unit] = []
        self._group: list[ObjectInfo] = []
        self._assets = 0
        self._bytes = 0

    def shards(self, listing: Iterable[ObjectInfo]) -> Iterator[SourceShard]:
        for info, (kind, why) in self._kinds.over(self._sources(listing)):
            while self._open and info.key >= self._open[-1].end:
                if self._open[-1].objects:
                    yield from self._close()
                else:
                    self._open.pop()  # all of it is planned
            if kind is ShardKind.TAR or kind is ShardKind.PARQUET:
                yield self._next(kind, (info,))
                continue
            if why and why not in (NO_IMAGE, NOT_LOOKED_INTO, _PLANNED[1]) and _PARQUET.search(info.key):
                self.table = self.table or f"{info.key}: {why}"
            stem = split_stem(info.key)[0]
            unit = self._open[-1] if self._open else None
            if kind and unit is not None and unit.takes(stem) and self._is_full(unit, stem):
                yield from self._close()  # frames of a film, say: no shard may grow without end
                unit = self._open[-1] if self._open else None
            if unit is None or not unit.takes(stem):
                end = end_of(stem)
                unit = _Unit(stem, end, None if end == f"{stem}/" else stem[: stem.rfind("/") + 1])
                self._open.append(unit)
            unit.add(info, why, stem)
        while self._open:
            yield from self._close()
        yield from self._flush()

    def _is_full(self, unit: _Unit, stem: str) -> bool:
        """Whether an image of a stem has to go elsewhere; images of one stem stay together, so that their names do not meet."""
        listing = self._listing
        if stem == unit.last:
            return unit.run >= listing.group_count
        return unit.images >= listing.group_count or (unit.folder is not None and unit.size >= listing.group_bytes)

    def _sources(self, listing: Iterable[ObjectInfo]) -> Iterator[tuple[ObjectInfo, bool]]:
        """Yield what may be a source: nothing hidden, and no shard of an archive that lies among the sources.

        With each object goes whether a plan has it.
        """
        archive, own, is_planned = None, self._listing.own, self._listing.planned
        beside = not self._listing.all_files  # or what is beside a planned image comes by itself
        for info in listing:
            if own and info.key.startswith(own):
                continue
            if is_planned is not None and is_planned(info):
                if beside and not _PACKED.search(info.key):
                    yield info, True
                continue
            part = _PLAN_PART.fullmatch(info.key) if info.key.endswith(".parquet") else None
            if part:  # in an archive these come before its other Parquet files; a plan that died has nothing else
                archive = f"{part[1] or ''}shards/"
            if part or (archive is not None and info.key.startswith(archive)):
                self.leave_out(info, IN_ARCHIVE)
            elif is_hidden(info.key) and not self._listing.all_files:
                self.leave_out(info, HIDDEN)
            else:
                yield info, False

    def leave_out(self, info: ObjectInfo, why: str) -> None:
        """Count and tell an object that is no part of any shard."""
        self.ignored += 1
        self._listing.left_out(info, why)

    def _close(self) -> Iterator[SourceShard]:
        unit = self._open.pop()
        objects, assets, size = [info for info, _ in unit.objects], unit.images, unit.size
        if not unit.images or (unit.folder is not None and unit.images < len(objects)):
            _, others = loose_samples(objects, {info.key for info, why in unit.objects if not why})
            if self._listing.all_files:
                assets += len(others)
            else:
                apart, late = {info.key for info in others}, _beside(unit.planned, others)
                for info, why in unit.objects:
                    if info.key in apart:
                        self.leave_out(info, LATE if info.key in late else why)
                        size -= info.size
                objects = [info for info in objects if info.key not in apart]
        if not objects:
            return
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


def _beside(planned: list[ObjectInfo], others: list[ObjectInfo]) -> set[str]:
    """Return the keys of those files that belong to an image that a plan has."""
    if not planned or not others:
        return set()
    images = {info.key for info in planned if not is_of_another_kind(info.key)}
    beside_none = {info.key for info in loose_samples([*planned, *others], images)[1]}
    return {info.key for info in others} - beside_none
