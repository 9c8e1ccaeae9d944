"""The plan <-> bytes: canonical JSON, so that equal plans have equal digests; and what tells two plans apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import Any

from pipeline.errors import DamagedObject, InvalidOption, UnsupportedFormat
from pipeline.records import FloorMetric, LrCodec, ObjectInfo, Plan, Settings, ShardKind, SourceShard, TargetSize, Tier

FORMAT_VERSION = 2
"""Version of the archive format, in the plan, in every shard and in every commit; docs/format.md describes this one."""


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
    if value["format_version"] != FORMAT_VERSION or isinstance(value["format_version"], bool):
        raise UnsupportedFormat(uri, str(value["format_version"]), str(FORMAT_VERSION))
    return value


def encode_plan(plan: Plan) -> bytes:
    """Return ``plan.json``: the same plan gives the same bytes."""
    return encode_json({"format_version": FORMAT_VERSION, **asdict(plan)})


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
            shards=tuple(_shard(each) for each in value["shards"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOption) as error:
        raise DamagedObject(uri, f"no plan can be read from it: {type(error).__name__} {error}") from None


def plan_differences(begun: Plan, wanted: Plan) -> tuple[str, ...]:
    """Return a sentence for each thing in which the plan an archive was begun with is not the one wanted now."""
    found = list(begun.settings.differences(wanted.settings))
    if begun.source != wanted.source:
        found.append(f"source {begun.source}, not {wanted.source}")
    if begun.model != wanted.model:
        found.append(f"model {begun.model[:16]}…, not {wanted.model[:16]}…")
    old, new = ({shard.id: shard for shard in plan.shards} for plan in (begun, wanted))
    gone, added = old.keys() - new.keys(), new.keys() - old.keys()
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    for names, verb in ((gone, "gone from the source"), (added, "new in the source"), (changed, "changed in the source")):
        if names:
            shown = ", ".join(sorted((old | new)[name].name for name in names)[:3])
            found.append(f"{len(names)} source shards {verb} since ({shown}{', …' if len(names) > 3 else ''})")
    if not found and begun.shards != wanted.shards:
        found.append("source shards in another order")
    return tuple(found)


def _settings(value: dict[str, Any]) -> Settings:
    target: dict[str, Any] = {name: tuple(part) if isinstance(part, list) else part for name, part in value["target"].items()}
    if sum(part is not None for part in target.values()) != 1:
        raise ValueError("not exactly one target size")
    if missing := {field.name for field in fields(Settings)} - value.keys():
        raise ValueError(f"settings without {', '.join(sorted(missing))}")
    words: dict[str, Any] = {"tier": Tier, "lr_codec": LrCodec, "floor_metric": FloorMetric}
    rest = {name: words[name](part) if name in words else part for name, part in value.items() if name != "target"}
    return Settings(target=TargetSize(**target), **rest)


def _shard(value: dict[str, Any]) -> SourceShard:
    objects = tuple(ObjectInfo(key=_text(o["key"]), size=int(o["size"]), etag=_text(o["etag"])) for o in value["objects"])
    if not objects:
        raise ValueError("a source shard without objects")
    return SourceShard(id=_text(value["id"]), name=_text(value["name"]), kind=ShardKind(value["kind"]), objects=objects)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
