"""Checking an archive: digests of everything, and the restore of a sample against the figures stored with it."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator
from functools import partial

from pipeline.archives.archive import Archive
from pipeline.archives.commits import read_commit
from pipeline.archives.entries import check_entry, drawn, source_bytes
from pipeline.assets import shards
from pipeline.core.errors import (
    AccessDenied,
    ArchiveError,
    CredentialsMissing,
    CredentialsRefused,
    PipelineError,
    ShardError,
    StoreError,
    StoreUnavailable,
)
from pipeline.core.overlap import halved
from pipeline.core.progress import Progress
from pipeline.core.records import (
    Asset,
    Entry,
    EntryKind,
    FloorMetric,
    OriginalCoding,
    Pixels,
    ShardReport,
    SourceShard,
    Verification,
)
from pipeline.core.tally import Tally
from pipeline.decoders import decoding
from pipeline.engines.engine import Engine, choose_device
from pipeline.engines.lr import LrToRestore, decode_lr, restore_lr
from pipeline.engines.measure import measure
from pipeline.engines.tiles import TILE_POINTS
from pipeline.entry_picture import finish_picture, original_pixels
from pipeline.stores.store import Access, open_store

NO_WORD = (StoreUnavailable, CredentialsMissing, CredentialsRefused, AccessDenied)
"""What a store says that is no word about the archive in it."""

TOLERANCE_DB = 0.1
"""A restore on another device differs by single 8-bit levels, which moves its PSNR by less than this."""

FLOOR_TOLERANCE = {FloorMetric.PSNR: 0.02, FloorMetric.PSNR_Y: 0.02, FloorMetric.SSIM: 0.0002}
"""What those levels may take from a floor that an entry reached where it was written."""

CEILING_DB = 60.0
"""Above it such levels are all the error there is, and a restore that was exact on one device is not on another."""


class VerifyWorker:
    """Checks committed shards of one archive; made by a :class:`pipeline.works.VerifyWork`."""

    def __init__(
        self,
        *,
        archive: str,
        sample: float,
        seed: int,
        archive_access: Access,
        source_access: Access,
        device: str,
        halvings: int,
    ) -> None:
        self.archive = Archive.open(open_store(archive, access=archive_access))
        self._source_access = source_access
        points = halved(TILE_POINTS, halvings)
        self.engine = Engine(self.archive.model_bytes(), choose_device(device), tile_points=points)
        self.progress = Progress()
        self._sample, self._seed = sample, seed
        self._turn = threading.Lock()

    def run(self, shard: SourceShard) -> ShardReport:
        """Check one shard: its digest, its entries' digests, and of a sample the restore, each made once.

        Sampled restores are measured against the source where it is still as it was planned, and only made where not; the
        report's ``compared`` counts the former.
        """
        commit = read_commit(self.archive.store, shard.id, self.archive.digest)
        tally, sampled = Tally(bytes_out=commit.byte_size), set[str]()
        try:
            with self.progress.stage("read"):
                self.archive.check_shard(shard.id, commit)
        except NO_WORD:
            raise  # the pool tries again, or ends the job
        except (ArchiveError, StoreError) as error:
            tally.fail(shard.id, None, error)
        try:  # what is damaged above shows here which entries it took
            for entry in self.archive.entries(shard.id, lost=partial(tally.fail, shard.id)):
                original = entry.kind is EntryKind.ORIGINAL
                pixels = 0 if original else (entry.width or 0) * (entry.height or 0)
                tally.add(original=original, pixels=pixels, bytes_in=entry.byte_size)
                self.progress.add(pixels=pixels, bytes_in=entry.byte_size)
                try:
                    check_entry(entry)
                    if fault := self._below_floor(entry):
                        tally.fail(shard.id, entry.key, fault)
                    if self._takes(entry, first=not sampled):
                        sampled.add(entry.key)
                except ArchiveError as error:
                    tally.fail(shard.id, entry.key, error)
            if tally.entries != commit.report.entries and not tally.failures:
                tally.fail(shard.id, None, f"{tally.entries} entries found, {commit.report.entries} committed")
        except NO_WORD:
            raise  # as above
        except (ArchiveError, StoreError) as error:
            if all((each.key, each.reason) != (None, str(error)) for each in tally.failures):
                tally.fail(shard.id, None, error)
        for key, fault in self._compare(shard, frozenset(sampled)):
            tally.compared += 1
            sampled.discard(key)
            if fault is not None:
                tally.fail(shard.id, key, fault)
        for entry in self.archive.entries(shard.id, sampled) if sampled else ():
            try:
                self._restored(entry)
            except ArchiveError as error:
                tally.fail(shard.id, entry.key, error)
        return tally.report(shard.id)

    def _takes(self, entry: Entry, *, first: bool) -> bool:
        """Whether the sample has this entry: drawn by its key, and the first of every shard."""
        if entry.kind is EntryKind.ORIGINAL or self._sample <= 0:
            return False
        return first or drawn(entry.key, self._sample, seed=self._seed)

    def _restored(self, entry: Entry) -> Pixels:
        """Return an entry's picture; of one whose source's bytes are there, which were compared, the LR."""
        if source_bytes(entry) is not None:
            return decode_lr(entry)[0]
        if entry.original_coding is OriginalCoding.PIXELS:
            return finish_picture(entry, original_pixels(entry), use_latent=False).pixels
        lr, _ = decode_lr(entry)
        with self._turn, self.progress.engine(), self.progress.stage("network"):
            restored = restore_lr(self.engine, LrToRestore(entry, lr))
        return finish_picture(entry, restored, use_latent=True).pixels

    def _compare(self, shard: SourceShard, keys: frozenset[str]) -> Iterator[tuple[str, str | None]]:
        """Yield each sampled key that the source still has, with what is wrong with its restore (None: nothing).

        Entries that were stored without figures have nothing to be compared with.
        """
        if not keys:
            return
        try:
            settings = self.archive.plan.settings
            source = open_store(self.archive.plan.source, access=self._source_access)
            for asset in shards.read_assets(source, shard, image_column=settings.image_column, all_files=settings.all_files):
                if asset.key in keys and asset.data is not None:
                    entry = self.archive.read_entry(shard.id, asset.key)
                    if entry.psnr is not None or settings.verify is Verification.FULL:
                        yield asset.key, self._fault(entry, asset)
        except (StoreError, ShardError):
            return  # gone or changed: an archive outlives its source

    def _fault(self, entry: Entry, asset: Asset) -> str | None:
        assert asset.data is not None
        if hashlib.sha256(asset.data).hexdigest() != entry.sha256:
            return "its source is not the one that was rescaled (SHA-256)"
        if source_bytes(entry) is not None:
            return None  # which are the source's, and were compared with its digest
        try:
            picture = decoding.decode(asset.data, pixel_limit=self.archive.plan.settings.pixel_limit)
            found = measure(picture.pixels, self._restored(entry), device=self.engine.device)
        except PipelineError as error:
            return str(error)
        if entry.original_coding is OriginalCoding.PIXELS:
            return None if found.psnr == math.inf else f"its pixels come back at {found.psnr:.2f} dB, not as they were"
        settings = self.archive.plan.settings
        if settings.floor is not None:
            value, metric = found.of(settings.floor_metric), settings.floor_metric
            if value < settings.floor - FLOOR_TOLERANCE[metric]:
                return f"it restores to {value:g} ({metric}), below the floor of {settings.floor:g}"
        if entry.psnr is None or found.psnr < min(entry.psnr, CEILING_DB) - TOLERANCE_DB:
            return f"it restores to {found.psnr:.2f} dB, {entry.psnr} dB are stored"
        return None

    def _below_floor(self, entry: Entry) -> str | None:
        """Return what is wrong where an entry's own figures say that it misses the floor of its plan."""
        settings = self.archive.plan.settings
        if settings.floor is None or entry.kind is EntryKind.ORIGINAL:
            return None
        stored = {FloorMetric.PSNR: entry.psnr, FloorMetric.PSNR_Y: entry.psnr_y, FloorMetric.SSIM: entry.ssim}
        value = stored[settings.floor_metric]
        if value is None or value < settings.floor:
            return f"it is stored with {value} ({settings.floor_metric}), below the floor of {settings.floor:g}"
        return None
