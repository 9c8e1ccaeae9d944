"""What an entry stores for its tier, and what it keeps instead where that does not pay.

lean          the network's LR, which hides detail; restored, where that is asked for, only to be measured
balanced,     a clean LR (bicubic) and, as the latent, what the network's restore of it misses: at a set quality, or at the
high, floor   coarsest whose measured restore reaches the floor; lean where that does and is smaller
exact-pixels  the network's LR, and the image's pixels without loss
exact         the network's LR, and the source's bytes

Where the LR is smaller than the network reaches, it is a clean one in every tier.

A file is kept beside its LR in every tier, as in ``exact``, where it has something that no restore could bring back, where
it misses its floor, and where LR and latent would take more bytes than they may. Where the LR alone would take more, or is no
smaller than the image, the file is kept without it; not in the exact tiers, which are asked for with an LR.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.assets.names import with_extension
from pipeline.core.errors import DecoderDied, ImageError, ImageTooLarge, UndecodableImage, UnwritableImage
from pipeline.core.reasons import FILE_KEPT
from pipeline.core.records import (
    Asset,
    Entry,
    EntryKind,
    Failure,
    FloorMetric,
    LrCodec,
    OriginalCoding,
    Pixels,
    Quality,
    Settings,
    Size,
    Tier,
    Verification,
)
from pipeline.engines.measure import measure, score
from pipeline.latents import latent
from pipeline.latents.coefficients import FRACTION
from pipeline.pictures import clean_lr, lr_codec, originals
from pipeline.pictures.picture import Picture, size_of

STEPS = {Tier.BALANCED: 15 * FRACTION, Tier.HIGH: 10 * FRACTION}
"""The latent's quantisation step in the tiers that set it, in 64ths of a level: some 40 and 43 dB (six photographs of BSD100 at
x2 and x4)."""

MARGIN = 0.01
"""Decibels above the floor that are aimed at: a restore on another device differs by single levels."""

USUAL = {FloorMetric.PSNR: 41.5, FloorMetric.PSNR_Y: 44.0, FloorMetric.SSIM: 18.0}
"""What a latent of USUAL_STEP brings about, in decibels: where the search for a floor begins."""

EXACT = Quality(psnr=math.inf, psnr_y=math.inf, ssim=1.0)

_OF_RESCALED = (
    "lr", "lr_path", "lr_width", "lr_height", "lr_sha256", "clean", "alpha", "grey", "psnr", "psnr_y", "ssim",
    "icc", "exif", "xmp",
)  # fmt: skip
"""What an entry without an LR has not."""

Measure = Callable[[Pixels, Pixels], Quality]
"""Says how close a restore is to its image."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What may become an entry: an LR (h, w, 3), and the network's restore of it (None where nobody asks for one).

    Where only its ``quality`` is asked for, that may stand in place of the restore. A clean LR has its ``data`` and their
    ``extension`` already, and is what those decode to; another is coded when wanted.
    """

    lr: Pixels
    restored: Pixels | None = None
    quality: Quality | None = None
    data: bytes | None = None
    extension: str = ""

    @property
    def clean(self) -> bool:
        """Whether the LR is a clean one, which hides nothing."""
        return self.data is not None


def clean_draft(picture: Picture, lr_size: Size, span: Size, codec: LrCodec) -> Draft:
    """Return a draft of a picture's clean LR over ``span``: see :func:`pipeline.pictures.clean_lr.encode`."""
    data, extension = clean_lr.encode(picture, lr_size, codec, span=span)
    return Draft(lr=lr_codec.decode_lr(data)[0], data=data, extension=extension)


