"""The same path back: one entry, one shard, a selection.

    stores > archives.archive > engines.restoring > engines.engine > entry_picture (latents, pictures.writing) > outputs
    an object  an entry         its LR       pixels           a picture, its file                         files, a tar, a table

Decoding runs in threads ahead of the engine, encoding behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.archives.entries import check_lr, source_bytes
from pipeline.assets.names import safe_key
from pipeline.core.errors import AlreadyExists, DamagedEntry, DamagedObject, ImageError, InvalidKey, PipelineError
from pipeline.core.options import SOURCE_FORMAT, RestoreOptions
from pipeline.core.overlap import LEAST_WEIGHT, WINDOW_PIXELS, OneThread, ahead, halved, singly, together
from pipeline.core.progress import Progress
from pipeline.core.reasons import reason_class
from pipeline.core.records import Commit, Entry, EntryKind, OriginalCoding, Pixels, ShardKind, ShardReport, Size, SourceShard
from pipeline.core.tally import Tally
from pipeline.decoders import decoding
from pipeline.engines.engine import Engine, choose_device
from pipeline.engines.lr import LrToRestore, decode_lr
from pipeline.engines.restoring import restore_lrs
from pipeline.engines.tiles import TILE_POINTS
from pipeline.entry_picture import (
    View,
    check_restored_size,
    encode_restored,
    finish_picture,
    from_lr,
    from_original,
    lr_file,
    lr_view,
    original_pixels,
    output_format,
    to_restore,
)
from pipeline.outputs.changed_names import ChangedNames
from pipeline.outputs.names import ShardNames, root_name
from pipeline.outputs.outputs import Output, has_own_stems, open_output, restore_state
from pipeline.pictures import writing
from pipeline.pictures.picture import Picture
from pipeline.pictures.region import Region
from pipeline.stores.base import Stamp
from pipeline.stores.spool import spool
from pipeline.stores.store import Access, open_store


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """An entry with its source's bytes, its LR or pixels decoded, or its picture, as is asked for; or with what is wrong.

    ``restored`` are the pixels that are kept, or what the network made of ``lr``.
    """

    entry: Entry
    source: bytes | None = None
    lr: LrToRestore | None = None
    restored: Pixels | None = None
    picture: Picture | None = None
    error: PipelineError | None = None


@dataclass(frozen=True, kw_only=True)
class _Written:
    """An entry ready to be written, in the form of an ``extension`` that its key does not tell, or None in its own.

    ``lacks`` are the words for what its file lacks of the source's; ``note`` tells what was not done as asked.
    """

    entry: Entry
    data: bytes | None
    extension: str | None = None
    error: PipelineError | None = None
    lacks: tuple[str, ...] = ()
    note: str | None = None


class RestoreWorker:
    """Restores shards of one archive with one engine; made by a :class:`pipeline.works.RestoreWork`."""

    def __init__(
        self,
        *,
        archive: str,
        destination: str,
        options: RestoreOptions,
        archive_access: Access,
        device: str,
        threads: int,
        twins: Mapping[str, tuple[str, ...]],
        halvings: int,
    ) -> None:
        self.archive = Archive.open(open_store(archive, access=archive_access))
        self.options = options
        self._view = View(
            size_for=self._size_for,
            region=None if options.region is None else Region.of(options.region),
            use_latent=options.use_latent,
        )
        self.destination = open_store(destination, create=True)
        self.digest = options.digest(self.archive.digest)
        self.state = restore_state(destination, self.digest)
        self._one = OneThread("engine")
        self.engine: Engine | None = None
        if not options.lr:
            points = halved(TILE_POINTS, halvings)
            self.engine = self._one.call(lambda: Engine(self.archive.model_bytes(), choose_device(device), tile_points=points))
        self.progress = Progress()
        self._threads, self._halvings, self._twins = halved(threads, halvings), halvings, twins

    def run(self, shard: SourceShard) -> ShardReport:
        """Restore the selected entries of one shard, named by :func:`named_outputs`, and commit that they are.

        An entry that is damaged, or whose output exists with other bytes, is a failure of its own: the others are written.
        Raises StoreError, and ArchiveError where no entry can be read.
        """
        tally, put = Tally(), 0
        with spool() as directory, ThreadPoolExecutor(self._threads) as threads, ChangedNames(directory) as changed:
            columns = self.archive.source_columns(shard.id)
            output = open_output(self.options.output, self.destination, shard, shard.name, directory, columns)
            names = ShardNames(partial(self._keys, shard), own_stems=has_own_stems(self.options.output, shard))
            with closing(output):
                for written in self._written(shard, threads, tally):
                    size = self._put(output, names, written, tally, shard.id)
                    if size is not None:
                        put, tally.bytes_out = put + 1, tally.bytes_out + size
                        changed.add(shard.id, written.entry.key, output)
                try:
                    with self.progress.stage("write"):
                        tally.bytes_out += output.finish() if put else 0
                        changed.put(self.state, shard.id)
                except (AlreadyExists, InvalidKey) as error:
                    tally.fail(shard.id, None, error)
        self.progress.wrote(tally.bytes_out)
        report = tally.report(shard.id)
        commit = Commit(shard_id=shard.id, plan=self.digest, sha256="", byte_size=report.bytes_out, report=report)
        return report if report.failures else create_commit(self.state, commit).report

    def _keys(self, shard: SourceShard) -> Iterator[str]:
        """Yield all keys of a shard; where stems do not matter the plan tells those of loose files, and their sidecars'.

        With loose files go those of other shards that a name might be another's of.
        """
        if shard.kind is ShardKind.FILES and not has_own_stems(self.options.output, shard):
            own = [safe_key(each.key)[0] for each in shard.objects]
            beside = (self._twins.get(root_name(key), ()) for key in own) if self._twins else ()
            return iter(dict.fromkeys(chain(own, *beside)))
        return self.archive.keys(shard.id, sparing=self.options.wanted is not None)

    def _put(self, output: Output, names: ShardNames, written: _Written, tally: Tally, shard_id: str) -> int | None:
        """Write one entry and count it; return the bytes written, None where it is a failure."""
        entry, error, size = written.entry, written.error, None
        stamp = Stamp(modified=entry.modified, permissions=entry.permissions)
        if error is None:
            try:
                with self.progress.stage("write"):
                    name = names.written_as(entry.key, written.extension)
                    size = output.add(name, written.data, entry.sidecars, stamp)
            except (AlreadyExists, InvalidKey, DamagedEntry) as fault:
                error = fault
        if error is not None:
            tally.fail(shard_id, entry.key, error)
        elif written.note is not None:
            tally.note(shard_id, entry.key, written.note)
        tally.lacks(written.lacks)
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

    def _size_for(self, size: Size) -> Size:
        return check_restored_size(size, self.options.size_for(size), self.archive.plan.settings.pixel_limit)

    def _as_it_was(self, entry: Entry) -> bool:
        """Whether what was kept of the source is written as it is: always for an entry that has nothing else."""
        same_form = self.options.format == SOURCE_FORMAT and not self.options.resized
        return entry.kind is EntryKind.ORIGINAL or (from_original(entry, self.options.use_latent) and same_form)

    def _open(self, entry: Entry) -> _Opened:
        try:
            if self.options.lr:
                return _Opened(entry=entry)
            if from_original(entry, self.options.use_latent):
                source = source_bytes(entry)
                pixels = original_pixels(entry) if source is None and entry.original is not None else None
                return _Opened(entry=entry, source=source, restored=pixels)
            check_lr(entry)
            lr = decode_lr(entry)
            if from_lr(entry, self._view):
                assert self.engine is not None
                return _Opened(entry=entry, picture=lr_view(entry, lr, self._view, self.engine.span))
            return _Opened(entry=entry, lr=to_restore(entry, lr, self._view))
        except PipelineError as error:
            return _Opened(entry=entry, error=error)

    def _restore(self, batch: Sequence[_Opened]) -> list[_Opened]:
        """Have the network restore the LRs of a batch."""
        lrs = [opened.lr for opened in batch if opened.lr is not None]
        if self.engine is None or not lrs:
            return list(batch)
        with self.progress.engine(), self.progress.stage("network"):
            restored = iter(restore_lrs(self.engine, lrs))
        return [opened if opened.lr is None else _restored(opened, next(restored)) for opened in batch]

    def _write(self, opened: _Opened) -> _Written:
        entry = opened.entry
        try:
            if opened.error is not None:
                raise opened.error
            if self.options.lr:
                return self._lr(entry)
            if self._as_it_was(entry) and opened.restored is None:
                return _Written(entry=entry, data=opened.source, note=self._why_as_it_was(entry))
            picture = self._picture(opened)
            asked = picture.format if self.options.format == SOURCE_FORMAT else self.options.format
            form, quality = output_format(self.options.format, picture), self.options.quality
            exactly = entry.original_coding is OriginalCoding.PIXELS and self._as_it_was(entry)
            if exactly:
                form, quality = writing.lossless_format(form), 100
            data, form = encode_restored(picture, form, quality)
            # In the source's own format it has the source's own name, even one that tells another format.
            own = form == entry.format or writing.names_format(entry.key.rpartition(".")[2], form)
            return _Written(
                entry=entry,
                data=data,
                extension=None if own else writing.extension_of(form),
                lacks=writing.lacking(picture, form),
                note=None
                if writing.same_format(asked, form)
                else f"written as {form.upper()}: {asked.upper()} {_why(asked, exactly)}",
            )
        except PipelineError as error:
            return _Written(entry=entry, data=None, error=error)

    def _why_as_it_was(self, entry: Entry) -> str | None:
        """Return why an entry is not written as it was asked for; None where it is, or is no picture anyway."""
        if entry.sha256 is None:
            return None if entry.sidecars else f"written as no file: {entry.reason}"
        wanted, extension = self.options.format, entry.key.rpartition(".")[2]
        as_asked = not self.options.resized and (wanted == SOURCE_FORMAT or writing.names_format(extension, wanted))
        plain = as_asked or reason_class(entry.reason or "") == "other-file"
        return None if plain else f"written as it is: {entry.reason}"

    def _lr(self, entry: Entry) -> _Written:
        """Return an entry's LR; the source's own bytes where there is none and no picture to make one of."""
        try:
            data, extension = lr_file(entry, self.archive.plan.settings)
        except ImageError as error:
            plain = entry.sha256 is None or reason_class(entry.reason or "") == "other-file"
            note = None if plain else f"written as it is, without an LR: {error}"
            return _Written(entry=entry, data=source_bytes(entry), note=note)
        own = entry.key.lower().endswith(f".{extension}")
        return _Written(entry=entry, data=data, extension=None if own else extension)

    def _picture(self, opened: _Opened) -> Picture:
        """Return the view of an entry that is asked for."""
        entry, view = opened.entry, self._view
        if opened.picture is not None:
            return opened.picture
        detail = entry.latent if view.use_latent else None
        if opened.lr is not None:
            assert opened.restored is not None
            return view.resized(finish_picture(entry, opened.restored, detail=detail, region=opened.lr.region))
        if opened.restored is not None:
            return view.of(finish_picture(entry, opened.restored, detail=detail))
        assert opened.source is not None
        return view.of(decoding.decode(opened.source, pixel_limit=self.archive.plan.settings.pixel_limit))


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
    """Pixels of an entry's image; none of an original, whose pixels nobody computes."""
    return (entry.width or 0) * (entry.height or 0) if entry.kind is EntryKind.RESCALED else 0


def _entry_bytes(entry: Entry) -> int:
    return sum(len(part or b"") for part in (entry.lr, entry.latent, entry.alpha, entry.original))


def _entry_weight(entry: Entry) -> int:
    """What an entry takes of a window: its pixels, or its bytes, unpacked, where those are more."""
    size = _entry_bytes(entry) + sum(map(len, entry.sidecars.values()))
    return max(
        _entry_pixels(entry) * (entry.bits or 8) // 8, size, entry.byte_size if entry.original is not None else 0, LEAST_WEIGHT
    )


def _opened_weight(opened: _Opened) -> int:
    return _entry_weight(opened.entry)
