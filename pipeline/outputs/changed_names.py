"""Entries that are written under another name than their own: noted shard by shard, and listed beside the output.

A worker puts a shard's into the state of its restore, where they stay however often a job is resumed; the job gathers them.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.core.errors import AlreadyExists, InvalidKey, NotFound
from pipeline.outputs.outputs import STATE_PREFIX, Output
from pipeline.stores.base import local_errors
from pipeline.stores.store import Store

NAMES = "names.tsv"
HEADER = "shard\tkey\twritten as\n"

_PREFIX = "names/"
_OWN = f"{STATE_PREFIX}/{NAMES}"
"""Where a destination keeps the list as it was written, by which it is told from a file of somebody's that looks like one."""


class ChangedNames:
    """Those of one shard, on the local disk until :meth:`put`. Used as a context manager it is closed."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAMES
        with local_errors(str(self._path)):
            self._file = self._path.open("w", encoding="utf-8", newline="\n")
        self._count = 0

    def add(self, shard_id: str, key: str, output: Output) -> None:
        """Note the entry that was written last, where its name is not its key; no name has tabs or ends of lines in it."""
        if output.name != key:
            self._count += 1
            with local_errors(str(self._path)):
                self._file.write(f"{shard_id}\t{key}\t{output.place}{output.name}\n")

    def put(self, state: Store, shard_id: str) -> None:
        """Write them into the state, in place of those of an attempt before."""
        with local_errors(str(self._path)):
            self._file.flush()
        key = f"{_PREFIX}{shard_id}.tsv"
        if self._count:
            state.delete(key)
            try:
                state.create(key, self._path)
            except AlreadyExists:  # by another attempt at the same shard, which gives the same names
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def list_changed_names(state: Store, destination: Store) -> tuple[int, str]:
    """List beside the output what was written under another name; return how many there are, and where the list is.

    A list of other restores to the same place is added to. Where a file of that name is something else, it stays, and the
    list is left in the state, in parts.
    """
    lines = [line for part in state.list(_PREFIX) for line in _lines(state.read(part.key).decode())]
    if not lines:
        return 0, ""
    own, there = _read(destination, _OWN) or b"", _read(destination, NAMES)
    if there is not None and not (there and own.startswith(there)):  # all of it, or as far as a run wrote that was cut off
        return len(lines), f"{state.uri}/{_PREFIX}"
    own = own or HEADER.encode()
    known = set(_lines(own.decode()))
    whole = own + "".join(line for line in lines if line not in known).encode()
    if whole != there:
        try:
            destination.replace(_OWN, whole)
            destination.replace(NAMES, whole)
        except InvalidKey:  # a folder is there
            return len(lines), f"{state.uri}/{_PREFIX}"
    return len(lines), f"{destination.uri}/{NAMES}"


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except NotFound:
        return None


def _lines(text: str) -> list[str]:
    """Return lines with their ends; names may have what else Unicode calls an end of a line."""
    return [f"{line}\n" for line in text.split("\n") if line]
