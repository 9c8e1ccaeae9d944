"""The main path: one source shard, start to end, no Ray in it.

    assets -> decode -> downscale -> restore -> encode and measure -> shard, commit
             (threads)  (the engine, one image at a time)  (threads)

Decoding and encoding run in threads ahead of and behind the engine; what is under way is bounded by pixels.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipeline import image, latent, shards
from pipeline.archive import Archive
from pipeline.commits import create_commit
from pipeline.engine import Engine, choose_device, measure
from pipeline.errors import DamagedShard, ImageError, ImageTooLarge, UndecodableImage, UnwritableImage
from pipeline.names import with_extension
from pipeline.overlap import ahead
from pipeline.records import Asset, Entry, EntryKind, Failure, Pixels, ShardReport, Size, SourceShard, Tier
from pipeline.spool import spool
from pipeline.store import Store, open_store

WINDOW_PIXELS = 32_000_000
"""Pixels decoded ahead of the engine, and restored behind it, before the next image has to wait; bytes where those are more."""

LEAST_WEIGHT = 4096
"""What an asset of next to no pixels and bytes takes of that window."""


@dataclass
class Progress:
    """Running totals of one worker, read from another thread while it works."""

    assets: int = 0
    pixels: int = 0
    bytes_in: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, *, pixels: int, bytes_in: int) -> None:
        """Count one asset; any thread may."""
        with self._lock:
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
class Tally:
    """What a shard's report is made of."""

    entries: int = 0
    originals: int = 0
    pixels: int = 0
    bytes_in: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, *, original: bool, pixels: int, bytes_in: int) -> None:
        """Count one entry."""
        self.entries += 1
        self.originals += original
        self.pixels += pixels
        self.bytes_in += bytes_in

    def fail(self, shard_id: str, key: str | None, reason: object) -> None:
        """Note what did not go as asked."""
        self.failures.append(Failure(shard_id=shard_id, key=key, reason=str(reason)))

    def report(self, shard_id: str, *, bytes_out: int) -> ShardReport:
        """Return the report of a shard."""
        return ShardReport(
            shard_id=shard_id,
            entries=self.entries,
            originals=self.originals,
            pixels=self.pixels,
            bytes_in=self.bytes_in,
            bytes_out=bytes_out,
            failures=tuple(self.failures),
        )


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
        with spool() as directory, ThreadPoolExecutor(self._threads) as threads:
            schema = shards.source_schema(self.source, shard)
            column = shards.source_image_column(self.source, shard, image_column=self.settings.image_column)
            tally = Tally()
            with self.archive.writer(shard, directory, source_schema=schema, image_column=column) as writer:
                try:
                    for entry, failure in self._entries(shard, threads):
                        writer.append(entry)
                        self._count(tally, shard, entry, failure)
                except DamagedShard as error:  # all that could be read has been; the rest is the source's loss
                    tally.fail(shard.id, None, error)
                commit = create_commit(self.archive.store, writer.finish(tally.report(shard.id, bytes_out=0)))
        return replace(commit.report, bytes_out=commit.byte_size)

    def _entries(self, shard: SourceShard, threads: Executor) -> Iterator[tuple[Entry, Failure | None]]:
        assets = shards.read_assets(self.source, shard, image_column=self.settings.image_column)
        decoded = ahead(threads, self._decode, assets, limit=WINDOW_PIXELS, weigh=_asset_weight)
        rescaled = map(self._rescale, decoded)
        return ahead(threads, self._finish, rescaled, limit=WINDOW_PIXELS, weigh=lambda item: _weight(item.decoded))

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
        asset, error = rescaled.decoded.asset, rescaled.decoded.error
        if rescaled.lr is not None:
            assert rescaled.decoded.picture is not None
            try:
                return self._rescaled_entry(asset, rescaled.decoded.picture, rescaled.lr, rescaled.restored), None
            except ImageError as fault:  # a codec that cannot hold it, or not without loss
                error = fault
        return _original_entry(asset, error, self.settings.tier)

    def _rescaled_entry(self, asset: Asset, picture: image.Picture, lr: Pixels, restored: Pixels | None) -> Entry:
        assert asset.data is not None
        lr_alpha = None if picture.alpha is None else image.resize(picture.alpha, (lr.shape[0], lr.shape[1]))
        lr_bytes, extension = image.encode_lr(
            lr, codec=self.settings.lr_codec, grey=picture.grey, alpha=lr_alpha, icc=picture.icc
        )
        stored, _ = image.decode_lr(lr_bytes)
        if (stored != lr).any():  # a codec that is not lossless would make every figure below a lie
            raise UndecodableImage(f"its LR does not come back from {extension} as it was")
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
            lr_path=with_extension(asset.key, extension),
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

    def _count(self, tally: Tally, shard: SourceShard, entry: Entry, failure: Failure | None) -> None:
        pixels = (entry.width or 0) * (entry.height or 0) if entry.kind is EntryKind.RESCALED else 0
        tally.add(original=entry.kind is EntryKind.ORIGINAL, pixels=pixels, bytes_in=entry.byte_size)
        if failure is not None:
            tally.fail(shard.id, failure.key, failure.reason)
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
    failed = asset.data is None or isinstance(error, (UndecodableImage, ImageTooLarge, UnwritableImage))
    return entry, Failure(shard_id="", key=asset.key, reason=reason) if failed else None


def _asset_weight(asset: Asset) -> int:
    """What an asset takes of a window: the pixels that its header tells of, or its bytes where those are more."""
    size = len(asset.data or b"") + sum(map(len, asset.sidecars.values()))
    return max(size, LEAST_WEIGHT, 0 if asset.data is None else image.pixel_count(asset.data) or 0)


def _weight(decoded: _Decoded) -> int:
    size = len(decoded.asset.data or b"") + sum(map(len, decoded.asset.sidecars.values()))
    return max(size, LEAST_WEIGHT, 0 if decoded.picture is None else decoded.picture.pixels.size // 3)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
