"""What of a source is no part of its plan: why, and how many there are of each extension in the list of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable

from pipeline.stores.store import Store

LEFT_OUT = "left-out.jsonl"
"""The list in an archive: JSON lines of key, size in bytes, and why."""

HIDDEN = "it is hidden: its name or a folder's begins with a dot"
IN_ARCHIVE = "it belongs to an archive of this program"
NO_IMAGE = "by its name, or where that tells nothing by its first bytes, it is no image that is read, and it is beside none"
NOT_TO_BE_READ = "its name tells of no image, and it cannot be looked into"
NOT_LOOKED_INTO = "its name tells of no image; --sniff looks at its first bytes"
LATE = "it came beside a file that was planned without it, and whose entry stands without it"

NO_EXTENSION = "none"
_EXTENSION = re.compile(r"\.(?!\d+$)([a-z0-9_-]{1,12})$")  # a number counts something


def left_out_of(store: Store) -> Counter[str]:
    """Return how many files of each extension an archive's list has, from its lines one after the other."""
    if not store.exists(LEFT_OUT):
        return Counter()
    try:
        with store.open(LEFT_OUT) as file:
            return by_extension(json.loads(line)["key"] for line in file)
    except (ValueError, KeyError, TypeError):  # for people, and perhaps edited by them
        return Counter()


def by_extension(keys: Iterable[str]) -> Counter[str]:
    """Count keys by extension, lower-case, ``none`` where there is none that could be one."""
    return Counter(map(extension_of, keys))


def extension_of(key: str) -> str:
    """Return a key's extension, lower-case and without dot, ``none`` where it has none."""
    match = _EXTENSION.search(key.rpartition("/")[2].lstrip(".").lower())
    return match[1] if match else NO_EXTENSION
