"""The main path: one source shard, start to end, no Ray in it.

    stores > assets.shards > decoders.decoding > engines.engine > tiers (latents, pictures.lr_codec) > archives.archive > stores
    an object  an asset      a picture           LR and restore   an entry                             a shard, its commit

A lean archive is restored only to be measured, all of it or a share (settings.verify).

Decoding and encoding run in threads ahead of and behind the engine; what is under way is bounded by pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit, read_commit
from pipeline.archives.entries import drawn
from pipeline.assets import rows, shards
from pipeline.core.errors import DamagedShard, ImageError, NotFound
from pipeline.core.overlap import LEAST_WEIGHT, WINDOW_PIXELS, OneThread, ahead, halved, singly, together
from pipeline.core.progress import Progress
from pipeline.core.records import Asset, Commit, Entry, EntryKind, Failure, Pixels, ShardReport, SourceShard, Tier, Verification
from pipeline.core.tally import Tally, fresh
from pipeline.decoders import decoding
from pipeline.decoders.apart import DecoderApart
from pipeline.engines.engine import Downscale, Engine, Request, Restore, choose_device
from pipeline.engines.measure import measure
from pipeline.engines.memory import give_back
from pipeline.engines.restoring import restore_of
from pipeline.engines.tiles import TILE_POINTS
from pipeline.pictures.picture import Picture, bled, size_of
from pipeline.stores.spool import spool
from pipeline.stores.store import Access, Store, open_store
from pipeline.tiers import Draft, build_entry, clean_draft, kept_for, original_entry

VERIFIED_SHARE = {Verification.FULL: 1.0, Verification.SAMPLE: 0.05, Verification.NONE: 0.0}
"""Of the entries of a lean archive, drawn by their keys, those that are restored and measured."""


BLEED = 4
"""How many LR pixels beyond what is shown its colours go on, before a network that knows no alpha makes the LR."""


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """An asset with its pixels, and what the tier wants of them: the network's LR, or a clean one, or both.

    Or with the reason why it is kept as an original.
    """

    asset: Asset
    picture: Picture | None
    downscale: Downscale | None = None
    clean: Draft | None = None
    error: ImageError | None = None


@dataclass(frozen=True, kw_only=True)
class _Rescaled:
    """A decoded asset with the drafts of its entry; none where the source's bytes are kept."""

    decoded: _Decoded
    drafts: tuple[Draft, ...] = ()


