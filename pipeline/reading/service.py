"""What a service gives of archives, as bytes, without HTTP and without Ray: lists, LRs, originals, restored images.

    Shelf      one archive to look things up in: figures, LRs, originals, the list; needs no network
    Restorer   the engines: a restore in, the bytes of an image file out; runs beside, in as many processes as there are

A restore is what ``iarn restore`` writes for the same request, by the same functions.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from pipeline.archives.archive import Archive
from pipeline.archives.entries import PARTS, check_lr, columns_of, from_row, size_of_part, source_bytes, there
from pipeline.core.byte_cache import ByteCache
from pipeline.core.errors import ArchiveError, InvalidOption, PipelineError
from pipeline.core.options import FORMATS, SOURCE_FORMAT, Limits, RestoreOptions
from pipeline.core.records import Entry, EntryKind, OriginalCoding, Size
from pipeline.engines.batching import Batcher
from pipeline.engines.engine import Engine, choose_device
from pipeline.entry_picture import View, check_restored_size, encode_restored, output_format, pixels_to_restore, restore_entry
from pipeline.pictures.captions import Caption, caption_of
from pipeline.pictures.picture import Picture, size_of
from pipeline.pictures.region import Region
from pipeline.reading.catalogue import FIGURES, Catalogue, Filter, Listed
from pipeline.reading.errors import AmbiguousKey, NoSuchEntry, NotKept, NotReady
from pipeline.reading.keys import KeyIndex
from pipeline.reading.open_entries import KEPT_BYTES, OpenEntries
from pipeline.reading.reader import ArchiveReader, open_archive
from pipeline.stores.store import Access

FORMS = tuple(form for form in FORMATS if form != SOURCE_FORMAT)
"""The formats of restored images."""

LARGEST_SCALE = 4.0
FIGURES_BYTES = 32 * 2**20
_FIGURES_BYTES_EACH = 2048  # an entry without its parts, roughly
_LISTED_PARTS = ("lr", "latent", "alpha", "original")
_RESTORED_PARTS = PARTS - {"sidecars"}
_MAKERS = ("torch", "pillow", "imagecodecs")
"""Libraries whose other versions may restore or code an image to other bytes."""


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Which image of an entry: a ``region`` of it, or all; at most one of ``max_side``, ``scale`` (0.5 is half) and ``size``.

    The region is (x, y, width, height) in pixels of the upright image. Raises InvalidOption.
    """

    form: str = "png"
    quality: int = 95
    max_side: int | None = None
    scale: float | None = None
    size: Size | None = None
    region: Region | None = None
    use_latent: bool = True

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise InvalidOption("format", self.form, f"give one of {', '.join(FORMS)}.")
        if sum(value is not None for value in (self.max_side, self.scale, self.size)) > 1:
            raise InvalidOption("size", "given twice", "give one of max_side, scale and size.")
        if self.scale is not None and not 0 < self.scale <= LARGEST_SCALE:
            raise InvalidOption("scale", f"{self.scale:g}", "give a number above 0, up to 4; 0.5 is half the original size.")
        if self.size is not None and min(self.size) < 1:
            raise InvalidOption("size", f"{self.size[1]}x{self.size[0]}", "give width x height in pixels, as in 640x480.")
        self.options()

    def options(self) -> RestoreOptions:
        """Return the same request to ``iarn restore``, ``size`` apart."""
        scale = None if self.scale is None else 1 / self.scale
        return RestoreOptions(
            format=self.form, quality=self.quality, scale=scale, max_side=self.max_side, use_latent=self.use_latent
        )

    def view(self, limits: Limits, pixel_limit: int) -> View:
        """Return what is asked of an entry's picture; its size raises InvalidOption above the limits, SizeNotReachable."""

        def size_for(own: Size) -> Size:
            wanted = self.size or self.options().size_for(own)
            if max(wanted) > limits.largest_side or wanted[0] * wanted[1] > limits.most_pixels:
                most = f"{limits.largest_side} pixels a side and {limits.most_pixels} in all"
                raise InvalidOption("size", f"{wanted[1]}x{wanted[0]}", f"the service gives {most}; ask for less by max_side.")
            return check_restored_size(own, wanted, pixel_limit)

        return View(size_for=size_for, region=self.region, use_latent=self.use_latent)

    def check(self, entry: Entry, limits: Limits, pixel_limit: int) -> int:
        """Return how many pixels are restored or decoded, 0 where an original tells that only when it is decoded.

        Raises InvalidOption above the limits and for a region that is not in the image, SizeNotReachable, DamagedEntry.
        """
        if entry.height is None or entry.width is None:
            return 0
        pixels = pixels_to_restore(entry, self.view(limits, pixel_limit))
        if pixels > limits.most_pixels:
            advice = f"the service restores {limits.most_pixels} pixels at most."
            raise InvalidOption("image", f"{entry.width}x{entry.height}", advice)
        return pixels

    def written(self, picture: Picture) -> tuple[bytes, str]:
        """Return the file of the picture that was asked for, and the format that it is in."""
        return encode_restored(picture, output_format(self.form, picture), self.quality)


