"""Checking an archive: digests of everything, and the restore of a sample against the figures stored with it."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Collection

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
from pipeline.engines.lr import LrToRestore, decode_lr
from pipeline.engines.measure import measure
from pipeline.engines.restoring import restore_lr
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

        def check(entry: Entry) -> None:
            original = entry.kind is EntryKind.ORIGINAL
            pixels = 0 if original else (entry.width or 0) * (entry.height or 0)
            tally.add(original=original, pixels=pixels, bytes_in=entry.byte_size)
            self.progress.add(pixels=pixels, bytes_in=entry.byte_size)
            check_entry(entry)
            if fault := self._below_floor(entry):
                tally.fail(shard.id, entry.key, fault)
            if self._takes(entry, first=not sampled):
                sampled.add(entry.key)

        self._each(shard.id, None, check, tally)  # what is damaged above shows here which entries it took
        if tally.entries != commit.report.entries and not tally.failures:
            tally.fail(shard.id, None, f"{tally.entries} entries found, {commit.report.entries} committed")
        self._compare(shard, sampled, tally)
        if sampled:
            self._each(shard.id, sampled, self._restored, tally)
        return tally.report(shard.id)

    def _each(self, shard_id: str, wanted: Collection[str] | None, check: Callable[[Entry], object], tally: Tally) -> None:
        """Check each entry of a shard, or each wanted one; what is wrong with one, and what damage took, is told once."""
        told = {(each.key, each.reason) for each in tally.failures}

        def fail(key: str | None, fault: PipelineError) -> None:
            if (key, str(fault)) not in told:
                told.add((key, str(fault)))
                tally.fail(shard_id, key, fault)

        try:
            for entry in self.archive.entries(shard_id, wanted, lost=fail):
                try:
                    check(entry)
                except ArchiveError as error:
                    fail(entry.key, error)
        except NO_WORD:
            raise  # as above
        except (ArchiveError, StoreError) as error:
            fail(None, error)

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
            return finish_picture(entry, original_pixels(entry), detail=None).pixels
        lr, _ = decode_lr(entry)
        with self._turn, self.progress.engine(), self.progress.stage("network"):
            restored = restore_lr(self.engine, LrToRestore(entry, lr))
        return finish_picture(entry, restored, detail=entry.latent).pixels

    def _compare(self, shard: SourceShard, sampled: set[str], tally: Tally) -> None:
        """Measure the restores of sampled keys that the source still has; they are taken out of ``sampled``.

        Entries that were stored without figures have nothing to be compared with, nor have those whose source changed.
        """
        if not sampled:
            return
        try:
            settings = self.archive.plan.settings
            source = open_store(self.archive.plan.source, access=self._source_access)
            for asset in shards.read_assets(source, shard, image_column=settings.image_column, all_files=settings.all_files):
                if asset.key not in sampled or asset.data is None:
                    continue
                try:
                    entry = self.archive.read_entry(shard.id, asset.key)
                except ArchiveError:
                    continue  # the pass over what was not compared tells it
                if entry.psnr is None and settings.verify is not Verification.FULL:
                    continue
                if hashlib.sha256(asset.data).hexdigest() != entry.sha256:
                    tally.fail(shard.id, entry.key, "its source is not the one that was rescaled (SHA-256)")
                    continue
                sampled.discard(entry.key)
                tally.compared += 1
                if fault := self._fault(entry, asset.data):
                    tally.fail(shard.id, entry.key, fault)
        except (StoreError, ShardError):
            return  # gone or changed: an archive outlives its source

    def _fault(self, entry: Entry, data: bytes) -> str | None:
        """Return what is wrong with an entry's restore, measured against its source's bytes."""
        if source_bytes(entry) is not None:
            return None  # which are the source's, and were compared with its digest
        try:
            picture = decoding.decode(data, pixel_limit=self.archive.plan.settings.pixel_limit)
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
