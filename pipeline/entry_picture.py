"""An entry as its whole picture, and that picture as a file: what restoring, serving, reading and verifying share."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter

import numpy as np

from pipeline.archives.entries import PARTS, check_lr, size_of_part, source_bytes
from pipeline.assets.names import with_extension
from pipeline.core.errors import DamagedEntry, DamagedLatent, ImageError, SizeNotReachable, UndecodableImage, UnwritableImage
from pipeline.core.options import SOURCE_FORMAT
from pipeline.core.reasons import reason_class
from pipeline.core.records import Entry, EntryKind, Pixels, Settings, Size, Stored
from pipeline.decoders import decoding
from pipeline.engines.lr import LrToRestore, decode_lr
from pipeline.latents import latent
from pipeline.latents.layout import Layout, Stretch
from pipeline.pictures import clean_lr, lr_codec, originals, writing
from pipeline.pictures.depth import LEVEL, in_16_bits
from pipeline.pictures.picture import Box, Picture, resize, resize_with_alpha, size_of
from pipeline.pictures.region import Region

Span = Callable[[Size, Size], Size]
"""What an LR's pixels span, by the sizes of the image and of the LR: that of the network that the archive has (Engine.span)."""

Lr = tuple[Pixels, Pixels | None]
"""The pixels (h, w, 3) of an LR, and its alpha (h, w)."""

_NOT_SHOWN = {"decoder-died", "other-file"}
"""Why a file was kept that no decoder is shown again."""


ENOUGH = 1.1
"""How many times the LR's own size a view may have, per axis, to be made of the LR alone: the network adds nothing to see."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What is asked of an entry's picture: a ``region`` of it (None: all), at the size that ``size_for`` says for that one's.

    Sizes are (height, width), coordinates those of the upright picture. The latent is left out unless ``use_latent``.
    """

    size_for: Callable[[Size], Size]
    region: Region | None = None
    use_latent: bool = True

    def region_of(self, size: Size) -> Region:
        """Return the region that is seen of a picture of ``size``; raises InvalidOption where it does not hold it."""
        return Region.whole(size) if self.region is None else self.region.within(size)

    def of(self, picture: Picture) -> Picture:
        """Return the view of a whole picture."""
        if self.region is not None:
            window = self.region.within(size_of(picture.pixels)).window
            alpha = None if picture.alpha is None else picture.alpha[window].copy()
            picture = replace(picture, pixels=picture.pixels[window].copy(), alpha=alpha)
        return self.resized(picture)

    def resized(self, picture: Picture) -> Picture:
        """Return the view of a picture that is the region already, by antialiased bicubic filtering of colours as shown."""
        size = size_of(picture.pixels)
        wanted = self.size_for(size)
        if wanted == size:
            return picture
        pixels, alpha = resize_with_alpha(picture.pixels, picture.alpha, wanted)
        return replace(picture, pixels=pixels, alpha=alpha)


class OpenEntry:
    """An entry that is read, and its parts decoded, when they are first asked for: each once, in whatever threads.

    ``latent`` gives its latent, as bytes or to be read by slices. What is decoded is shared by all who ask, and nobody's to
    change.
    """

    def __init__(self, read: Callable[[], Entry], latent: Callable[[Entry], Stretch | None] = attrgetter("latent")) -> None:
        self._read, self._read_latent, self._turn = read, latent, threading.RLock()
        self._kept: Picture | None = None

    @property
    def entry(self) -> Entry:
        """The entry; raises what ``read`` does."""
        with self._turn:
            return self._entry

    @property
    def lr(self) -> Lr:
        """The LR's pixels (h, w, 3) and alpha (h, w), of which the digest holds; raises DamagedEntry."""
        with self._turn:
            return self._lr

    @property
    def alpha(self) -> Pixels | None:
        """The alpha (H, W) of the whole image; raises DamagedEntry."""
        with self._turn:
            return self._alpha

    @property
    def detail(self) -> Layout | None:
        """The opened latent; raises DamagedEntry, and what ``latent`` does."""
        with self._turn:
            return self._detail

    def kept(self, pixel_limit: int) -> Picture:
        """Return the whole picture of what was kept of the source; raises DamagedEntry, ImageError."""
        with self._turn:
            if self._kept is None:
                self._kept = _kept_picture(self.entry, pixel_limit)
            return self._kept

    @property
    def bytes(self) -> int:
        """What is in memory of it by now."""
        decoded: list[Pixels | None] = [*self.__dict__.get("_lr", ()), self.__dict__.get("_alpha")]
        decoded += [] if self._kept is None else [self._kept.pixels, self._kept.alpha]
        stored = sum(size_of_part(self.entry, part) for part in PARTS)
        detail: Layout | None = self.__dict__.get("_detail")
        stored += detail.held if detail is not None and self.entry.latent is None else 0
        return stored + sum(pixels.nbytes for pixels in decoded if pixels is not None)

    @cached_property
    def _entry(self) -> Entry:
        return self._read()

    @cached_property
    def _lr(self) -> Lr:
        check_lr(self.entry)
        return decode_lr(self.entry)

    @cached_property
    def _alpha(self) -> Pixels | None:
        return alpha_of(self.entry)

    @cached_property
    def _detail(self) -> Layout | None:
        try:
            data = self._read_latent(self.entry)
            return None if data is None else Layout(data)
        except DamagedLatent as error:
            raise DamagedEntry(self.entry.key, "latent", str(error)) from None


