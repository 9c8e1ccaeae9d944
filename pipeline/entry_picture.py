"""An entry as its whole picture, and that picture as a file: what restoring, serving, reading and verifying share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.archives.entries import check_lr, source_bytes
from pipeline.assets.names import with_extension
from pipeline.core.errors import DamagedEntry, DamagedLatent, ImageError, SizeNotReachable, UndecodableImage, UnwritableImage
from pipeline.core.options import SOURCE_FORMAT
from pipeline.core.reasons import reason_class
from pipeline.core.records import Entry, EntryKind, Pixels, Settings, Size
from pipeline.decoders import decoding
from pipeline.engines.lr import decode_lr
from pipeline.latents import latent
from pipeline.pictures import clean_lr, lr_codec, originals, writing
from pipeline.pictures.picture import Picture, resize_with_alpha, size_of

_NOT_SHOWN = {"decoder-died", "other-file"}
"""Why a file was kept that no decoder is shown again."""


def from_original(entry: Entry, use_latent: bool) -> bool:
    """Return whether what was kept of the source, and not the LR, is what an entry's image comes from."""
    return entry.kind is EntryKind.ORIGINAL or (entry.original is not None and use_latent)


def restore_entry(
    entry: Entry, network: Callable[[Entry, Pixels], Pixels], *, use_latent: bool = True, pixel_limit: int
) -> Picture:
    """Return the whole picture of one entry, upright, at its original size: what ``iarn restore`` writes, before it is written.

    ``network`` is asked for what :func:`restore_lr` gives, where the image comes from the LR. An entry kept as an original is
    decoded. Raises DamagedEntry, and ImageError for an original that cannot be decoded.
    """
    if not from_original(entry, use_latent):
        check_lr(entry)
        restored = network(entry, decode_lr(entry))
    elif (source := source_bytes(entry)) is not None:
        return decoding.decode(source, pixel_limit=pixel_limit)
    elif entry.original is None:  # a sample that never had an image
        raise UndecodableImage("the file is empty")
    else:
        restored = original_pixels(entry)
    return finish_picture(entry, restored, use_latent=use_latent)


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


def finish_picture(entry: Entry, restored: Pixels, *, use_latent: bool) -> Picture:
    """Add an entry's latent, alpha and metadata to the restored pixels; raises DamagedEntry."""
    part = "latent"
    try:
        if entry.latent is not None and use_latent:
            restored = latent.apply(entry.latent, restored)
        part = "alpha"
        alpha = None if entry.alpha is None else lr_codec.decode_plane(entry.alpha, bits=entry.bits or 8)
        if alpha is not None and alpha.shape != restored.shape[:2]:
            raise ValueError(f"it is {alpha.shape[1]} x {alpha.shape[0]} pixels")
    except (DamagedLatent, ImageError, ValueError) as error:
        raise DamagedEntry(entry.key, part, str(error)) from None
    return Picture(
        pixels=restored,
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


def resized(picture: Picture, size: Size) -> Picture:
    """Return ``picture`` at ``size``, by antialiased bicubic filtering of colours as they are shown."""
    if size == picture.pixels.shape[:2]:
        return picture
    pixels, alpha = resize_with_alpha(picture.pixels, picture.alpha, size)
    return replace(picture, pixels=pixels, alpha=alpha)


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
