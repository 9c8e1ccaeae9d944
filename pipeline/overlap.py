"""Work done ahead of its consumer, in threads, bounded by how much may be under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from pipeline.errors import PipelineError

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    threads: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    limit: int,
    weigh: Callable[[Item], int] = lambda _: 1,
) -> Iterator[Result]:
    """Yield ``function(item)`` in the order of ``items``, computed in ``threads`` while earlier results are used.

    At most ``limit`` of weight is under way or waiting beyond the item that reaches it, and always at least one item. An
    error of ``function`` is raised where its result would have been; a PipelineError of ``items`` after all results of the
    items before it.
    """
    waiting: deque[tuple[Future[Result], int]] = deque()
    weight = 0
    source = iter(items)
    ended, fault = False, None
    try:
        while waiting or not ended:
            while not ended and (weight < limit or not waiting):
                try:
                    item = next(source)
                except StopIteration:
                    ended = True
                except PipelineError as error:
                    ended, fault = True, error
                else:
                    waiting.append((threads.submit(function, item), max(1, weigh(item))))
                    weight += waiting[-1][1]
            if waiting:
                future, own = waiting.popleft()
                yield future.result()
                weight -= own
        if fault is not None:
            raise fault
    finally:
        for future, _ in waiting:
            future.cancel()
