"""An archive as Python would have it: opened by its URI, asked by key, iterated, listed, as a table.

    archive = open_archive("s3://photos/small")
    archive["cats/001.jpg"].restore(max_side=1024)

Opening reads the plan. The first question for a key reads the shards' footers (see keys.py), the first restore loads the
network; nothing reads an archive as a whole unless all of it is asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.archives.archive import Archive
from pipeline.archives.entries import COLUMNS, PARTS, Wanted, source_bytes
from pipeline.archives.errors import NothingSelected
from pipeline.core.errors import DamagedEntry, ImageError, InvalidOption, UndecodableImage
from pipeline.core.options import RestoreOptions
from pipeline.core.records import Entry, EntryKind, Pixels, Plan, Size, Stored, Tier
from pipeline.engines.engine import Engine, choose_device, compute_in_one_thread, span_of
from pipeline.engines.lr import LrToRestore
from pipeline.engines.restoring import restore_lr
from pipeline.entry_picture import OpenEntry, Span, View, check_restored_size, lr_file, restore_entry
from pipeline.pictures import lr_codec
from pipeline.pictures.picture import Picture
from pipeline.pictures.region import Region
from pipeline.reading.errors import AmbiguousKey, NoSuchEntry, NotKept, NotRead
from pipeline.reading.keys import KeyIndex
from pipeline.reading.places import FOOTER_BYTES, archive_at
from pipeline.stores.store import Access, open_store
from pipeline.tables.reader import to_pandas
from pipeline.tables.seal import Footers

_PIXEL_PARTS = ("lr", "latent", "alpha", "original")
"""What a restored picture may be made of."""


def open_archive(uri: str, *, device: str = "auto", access: str = Access.SIGNED) -> ArchiveReader:
    """Open the archive at a local folder or ``s3://bucket/prefix``; ``device`` is where restores run (cpu, cuda, cuda:N, auto).

    ``access`` is how a bucket is asked: ``signed``, ``unsigned`` where it is public, ``requester-pays``. Raises NotAnArchive,
    NotFound, UnsupportedFormat, DamagedObject, and ValueError for any other access.
    """
    return ArchiveReader(uri, device=device, access=Access(access))


class ArchiveReader:
    """A finished or growing archive, to read: it has the entries of the shards that were done when it was first asked.

    Any thread may use it; pickled, or after a fork, it opens the archive anew. A forked child computes in one thread.
    """

    def __init__(self, uri: str, *, device: str = "auto", access: Access = Access.SIGNED) -> None:
        self._device, self._access = device, access
        self._archive = archive_at(uri, access)
        self._opened = _Opened(self._archive, device)

    def __getstate__(self) -> tuple[str, str, Access]:
        return self.uri, self._device, self._access

    def __setstate__(self, state: tuple[str, str, Access]) -> None:
        self.__init__(state[0], device=state[1], access=state[2])  # type: ignore[misc]

    @property
    def uri(self) -> str:
        """Where the archive is."""
        return self._archive.store.uri

    @property
    def plan(self) -> Plan:
        """What was asked for: source, settings, model."""
        return self._archive.plan

    @property
    def digest(self) -> str:
        """The SHA-256 of the plan, in hex: what tells this archive from any other."""
        return self._archive.digest

    @property
    def engine(self) -> Engine:
        """The archive's own network on the reader's device, loaded once; raises InvalidWeights, DeviceUnavailable."""
        return self._here.engine

    def refresh(self) -> None:
        """See the shards that were done since the archive was opened, and what was added to its plan."""
        self._archive = archive_at(self.uri, self._access)
        self._opened = _Opened(self._archive, self._device)

    def __len__(self) -> int:
        """Return the number of entries, from the commits."""
        return sum(entries for _, entries, _ in self._here.counts)

    def __iter__(self) -> Iterator[EntryReader]:
        """Yield every entry, whole, in the plan's order, with memory for one row group."""
        return self.entries()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bool(self._here.index.shards_of(key))

    def __getitem__(self, key: str) -> EntryReader:
        """Return the entry of a key; raises NoSuchEntry or AmbiguousKey, which are KeyErrors."""
        return self.entry(key)

    def __repr__(self) -> str:
        return f"<archive {self.uri}, {self.plan.settings.target}, {self.plan.settings.tier}>"

    def entry(self, key: str, *, shard: str | None = None, parts: Collection[str] = PARTS) -> EntryReader:
        """Return the entry of a key, of the shard with this id where several have the key, with ``parts`` of its bytes.

        Reads the entry's row group. Raises NoSuchEntry, AmbiguousKey.
        """
        if shard is None:
            holders = self._here.index.shards_of(key)
            if not holders:
                raise NoSuchEntry(self.uri, key)
            if len(holders) > 1:
                raise AmbiguousKey(self.uri, key, tuple(holders))
            shard = holders[0]
        try:
            return EntryReader(self, shard, self._here.archive.read_entry(shard, key, parts=parts), frozenset(parts))
        except NothingSelected:
            raise NoSuchEntry(self.uri, key) from None

    def entries(self, wanted: Wanted | None = None, *, parts: Collection[str] = PARTS) -> Iterator[EntryReader]:
        """Yield entries in the plan's order: all, or those that a glob, a collection of keys or a function of a key selects.

        ``parts`` are the fields of bytes to read, all unless given: ``{"lr"}`` leaves latents and originals where they are.
        """
        for shard_id in self._here.shard_ids:
            for entry in self._here.archive.entries(shard_id, wanted, parts=parts):
                yield EntryReader(self, shard_id, entry, frozenset(parts))

    def keys(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[str]:
        """Yield keys in byte order, each once, a page at a time: those that begin with ``prefix`` and come after ``after``."""
        return self._here.index.keys(prefix, after, limit)

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """Return a pandas DataFrame of all entries: every figure, and the id of the ``shard``, unless ``columns`` are named.

        Columns of bytes (``lr``, ``latent``, …) are read only where named; all is then in memory. Needs pandas.
        """
        small = [name for name in COLUMNS if name not in PARTS]
        names = [*small, "shard"] if columns is None else list(columns)
        if unknown := set(names) - COLUMNS.keys() - {"shard"}:
            raise InvalidOption("columns", ", ".join(sorted(unknown)), f"give some of {', '.join(COLUMNS)}, shard.")
        return to_pandas(self._tables([name for name in names if name != "shard"]), names)

    def _tables(self, columns: Sequence[str]) -> Iterator[tuple[Any, dict[str, str]]]:
        for shard_id in self._here.shard_ids:
            with self._here.archive.shard_rows(shard_id) as reader:
                yield reader.table(columns or ["key"]), {"shard": shard_id}

    @property
    def shard_counts(self) -> tuple[tuple[str, int, int], ...]:
        """The id of each shard that is done, in the plan's order; its entries, and how many of them are originals."""
        return self._here.counts

    @property
    def archive(self) -> Archive:
        """The archive itself, for readers that go by shards."""
        return self._here.archive

    @property
    def _here(self) -> _Opened:
        """What is open in this process: after a fork neither locks nor connections may be shared with the parent."""
        if self._opened.process != os.getpid():
            compute_in_one_thread()
            archive = self._archive.keeping(Footers(FOOTER_BYTES), open_store(self.uri, access=self._access))
            self._opened = _Opened(archive, self._device, self._opened)
        return self._opened

    def _restore(self, entry: Entry, view: View) -> Picture:
        here = self._here

        def network(asked: LrToRestore) -> Pixels:
            engine = here.engine
            with here.turn:  # the network has one image at a time
                return restore_lr(engine, asked)

        limit = self.plan.settings.pixel_limit
        return restore_entry(OpenEntry(lambda: entry), network, view, span=here.span, pixel_limit=limit)


class _Opened:
    """What a reader has found out in one process, each thing at its first use."""

    def __init__(self, archive: Archive, device: str, before: _Opened | None = None) -> None:
        self.archive, self.process, self.turn = archive, os.getpid(), threading.Lock()
        self._device, self._once = device, threading.RLock()
        if before is not None:  # the shards seen stay those that the parent saw
            self.__dict__.update({name: value for name, value in vars(before).items() if name in ("shard_ids", "counts")})

    @cached_property
    def shard_ids(self) -> tuple[str, ...]:
        return tuple(shard.id for shard in self.archive.shards_done())

    @cached_property
    def counts(self) -> tuple[tuple[str, int, int], ...]:
        reports = {commit.shard_id: commit.report for commit in self.archive.commits()}
        return tuple((each, reports[each].entries, reports[each].originals) for each in self.shard_ids)

    @property
    def index(self) -> KeyIndex:
        with self._once:
            return self._index

    @property
    def engine(self) -> Engine:
        with self._once:
            return self._engine

    def span(self, size: Size, lr_size: Size) -> Size:
        """Return what ``engine.span`` does, without a network being loaded for it."""
        with self._once:
            return self._span(size, lr_size)

    @cached_property
    def _span(self) -> Span:
        return span_of(self.archive.model_bytes())

    @cached_property
    def _index(self) -> KeyIndex:
        return KeyIndex(self.archive, self.shard_ids)

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.archive.model_bytes(), choose_device(self._device))


