"""The frozen values that flow between the files; parsed once, never checked again inside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.core.errors import InvalidOption
from pipeline.core.target import TargetSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.unsignedinteger[Any]]
else:  # the command line parses these values, and answers before numpy is loaded
    Pixels = Any
"""Upright pixels, uint8 or, of 16 bits a channel, uint16: (H, W, 3) RGB, or (H, W) for one plane."""

Size = tuple[int, int]
"""Height and width in pixels."""


class Tier(StrEnum):
    """How much is kept beside the LR."""

    LEAN = "lean"
    BALANCED = "balanced"
    HIGH = "high"
    FLOOR = "floor"
    EXACT_PIXELS = "exact-pixels"
    EXACT = "exact"

    @property
    def keeps_latent(self) -> bool:
        """Whether a latent stands beside the LR, which is then a clean one."""
        return self in (Tier.BALANCED, Tier.HIGH, Tier.FLOOR)


class FloorMetric(StrEnum):
    """What a floor is a floor of: PSNR over RGB in dB, PSNR of the luma in dB, or SSIM of the luma."""

    PSNR = "psnr"
    PSNR_Y = "psnr-y"
    SSIM = "ssim"


class OriginalCoding(StrEnum):
    """How the bytes of an original are stored: as they are, a JPEG as JPEG XL, by Zstandard, or only its pixels."""

    BYTES = "bytes"
    JXL = "jxl"
    ZSTD = "zstd"
    PIXELS = "pixels"


class LrCodec(StrEnum):
    """Codec of the LRs, without loss but for ``auto``: that codes clean LRs as AVIF, and those that hide detail as WebP."""

    AUTO = "auto"
    WEBP = "webp"
    PNG = "png"
    JXL = "jxl"


class Verification(StrEnum):
    """Which entries of a lean archive are restored while they are written, to measure them: all, a share of them, none."""

    FULL = "full"
    SAMPLE = "sample"
    NONE = "none"


class ShardKind(StrEnum):
    """What a source shard is made of."""

    FILES = "files"
    TAR = "tar"
    PARQUET = "parquet"


class EntryKind(StrEnum):
    """Whether an entry has an LR, or the source's own bytes alone."""

    RESCALED = "rescaled"
    ORIGINAL = "original"


class Stored(StrEnum):
    """What of the large image is stored beside the LR, if there is one: nothing, a latent, its pixels, or its file."""

    NOTHING = "nothing"
    LATENT = "latent"
    PIXELS = "pixels"
    FILE = "file"


