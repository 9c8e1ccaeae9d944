"""One archive of a service to look things up in: entries by key, figures, LRs, originals, lists; it needs no network."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from pipeline.archives.commits import READERS, read_commit
from pipeline.archives.entries import PARTS
from pipeline.core.byte_cache import ByteCache
from pipeline.core.errors import ArchiveError
from pipeline.core.options import Limits
from pipeline.core.records import Entry, EntryKind, OriginalCoding
from pipeline.pictures.captions import Caption, caption_of
from pipeline.reading.catalogue import FIGURES, Catalogue, Filter, Listed
from pipeline.reading.errors import AmbiguousKey, NoSuchEntry, NotReady
from pipeline.reading.keys import KeyIndex
from pipeline.reading.places import EntryPlace, archive_at, read_entry
from pipeline.reading.requests import ImageRequest
from pipeline.serving.growth import Growth
from pipeline.serving.stored import File, LargeFile, part_sizes, read_lr, read_original
from pipeline.stores.store import Access

VERSION_DIGITS = 12
"""Of a plan's digest, those that stand in an address."""

FIGURES_BYTES = 32 * 2**20
_TAKEN_AT_ONCE = 1000  # shards of which the commits are in memory
_FIGURES_BYTES_EACH = 2048  # an entry without its parts, roughly
_LISTED_PARTS = ("lr", "latent", "alpha", "original")
_log = logging.getLogger(__name__)

_MAKERS = ("torch", "pillow", "imagecodecs")
"""Libraries whose other versions may restore or code an image to other bytes."""


