"""A list of objects, for people and for programs: JSON lines in an object of an archive, replaced as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.core.records import ObjectInfo
from pipeline.stores.base import local_errors
from pipeline.stores.store import Store


class ObjectList:
    """A list in the making, on the local disk; :meth:`put` makes it an object. Used as a context manager it is closed."""

    def __init__(self, path: Path) -> None:
        self._path, self._is_empty = path, True
        with local_errors(str(path)):
            self._file = path.open("wb")

    def append(self, info: ObjectInfo, **told: str) -> None:
        """Add a line: key, size in bytes, and what is ``told``; raises StoreUnavailable where the local disk is full."""
        self._is_empty = False
        # A byte of a name that is no UTF-8 becomes an escape of JSON's.
        line = json.dumps({"key": info.key, "size": info.size, **told}, ensure_ascii=False) + "\n"
        with local_errors(str(self._path)):
            self._file.write(line.encode(errors="backslashreplace"))

    def put(self, store: Store, key: str) -> None:
        """Write the list into ``store``, in place of an earlier one; an empty one only there."""
        with local_errors(str(self._path)):
            self._file.flush()
        if not self._is_empty or store.exists(key):
            store.replace(key, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