def from_original(entry: Entry, use_latent: bool) -> bool:
    """Return whether what was kept of the source, and not the LR, is what an entry's image comes from."""
    return entry.kind is EntryKind.ORIGINAL or (entry.original is not None and use_latent)


def from_lr(entry: Entry, view: View) -> bool:
    """Return whether a view of an entry's LR shows as much as one of its restore: it is smaller, and no network is asked.

    At the original size, or larger on an axis, it is the restore, whatever the LR's. Raises DamagedEntry, InvalidOption.
    """
    size, lr_size = image_size(entry), (entry.lr_height or 0, entry.lr_width or 0)
    own = view.region_of(size).size
    wanted = view.size_for(own)
    axes = zip(wanted, own, size, lr_size, strict=True)
    return wanted != own and all(seen <= part and seen * length < ENOUGH * part * lr for seen, part, length, lr in axes)


def pixels_to_restore(entry: Entry, view: View) -> int:
    """Return how many pixels are decoded or restored for a view, told by the entry's figures; raises as :func:`from_lr`.

    A region costs what it has, at least the LR; where the picture or the file is kept, all of it is decoded. Whatever is kept,
    the view's own size and region are looked at first.
    """
    size, lr_pixels = image_size(entry), (entry.lr_height or 0) * (entry.lr_width or 0)
    region = view.region_of(size)
    view.size_for(region.size)
    if entry.kind is EntryKind.ORIGINAL or (entry.stored in (Stored.PIXELS, Stored.FILE) and view.use_latent):
        return math.prod(size)
    return lr_pixels if from_lr(entry, view) else max(lr_pixels, math.prod(region.size))


def image_size(entry: Entry) -> Size:
    """Return the height and width of the image that an entry's LR stands for; raises DamagedEntry where it has none."""
    if not entry.height or not entry.width or entry.height < 1 or entry.width < 1:
        raise DamagedEntry(entry.key, "size", f"it is {entry.width} x {entry.height} pixels")
    return entry.height, entry.width


def restore_entry(
    opened: OpenEntry, network: Callable[[LrToRestore], Pixels], view: View, *, span: Span, pixel_limit: int
) -> Picture:
    """Return a view of one entry's picture, upright: what ``iarn restore`` writes, before it is written.

    ``network`` is asked for what :func:`restore_lr` gives, where the view comes from the LR and is no smaller, and ``span``
    where it is made of the LR alone. An entry kept as an original is decoded. Raises DamagedEntry, InvalidOption, and
    ImageError for an original that cannot be decoded.
    """
    entry = opened.entry
    if from_original(entry, view.use_latent):
        return view.of(opened.kept(pixel_limit))
    if from_lr(entry, view):
        return lr_view(entry, opened.lr, view, span)
    asked = to_restore(entry, opened.lr, view)
    restored = network(asked)
    detail = opened.detail if view.use_latent else None
    return view.resized(finish_picture(entry, restored, detail=detail, region=asked.region, alpha=opened.alpha))


def _kept_picture(entry: Entry, pixel_limit: int) -> Picture:
    """Return the whole picture of what an entry keeps of its source; raises DamagedEntry, ImageError."""
    if (source := source_bytes(entry)) is not None:
        return decoding.decode(source, pixel_limit=pixel_limit)
    if entry.original is None:  # a sample that never had an image
        raise UndecodableImage("the file is empty")
    return finish_picture(entry, original_pixels(entry), detail=None)


def to_restore(entry: Entry, lr: Lr, view: View) -> LrToRestore:
    """Return an entry's decoded LR with the region that the network has to restore; raises DamagedEntry, InvalidOption."""
    region = None if view.region is None else view.region_of(image_size(entry))
    return LrToRestore(entry, lr[0], region)


def lr_view(entry: Entry, lr: Lr, view: View, span: Span) -> Picture:
    """Return a view that is made of an entry's decoded LR alone; raises DamagedEntry, InvalidOption."""
    (pixels, alpha), size = lr, image_size(entry)
    lr_size = size_of(pixels)
    if any(side > length for side, length in zip(lr_size, size, strict=True)):
        raise DamagedEntry(entry.key, "size", f"it is {size[1]} x {size[0]} pixels, fewer than its LR's")
    if entry.bits == 16:
        pixels, alpha = in_16_bits(pixels, clean=bool(entry.clean)), None if alpha is None else alpha * np.uint16(LEVEL)
    region = view.region_of(size)
    wanted = view.size_for(region.size)
    found = resize_with_alpha(pixels, alpha, wanted, _box(region, lr_size, span(size, lr_size)))[0]
    # The alpha of an LR is that of the picture at its size, without lines that repeat.
    return _picture(entry, found, None if alpha is None else resize(alpha, wanted, _box(region, lr_size, size)))