@dataclass(frozen=True, kw_only=True)
class EntryPlace:
    """Where an entry is: the archive's number in the service, the shard, the row group, the key."""

    archive: int
    shard: str
    group: int
    key: str


@dataclass(frozen=True, kw_only=True)
class Restored:
    """An image file, the format it is in, and how many pixels were restored in how many seconds."""

    data: bytes
    form: str
    pixels: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to give: its bytes, its format (an extension, in lower case), and the digest that names those very bytes."""

    data: bytes
    form: str
    digest: str


class Shelf:
    """One archive of a service, under its name; any thread may ask. It has the shards that were done when it was opened."""

    def __init__(self, name: str, uri: str, *, number: int = 0, access: Access = Access.SIGNED) -> None:
        self.name, self._number = name, number
        self.reader = open_archive(uri, access=access)
        shard_counts = self.reader.shard_counts
        shard_ids = [shard_id for shard_id, _, _ in shard_counts]
        self.entries = sum(entries for _, entries, _ in shard_counts)
        self.originals = sum(originals for _, _, originals in shard_counts)
        self.bytes = self.source_bytes = 0
        for commit in self.reader.archive.commits():
            self.bytes, self.source_bytes = self.bytes + commit.byte_size, self.source_bytes + commit.report.bytes_in
        self._lost: list[ArchiveError] = []
        self._index = KeyIndex(self.reader.archive, shard_ids, lost=self._lost.append)
        self._shards = len(shard_ids)
        self.catalogue = Catalogue(self.reader.archive, shard_ids)
        self._figures = ByteCache[Entry](FIGURES_BYTES)
        self._maker = json.dumps([version(name) for name in _MAKERS])

    def describe(self) -> dict[str, Any]:
        """Return what the archive is, as plain values."""
        return {
            "name": self.name,
            "entries": self.entries,
            "originals": self.originals,
            "bytes": self.bytes,
            "source_bytes": self.source_bytes,
            "digest": self.reader.digest,
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
        return EntryPlace(archive=self._number, shard=places[0][0], group=places[0][1], key=key)

    def figures(self, place: EntryPlace) -> Entry:
        """Return an entry without its parts; raises DamagedObject."""
        name = f"{place.shard}/{place.key}"
        found = self._figures.get(name)
        if found is None:
            found = _entry(self.reader.archive, place, ())
            self._figures.put(name, found, _FIGURES_BYTES_EACH)
        return found

    def caption(self, place: EntryPlace) -> Caption:
        """Return what the source's file said of itself in words; reads its row group. Raises DamagedObject."""
        entry = _entry(self.reader.archive, place, ("exif", "xmp"))
        return caption_of(entry.exif, entry.xmp)

    def asset(self, place: EntryPlace) -> dict[str, Any]:
        """Return all that is known of an entry, as plain values; reads its row group."""
        entry = _entry(self.reader.archive, place, PARTS)
        sizes = {part: size_of_part(entry, part) or None for part in _LISTED_PARTS}
        other = sum(size_of_part(entry, part) for part in PARTS - set(_LISTED_PARTS))
        figures = {name: getattr(entry, name) for name in FIGURES}
        described = _described(figures, entry.latent is not None, place.shard)
        described["bytes"] = {**sizes, "other": other or None}
        described["stored_bytes"] = sum(size or 0 for size in described["bytes"].values())
        described["lost"] = list(entry.lost)
        return described

    def list(self, wanted: Filter, *, after: str, limit: int, seconds: float) -> dict[str, Any]:
        """Return a page of entries: the first ``limit`` keys after ``after``, where to go on, and how many there are in all.

        Their bytes are not told, for that would take reading them. Raises NotReady where the list is not there in ``seconds``.
        """
        if not self.catalogue.ready(seconds):
            raise NotReady(self.name, self.catalogue.shards_read, self._shards)
        page = self.catalogue.page(wanted, after=after, limit=limit + 1)
        more = len(page) > limit
        assets = [_listed(each) for each in page[:limit]]
        return {"assets": assets, "next": assets[-1]["key"] if more else None, "total": self.catalogue.total(wanted)}

    def lr(self, place: EntryPlace) -> File:
        """Return an LR's file, as it is stored; raises NotKept for an original, DamagedEntry, DamagedObject."""
        entry = _entry(self.reader.archive, place, ("lr",))
        if entry.lr is None:
            raise NotKept(entry.key, "LR", "the source's own bytes stand for it; its original has them")
        check_lr(entry)
        form = (entry.lr_path or "").rpartition(".")[2].lower()
        return File(data=entry.lr, form=form, digest=hashlib.sha256(entry.lr).hexdigest())

    def original(self, place: EntryPlace) -> File:
        """Return the source's own bytes; raises NotKept where they are not kept, DamagedEntry, DamagedObject."""
        data = source_bytes(_entry(self.reader.archive, place, ("original",)))
        if data is None:
            raise NotKept(place.key, "original", f"its tier is {self.figures(place).tier}; its image is restored")
        form = place.key.rpartition(".")[2].lower()
        return File(data=data, form=form, digest=hashlib.sha256(data).hexdigest())

    def image_digest(self, place: EntryPlace, request: ImageRequest, device: str) -> str:
        """Return what names the bytes of an image: the digests of archive, model and entry, the request, and what makes it."""
        entry = self.figures(place)
        made_of = [self.reader.digest, self.reader.plan.model, place.shard, entry.key, entry.sha256, entry.lr_sha256]
        return hashlib.sha256(json.dumps([*made_of, asdict(request), device, self._maker]).encode()).hexdigest()

    def check(self, place: EntryPlace, request: ImageRequest, limits: Limits) -> None:
        """Raise what :meth:`ImageRequest.check` does, before anything is restored."""
        request.check(self.figures(place), limits, self.reader.plan.settings.pixel_limit)

    def close(self) -> None:
        """Stop reading."""
        self.catalogue.close()