class RescaleWorker:
    """Rescales source shards of one plan with one engine; made by a :class:`pipeline.works.RescaleWork`."""

    def __init__(self, *, archive: str, source_access: Access, device: str, threads: int, halvings: int) -> None:
        self.archive = Archive.open(open_store(archive))
        self.source: Store = open_store(self.archive.plan.source, access=source_access)
        self.settings = self.archive.plan.settings
        points = halved(TILE_POINTS, halvings)
        self._one = OneThread("engine")
        self.engine = self._one.call(lambda: Engine(self.archive.model_bytes(), choose_device(device), tile_points=points))
        self.progress = Progress()
        self._threads, self._halvings = halved(threads, halvings), halvings

    def run(self, shard: SourceShard) -> ShardReport:
        """Rescale one shard into the archive and commit it.

        Every asset becomes one entry. A shard that is committed already, by an actor that died before it could say so or by
        another job, is not done again. Raises StoreError where source or archive fail; nothing is committed then.
        """
        return self._run(shard, careful=False)

    def run_carefully(self, shard: SourceShard) -> ShardReport:
        """Do what ``run`` does, one image after the other and each decoded in a process apart.

        What ends its decoder, or never ends, is kept as it is with that as its reason, and the worker lives.
        """
        return self._run(shard, careful=True)

    def _run(self, shard: SourceShard, *, careful: bool) -> ShardReport:
        tally = Tally()
        try:
            commit = read_commit(self.archive.store, shard.id, self.archive.digest)
        except NotFound:
            commit = self._rescaled(shard, tally, careful=careful)
        return fresh(replace(commit.report, bytes_out=commit.byte_size), tally.examples)

    def _rescaled(self, shard: SourceShard, tally: Tally, *, careful: bool) -> Commit:
        with ExitStack() as stack:
            directory = stack.enter_context(spool())
            threads = stack.enter_context(ThreadPoolExecutor(self._threads))
            apart = stack.enter_context(DecoderApart()) if careful else None
            schema = rows.source_schema(self.source, shard)
            column = rows.source_image_column(self.source, shard, image_column=self.settings.image_column)
            with self.archive.writer(shard, directory, source_schema=schema, image_column=column) as writer:
                try:
                    for entry, failure in self._entries(shard, threads, apart):
                        with self.progress.stage("write"):
                            writer.append(entry)
                        self._count(tally, shard, entry, failure)
                except DamagedShard as error:  # all that could be read has been; the rest is the source's loss
                    tally.fail(shard.id, None, error)
                with self.progress.stage("write"):
                    commit = create_commit(self.archive.store, writer.finish(tally.report(shard.id)))
        self.progress.wrote(commit.byte_size)
        return commit

    def _entries(
        self, shard: SourceShard, threads: Executor, apart: DecoderApart | None
    ) -> Iterator[tuple[Entry, Failure | None]]:
        progress, window = self.progress, halved(WINDOW_PIXELS, self._halvings)
        column, all_files = self.settings.image_column, self.settings.all_files
        assets = progress.each("read", shards.read_assets(self.source, shard, image_column=column, all_files=all_files))
        decode = progress.timed("decode", partial(self._decode, decode=decoding.decode if apart is None else apart.decode))
        queue = progress.queue("decode")
        if apart is None:
            decoded = ahead(threads, decode, assets, limit=window, weigh=_asset_weight, queue=queue)
        else:  # one at a time, and not even their headers are read here
            decoded = ahead(threads, decode, assets, limit=1, queue=queue)
        finish = progress.timed("encode", self._finish)
        limit = 0 if apart is not None else halved(self.engine.batch_pixels, self._halvings)
        rescaled = singly(self._one.over(self._rescale, together(decoded, limit=limit, weigh=_weight)))
        return ahead(
            threads, finish, rescaled, limit=window, weigh=lambda item: _weight(item.decoded), queue=progress.queue("encode")
        )

    def _decode(self, asset: Asset, *, decode: Callable[..., Picture]) -> _Decoded:
        if asset.data is None or asset.kept:
            return _Decoded(asset=asset, picture=None)
        try:
            picture = decode(asset.data, pixel_limit=self.settings.pixel_limit)
            size, tier = size_of(picture.pixels), self.settings.tier
            lr_size = self.settings.target.resolve(size)
            self.engine.check_size(size, lr_size)
            hides = self.engine.reaches(size, lr_size) and kept_for(picture, self.settings) is None
            downscale, clean = None, None
            if hides and (tier is Tier.FLOOR or not tier.keeps_latent):
                reach = math.ceil(BLEED * max(size[0] / lr_size[0], size[1] / lr_size[1]))
                shown = bled(picture.pixels, picture.alpha, reach)
                downscale = Downscale(pixels=shown, lr_size=lr_size, grey=picture.grey, effort=self.settings.effort)
            if tier.keeps_latent or not hides:
                clean = clean_draft(picture, lr_size, self.engine.span(size, lr_size), self.settings.lr_codec)
            give_back(math.prod(size))
            return _Decoded(asset=asset, picture=picture, downscale=downscale, clean=clean)
        except ImageError as error:
            return _Decoded(asset=asset, picture=None, error=error)

    def _rescale(self, batch: Sequence[_Decoded]) -> list[_Rescaled]:
        """Have the network make the drafts of the tier, in the order in which they are tried."""
        with self.progress.engine():
            with self.progress.stage("network"):
                lrs = _where_asked(self.engine.downscale_many, [decoded.downscale for decoded in batch])
            restoring = "verify" if self.settings.tier is Tier.LEAN else "network"
            with self.progress.stage(restoring):
                hiding = self._restored(batch, [lr if lr is None else Draft(lr=lr) for lr in lrs])
            with self.progress.stage("verify"):
                hiding = [*map(self._with_quality, batch, hiding)]
            with self.progress.stage(restoring):
                clean = self._restored(batch, [each.clean for each in batch])
        made = []
        for decoded, *drafts in zip(batch, hiding, clean, strict=True):
            made.append(_Rescaled(decoded=decoded, drafts=tuple(draft for draft in drafts if draft is not None)))
        return made

    def _restored(self, batch: Sequence[_Decoded], drafts: Sequence[Draft | None]) -> list[Draft | None]:
        """Return the drafts with the network's restores of their LRs, where those are wanted."""
        restored = _where_asked(self.engine.restore_many, [*map(self._restore_of, batch, drafts)])
        return [draft and replace(draft, restored=pixels) for draft, pixels in zip(drafts, restored, strict=True)]

    def _with_quality(self, decoded: _Decoded, draft: Draft | None) -> Draft | None:
        """Return a draft with the figures of its restore in its place where another restore follows: memory holds but one."""
        if decoded.picture is None or draft is None or draft.restored is None or decoded.clean is None:
            return draft
        return replace(draft, restored=None, quality=measure(decoded.picture.pixels, draft.restored, device=self.engine.device))

    def _restore_of(self, decoded: _Decoded, draft: Draft | None) -> Restore | None:
        """Return what asks for the restore of a draft; None where no latent and no figure needs it, or the source is kept."""
        picture, tier = decoded.picture, self.settings.tier
        needed = tier.keeps_latent or (tier is Tier.LEAN and self._verifies(decoded.asset.key))
        if draft is None or picture is None or not needed or kept_for(picture, self.settings):
            return None
        size = size_of(picture.pixels)
        return restore_of(draft.lr, size, grey=picture.grey, clean=draft.clean, bits=picture.bits)

    def _verifies(self, key: str) -> bool:
        return drawn(key, VERIFIED_SHARE[self.settings.verify])

    def _finish(self, rescaled: _Rescaled) -> tuple[Entry, Failure | None]:
        asset, picture, error = rescaled.decoded.asset, rescaled.decoded.picture, rescaled.decoded.error
        if picture is not None:
            try:
                timed = self.progress.timed("verify", partial(measure, device=self.engine.device))
                return build_entry(asset, picture, rescaled.drafts, self.settings, measure=timed), None
            except ImageError as fault:  # a codec cannot hold it, or not without loss
                error = fault
        return original_entry(asset, error, self.settings.tier)

    def _count(self, tally: Tally, shard: SourceShard, entry: Entry, failure: Failure | None) -> None:
        rescaled = entry.kind is EntryKind.RESCALED
        pixels = (entry.width or 0) * (entry.height or 0) if rescaled else 0
        whole = rescaled and entry.tier is Tier.EXACT and self.settings.tier is not Tier.EXACT
        tally.add(
            original=not rescaled, whole=whole, pixels=pixels, bytes_in=entry.byte_size, key=entry.key, reason=entry.reason
        )
        tally.lacks(entry.lost)
        if failure is not None:
            tally.fail(shard.id, failure.key, failure.reason)
        self.progress.add(pixels=pixels, bytes_in=entry.byte_size)


def _asset_weight(asset: Asset) -> int:
    """What an asset takes of a window: the pixels that its header tells of, or its bytes where those are more."""
    size = len(asset.data or b"") + sum(map(len, asset.sidecars.values()))
    return max(size, LEAST_WEIGHT, 0 if asset.data is None or asset.kept else decoding.pixel_count(asset.data) or 0)


def _weight(decoded: _Decoded) -> int:
    size = len(decoded.asset.data or b"") + sum(map(len, decoded.asset.sidecars.values()))
    return max(size, LEAST_WEIGHT, 0 if decoded.picture is None else decoded.picture.pixels.nbytes // 3)


def _where_asked(compute: Callable[[list[Request]], list[Pixels]], requests: Sequence[Request | None]) -> list[Pixels | None]:
    """Return what ``compute`` gives for each request, and None where there is none."""
    computed = iter(compute([request for request in requests if request is not None]))
    return [None if request is None else next(computed) for request in requests]