@dataclass(frozen=True, repr=False)
class EntryReader:
    """One entry: its figures, and its pixels at any size. ``record`` is the row as it is stored, with the ``parts`` read."""

    _archive: ArchiveReader = field(compare=False)
    shard: str
    record: Entry
    parts: frozenset[str] = PARTS

    def __repr__(self) -> str:
        return f"<entry {self.key}, {self.tier}>"

    @property
    def key(self) -> str:
        """The asset's name in its source."""
        return self.record.key

    @property
    def kind(self) -> EntryKind:
        """``rescaled`` where there is an LR, ``original`` where the source's bytes stand alone; ``reason`` says why."""
        return self.record.kind

    @property
    def tier(self) -> Tier:
        """How much is kept beside the LR."""
        return self.record.tier

    @property
    def stored(self) -> Stored:
        """What of the large image is stored: ``nothing``, a ``latent``, the ``pixels``, or the ``file``."""
        return self.record.stored

    @property
    def reason(self) -> str | None:
        """Why the source's file was kept, or what was odd about it."""
        return self.record.reason

    @property
    def size(self) -> Size | None:
        """Height and width of the upright image in pixels; None for originals that are no picture."""
        return None if self.record.height is None or self.record.width is None else (self.record.height, self.record.width)

    @property
    def lr_size(self) -> Size | None:
        """Height and width of the stored LR in pixels; None where there is none."""
        height, width = self.record.lr_height, self.record.lr_width
        return None if height is None or width is None else (height, width)

    @property
    def psnr(self) -> float | None:
        """PSNR of the restore over RGB in dB, measured when the entry was written; None for originals and where it was not."""
        return self.record.psnr

    @property
    def ssim(self) -> float | None:
        """SSIM of the restore's luma, measured when the entry was written; None for originals and where it was not."""
        return self.record.ssim

    @property
    def lr_bytes(self) -> bytes:
        """The LR's file: as stored, or made of the source's bytes where they stand alone.

        Raises NotKept where those are no picture either, NotRead, DamagedEntry.
        """
        self._need("lr", *(("original",) if self.kind is EntryKind.ORIGINAL else ()))
        try:
            return lr_file(self.record, self._archive.plan.settings)[0]
        except ImageError as error:
            raise NotKept(self.key, "LR", f"its source's own bytes, which original() gives, {error}") from None

    def lr(self) -> Pixels:
        """Return the LR's pixels, upright: (h, w, 3) uint8, or (h, w, 4) where it has alpha; raises what ``lr_bytes`` does."""
        try:
            return _with_alpha(*lr_codec.decode_lr(self.lr_bytes, size=self.lr_size))
        except UndecodableImage as error:
            raise DamagedEntry(self.key, "LR", error.detail) from None

    def original(self) -> bytes | None:
        """Return the source's own bytes where they are kept (tier ``exact``, originals), else None; raises DamagedEntry."""
        self._need("original")
        return source_bytes(self.record)

    def picture(
        self,
        *,
        region: tuple[int, int, int, int] | None = None,
        max_side: int | None = None,
        scale: float | None = None,
        size: Size | None = None,
        latent: bool = True,
    ) -> Picture:
        """Return what :meth:`restore` does with alpha apart and the source's metadata, ready for ``writing.encode``."""
        if size is not None and (max_side is not None or scale is not None or min(size) < 1):
            raise InvalidOption("size", str(size), "give (height, width) in pixels from 1, and neither max_side nor scale.")
        options, limit = RestoreOptions(max_side=max_side, scale=scale), self._archive.plan.settings.pixel_limit
        view = View(
            size_for=lambda own: check_restored_size(own, size or options.size_for(own), limit),
            region=None if region is None else Region.of(region),
            use_latent=latent,
        )
        self._need(*_PIXEL_PARTS)
        return self._archive._restore(self.record, view)

    def restore(
        self,
        *,
        region: tuple[int, int, int, int] | None = None,
        max_side: int | None = None,
        scale: float | None = None,
        size: Size | None = None,
        latent: bool = True,
    ) -> Pixels:
        """Return the restored image, upright: (H, W, 3), or (H, W, 4) with alpha; uint8, or uint16 of a source with 16 bits.

        All of it or a ``region``, (x, y, width, height) in pixels of the upright image, at the cost of that; at the original
        size, or with its longer side at most ``max_side``, or divided by ``scale`` (2 is half of it), or at exactly ``size``,
        (height, width); without the latent where ``latent`` is false. What is smaller than the image, and no more than a tenth
        larger than the LR, is made of the LR alone. These are the pixels that `iarn restore --format png` writes; an entry kept
        as an original is decoded (that command writes its bytes). Raises InvalidOption, NotRead, SizeNotReachable,
        DamagedEntry, and ImageError for an original that cannot be decoded.
        """
        picture = self.picture(region=region, max_side=max_side, scale=scale, size=size, latent=latent)
        return _with_alpha(picture.pixels, picture.alpha)

    def _need(self, *parts: str) -> None:
        """Raise NotRead rather than take what was not read for what is not there."""
        if missing := tuple(part for part in parts if part not in self.parts):
            raise NotRead(self.key, missing)


def _with_alpha(pixels: Pixels, alpha: Pixels | None) -> Pixels:
    return pixels if alpha is None else np.dstack((pixels, alpha))