class Restorer:
    """Restores images of several archives on one device, in as many threads as call it; archives of one model share it.

    What it has read and decoded of the entries that were asked for last is kept, ``kept_bytes`` of it at most: a viewer asks
    for dozens of parts of one.
    """

    def __init__(
        self,
        uris: Collection[str],
        *,
        device: str = "auto",
        limits: Limits | None = None,
        access: Access = Access.SIGNED,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._readers = [open_archive(uri, access=access) for uri in uris]
        self._open = OpenEntries(kept_bytes)
        self._limits = limits or Limits()
        self._device = choose_device(device)
        self._batchers: dict[str, Batcher] = {}
        self._loading = threading.Lock()
        for reader in self._readers:
            self._batcher(reader)

    @property
    def device(self) -> str:
        """The kind of device."""
        return self._device.type

    def restore(self, place: EntryPlace, request: ImageRequest) -> Restored:
        """Return an image as a file; raises InvalidOption, SizeNotReachable, ImageError, ArchiveError, StoreError."""
        began = time.monotonic()
        reader = self._readers[place.archive]
        limit = reader.plan.settings.pixel_limit
        view, batcher = request.view(self._limits, limit), self._batcher(reader)
        name = (reader.digest, place.shard, place.group, place.key)
        with self._open.entry(name, lambda: _entry(reader.archive, place, _RESTORED_PARTS)) as opened:
            pixels = request.check(opened.entry, self._limits, limit)
            most = min(limit, self._limits.most_pixels) if opened.entry.kind is EntryKind.ORIGINAL else limit
            picture = restore_entry(opened, batcher.restore, view, span=batcher.span, pixel_limit=most)
        data, form = request.written(picture)
        pixels = pixels or math.prod(size_of(picture.pixels))
        return Restored(data=data, form=form, pixels=pixels, seconds=time.monotonic() - began)

    def attempt(self, place: EntryPlace, request: ImageRequest) -> Restored | PipelineError:
        """Return what :meth:`restore` does, or the error that it raises, for callers in another process."""
        try:
            return self.restore(place, request)
        except PipelineError as error:
            return error

    def _batcher(self, reader: ArchiveReader) -> Batcher:
        with self._loading:
            model = reader.plan.model
            if model not in self._batchers:
                self._batchers[model] = Batcher(lambda: Engine(reader.archive.model_bytes(), self._device))
            return self._batchers[model]


def _entry(archive: Archive, place: EntryPlace, parts: Collection[str]) -> Entry:
    """Return the entry at a place with ``parts`` of its bytes; raises NoSuchEntry, DamagedObject, StoreError."""
    with archive.shard_rows(place.shard) as reader:
        for row in reader.rows(there(columns_of(parts), reader), [place.group]):
            if row["key"] == place.key:
                return from_row(row)
    raise NoSuchEntry(archive.store.uri, place.key)


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