def _box(region: Region, lr_size: Size, span: Size) -> Box:
    """Return where a region of an image is in its LR, whose pixels are over ``span`` of it."""
    rows, columns = lr_size[0] / span[0], lr_size[1] / span[1]
    right, bottom = (region.x + region.width) * columns, (region.y + region.height) * rows
    return region.x * columns, region.y * rows, min(right, lr_size[1]), min(bottom, lr_size[0])


def lr_file(entry: Entry, settings: Settings) -> tuple[bytes, str]:
    """Return an entry's LR as a file, and its extension: the one it has, or one made of the source's bytes where it has none.

    Raises DamagedEntry, and ImageError where nothing can be decoded.
    """
    if entry.lr is not None and entry.lr_path is not None:
        check_lr(entry)
        return entry.lr, entry.lr_path.rpartition(".")[2]
    if (source := source_bytes(entry)) is None:
        raise UndecodableImage("the file is empty")
    if entry.reason is not None and reason_class(entry.reason) in _NOT_SHOWN:
        raise UndecodableImage(entry.reason)
    picture = decoding.decode(source, pixel_limit=settings.pixel_limit)
    return clean_lr.encode(picture, settings.target.resolve(size_of(picture.pixels)), settings.lr_codec)


def check_restored_size(original: Size, wanted: Size, pixel_limit: int) -> Size:
    """Return the size to write a picture at; SizeNotReachable for more pixels than the archive lets in."""
    if wanted[0] * wanted[1] > max(pixel_limit, original[0] * original[1]):
        advice = f"that is more than the archive's limit of {pixel_limit} pixels; give a larger --scale"
        raise SizeNotReachable(original[1], original[0], wanted[1], wanted[0], advice)
    return wanted


def original_pixels(entry: Entry) -> Pixels:
    """Return the pixels (H, W, 3) of an entry that keeps them without loss; raises DamagedEntry."""
    assert entry.original is not None
    try:
        size = (entry.height or 0, entry.width or 0)
        return originals.unpack_pixels(entry.original, size=size, grey=bool(entry.grey), bits=entry.bits or 8)
    except UndecodableImage as error:
        raise DamagedEntry(entry.key, "original", error.detail) from None


def alpha_of(entry: Entry) -> Pixels | None:
    """Return the alpha (H, W) of an entry's whole image, None where it is opaque; raises DamagedEntry."""
    try:
        alpha = None if entry.alpha is None else lr_codec.decode_plane(entry.alpha, bits=entry.bits or 8)
    except ImageError as error:
        raise DamagedEntry(entry.key, "alpha", str(error)) from None
    if alpha is not None and alpha.shape != (entry.height, entry.width):
        raise DamagedEntry(entry.key, "alpha", f"it is {alpha.shape[1]} x {alpha.shape[0]} pixels")
    return alpha


def finish_picture(
    entry: Entry, restored: Pixels, *, detail: bytes | Layout | None, region: Region | None = None, alpha: Pixels | None = None
) -> Picture:
    """Add an entry's alpha and metadata, and the ``detail`` of its latent, to the restored pixels, or to those of a region.

    ``alpha`` is that of :func:`alpha_of`, where it is decoded already. Raises DamagedEntry.
    """
    window = None if region is None else region.window
    try:
        if detail is not None:
            restored = latent.apply(detail, restored, window)
    except (DamagedLatent, ValueError) as error:
        raise DamagedEntry(entry.key, "latent", str(error)) from None
    alpha = alpha_of(entry) if alpha is None else alpha
    return _picture(entry, restored, alpha if alpha is None or window is None else alpha[window].copy())


def _picture(entry: Entry, pixels: Pixels, alpha: Pixels | None) -> Picture:
    """Return pixels with what else is known of an entry's picture."""
    return Picture(
        pixels=pixels,
        alpha=alpha,
        grey=bool(entry.grey),
        orientation=entry.orientation or 1,
        mode=entry.mode or "RGB",
        format=entry.format or "PNG",
        icc=entry.icc,
        exif=entry.exif,
        xmp=entry.xmp,
        parts=entry.parts,
        lost=entry.lost,
    )


def output_format(wanted: str, picture: Picture) -> str:
    """Return the format to write: the wanted one, or PNG where that cannot be written or cannot carry alpha."""
    form = picture.format if wanted == SOURCE_FORMAT else wanted
    if not writing.writable(form) or (picture.alpha is not None and not writing.carries_alpha(form)):
        return "png"
    return form


def encode_restored(picture: Picture, form: str, quality: int) -> tuple[bytes, str]:
    """Return the file of a restored picture, and its format: PNG where sides or metadata are beyond the limits of ``form``."""
    try:
        return writing.encode(picture, format=form, quality=quality), form
    except UnwritableImage:
        return writing.encode(picture, format="png", quality=quality), "png"


def renamed(key: str, form: str) -> str:
    """Return ``key`` with the extension of ``form``, unchanged where its own names that form already."""
    if writing.names_format(key.rpartition(".")[2], form):
        return key
    return with_extension(key, writing.extension_of(form))
