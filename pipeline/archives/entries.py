"""An entry <-> a row of its shard's Parquet file, and which entries a reader wants."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from typing import Any

from pipeline.assets.names import safe_key
from pipeline.core.errors import DamagedEntry, DamagedShard, UndecodableImage
from pipeline.core.records import Carried, Entry, EntryKind, OriginalCoding, ShardKind, SourceShard, Tier
from pipeline.pictures import originals
from pipeline.pictures.picture import is_grey
from pipeline.tables.reader import RowReader

PARTS = frozenset({"lr", "latent", "alpha", "original", "icc", "exif", "xmp", "parts", "sidecars"})
"""The fields of an entry that hold bytes, and that a reader may leave out."""

Wanted = str | Collection[str] | Callable[[str], bool]
"""Which keys: a glob (``*`` crosses ``/``), a collection of keys, or a test of a key."""

COLUMNS = {
    "key": "string",
    "lr": "image",
    "kind": "string",
    "stored": "string",
    "tier": "string",
    "reason": "string",
    "format": "string",
    "mode": "string",
    "width": "int32",
    "height": "int32",
    "orientation": "int32",
    "bits": "int32",
    "frames": "int32",
    "byte_size": "int64",
    "sha256": "string",
    "lr_width": "int32",
    "lr_height": "int32",
    "lr_sha256": "string",
    "clean": "bool",
    "psnr": "float64",
    "psnr_y": "float64",
    "ssim": "float64",
    "icc": "binary",
    "exif": "binary",
    "xmp": "binary",
    "alpha": "binary",
    "latent": "binary",
    "original": "binary",
    "original_coding": "string",
    "grey": "bool",
    "parts": "sidecars",
    "lost": "words",
    "modified": "float64",
    "permissions": "int32",
    "sidecars": "sidecars",
}
"""The columns of a shard, in order, with the type words of ``RowWriter``."""

_LATER = frozenset({"stored", "bits", "frames", "grey", "parts", "lost", "modified", "permissions"})
"""Columns that earlier shards lack, of version 3 or 4."""

_ENTRY_FIELDS = tuple(field.name for field in fields(Entry))
_NUMBER = re.compile(r"~\d+(?=(\.[^/]*)?$)")
_REQUIRED = ("key", "kind", "tier", "byte_size")


def check_entry(entry: Entry) -> None:
    """Compare the digests of an entry's LR and of its source's bytes, where they are there; raises DamagedEntry."""
    check_lr(entry)
    source_bytes(entry)


def check_lr(entry: Entry) -> None:
    """Compare the digest of an entry's LR, where it has one; raises DamagedEntry."""
    _check_digest(entry, "LR", entry.lr, entry.lr_sha256)


def source_bytes(entry: Entry) -> bytes | None:
    """Return the source's own bytes, compared with their digest; None where it does not keep them; raises DamagedEntry."""
    if entry.original is None or (entry.original_coding is OriginalCoding.PIXELS and entry.kind is EntryKind.RESCALED):
        return None
    if entry.original_coding in (None, OriginalCoding.PIXELS):
        raise DamagedEntry(entry.key, "original", f"a source's bytes cannot be coded as {entry.original_coding}")
    try:
        data = originals.unpack(entry.original, entry.original_coding, size=entry.byte_size)
    except UndecodableImage as error:
        raise DamagedEntry(entry.key, "original", error.detail) from None
    _check_digest(entry, "original", data, entry.sha256)
    return data


def _check_digest(entry: Entry, part: str, data: bytes | None, expected: str | None) -> None:
    if data is not None and expected is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise DamagedEntry(entry.key, part, f"SHA-256 {expected[:16]}… expected, {found[:16]}… found")


