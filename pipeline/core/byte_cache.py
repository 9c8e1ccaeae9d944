"""Bytes by name in memory, the least recently used going first where all would take more than they may."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")

LARGEST_SHARE = 4
"""A value of more than this part (a quarter) of all bytes is not kept by most caches: it would push out too many others."""


@dataclass(frozen=True, kw_only=True)
class CacheState:
    """What a cache holds, and how it has been asked so far."""

    values: int
    bytes: int
    hits: int
    misses: int


class ByteCache(Generic[Value]):
    """Values by name, each with the bytes that it takes; any thread may ask. ``limit`` bounds the sum, 0 keeps nothing.

    Pickled it is empty.
    """

    largest_share = LARGEST_SHARE

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = self._hits = self._misses = 0
        self._turn = threading.Lock()

    def __reduce__(self) -> tuple[type[ByteCache[Value]], tuple[int]]:
        return type(self), (self.limit,)

    def get(self, name: Hashable) -> Value | None:
        """Return a value, which counts as used now, or None."""
        with self._turn:
            found = self._values.get(name)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._values.move_to_end(name)
            return found[0]

    def put(self, name: Hashable, value: Value, size: int) -> None:
        """Keep a value of ``size`` bytes, in the place of the name's last one, unless it is too large; others go for it."""
        with self._turn:
            self._bytes -= self._values.pop(name, (value, 0))[1]
            if size * self.largest_share > self.limit:
                return
            self._bytes += size
            self._values[name] = (value, size)
            while self._bytes > self.limit:
                _, (_, freed) = self._values.popitem(last=False)
                self._bytes -= freed

    @property
    def state(self) -> CacheState:
        """Figures of this moment."""
        with self._turn:
            return CacheState(values=len(self._values), bytes=self._bytes, hits=self._hits, misses=self._misses)
