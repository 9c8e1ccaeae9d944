"""One engine for many threads, which works in a thread of its own on all that waits for it, as one batch.

Nobody waits for a batch to fill: while the engine is at work others come to wait, and are the next one. On a CPU, where batches
gain nothing, each image is a batch.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pipeline.core.errors import DamagedEntry
from pipeline.core.overlap import OneThread
from pipeline.core.records import Pixels, Size
from pipeline.engines.engine import Engine
from pipeline.engines.lr import LrToRestore
from pipeline.engines.restoring import restore_lrs

Run = Callable[[Engine, Sequence[LrToRestore]], list[Pixels | DamagedEntry]]


class Batcher:
    """Restores LRs with one engine, whatever the number of threads that ask; ``run`` restores a batch.

    ``make`` makes the engine, in the thread that it then works in (see OneThread). ``most``: restored pixels of a batch; one
    image alone may have more; unless told the engine's ``batch_pixels``.
    """

    def __init__(self, make: Callable[[], Engine], run: Run = restore_lrs, *, most: int | None = None) -> None:
        self._thread = OneThread("engine")
        self._engine, self._run = self._thread.call(make), run
        self._most = self._engine.batch_pixels if most is None else most
        self._waiting: deque[tuple[LrToRestore, Future[Pixels]]] = deque()

    def restore(self, asked: LrToRestore) -> Pixels:
        """Return what the network makes of an entry's LR, at the original size; raises DamagedEntry."""
        mine: Future[Pixels] = Future()
        self._waiting.append((asked, mine))
        self._thread.submit(self._restore_next)
        return mine.result()

    def span(self, size: Size, lr_size: Size) -> Size:
        """Return the engine's own ``span``, which waits for nobody."""
        return self._engine.span(size, lr_size)

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
