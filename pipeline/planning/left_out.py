"""What of a source is no part of its plan: a list of it, and how many there are of each extension."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.core.errors import AlreadyExists
from pipeline.core.records import ObjectInfo
from pipeline.stores.base import local_errors
from pipeline.stores.store import Store

LEFT_OUT = "left-out.jsonl"
"""The list in an archive: JSON lines of key, size in bytes, and why."""

NO_EXTENSION = "none"
_EXTENSION = re.compile(r"\.(?!\d+$)([a-z0-9_-]{1,12})$")  # a number counts something


class LeftOutList:
    """A list in the making, on the local disk; :meth:`put` makes it an object. Used as a context manager it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with local_errors(str(path)):
            self._file = path.open("wb")
        self.counts: Counter[str] = Counter()

    def add(self, info: ObjectInfo, why: str) -> None:
        """List an object; raises StoreUnavailable where the local disk is full."""
        self.counts[extension_of(info.key)] += 1
        with local_errors(str(self._path)):
            # A byte of a name that is no UTF-8 becomes an escape of JSON's.
            line = json.dumps({"key": info.key, "size": info.size, "why": why}, ensure_ascii=False)
            self._file.write(f"{line}\n".encode(errors="backslashreplace"))

    def put(self, store: Store) -> None:
        """Write the list into ``store``, in place of an earlier one; where nothing was left out there is none."""
        with local_errors(str(self._path)):
            self._file.flush()
        store.delete(LEFT_OUT)
        if self.counts:
            try:
                store.create(LEFT_OUT, self._path)
            except AlreadyExists:  # another planner's, of the same source in the same moment
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


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
