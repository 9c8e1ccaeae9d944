"""A part of an object that is read piece by piece, as it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from pipeline.stores.base import Store


@dataclass(frozen=True, kw_only=True)
class ObjectRange:
    """Bytes ``start`` to ``stop`` of one version of an object; slices of them are read as ``Store.read`` does, and raise so."""

    store: Store
    key: str
    etag: str
    start: int
    stop: int

    @property
    def uri(self) -> str:
        """The object's."""
        return f"{self.store.uri}/{self.key}"

    def open(self, buffer_size: int) -> BinaryIO:
        """Return the object from ``start`` on, beyond ``stop`` too, as a file that fetches ``buffer_size`` bytes at a time."""
        file = self.store.open(self.key, self.etag, buffer_size)
        file.seek(self.start)
        return file

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> bytes:
        first, last, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"bytes in a row can be read, not every {step}th")
        return self.store.read(self.key, self.start + first, self.start + last, self.etag) if first < last else b""