def drawn(key: str, share: float, *, seed: int = 0) -> bool:
    """Return whether a sample of ``share`` (0 to 1) of all keys has this one; a larger share of one seed has it as well."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big") < share * 2**64


def columns_of(parts: Collection[str]) -> list[str]:
    """Return the columns to read for the given parts and everything small."""
    if unknown := set(parts) - PARTS:
        raise ValueError(f"no parts {', '.join(sorted(unknown))} among {', '.join(sorted(PARTS))}")
    columns = [name for name in COLUMNS if name not in PARTS or name in parts]
    return columns if "lr" in parts else [*columns, "lr.path"]


def size_of_part(entry: Entry, part: str) -> int:
    """Return the bytes that one of ``PARTS`` has in an entry."""
    value = getattr(entry, part)
    if part == "parts":
        return sum(len(each.data) for each in entry.parts)
    return sum(map(len, value.values())) if part == "sidecars" else len(value or b"")


def there(columns: Collection[str], reader: RowReader) -> list[str]:
    """Return those columns that a shard has: an earlier one lacks what came later."""
    return [name for name in columns if name in reader.columns or name not in _LATER]


def matcher(wanted: Wanted) -> Callable[[str], bool]:
    """Return a test of a key."""
    if isinstance(wanted, str):
        pattern = re.compile(fnmatch.translate(wanted))
        return lambda key: pattern.match(key) is not None
    return wanted if callable(wanted) else frozenset(wanted).__contains__


def holder_test(wanted: Wanted | None) -> Callable[[SourceShard], bool]:
    """Return a test of whether a shard can hold a wanted key: of keys in shards of loose files the plan itself tells."""
    if wanted is None or isinstance(wanted, str) or callable(wanted):
        return lambda _: True
    # An asset whose name was taken has a number behind its stem.
    names = {*wanted, *(_NUMBER.sub("", key) for key in wanted)}
    return lambda shard: shard.kind is not ShardKind.FILES or any(safe_key(each.key)[0] in names for each in shard.objects)


def candidates(reader: RowReader, wanted: Wanted) -> Iterator[tuple[int, Any, Any]]:
    """Yield the row groups that may hold a wanted key, with their least and greatest key; None for both where untold.

    Python orders text by code point and Parquet by UTF-8 bytes, which is the same order.
    """
    keys = None if isinstance(wanted, str) or callable(wanted) else sorted(wanted)
    prefix = re.split(r"[*?\[]", wanted, maxsplit=1)[0] if isinstance(wanted, str) else ""
    for group, told in enumerate(reader.key_ranges("key")):
        if told is None:
            yield group, None, None
            continue
        low, high = told
        if keys is None:
            possible = low[: len(prefix)] <= prefix <= high[: len(prefix)]
        else:
            first = bisect_left(keys, low)
            possible = first < len(keys) and keys[first] <= high
        if possible:
            yield group, low, high


def to_row(entry: Entry) -> dict[str, object]:
    """Return the row of an entry: its fields by name, the LR and its path in one struct."""
    row = {name: getattr(entry, name) for name in _ENTRY_FIELDS if name not in ("lr", "lr_path")}
    row["parts"] = [{"name": part.name, "data": part.data} for part in entry.parts]
    row["lost"] = list(entry.lost)
    row["stored"] = entry.stored
    row["lr"] = None if entry.lr is None else {"bytes": entry.lr, "path": entry.lr_path}
    return row


def from_row(row: dict[str, Any]) -> Entry:
    """Return the entry in a row; raises DamagedShard where the row is none."""
    lr = row.pop("lr", None) or {}
    values: dict[str, Any] = {name: row.get(name) for name in _ENTRY_FIELDS}
    try:
        values["kind"], values["tier"] = EntryKind(row["kind"]), Tier(row["tier"])
        coding = row.get("original_coding")
        values["original_coding"] = None if coding is None else OriginalCoding(coding)
        if "grey" not in row and values["kind"] is EntryKind.RESCALED:  # of version 3
            values["grey"] = is_grey(values["mode"])
        values["parts"] = tuple(Carried(name=each["name"], data=each["data"]) for each in row.get("parts") or ())
        values["lost"] = tuple(row.get("lost") or ())
        values["sidecars"] = {each["name"]: each["data"] for each in row.get("sidecars") or ()}
        if values["bits"] not in (None, 8, 16):
            raise ValueError(f"{values['bits']} bits per channel")
        if missing := [name for name in _REQUIRED if values[name] is None]:
            raise ValueError(f"no {', '.join(missing)}")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedShard(str(row.get("key")), f"a row is no entry: {error}") from None
    return Entry(**{**values, "lr": lr.get("bytes"), "lr_path": lr.get("path")})
