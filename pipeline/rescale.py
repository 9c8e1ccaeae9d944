"""The main path: one source shard, start to end, no Ray in it.

    assets -> decode -> downscale -> restore -> encode and measure -> shard, commit
             (threads)  (the engine, one image at a time)  (threads)

Decoding and encoding run in threads ahead of and behind the engine; what is under way is bounded by pixels.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pipeline import image, latent, shards
from pipeline.archive import Archive
from pipeline.commits import create_commit
from pipeline.engine import Engine, choose_device, measure
from pipeline.errors import DamagedShard, ImageError, ImageTooLarge, UndecodableImage
from pipeline.overlap import ahead
from pipeline.records import Asset, Entry, EntryKind, Failure, Pixels, ShardReport, Size, SourceShard, Tier
from pipeline.store import Store, open_store

WINDOW_PIXELS = 32_000_000
"""Pixels decoded ahead of the engine, and restored behind it, before the next image has to wait."""


@dataclass
class Progress:
    """Running totals of one worker, read from another thread while it works."""

    assets: int = 0
    pixels: int = 0
    bytes_in: int = 0

    def add(self, *, pixels: int, bytes_in: int) -> None:
        self.assets += 1
        self.pixels += pixels
        self.bytes_in += bytes_in


@dataclass(frozen=True, kw_only=True)
class RescaleWork:
    """What a worker needs to rescale shards of one archive; small, picklable, free of credentials."""

    archive: str
    device: str = "auto"
    threads: int = 2

    def start(self) -> RescaleWorker:
        """Open the archive and load its network; raises what those raise."""
        return RescaleWorker(self)


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """An asset with its pixels, or with the reason why it is kept as an original."""

    asset: Asset
    picture: image.Picture | None
    lr_size: Size = (0, 0)
    error: ImageError | None = None


@dataclass(frozen=True, kw_only=True)
class _Rescaled:
    """A decoded asset with its LR and the restore of that LR (None where the source's bytes are kept)."""

    decoded: _Decoded
    lr: Pixels | None = None
    restored: Pixels | None = None


@dataclass
class _Tally:
    """What a shard's report is made of."""

    entries: int = 0
    originals: int = 0
    pixels: int = 0
    bytes_in: int = 0
    failures: list[Failure] = field(default_factory=list)


class RescaleWorker:
    """Rescales source shards of one plan with one engine."""

    def __init__(self, work: RescaleWork) -> None:
        self.archive = Archive.open(open_store(work.archive))
        self.source: Store = open_store(self.archive.plan.source)
        self.settings = self.archive.plan.settings
        self.engine = Engine(self.archive.model_bytes(), choose_device(work.device))
        self.progress = Progress()
        self._threads = work.threads
        self._turn = threading.Lock()

    def run(self, shard: SourceShard) -> ShardReport:
        """Rescale one shard into the archive and commit it.

        Every asset becomes one entry. Raises StoreError where source or archive fail; nothing is committed then.
        """
        with tempfile.TemporaryDirectory(prefix="iarn-") as directory, ThreadPoolExecutor(self._threads) as threads:
            schema = shards.source_schema(self.source, shard)
            column = shards.source_image_column(self.source, shard, image_column=self.settings.image_column)
            writer = self.archive.writer(shard, Path(directory), source_schema=schema, image_column=column)
            tally = _Tally()
            try:
                for entry, failure in self._entries(shard, threads):
                    writer.append(entry)
                    self._count(tally, shard, entry, failure)
            except DamagedShard as error:  # all that could be read has been; the rest is the source's loss
                tally.failures.append(Failure(shard_id=shard.id, key=None, reason=str(error)))
            report = ShardReport(
                shard_id=shard.id,
                entries=tally.entries,
                originals=tally.originals,
                pixels=tally.pixels,
                bytes_in=tally.bytes_in,
                bytes_out=0,
                failures=tuple(tally.failures),
            )
            commit = create_commit(self.archive.store, writer.finish(report))
        return replace(commit.report, bytes_out=commit.byte_size)

    def _entries(self, shard: SourceShard, threads: Executor) -> Iterator[tuple[Entry, Failure | None]]:
        assets = shards.read_assets(self.source, shard, image_column=self.settings.image_column)
        decoded = ahead(threads, self._decode, assets, limit=WINDOW_PIXELS, weigh=_asset_pixels)
        rescaled = (self._rescale(item) for item in decoded)
        return ahead(threads, self._finish, rescaled, limit=WINDOW_PIXELS, weigh=lambda item: _picture_pixels(item.decoded))

    def _decode(self, asset: Asset) -> _Decoded:
        if asset.data is None:
            return _Decoded(asset=asset, picture=None)
        try:
            picture = image.decode(asset.data, pixel_limit=self.settings.pixel_limit)
            size = picture.pixels.shape[:2]
            lr_size = self.settings.target.resolve((size[0], size[1]))
            self.engine.check_size((size[0], size[1]), lr_size)
        except ImageError as error:
            return _Decoded(asset=asset, picture=None, error=error)
        return _Decoded(asset=asset, picture=picture, lr_size=lr_size)

    def _rescale(self, decoded: _Decoded) -> _Rescaled:
        picture = decoded.picture
        if picture is None:
            return _Rescaled(decoded=decoded)
        with self._turn:
            lr = self.engine.downscale(picture.pixels, decoded.lr_size, grey=picture.grey)
            if self.settings.tier is Tier.EXACT:
                return _Rescaled(decoded=decoded, lr=lr)
            height, width = picture.pixels.shape[:2]
            return _Rescaled(decoded=decoded, lr=lr, restored=self.engine.restore(lr, (height, width), grey=picture.grey))

    def _finish(self, rescaled: _Rescaled) -> tuple[Entry, Failure | None]:
        asset = rescaled.decoded.asset
        if rescaled.lr is None:
            return _original_entry(asset, rescaled.decoded.error, self.settings.tier)
        assert rescaled.decoded.picture is not None
        return self._rescaled_entry(asset, rescaled.decoded.picture, rescaled.lr, rescaled.restored), None

    def _rescaled_entry(self, asset: Asset, picture: image.Picture, lr: Pixels, restored: Pixels | None) -> Entry:
        assert asset.data is not None
        lr_alpha = None if picture.alpha is None else image.shrink_alpha(picture.alpha, (lr.shape[0], lr.shape[1]))
        lr_bytes, extension = image.encode_lr(
            lr, codec=self.settings.lr_codec, grey=picture.grey, alpha=lr_alpha, icc=picture.icc
        )
        stored, _ = image.decode_lr(lr_bytes)
        if (stored != lr).any():  # a codec that is not lossless would make every figure below a lie
            raise AssertionError(f"The LR of {asset.key} does not come back from {self.settings.lr_codec} as it was.")
        detail, psnr, ssim = None, math.inf, 1.0
        if restored is not None:
            if self.settings.tier is Tier.BALANCED:
                detail = latent.encode(picture.pixels, restored)
                restored = latent.apply(detail, restored)
            psnr, ssim = measure(picture.pixels, restored)
        return Entry(
            key=asset.key,
            kind=EntryKind.RESCALED,
            tier=self.settings.tier,
            reason=asset.note,
            sha256=_sha256(asset.data),
            byte_size=len(asset.data),
            format=picture.format,
            mode=picture.mode,
            width=picture.pixels.shape[1],
            height=picture.pixels.shape[0],
            orientation=picture.orientation,
            lr=lr_bytes,
            lr_path=str(PurePosixPath(asset.key).with_suffix(f".{extension}")),
            lr_width=lr.shape[1],
            lr_height=lr.shape[0],
            lr_sha256=_sha256(lr_bytes),
            latent=detail,
            alpha=None if picture.alpha is None else image.encode_plane(picture.alpha),
            original=asset.data if self.settings.tier is Tier.EXACT else None,
            psnr=psnr,
            ssim=ssim,
            icc=picture.icc,
            exif=picture.exif,
            xmp=picture.xmp,
            sidecars=asset.sidecars,
        )

    def _count(self, tally: _Tally, shard: SourceShard, entry: Entry, failure: Failure | None) -> None:
        pixels = (entry.width or 0) * (entry.height or 0) if entry.kind is EntryKind.RESCALED else 0
        tally.entries += 1
        tally.originals += entry.kind is EntryKind.ORIGINAL
        tally.pixels += pixels
        tally.bytes_in += entry.byte_size
        if failure is not None:
            tally.failures.append(replace(failure, shard_id=shard.id))
        self.progress.add(pixels=pixels, bytes_in=entry.byte_size)


def _original_entry(asset: Asset, error: ImageError | None, tier: Tier) -> tuple[Entry, Failure | None]:
    """Return the entry of an asset that keeps its own bytes, and a failure where an error and not a choice is why."""
    reason = "; ".join(str(part) for part in (error, asset.note) if part)
    entry = Entry(
        key=asset.key,
        kind=EntryKind.ORIGINAL,
        tier=tier,
        reason=reason,
        sha256=None if asset.data is None else _sha256(asset.data),
        byte_size=len(asset.data or b""),
        original=asset.data,
        sidecars=asset.sidecars,
    )
    failed = asset.data is None or isinstance(error, (UndecodableImage, ImageTooLarge))
    return entry, Failure(shard_id="", key=asset.key, reason=reason) if failed else None


def _asset_pixels(asset: Asset) -> int:
    return 0 if asset.data is None else image.pixel_count(asset.data) or 0


def _picture_pixels(decoded: _Decoded) -> int:
    return 0 if decoded.picture is None else decoded.picture.pixels.size // 3


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
