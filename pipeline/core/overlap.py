"""Work done ahead of its consumer, in threads, bounded by how much may be under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from pipeline.core.errors import PipelineError

WINDOW_PIXELS = 32_000_000
"""Pixels decoded ahead of the engine, and restored behind it, before the next image has to wait; bytes where those are more.

A GPU has a batch of them besides, ``Engine.batch_pixels``."""

LEAST_WEIGHT = 4096
"""What an asset of next to no pixels and bytes takes of that window."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class OneThread:
    """A thread of its own for what goes one at a time, whoever asks: the engine's work.

    OpenMP keeps a pool for every thread that computes, and where there are more of its threads than cores none of them waits
    awake any more: two shards that took turns in their own threads had half the speed on small images.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def call(self, function: Callable[[], Result]) -> Result:
        """Return ``function()``, computed in the thread."""
        return self._thread.submit(function).result()

    def submit(self, function: Callable[[], None]) -> None:
        """Have ``function()`` computed when its turn comes, and do not wait for it."""
        self._thread.submit(function)

    def over(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)``, each computed in the thread when it is asked for."""
        for item in items:
            future = self._thread.submit(function, item)
            del item
            yield future.result()
            del future


def ahead(
    threads: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    limit: int,
    weigh: Callable[[Item], int] = lambda _: 1,
    queue: Callable[[int], None] = lambda _: None,
) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of ``items``, computed in ``threads`` while earlier results are used.

    At most ``limit`` of weight is under way or waiting beyond the item that reaches it, and always at least one item. An
    error of ``function`` is raised where its result would have been; a PipelineError of ``items`` after all results of the
    items before it. ``queue`` is told by how many items what is under way grows or shrinks.
    """
    waiting: deque[tuple[Future[Result], int]] = deque()
    weight = 0
    source = iter(items)
    ended, fault = False, None
    try:
        while waiting or not ended:
            added = False  # a result that is ready is not held back until the limit is reached, only for one item more
            while not ended and (not waiting or (weight < limit and not (added and waiting[0][0].done()))):
                try:
                    item = next(source)
                except StopIteration:
                    ended = True
                except PipelineError as error:
                    ended, fault = True, error
                else:
                    waiting.append((threads.submit(function, item), max(1, weigh(item))))
                    weight += waiting[-1][1]
                    queue(1)
                    added = True
                    del item  # nothing here keeps an item or a result alive that its consumer has done with
            if waiting:
                own = waiting[0][1]
                queue(-1)
                yield waiting.popleft()[0].result()
                weight -= own
        if fault is not None:
            raise fault
    finally:
        queue(-len(waiting))
        for future, _ in waiting:
            future.cancel()


def together(items: Iterable[Item], *, limit: int, weigh: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield ``items`` in batches of ``limit`` of weight at most, or of one item.

    A PipelineError of ``items`` is raised after the batch of the items before it. What was given away is not kept alive here.
    """
    batch: list[Item] = []
    weight, fault = 0, None
    try:
        for item in items:
            own = weigh(item)
            if batch and weight + own > limit:
                yield _taken(batch)
                weight = 0
            batch.append(item)
            weight += own
            del item
            if weight >= limit:
                yield _taken(batch)
                weight = 0
    except PipelineError as error:
        fault = error
    if batch:
        yield _taken(batch)
    if fault is not None:
        raise fault


def _taken(batch: list[Item]) -> list[Item]:
    """Return the items of ``batch``, which then has none."""
    taken = batch.copy()
    batch.clear()
    return taken


def singly(batches: Iterable[list[Item]]) -> Iterator[Item]:
    """Yield the items of batches, each taken out of its list."""
    for batch in batches:
        batch.reverse()
        while batch:
            yield batch.pop()


def halved(amount: int, times: int) -> int:
    """Return ``amount`` halved some times, 1 at least."""
    return max(1, amount >> times)
