"""The plan <-> bytes: canonical JSON, so that equal plans have equal digests; and what tells two plans apart.

The plan's source shards are in its parts (parts.py), whose digests it holds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, fields
from itertools import zip_longest
from typing import Any

from pipeline.archives.errors import UnsupportedFormat
from pipeline.core.errors import DamagedObject, InvalidOption
from pipeline.core.records import FloorMetric, LrCodec, Plan, PlanPart, Settings, SourceShard, Tier, Verification
from pipeline.core.target import TargetSize

FORMAT_VERSION = 4
"""Version of the archive format, in the plan, in every shard and in every commit; docs/format.md describes this one."""

READ_VERSIONS = (3, FORMAT_VERSION)
"""Versions that are read; what each brought is told at the end of docs/format.md."""

_LATER: dict[str, Any] = {"verify": Verification.FULL, "all_files": False, "effort": 0, "keep_if_lossy": False}
"""Settings that older plans lack, with what those plans mean; a plan has them where it means something else."""

_SHOWN = 3


def encode_json(value: Any) -> bytes:
    """Return canonical JSON: sorted names, no spaces, ASCII (a file name that is no Unicode survives as an escape)."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode("ascii")


def decode_json(data: bytes, uri: str) -> dict[str, Any]:
    """Return the JSON object in ``data`` if it is of this format version; raises DamagedObject or UnsupportedFormat."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedObject(uri, f"it is no JSON: {error}") from None
    if not isinstance(value, dict) or "format_version" not in value:
        raise DamagedObject(uri, "it is JSON, but has no format_version")
    check_version(value["format_version"], uri)
    return value


def check_version(version: Any, uri: str) -> None:
    """Raise UnsupportedFormat for a version of the format that is not read here."""
    if version not in READ_VERSIONS or isinstance(version, bool):
        raise UnsupportedFormat(uri, str(version), " and ".join(map(str, READ_VERSIONS)))


def encode_plan(plan: Plan) -> bytes:
    """Return ``plan.json``: the same plan gives the same bytes."""
    value = asdict(plan)
    for name, usual in _LATER.items():  # as plans said it before there was a choice
        if value["settings"][name] == usual:
            del value["settings"][name]
    return encode_json({"format_version": FORMAT_VERSION, **value})


def plan_digest(data: bytes) -> str:
    """Return the SHA-256 of ``plan.json``, in hex: what commits and shards name their plan by."""
    return hashlib.sha256(data).hexdigest()


def decode_plan(data: bytes, uri: str) -> Plan:
    """Parse ``plan.json``; raises UnsupportedFormat for another version, DamagedObject for anything that is no plan."""
    value = decode_json(data, uri)
    try:
        return Plan(
            source=_text(value["source"]),
            settings=_settings(value["settings"]),
            model=_text(value["model"]),
            parts=tuple(decode_part(each) for each in value["parts"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOption) as error:
        raise DamagedObject(uri, f"no plan can be read from it: {type(error).__name__} {error}") from None


def plan_differences(begun: Plan, wanted: Plan) -> tuple[str, ...]:
    """Return a sentence for each thing, but its shards, in which the plan an archive was begun with is not the one wanted."""
    found = list(begun.settings.differences(wanted.settings))
    if begun.source != wanted.source:
        found.append(f"source {begun.source}, not {wanted.source}")
    if begun.model != wanted.model:
        found.append(f"model {begun.model[:16]}…, not {wanted.model[:16]}…")
    return tuple(found)


def shard_differences(begun: Iterable[SourceShard], wanted: Iterable[SourceShard]) -> tuple[str, ...]:
    """Return a sentence for each way in which the source shards of two plans differ, from one pass over both, in order."""
    counts: Counter[str] = Counter()
    shown: defaultdict[str, list[str]] = defaultdict(list)
    # The number in an id is the shard's place, so shards of one place have one id, or are two that came and went.
    for old, new in zip_longest(begun, wanted):
        if old == new:
            continue
        if old is not None and new is not None and old.id == new.id:
            found = [("changed in the source", new)]
        else:
            pair = (("gone from the source", old), ("new in the source", new))
            found = [(verb, shard) for verb, shard in pair if shard is not None]
        for verb, shard in found:
            counts[verb] += 1
            if len(shown[verb]) < _SHOWN:
                shown[verb].append(shard.name)
    return tuple(
        f"{count} source shards {verb} since ({', '.join(shown[verb])}{', …' if count > _SHOWN else ''})"
        for verb, count in sorted(counts.items())
    )


def _settings(value: dict[str, Any]) -> Settings:
    target: dict[str, Any] = {name: tuple(part) if isinstance(part, list) else part for name, part in value["target"].items()}
    if sum(part is not None for part in target.values()) != 1:
        raise ValueError("not exactly one target size")
    if missing := {field.name for field in fields(Settings)} - value.keys() - _LATER.keys():
        raise ValueError(f"settings without {', '.join(sorted(missing))}")
    value = {**_LATER, **value}
    words: dict[str, Any] = {"tier": Tier, "lr_codec": LrCodec, "floor_metric": FloorMetric, "verify": Verification}
    rest = {name: words[name](part) if name in words else part for name, part in value.items() if name != "target"}
    if odd := [name for name, usual in _LATER.items() if type(rest[name]) is not type(usual)]:  # a bool is no count
        raise TypeError(f"{', '.join(odd)} of another type")
    return Settings(target=TargetSize(**target), **rest)


def decode_part(value: dict[str, Any]) -> PlanPart:
    """Return the part of a plan that JSON values tell of; raises KeyError, TypeError or ValueError where they do not."""
    part = PlanPart(sha256=_text(value["sha256"]), shards=int(value["shards"]), objects=int(value["objects"]))
    if not re.fullmatch(r"[0-9a-f]{64}", part.sha256) or part.shards < 1:
        raise ValueError("a part without a digest or without shards")
    return part


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
