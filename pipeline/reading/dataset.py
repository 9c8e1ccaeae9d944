"""An archive as a PyTorch dataset: its LRs straight from the shards, for DataLoader workers."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

import torch
from torch.utils.data import Dataset

from pipeline.archives.entries import columns_of, from_row, there
from pipeline.reading.reader import ArchiveReader, EntryReader, open_archive
from pipeline.tables.reader import RowReader

OPEN_SHARDS = 8
"""Shards that a process has open at once, each with its footer and one row group in memory."""


class ArchiveDataset(Dataset[Any]):
    """The rescaled entries of an archive in its order, each as what ``transform`` makes of it.

    Without ``transform`` an item is ``{"key": str, "lr": uint8 tensor (3, h, w)}``. ``parts`` are the fields of bytes that are
    read: ``sidecars`` has captions and labels; what is to be restored needs ``latent``, ``alpha`` and ``original`` as well.
    Picklable where ``transform`` is.
    """

    def __init__(
        self,
        archive: str | ArchiveReader,
        transform: Callable[[EntryReader], Any] | None = None,
        *,
        parts: Collection[str] = ("lr", "sidecars"),
    ) -> None:
        self.archive = open_archive(archive) if isinstance(archive, str) else archive
        self._transform = transform or _plain_item
        self._parts, self._columns = frozenset(parts), columns_of(parts)
        self._shard_ids, self._rows = [], []
        for shard_id, entries, originals in self.archive.shard_counts:
            # Which rows are rescaled ones; None for all, and where it is not all the column has to be read.
            rows = self._rescaled_rows(shard_id) if originals else None
            self._shard_ids.append(shard_id)
            self._rows.append((entries if rows is None else len(rows), rows))
        self._ends = list(accumulate(count for count, _ in self._rows))
        self._open = _OpenShards(self.archive, self._columns)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} of {len(self)} entries")
        index %= len(self)
        number = bisect_right(self._ends, index)
        rows = self._rows[number][1]
        place = index - (self._ends[number - 1] if number else 0)
        shard_id = self._shard_ids[number]
        row = self._open.row(shard_id, place if rows is None else rows[place])
        return self._transform(EntryReader(self.archive, shard_id, from_row(row), self._parts))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = _OpenShards(self.archive, self._columns)

    def _rescaled_rows(self, shard_id: str) -> list[int]:
        with self.archive.archive.shard_rows(shard_id) as reader:
            return [number for number, row in enumerate(reader.rows(["kind"])) if row["kind"] == "rescaled"]


class _OpenShards:
    """The shards read last, open, each with the row group read last: entries in order cost one read of a row group."""

    def __init__(self, archive: ArchiveReader, columns: list[str]) -> None:
        self._archive, self._columns = archive, columns
        self._process = os.getpid()
        self._shards: OrderedDict[str, _OpenShard] = OrderedDict()

    def row(self, shard_id: str, number: int) -> dict[str, Any]:
        if self._process != os.getpid():  # a worker must not share its parent's files
            self.__init__(self._archive, self._columns)  # type: ignore[misc]
        shard = self._shards.pop(shard_id, None) or _OpenShard(self._archive, shard_id)
        self._shards[shard_id] = shard
        if len(self._shards) > OPEN_SHARDS:
            self._shards.popitem(last=False)[1].close()
        return shard.row(number, self._columns)


class _OpenShard:
    def __init__(self, archive: ArchiveReader, shard_id: str) -> None:
        self._stack = ExitStack()
        self._reader: RowReader = self._stack.enter_context(archive.archive.shard_rows(shard_id))
        self._ends = list(accumulate(self._reader.group_rows()))
        self._group, self._rows = -1, list[dict[str, Any]]()

    def row(self, number: int, columns: list[str]) -> dict[str, Any]:
        group = bisect_right(self._ends, number)
        if group != self._group:
            self._rows, self._group = self._reader.row_group(group, there(columns, self._reader)), group
        return dict(self._rows[number - (self._ends[group - 1] if group else 0)])

    def close(self) -> None:
        self._stack.close()


def _plain_item(entry: EntryReader) -> dict[str, Any]:
    return {"key": entry.key, "lr": torch.from_numpy(entry.lr()[..., :3].copy()).permute(2, 0, 1)}
