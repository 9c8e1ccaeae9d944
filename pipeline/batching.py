"""One engine for many threads, which works in a thread of its own on all that waits for it, as one batch.

Nobody waits for a batch to fill: while the engine is at work others come to wait, and are the next one. On a CPU, where batches
gain nothing, each image is a batch.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pipeline.engine import Engine, Restore
from pipeline.errors import DamagedEntry
from pipeline.image import is_grey
from pipeline.overlap import OneThread
from pipeline.records import Entry, Pixels, Size
from pipeline.restore import size_to_restore

BATCH_PIXELS = 16_000_000
"""Restored pixels of a batch at most; one image may have more."""


@dataclass(frozen=True)
class LrToRestore:
    """An entry with its LR's pixels."""

    entry: Entry
    lr: Pixels

    @property
    def pixels(self) -> int:
        """Pixels of the restored image."""
        return (self.entry.height or 0) * (self.entry.width or 0)

    @property
    def grey(self) -> bool:
        """Whether the source had no colour channels."""
        return is_grey(self.entry.mode)

    @property
    def clean(self) -> bool:
        """Whether the LR is a bicubic one."""
        return bool(self.entry.clean)


Run = Callable[[Engine, Sequence[LrToRestore]], list[Pixels | DamagedEntry]]


def restore_many(engine: Engine, batch: Sequence[LrToRestore]) -> list[Pixels | DamagedEntry]:
    """Return what the network makes of each LR of a batch, or what is wrong with that one."""
    sizes: list[Size | DamagedEntry] = []
    for each in batch:
        try:
            sizes.append(size_to_restore(engine, each.entry, each.lr))
        except DamagedEntry as error:
            sizes.append(error)
    sound = [(each, size) for each, size in zip(batch, sizes, strict=True) if not isinstance(size, DamagedEntry)]
    requests = [Restore(lr=each.lr, size=size, grey=each.grey, clean=each.clean) for each, size in sound]
    images = iter(engine.restore_many(requests))
    return [size if isinstance(size, DamagedEntry) else next(images) for size in sizes]


class Batcher:
    """Restores LRs with one engine, whatever the number of threads that ask; ``run`` restores a batch.

    ``make`` makes the engine, in the thread that it then works in (see OneThread). ``most``: restored pixels of a batch; one
    image alone may have more; unless told BATCH_PIXELS, and none on a CPU.
    """

    def __init__(self, make: Callable[[], Engine], run: Run = restore_many, *, most: int | None = None) -> None:
        self._thread = OneThread("engine")
        self._engine, self._run = self._thread.call(make), run
        usual = 0 if self._engine.device.type == "cpu" else BATCH_PIXELS
        self._most = usual if most is None else most
        self._waiting: deque[tuple[LrToRestore, Future[Pixels]]] = deque()

    def restore(self, entry: Entry, lr: Pixels) -> Pixels:
        """Return what the network makes of an entry's LR, at the original size; raises DamagedEntry."""
        mine: Future[Pixels] = Future()
        self._waiting.append((LrToRestore(entry, lr), mine))
        self._thread.submit(self._restore_next)
        return mine.result()

    def _restore_next(self) -> None:
        if not self._waiting:  # an earlier batch had it
            return
        batch = [self._waiting.popleft()]
        pixels = batch[0][0].pixels
        while self._waiting and pixels + self._waiting[0][0].pixels <= self._most:
            batch.append(self._waiting.popleft())
            pixels += batch[-1][0].pixels
        results = None
        try:
            results = self._run(self._engine, [each for each, _ in batch])
        finally:
            if results is None:  # whatever it met, nobody of the batch may wait for ever
                for _, future in batch:
                    future.set_exception(sys.exception())
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, DamagedEntry):
                future.set_exception(result)
            else:
                future.set_result(result)