class Shelf:
    """One archive of a service, under its name; any thread may ask, and one at a time have it grow.

    It has the shards that were done at the last :meth:`refresh`, the first of which is its opening.
    """

    def __init__(self, name: str, uri: str, *, access: Access = Access.SIGNED) -> None:
        self.name = name
        self.archive = archive_at(uri, access)
        self.entries = self.originals = self.bytes = self.source_bytes = 0
        self._lost: list[ArchiveError] = []
        self._growth = Growth(self.archive)
        self._index = KeyIndex(self.archive, (), lost=self._lost.append)
        self.damaged: dict[str, str] = {}
        self.catalogue = Catalogue(self.archive, damaged=self._miss)
        self._figures = ByteCache[Entry](FIGURES_BYTES)
        self._maker = json.dumps([version(name) for name in _MAKERS])
        self.refresh()

    @property
    def uri(self) -> str:
        """Where the archive is."""
        return self.archive.store.uri

    @property
    def version(self) -> str:
        """What tells this archive from another at its address: the first digits of the plan's digest."""
        return self.archive.digest[:VERSION_DIGITS]

    def refresh(self) -> int:
        """Take in the shards that were done since, and return how many; whoever asks does not wait for it.

        Raises Replaced where the archive is another by now, NotAnArchive, ArchiveError, StoreError: it then has what it had.
        """
        new, archive = self._growth.look(), self.archive
        for start in range(0, len(new), _TAKEN_AT_ONCE):
            shard_ids = new[start : start + _TAKEN_AT_ONCE]
            with ThreadPoolExecutor(READERS) as threads:
                commits = list(threads.map(lambda each: read_commit(archive.store, each, archive.digest), shard_ids))
            self._index.add(shard_ids)
            self.catalogue.add(shard_ids)
            for commit in commits:
                self.entries, self.originals = self.entries + commit.report.entries, self.originals + commit.report.originals
                self.bytes, self.source_bytes = self.bytes + commit.byte_size, self.source_bytes + commit.report.bytes_in
            self._growth.take(shard_ids)
        self.catalogue.add(())
        return len(new)

    def describe(self) -> dict[str, Any]:
        """Return what the archive is, as plain values."""
        return {
            "name": self.name,
            "entries": self.entries,
            "originals": self.originals,
            "bytes": self.bytes,
            "source_bytes": self.source_bytes,
            "digest": self.archive.digest,
        }

    def place(self, key: str, shard: str | None = None) -> EntryPlace:
        """Return where the entry of a key is; raises NoSuchEntry, AmbiguousKey, DamagedObject."""
        places = [each for each in self._index.places_of(key) if shard is None or each[0] == shard]
        if not places:
            if self._lost:  # nobody can tell what was in there
                raise self._lost[0]
            raise NoSuchEntry(self.name, key)
        if len(places) > 1:
            raise AmbiguousKey(self.name, key, tuple(each for each, _ in places))
        shard_id, group = places[0]
        return EntryPlace(archive=self.uri, plan=self.archive.digest, shard=shard_id, group=group, key=key)

    def figures(self, place: EntryPlace) -> Entry:
        """Return an entry without its parts; raises DamagedObject."""
        name = f"{place.shard}/{place.key}"
        found = self._figures.get(name)
        if found is None:
            found = read_entry(self.archive, place, ())
            self._figures.put(name, found, _FIGURES_BYTES_EACH)
        return found

    def caption(self, place: EntryPlace) -> Caption:
        """Return what the source's file said of itself in words; reads its row group. Raises DamagedObject."""
        entry = read_entry(self.archive, place, ("exif", "xmp"))
        return caption_of(entry.exif, entry.xmp)

    def asset(self, place: EntryPlace) -> dict[str, Any]:
        """Return all that is known of an entry, as plain values; reads its row group, but for large parts."""
        entry, sizes = part_sizes(self.archive, place)
        other = sum(sizes[part] for part in PARTS - set(_LISTED_PARTS))
        figures = {name: getattr(entry, name) for name in FIGURES}
        described = _described(figures, sizes["latent"] > 0, place.shard)
        described["bytes"] = {**{part: sizes[part] or None for part in _LISTED_PARTS}, "other": other or None}
        described["stored_bytes"] = sum(size or 0 for size in described["bytes"].values())
        described["lost"] = list(entry.lost)
        return described

    def page(self, wanted: Filter, *, after: str, limit: int, seconds: float) -> tuple[Sequence[Listed], str | None]:
        """Return the first ``limit`` entries after the key ``after``, and the key after which others come, None for none.

        Raises NotReady where the list is not there in ``seconds``.
        """
        if not self.catalogue.ready(seconds):
            raise NotReady(self.name, self.catalogue.shards_read, self.catalogue.shards)
        found = self.catalogue.page(wanted, after=after, limit=limit + 1)
        page = found[:limit]
        return page, page[-1].figures["key"] if len(found) > limit else None

    def list(self, wanted: Filter, *, after: str, limit: int, seconds: float) -> dict[str, Any]:
        """Return a page of entries as plain values, where to go on, and how many there are in all; raises as :meth:`page`.

        Their bytes are not told, for that would take reading them. ``damaged_shards`` have entries that are missing.
        """
        page, following = self.page(wanted, after=after, limit=limit, seconds=seconds)
        told = {"next": following, "total": self.catalogue.total(wanted), "damaged_shards": len(self.damaged)}
        return {"assets": [*map(_listed, page)], **told}

    def _miss(self, shard: str, error: ArchiveError) -> None:
        """Tell in the log, and in every list, that entries of a shard are missing in it."""
        self.damaged[shard] = str(error)
        _log.warning("Entries of %s are missing in its list: %s", self.name, error)

    def lr(self, place: EntryPlace) -> File | LargeFile:
        """Return what :func:`read_lr` does."""
        return read_lr(self.archive, place)

    def original(self, place: EntryPlace) -> File | LargeFile:
        """Return what :func:`read_original` does."""
        return read_original(self.archive, place)

    def image_digest(self, place: EntryPlace, request: ImageRequest, device: str) -> str:
        """Return what names the bytes of an image: the digests of archive, model and entry, the request, and what makes it."""
        entry = self.figures(place)
        made_of = [self.archive.digest, self.archive.plan.model, place.shard, entry.key, entry.sha256, entry.lr_sha256]
        return hashlib.sha256(json.dumps([*made_of, asdict(request), device, self._maker]).encode()).hexdigest()

    def check(self, place: EntryPlace, request: ImageRequest, limits: Limits) -> None:
        """Raise what :meth:`ImageRequest.check` does, before anything is restored."""
        request.check(self.figures(place), limits, self.archive.plan.settings.pixel_limit)

    def close(self) -> None:
        """Stop reading."""
        self.catalogue.close()


def _listed(listed: Listed) -> dict[str, Any]:
    figures = listed.figures
    rescaled = figures["kind"] == EntryKind.RESCALED
    has_latent = rescaled and figures["tier"] in ("balanced", "high", "floor")
    described = _described(figures, has_latent, listed.shard)
    described["bytes"] = dict.fromkeys((*_LISTED_PARTS, "other"))
    described["stored_bytes"] = None
    described["lost"] = None
    described["holders"] = listed.holders
    return described


def _described(figures: Mapping[str, Any], has_latent: bool, shard: str) -> dict[str, Any]:
    """Return figures under the names that a service tells them by; JSON has no infinity, so a PSNR of it is left out."""
    psnr = {name: None if figures[name] in (None, float("inf")) else figures[name] for name in ("psnr", "psnr_y")}
    plain = ("key", "tier", "width", "height", "lr_width", "lr_height", "ssim", "reason")
    return {
        **{name: figures[name] for name in plain},
        **psnr,
        "kind": "lr" if figures["kind"] == EntryKind.RESCALED else "original",
        "source_bytes": figures["byte_size"],
        "has_latent": has_latent,
        "has_original": figures["original_coding"] not in (None, OriginalCoding.PIXELS),
        "shard": shard,
    }
