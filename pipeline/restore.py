"""The same path back: one entry, one shard, a selection.

    stores > archives.archive > engines.lr > engines.engine > entry_picture (latents, pictures.writing) > assets.outputs
    an object  an entry         its LR       pixels           a picture, its file                         files, a tar, a table

Decoding runs in threads ahead of the engine, encoding behind it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.archives.entries import Wanted, check_lr, source_bytes
from pipeline.assets.outputs import Output, OutputKind, open_output
from pipeline.core.errors import AlreadyExists, DamagedEntry, DamagedObject, InvalidKey, InvalidOption, PipelineError
from pipeline.core.overlap import LEAST_WEIGHT, WINDOW_PIXELS, OneThread, ahead, halved, singly, together
from pipeline.core.progress import Progress
from pipeline.core.records import Commit, Entry, EntryKind, OriginalCoding, Pixels, ShardReport, Size, SourceShard
from pipeline.core.spool import spool
from pipeline.core.tally import Tally
from pipeline.engines.engine import Engine, choose_device
from pipeline.engines.lr import LrToRestore, decode_lr, restore_lrs
from pipeline.engines.tiles import TILE_POINTS
from pipeline.entry_picture import (
    FORMATS,
    SOURCE_FORMAT,
    check_restored_size,
    encode_restored,
    finish_picture,
    from_original,
    original_pixels,
    output_format,
    renamed,
    resized,
)
from pipeline.pictures import decoding, writing
from pipeline.pictures.picture import Picture
from pipeline.stores.base import Stamp
from pipeline.stores.store import Store, open_store

STATE_PREFIX = ".iarn"
"""Where a destination keeps which shards are done; hidden, so that it is no source."""


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What a restore writes; with the archive it decides every byte.

    ``scale`` divides the original size, ``max_side`` bounds it; at most one is set. ``keys`` and ``pattern`` (a glob) select
    entries, ``shards`` source shards by id; None selects all. ``lr`` writes the stored LRs instead of restored images.
    """

    output: OutputKind = OutputKind.FILES
    format: str = SOURCE_FORMAT
    quality: int = 95
    scale: float | None = None
    max_side: int | None = None
    lr: bool = False
    use_latent: bool = True
    keys: frozenset[str] | None = None
    pattern: str | None = None
    shards: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidOption("--format", self.format, f"give one of {', '.join(FORMATS)}.")
        if not 1 <= self.quality <= 100:
            raise InvalidOption("--quality", str(self.quality), "give 1 to 100.")
        if self.scale is not None and not 1e-9 <= self.scale <= 1e9:
            raise InvalidOption("--scale", str(self.scale), "give a number above 0; 2 is half the original size.")
        if self.max_side is not None and self.max_side < 1:
            raise InvalidOption("--max-side", str(self.max_side), "give a count of pixels from 1.")
        if self.scale is not None and self.max_side is not None:
            raise InvalidOption("--scale", str(self.scale), "give --scale or --max-side, not both.")

    @property
    def resized(self) -> bool:
        """Whether images come back at another size than the original."""
        return self.scale is not None or self.max_side is not None

    @property
    def wanted(self) -> Wanted | None:
        """Which entries of a shard are asked for; None for all."""
        keys, pattern = self.keys, self.pattern
        if keys is not None and pattern is not None:
            return frozenset(key for key in keys if fnmatch.fnmatchcase(key, pattern))
        return keys if keys is not None else pattern

    def size_for(self, original: Size) -> Size:
        """Return the size to write for an image of ``original`` size, (height, width) both."""
        factor = 1.0
        if self.scale is not None:
            factor = 1 / self.scale
        elif self.max_side is not None:
            factor = min(1.0, self.max_side / max(original))
        return max(1, round(original[0] * factor)), max(1, round(original[1] * factor))

    def digest(self, archive: str) -> str:
        """Return what names this restore of the archive whose plan has the digest ``archive``."""
        values = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(self).items()}
        return hashlib.sha256(json.dumps([archive, values], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RestoreWork:
    """What a worker needs to restore shards of one archive; small, picklable, free of credentials.

    ``halvings`` is how often tiles and windows are halved, where memory was too small for all of them.
    """

    archive: str
    destination: str
    options: RestoreOptions
    device: str = "auto"
    threads: int = 2
    halvings: int = 0

    def start(self) -> RestoreWorker:
        """Open the archive and load its network; raises what those raise."""
        return RestoreWorker(self)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """An entry with its source's bytes, or with its LR or pixels decoded, as is asked for; or with what is wrong with it."""

    entry: Entry
    source: bytes | None = None
    lr: Pixels | None = None
    restored: Pixels | None = None
    error: PipelineError | None = None


@dataclass(frozen=True, kw_only=True)
class _Written:
    """An entry ready to be written under ``key``; what its file ``lacks`` of the source's, and what was not done as asked."""

    entry: Entry
    key: str
    data: bytes | None
    error: PipelineError | None = None
    lacks: tuple[str, ...] = ()
    note: str | None = None


class RestoreWorker:
    """Restores shards of one archive with one engine."""

    def __init__(self, work: RestoreWork) -> None:
        self.archive = Archive.open(open_store(work.archive))
        self.options = work.options
        self.destination = open_store(work.destination, create=True)
        self.digest = work.options.digest(self.archive.digest)
        self.state = restore_state(work.destination, self.digest)
        self._one = OneThread("engine")
        self.engine: Engine | None = None
        if not work.options.lr:
            points = halved(TILE_POINTS, work.halvings)
            self.engine = self._one.call(
                lambda: Engine(self.archive.model_bytes(), choose_device(work.device), tile_points=points)
            )
        self.progress = Progress()
        self._threads = halved(work.threads, work.halvings)
        self._halvings = work.halvings

    def run(self, shard: SourceShard) -> ShardReport:
        """Restore the selected entries of one shard, named by :func:`named_outputs`, and commit that they are.

        An entry that is damaged, or whose output exists with other bytes, is a failure of its own: the others are written.
        Raises StoreError, and ArchiveError where no entry can be read.
        """
        tally = Tally()
        put = bytes_out = 0
        with spool() as directory, ThreadPoolExecutor(self._threads) as threads:
            columns = self.archive.source_columns(shard.id)
            output = open_output(self.options.output, self.destination, shard, shard.name, directory, columns)
            with closing(output):
                sizes = (self._put(output, written, tally, shard.id) for written in self._written(shard, threads, tally))
                for size in sizes:
                    put, bytes_out = put + (size is not None), bytes_out + (size or 0)
                try:
                    with self.progress.stage("write"):
                        bytes_out += output.finish() if put else 0
                except AlreadyExists as error:
                    tally.fail(shard.id, None, error)
        self.progress.wrote(bytes_out)
        report = tally.report(shard.id, bytes_out=bytes_out)
        commit = Commit(shard_id=shard.id, plan=self.digest, sha256="", byte_size=bytes_out, report=report)
        return report if report.failures else create_commit(self.state, commit).report

    def _put(self, output: Output, written: _Written, tally: Tally, shard_id: str) -> int | None:
        """Write one entry and count it; return the bytes written, None where it is a failure."""
        entry, error, size = written.entry, written.error, None
        stamp = Stamp(modified=entry.modified, permissions=entry.permissions)
        if error is None:
            try:
                with self.progress.stage("write"):
                    size = output.add(written.key, written.data, entry.sidecars, stamp)
            except (AlreadyExists, InvalidKey, DamagedEntry) as fault:
                error = fault
        if error is not None:
            tally.fail(shard_id, entry.key, error)
        elif written.note is not None:
            tally.note(shard_id, entry.key, written.note)
        tally.lacks(written.lacks, whole=False)
        stored = _entry_bytes(entry)
        tally.add(original=entry.kind is EntryKind.ORIGINAL, pixels=_entry_pixels(entry), bytes_in=stored)
        self.progress.add(pixels=_entry_pixels(entry), bytes_in=stored)
        return size

    def _written(self, shard: SourceShard, threads: Executor, tally: Tally) -> Iterator[_Written]:
        def lost(key: str | None, error: DamagedObject) -> None:
            tally.fail(shard.id, key, error)

        progress, window = self.progress, halved(WINDOW_PIXELS, self._halvings)
        entries = progress.each("read", self.archive.entries(shard.id, self.options.wanted, lost=lost))
        decode, encode = progress.timed("decode", self._open), progress.timed("encode", self._write)
        opened = ahead(threads, decode, entries, limit=window, weigh=_entry_weight, queue=progress.queue("decode"))
        limit = halved(self.engine.batch_pixels, self._halvings) if self.engine else 0
        restored = singly(self._one.over(self._restore, together(opened, limit=limit, weigh=_opened_weight)))
        return ahead(threads, encode, restored, limit=window, weigh=_opened_weight, queue=progress.queue("encode"))

    def _as_it_was(self, entry: Entry) -> bool:
        """Whether what was kept of the source is written as it is: always for an entry that has nothing else."""
        same_form = self.options.format == SOURCE_FORMAT and not self.options.resized
        return entry.kind is EntryKind.ORIGINAL or (from_original(entry, self.options.use_latent) and same_form)

    def _open(self, entry: Entry) -> _Opened:
        try:
            if self.options.lr and entry.lr is not None:
                check_lr(entry)
                return _Opened(entry=entry)
            if self.options.lr or from_original(entry, self.options.use_latent):
                source = source_bytes(entry)
                pixels = original_pixels(entry) if source is None and entry.original is not None else None
                return _Opened(entry=entry, source=source, restored=pixels)
            check_lr(entry)
            return _Opened(entry=entry, lr=decode_lr(entry))
        except DamagedEntry as error:
            return _Opened(entry=entry, error=error)

    def _restore(self, batch: Sequence[_Opened]) -> list[_Opened]:
        """Have the network restore the LRs of a batch."""
        to_restore = [LrToRestore(opened.entry, opened.lr) for opened in batch if opened.lr is not None]
        if self.engine is None or not to_restore:
            return list(batch)
        with self.progress.engine(), self.progress.stage("network"):
            restored = iter(restore_lrs(self.engine, to_restore))
        return [opened if opened.lr is None else _restored(opened, next(restored)) for opened in batch]

    def _write(self, opened: _Opened) -> _Written:
        entry = opened.entry
        try:
            if opened.error is not None:
                raise opened.error
            if self.options.lr and entry.lr is not None:
                assert entry.lr_path is not None
                return _Written(entry=entry, key=entry.lr_path, data=entry.lr)
            if self.options.lr or (self._as_it_was(entry) and opened.restored is None):
                return _Written(entry=entry, key=entry.key, data=opened.source)
            picture = self._picture(opened)
            asked = picture.format if self.options.format == SOURCE_FORMAT else self.options.format
            form, quality = output_format(self.options.format, picture), self.options.quality
            exactly = entry.original_coding is OriginalCoding.PIXELS and self._as_it_was(entry)
            if exactly:
                form, quality = writing.lossless_format(form), 100
            size = (picture.pixels.shape[0], picture.pixels.shape[1])
            wanted = check_restored_size(size, self.options.size_for(size), self.archive.plan.settings.pixel_limit)
            data, form = encode_restored(resized(picture, wanted), form, quality)
            # In the source's own format it has the source's own name, even one that tells another format.
            key = entry.key if form == entry.format else renamed(entry.key, form)
            note = (
                None
                if writing.same_format(asked, form)
                else f"written as {form.upper()}: {asked.upper()} {_why(asked, exactly)}"
            )
            return _Written(entry=entry, key=key, data=data, lacks=writing.lacking(picture, form), note=note)
        except PipelineError as error:
            return _Written(entry=entry, key=entry.key, data=None, error=error)

    def _picture(self, opened: _Opened) -> Picture:
        if opened.restored is not None:
            return finish_picture(opened.entry, opened.restored, use_latent=self.options.use_latent)
        assert opened.source is not None
        return decoding.decode(opened.source, pixel_limit=self.archive.plan.settings.pixel_limit)


def restore_state(destination: str, digest: str) -> Store:
    """Return the store that holds which shards of one restore are done."""
    return open_store(f"{destination.rstrip('/')}/{STATE_PREFIX}/{digest[:16]}", create=True)


def _restored(opened: _Opened, result: Pixels | DamagedEntry) -> _Opened:
    if isinstance(result, DamagedEntry):
        return _Opened(entry=opened.entry, error=result)
    return replace(opened, restored=result)


def _why(format: str, exactly: bool) -> str:
    """Return why a file could not be of a format."""
    if not writing.writable(format):
        return "is not written here"
    if exactly:
        return "would change its pixels"
    return "cannot hold its sides, transparency or metadata"


def _entry_pixels(entry: Entry) -> int:
    return (entry.width or 0) * (entry.height or 0)


def _entry_bytes(entry: Entry) -> int:
    return sum(len(part or b"") for part in (entry.lr, entry.latent, entry.alpha, entry.original))


def _entry_weight(entry: Entry) -> int:
    """What an entry takes of a window: its pixels, or its bytes, unpacked, where those are more."""
    size = _entry_bytes(entry) + sum(map(len, entry.sidecars.values()))
    return max(_entry_pixels(entry), size, entry.byte_size if entry.original is not None else 0, LEAST_WEIGHT)


def _opened_weight(opened: _Opened) -> int:
    return _entry_weight(opened.entry)
