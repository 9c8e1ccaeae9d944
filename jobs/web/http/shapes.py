"""The shapes of the service's JSON, as its description tells them, and which status an error has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from pipeline.core.errors import (
    ArchiveError,
    ImageError,
    InvalidOption,
    PipelineError,
    SizeNotReachable,
    StoreError,
    StoreUnavailable,
)
from pipeline.reading.errors import AmbiguousKey, NoSuchEntry, NotKept, ServiceError


class Fault(BaseModel):
    """What went wrong."""

    kind: str
    message: str


class Problem(BaseModel):
    """An error, in a sentence."""

    error: Fault


class ArchiveShape(BaseModel):
    """One archive: its entries, those of them that are originals, bytes of its shards and of its sources, plan digest."""

    name: str
    entries: int
    originals: int
    bytes: int
    source_bytes: int
    digest: str


class Archives(BaseModel):
    """The archives that are served."""

    archives: list[ArchiveShape]


class Parts(BaseModel):
    """Bytes of an entry's parts; null where it has none, and in lists."""

    lr: int | None
    latent: int | None
    alpha: int | None
    original: int | None
    other: int | None


class Links(BaseModel):
    """Where an entry's files are, relative to the address that was asked for; null where it has none."""

    lr: str | None
    image: str
    original: str | None


class Asset(BaseModel):
    """One entry. Sizes in pixels, upright; PSNR in dB.

    A PSNR is null for originals, where it was not measured (SSIM then is null as well), and where pixels come back exactly.
    ``lost`` are the words for what a restore lacks of the source's file, null in lists.
    """

    key: str
    kind: Literal["lr", "original"]
    tier: str
    width: int | None
    height: int | None
    lr_width: int | None
    lr_height: int | None
    bytes: Parts
    stored_bytes: int | None
    source_bytes: int
    psnr: float | None
    psnr_y: float | None
    ssim: float | None
    reason: str | None
    lost: list[str] | None
    has_latent: bool
    has_original: bool
    shard: str
    links: Links


class Assets(BaseModel):
    """A page of entries, where to go on (``after``), and how many the filter lets through in all.

    Of damaged shards entries are missing.
    """

    assets: list[Asset]
    next: str | None
    total: int
    damaged_shards: int


_STATUSES: tuple[tuple[type[PipelineError], int, str], ...] = (
    (NoSuchEntry, 404, "not-found"),
    (NotKept, 404, "not-kept"),
    (AmbiguousKey, 409, "ambiguous"),
    (InvalidOption, 422, "invalid-option"),
    (SizeNotReachable, 422, "too-large"),
    (ImageError, 422, "no-image"),
    (ArchiveError, 502, "damaged"),
    (StoreUnavailable, 503, "store-unavailable"),
    (StoreError, 502, "store"),
    (ServiceError, 503, "overloaded"),
)
"""The first class that an error belongs to decides."""


def status_of(error: PipelineError) -> tuple[int, str]:
    """Return the status and the kind that stand for an error: whose fault it is, and whether asking again may help."""
    if isinstance(error, InvalidOption) and error.option == "region":
        return 400, "invalid-region"
    return next(((status, kind) for cls, status, kind in _STATUSES if isinstance(error, cls)), (502, "failed"))


_ABOUT = {
    400: "The region is none of the image, or a parameter is unknown or given twice.",
    401: "The token is missing or wrong.",
    404: "There is no such archive, version or entry, or the entry does not keep what was asked for.",
    409: "Several shards have an entry of this key; say which.",
    414: "The address is too long.",
    421: "The service does not answer as this host.",
    422: "A parameter makes no sense, the image would be too large, or the entry is none that can be shown.",
    502: "The archive is damaged, or its store refuses.",
    503: "There is no room now, or the store is out of reach; Retry-After tells when to ask again.",
}
ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Problem, "description": text} for status, text in _ABOUT.items()}

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TYPES = ("png", "jpeg", "webp", "avif", "jxl", "gif", "tiff", "bmp")
_CONTENT = {**{f"image/{name}": _BINARY for name in _TYPES}, "application/octet-stream": _BINARY}
IMAGES: dict[int | str, dict[str, Any]] = {
    200: {"content": _CONTENT, "description": "The file."},
    206: {"content": _CONTENT, "description": "The range that was asked for."},
    304: {"description": "The client has it."},
    416: {"model": Problem, "description": "The range is beyond the file."},
}