@dataclass(frozen=True, kw_only=True, slots=True)  # slots: there are millions of them in some listings
class ObjectInfo:
    """One object of a store; ``modified`` is in seconds since 1970 (UTC), ``permissions`` a POSIX mode, where it tells them."""

    key: str
    size: int
    etag: str
    modified: float | None = field(default=None, compare=False)
    permissions: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceShard:
    """The unit of work: one tar, one Parquet file, or a group of loose files.

    ``id`` is unique in its plan and safe as a file name: the shard's number in nine digits, a dash, and a part of its name.
    ``name`` is the object's key for a tar or a Parquet file, and the id for loose files. ``objects`` are in sorted order;
    more than one only for loose files.
    """

    id: str
    name: str
    kind: ShardKind
    objects: tuple[ObjectInfo, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """A part of a source's file that a restored one of its format gets back as it was; ``name`` is the format's own."""

    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One source image as its shard holds it.

    ``key`` is its name within the source, extension included, made safe as a relative path. ``sidecars`` map the suffix of
    another member of the sample (``txt``, ``seg.png``) to its bytes. ``data`` is None for a sample that has no image.
    ``note`` is a sentence about something odd in how it was found. ``kept`` says that it is no image and carried as it is.
    ``modified`` (seconds since 1970, UTC) and ``permissions`` (the nine bits of a POSIX mode) are its file's, where the source
    tells.
    """

    key: str
    data: bytes | None
    sidecars: Mapping[str, bytes] = field(default_factory=dict)
    note: str | None = None
    kept: bool = False
    modified: float | None = field(default=None, compare=False)
    permissions: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How close a restore is to its image: PSNR over RGB and of the luma in dB (infinite where equal), SSIM of the luma."""

    psnr: float
    psnr_y: float
    ssim: float

    def of(self, metric: FloorMetric) -> float:
        """Return the one value that ``metric`` names."""
        return {FloorMetric.PSNR: self.psnr, FloorMetric.PSNR_Y: self.psnr_y, FloorMetric.SSIM: self.ssim}[metric]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user chose for a rescale; with the source's shards and the model's digest it decides every byte written.

    ``floor`` is what every entry of the tier ``floor`` has to reach in ``floor_metric``, and None in the other tiers. An entry
    whose LR and latent would take more than ``max_ratio`` times its source's bytes keeps the source's file instead of the
    latent, and of the LR as well where that alone would take more; None lets it take any.
    ``verify`` says which entries are measured (all where the tier needs the restore); ``all_files`` carries other files too.
    ``effort`` is how many steps of descent make an LR that hides detail better than the network's forward pass does.
    ``keep_if_lossy`` keeps the source beside the LR where a restore would lack something of it.
    """

    target: TargetSize
    tier: Tier = Tier.BALANCED
    floor: float | None = None
    floor_metric: FloorMetric = FloorMetric.PSNR
    max_ratio: float | None = 1.0
    lr_codec: LrCodec = LrCodec.AUTO
    pixel_limit: int = 512_000_000
    image_column: str | None = None
    verify: Verification = Verification.FULL
    all_files: bool = False
    effort: int = 0
    keep_if_lossy: bool = True

    def __post_init__(self) -> None:
        for name in ("floor", "max_ratio"):  # 40 and 40.0 are one setting, and have to be in the plan's bytes
            if isinstance(value := getattr(self, name), int):
                object.__setattr__(self, name, float(value))
        if self.floor is None and self.floor_metric is not FloorMetric.PSNR:
            raise InvalidOption("--floor-metric", self.floor_metric, "give a --floor as well.")
        if (self.floor is not None) != (self.tier is Tier.FLOOR):
            advice = "give a --floor with --tier floor alone." if self.floor is not None else "give --floor as well, as in 40."
            raise InvalidOption("--tier", self.tier, advice)
        most = 1.0 if self.floor_metric is FloorMetric.SSIM else 100.0
        if self.floor is not None and not 0 < self.floor < most:
            unit = "an SSIM between 0 and 1, as in 0.98." if most == 1 else "dB between 0 and 100, as in 40."
            raise InvalidOption("--floor", f"{self.floor:g}", f"give {unit}")
        if self.max_ratio is not None and not 0 < self.max_ratio < math.inf:
            raise InvalidOption("--max-ratio", f"{self.max_ratio:g}", "give a number above 0; inf lets entries be of any size.")
        if self.pixel_limit < 1:
            raise InvalidOption("--pixel-limit", str(self.pixel_limit), "give a count of pixels from 1.")
        if self.verify is not Verification.FULL and self.tier is not Tier.LEAN:
            why = "makes its latents of the restore" if self.tier.keeps_latent else "comes back exactly and is not restored"
            advice = f"give it with --tier lean; {self.tier} {why}."
            raise InvalidOption("--verify", self.verify, advice)
        if self.effort < 0 or (self.effort and self.tier in (Tier.BALANCED, Tier.HIGH)):
            advice = "give a count of steps with a tier whose LRs hide detail: lean, floor, exact-pixels or exact."
            raise InvalidOption("--effort", str(self.effort), advice)

    def differences(self, other: Settings) -> tuple[str, ...]:
        """Return a sentence for each setting in which ``other`` is not the same."""
        mine, theirs = asdict(self), asdict(other)
        mine["target"], theirs["target"] = str(self.target), str(other.target)
        return tuple(f"{name} {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name])


@dataclass(frozen=True, kw_only=True)
class PlanPart:
    """A run of a plan's source shards, in a Parquet file named by its SHA-256: how many shards, of how many objects."""

    sha256: str
    shards: int
    objects: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the output of a rescale; frozen, hashed, written first.

    ``source`` is the URI that the shards' objects are found under; ``model`` is the SHA-256 of the weights file. The source
    shards, which may be millions, are in the ``parts``, in order.
    """

    source: str
    settings: Settings
    model: str
    parts: tuple[PlanPart, ...]

    @property
    def shard_count(self) -> int:
        """How many source shards there are."""
        return sum(part.shards for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One asset in an archive: a row of its shard. docs/format.md says what each field means and when it is None."""

    key: str
    kind: EntryKind
    tier: Tier
    reason: str | None
    sha256: str | None
    byte_size: int
    format: str | None = None
    mode: str | None = None
    width: int | None = None
    height: int | None = None
    orientation: int | None = None
    bits: int | None = None
    frames: int | None = None
    lr: bytes | None = None
    lr_path: str | None = None
    lr_width: int | None = None
    lr_height: int | None = None
    lr_sha256: str | None = None
    clean: bool | None = None
    latent: bytes | None = None
    alpha: bytes | None = None
    original: bytes | None = None
    original_coding: OriginalCoding | None = None
    psnr: float | None = None
    psnr_y: float | None = None
    ssim: float | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    grey: bool | None = None
    parts: tuple[Carried, ...] = ()
    lost: tuple[str, ...] = ()
    modified: float | None = None
    permissions: int | None = None
    sidecars: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def stored(self) -> Stored:
        """What of the large image the entry has: told by its figures, whether its bytes were read or not."""
        if self.kind is EntryKind.ORIGINAL:
            return Stored.NOTHING if self.sha256 is None else Stored.FILE
        if self.original_coding is not None:
            return Stored.PIXELS if self.original_coding is OriginalCoding.PIXELS else Stored.FILE
        return Stored.LATENT if self.tier.keeps_latent else Stored.NOTHING


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Something that did not go as asked, for the list a job prints and writes; ``key`` is None for a whole shard."""

    shard_id: str
    key: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What became of one source shard; ``originals`` counts entries without an LR, ``kept`` files kept by class of reason.

    ``lost`` counts entries whose restore lacks something, by what that is, and ``whole`` files kept beside their LRs;
    ``notes`` tell what was done otherwise than asked and is no failure. ``compared`` counts restores measured by a verify.
    """

    shard_id: str
    entries: int
    originals: int
    pixels: int
    bytes_in: int
    bytes_out: int
    failures: tuple[Failure, ...] = ()
    kept: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    whole: int = 0
    notes: tuple[Failure, ...] = ()
    compared: int = 0


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The small object that says a source shard is done under a plan.

    ``begun`` and ``ended`` are when its object was written, in seconds since 1970 (UTC); None where nobody saw it,
    and no part of what tells two commits apart.
    """

    shard_id: str
    plan: str
    sha256: str
    byte_size: int
    report: ShardReport
    begun: float | None = field(default=None, compare=False)
    ended: float | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
