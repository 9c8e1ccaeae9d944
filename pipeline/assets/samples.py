"""What the kinds of source shards share: an asset under a safe, unique key, and what its first bytes tell."""

from __future__ import annotations

import re
from functools import reduce
from operator import and_

from pipeline.assets.names import UniqueNames, has_image_name, is_of_another_kind, safe_key, safe_suffix, split_stem
from pipeline.core.records import Asset, ObjectInfo
from pipeline.stores.base import UNSTAMPED, Stamp
from pipeline.stores.store import Store

SNIFFED = 64
"""Bytes of a file's beginning that tell an image."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
    (b"II+\x00", "tif"),
    (b"MM\x00+", "tif"),
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "j2k"),
    (b"8BPS\x00\x01", "psd"),
    (b"8BPS\x00\x02", "psb"),
    (b"qoif", "qoi"),
    (b"icns", "icns"),
    (b"\x59\xa6\x6a\x95", "ras"),
    (b"/* XPM */", "xpm"),
)

# Formats without a signature worth the name: some fields of their headers as well.
_HEADERS = (
    (re.compile(rb"P[1-6]\s(?:\s|#[^\n]*\n)*\d+\s+(?:#[^\n]*\n)*\d"), "ppm"),
    (re.compile(rb"\0\0\x01\0[\x01-\x20]\0...\0[\0\x01]\0[\0-\x20]\0", re.DOTALL), "ico"),
    (re.compile(rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"), "sgi"),
    (re.compile(rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]\0\0\0\0"), "pcx"),
)

_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heif", b"msf1": "heif"}


def image_extension(data: bytes) -> str | None:
    """Return the extension (no dot) that the first bytes of an image call for, None where they begin no image."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    if data[:2] == b"BM" and data[14:18] in {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}:
        return "bmp"
    found = next((extension for magic, extension in _MAGIC if data.startswith(magic)), None)
    return found or next((extension for header, extension in _HEADERS if header.match(data[:SNIFFED])), None)


def is_image(name: str, head: bytes) -> bool:
    """Return whether a file is an image: its name says so, or does not tell and its first bytes do."""
    return has_image_name(name) or (not is_of_another_kind(name) and begins_image(head))


def begins_image(head: bytes) -> bool:
    """Return whether first bytes (``SNIFFED`` of them are enough) are those of an image that is read."""
    extension = image_extension(head)
    return extension is not None and has_image_name(f"x.{extension}")


def sidecar_suffix(image: str, sidecar: str) -> str:
    """Return what a sidecar's key is known by beside that of its image: its safe suffix, or ``/`` and its base name."""
    stem, suffix = split_stem(sidecar)
    own = stem == split_stem(image)[0]
    return safe_suffix(suffix if own else f"/{sidecar.rpartition('/')[2]}")


def named_asset(
    names: UniqueNames,
    name: str,
    data: bytes | None,
    sidecars: dict[str, bytes],
    note: str | None,
    *,
    unique_sidecars: bool = True,
    stamp: Stamp = UNSTAMPED,
) -> Asset:
    """Return an asset under a safe key of its own; the notes on its name come first."""
    safe, changed = safe_key(name)
    key, renamed = names.claim(safe, sidecars if unique_sidecars else ())
    note = "; ".join(filter(None, (changed, renamed, note))) or None
    return Asset(key=key, data=data, sidecars=sidecars, note=note, modified=stamp.modified, permissions=stamp.permissions)


def common_stamp(main: ObjectInfo | Stamp, *others: ObjectInfo | Stamp) -> Stamp:
    """Return the time of a sample's main file, and permissions that are wider than no file's of the sample."""
    known = [each.permissions for each in (main, *others) if each.permissions is not None]
    return Stamp(modified=main.modified, permissions=reduce(and_, known) if known else None)


def uri_of(store: Store, info: ObjectInfo) -> str:
    """Return where an object of a store is, as messages name it."""
    return f"{store.uri.rstrip('/')}/{info.key}"
