"""What was added to a plan since: further parts, named by small objects that are numbered from 1 and created once each.

    plan/additions/000001.json

plan.json stays as it is, and with it the digest that names commits and shards. The source shards of an addition are numbered
on from those before, so plan and additions are one longer plan to whoever reads them in order.
"""

from __future__ import annotations

import re
from dataclasses import asdict

from pipeline.archives.plans import FORMAT_VERSION, decode_json, decode_part, encode_json
from pipeline.core.errors import DamagedObject, InvalidOption
from pipeline.core.records import PlanPart
from pipeline.stores.store import Store

ADDITIONS_SINCE = 4
"""The first version of the format whose readers look for additions; an archive of an earlier one gets none."""

PREFIX = "plan/additions/"

_NAME = re.compile(rf"{PREFIX}\d{{6}}\.json")

Addition = tuple[PlanPart, ...]
"""The parts of one addition, in order."""


def read_additions(store: Store, plan_digest: str) -> tuple[Addition, ...]:
    """Return the additions to a plan, in order: a listing, and a read for each.

    Raises DamagedObject where one is missing, cannot be read, or is of another plan, UnsupportedFormat, StoreError.
    """
    keys = [info.key for info in store.list(PREFIX) if _NAME.fullmatch(info.key)]
    return tuple(_read(store, key, number, plan_digest) for number, key in enumerate(keys, 1))


def create_addition(store: Store, plan_digest: str, number: int, parts: Addition) -> None:
    """Add parts, which are written already, to a plan as its addition of this number; raises AlreadyExists where it has one."""
    value = {"format_version": FORMAT_VERSION, "plan": plan_digest, "parts": [asdict(part) for part in parts]}
    store.create(_key(number), encode_json(value))


def delete_additions(store: Store, count: int) -> None:
    """Remove the additions to a plan that is given up, the last of them first: what is left in between is a plan."""
    for number in range(count, 0, -1):
        store.delete(_key(number))


def check_takes_additions(uri: str, plan: bytes) -> None:
    """Raise InvalidOption where readers of a plan's version would not see an addition to it."""
    version = decode_json(plan, uri)["format_version"]
    if version < ADDITIONS_SINCE:
        advice = f"readers of its format version, {version}, would not see what is added; rescale the source to a new archive."
        raise InvalidOption("--add", uri, advice)


def _read(store: Store, key: str, number: int, plan_digest: str) -> Addition:
    uri = f"{store.uri}/{key}"
    if key != _key(number):
        raise DamagedObject(f"{store.uri}/{_key(number)}", f"it is missing, and there is {key}")
    value = decode_json(store.read(key), uri)
    try:
        plan, parts = str(value["plan"]), tuple(decode_part(each) for each in value["parts"])
        if not parts:
            raise ValueError("it has no parts")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedObject(uri, f"no addition can be read from it: {type(error).__name__} {error}") from None
    if plan != plan_digest:
        raise DamagedObject(uri, f"it adds to the plan {plan[:16]}…, not to {plan_digest[:16]}…")
    return parts


def _key(number: int) -> str:
    return f"{PREFIX}{number:06d}.json"