def build_entry(
    asset: Asset, picture: Picture, drafts: Iterable[Draft], settings: Settings, *, measure: Measure = measure
) -> Entry:
    """Return the entry of a picture: the smallest of those that its drafts make and that reach the floor, or its file's.

    A lean draft that was not restored makes an entry without figures. Raises ImageError where a codec cannot hold it without
    loss.
    """
    assert asset.data is not None
    if why := kept_for(picture, settings):
        return _file_entry(asset, picture, drafts, settings, why)
    drafts, entries = tuple(drafts), []
    for draft in drafts:
        kept = _latent(picture.pixels, draft, settings, measure)
        if kept is not None:
            entries.append(_entry(asset, picture, draft, *kept, settings))
    if not entries:
        assert settings.floor is not None
        missed = f"no latent brings it to the floor of {settings.floor:g} ({settings.floor_metric})"
        return _file_entry(asset, picture, drafts, settings, missed)
    entry = min(entries, key=_stored_bytes)
    size = _stored_bytes(entry)
    if entry.original is None and size > _bound(entry, settings):  # whoever asks for an exact tier wants its LR as well
        times = "" if settings.max_ratio in (1, None) else f" times {settings.max_ratio:g}"
        parts = "LR" if entry.latent is None else "LR and latent"
        return _file_entry(
            asset, picture, drafts, settings, f"its {parts} would take {size} bytes, the source {entry.byte_size}{times}"
        )
    return entry


def kept_for(picture: Picture, settings: Settings) -> str | None:
    """Return why an entry keeps its file beside its LR before anything is made of it; None where it need not."""
    if picture.beyond is not None:
        return f"{picture.beyond}, which no restore brings back"
    if picture.lost and settings.keep_if_lossy and settings.tier is not Tier.EXACT:
        return f"a restore would lack {', '.join(picture.lost)}"
    return None


def _file_entry(asset: Asset, picture: Picture, drafts: Iterable[Draft], settings: Settings, why: str) -> Entry:
    """Return the entry of a file that is kept, with a clean LR unless that would not pay."""
    draft = replace(min(drafts, key=lambda draft: not draft.clean), restored=None)
    if not draft.clean:  # nothing need be hidden where the file is
        draft = clean_draft(picture, size_of(draft.lr), size_of(picture.pixels), settings.lr_codec)
    if settings.tier is not Tier.EXACT:  # which keeps every file
        asset = replace(asset, note="; ".join(part for part in (f"{FILE_KEPT}: {why}", asset.note) if part))
    entry = _entry(asset, picture, draft, None, EXACT, _as_exact(settings))
    smaller = (entry.lr_height, entry.lr_width) != (entry.height, entry.width)
    if settings.tier in (Tier.EXACT, Tier.EXACT_PIXELS) or (smaller and len(entry.lr or b"") <= _bound(entry, settings)):
        return entry
    of_rescaled: dict[str, Any] = dict.fromkeys(_OF_RESCALED)
    return replace(entry, kind=EntryKind.ORIGINAL, tier=settings.tier, **of_rescaled)


def _bound(entry: Entry, settings: Settings) -> float:
    return entry.byte_size * (settings.max_ratio or math.inf)


def original_entry(asset: Asset, error: ImageError | None, tier: Tier) -> tuple[Entry, Failure | None]:
    """Return the entry of an asset that keeps its own bytes, and a failure where an error and not a choice is why."""
    reason = "; ".join(str(part) for part in (error, asset.note) if part)
    stored, coding = (None, None) if asset.data is None else _packed(asset.data, error)
    entry = Entry(
        key=asset.key,
        kind=EntryKind.ORIGINAL,
        tier=tier,
        reason=reason,
        sha256=None if asset.data is None else _sha256(asset.data),
        byte_size=len(asset.data or b""),
        original=stored,
        original_coding=coding,
        modified=asset.modified,
        permissions=asset.permissions,
        sidecars=asset.sidecars,
    )
    failed = asset.data is None or isinstance(error, (UndecodableImage, DecoderDied, ImageTooLarge, UnwritableImage))
    return entry, Failure(shard_id="", key=asset.key, reason=reason) if failed else None


def _as_exact(settings: Settings) -> Settings:
    """Return the settings of an entry that keeps its source, whatever the others do."""
    return replace(settings, tier=Tier.EXACT, floor=None, floor_metric=FloorMetric.PSNR, verify=Verification.FULL)


def _packed(data: bytes, error: ImageError | None) -> tuple[bytes, OriginalCoding]:
    # What ended one decoder is shown to no other in this process.
    return (data, OriginalCoding.BYTES) if isinstance(error, DecoderDied) else originals.pack(data)


