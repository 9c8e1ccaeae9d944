"""Entries that are asked for part by part: what of them is read and decoded once stays for the parts that follow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from pipeline.core.byte_cache import ByteCache, CacheState
from pipeline.entry_picture import OpenEntry

KEPT_BYTES = 256 * 2**20
"""The LR, the latent and the decoded LR of an image of 50 megapixels at x2 are some 50 MiB, its decoded picture 150."""


class OpenEntries:
    """Entries in use, and behind them the last ones as far as ``limit`` bytes go; all threads that ask for one share it."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._kept = _Kept(limit)
        self._in_use: WeakValueDictionary[Hashable, OpenEntry] = WeakValueDictionary()
        self._turn = threading.Lock()

    @contextmanager
    def entry(self, name: Hashable, make: Callable[[], OpenEntry]) -> Iterator[OpenEntry]:
        """Give the entry of a name, which ``make`` gives where it is not there; one that raises an error is not kept."""
        with self._turn:
            found = self._in_use.get(name)
            if found is None:
                found = self._in_use[name] = make()
        yield found
        self._kept.put(name, found, found.bytes)  # weighed anew after each use, for it may have more decoded then

    @property
    def state(self) -> CacheState:
        """Figures of what is kept at this moment."""
        return self._kept.state


class _Kept(ByteCache[OpenEntry]):
    largest_share = 1  # one that is not kept would be decoded again for each of its parts