def _latent(pixels: Pixels, draft: Draft, settings: Settings, measure: Measure) -> tuple[bytes | None, Quality | None] | None:
    """Return a draft's latent (None: it needs none) and how close the image comes back; None where it misses the floor."""
    tier, metric = settings.tier, settings.floor_metric
    quality = draft.quality
    if quality is None and draft.restored is not None and (tier is Tier.LEAN or not draft.clean):
        quality = measure(pixels, draft.restored)
    if quality is not None:
        reached = settings.floor is None or _decibels(quality.of(metric), metric) >= _decibels(settings.floor, metric) + MARGIN
        return (None, quality) if reached else None
    if draft.restored is None:
        return None, None if tier is Tier.LEAN else EXACT
    if settings.floor is None:
        stream = latent.encode(pixels, draft.restored, step=STEPS[tier])
        return stream, measure(pixels, latent.apply(stream, draft.restored))

    def decibels(result: Pixels) -> float:
        return _decibels(score(pixels, result, metric), metric)

    floor = _decibels(settings.floor, metric) + MARGIN
    found = latent.encode_to_floor(pixels, draft.restored, decibels, floor, usual=USUAL[metric])
    if found is None:
        return None
    quality = measure(pixels, found[1])
    return (found[0], quality) if quality.of(metric) >= settings.floor else None


def _decibels(value: float, metric: FloorMetric) -> float:
    """Return a metric's value on a scale that latents climb evenly: what SSIM lacks of 1, in dB."""
    if metric is not FloorMetric.SSIM:
        return value
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def _entry(
    asset: Asset, picture: Picture, draft: Draft, stream: bytes | None, quality: Quality | None, settings: Settings
) -> Entry:
    assert asset.data is not None
    data, extension = draft.data, draft.extension
    if data is None:
        data, extension = _code_hiding(picture, draft.lr, settings.lr_codec)
    original, coding = None, None
    if settings.tier is Tier.EXACT:
        original, coding = originals.pack(asset.data)
    elif settings.tier is Tier.EXACT_PIXELS:
        original, coding = originals.pack_pixels(asset.data, picture.pixels, grey=picture.grey)
    whole = coding not in (None, OriginalCoding.PIXELS)
    return Entry(
        key=asset.key,
        kind=EntryKind.RESCALED,
        tier=Tier.LEAN if settings.tier is Tier.FLOOR and stream is None else settings.tier,
        reason=asset.note,
        sha256=_sha256(asset.data),
        byte_size=len(asset.data),
        format=picture.format,
        mode=picture.mode,
        width=picture.pixels.shape[1],
        height=picture.pixels.shape[0],
        orientation=picture.orientation,
        bits=picture.bits,
        frames=picture.frames,
        lr=data,
        lr_path=with_extension(asset.key, extension),
        lr_width=draft.lr.shape[1],
        lr_height=draft.lr.shape[0],
        lr_sha256=_sha256(data),
        clean=draft.clean,
        latent=stream,
        alpha=None if picture.alpha is None else lr_codec.encode_plane(picture.alpha),
        original=original,
        original_coding=coding,
        psnr=None if quality is None else quality.psnr,
        psnr_y=None if quality is None else quality.psnr_y,
        ssim=None if quality is None else quality.ssim,
        icc=picture.icc,
        exif=picture.exif,
        xmp=picture.xmp,
        grey=picture.grey,
        parts=() if whole else picture.parts,
        lost=() if whole else picture.lost,
        modified=asset.modified,
        permissions=asset.permissions,
        sidecars=asset.sidecars,
    )


def _code_hiding(picture: Picture, lr: Pixels, codec: LrCodec) -> tuple[bytes, str]:
    """Code an LR that hides detail; raises UndecodableImage where it does not come back as it was."""
    alpha = clean_lr.lr_alpha(picture, size_of(lr))
    data, extension = lr_codec.encode_lr(lr, codec=codec, grey=picture.grey, alpha=alpha, icc=picture.profile)
    if (lr_codec.decode_lr(data)[0] != lr).any():  # a codec that is not lossless would make every figure a lie
        raise UndecodableImage(f"its LR does not come back from {extension} as it was")
    return data, extension


def _stored_bytes(entry: Entry) -> int:
    """Return what an entry takes in the archive beyond its figures and sidecars."""
    parts = (entry.lr, entry.latent, entry.alpha, entry.original, entry.icc, entry.exif, entry.xmp)
    return sum(len(part or b"") for part in parts) + sum(len(part.data) for part in entry.parts)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
