"""Work ahead of its consumer: in order, bounded, errors in their place, nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import DamagedShard, UndecodableImage
from pipeline.core.overlap import OneThread, ahead, together
from tests.support.commands import GUARD


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    """Three threads."""
    with ThreadPoolExecutor(3) as pool:
        yield pool


class Source:
    """Items that count how many were taken, and that can fail after the last."""

    def __init__(self, items: list[int], error: Exception | None = None) -> None:
        self.items, self.error, self.taken = items, error, 0

    def __iter__(self) -> Iterator[int]:
        for item in self.items:
            self.taken += 1
            yield item
        if self.error is not None:
            raise self.error


def test_results_come_in_order(threads: ThreadPoolExecutor) -> None:
    """Protects the order of entries: it is that of the assets, whichever is done first."""
    gate = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0:
            gate.wait(GUARD)
        if item == 2:
            gate.set()
        return item * item

    assert list(ahead(threads, slow_first, range(50), limit=5)) == [item * item for item in range(50)]


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 15))
def test_weight_under_way_is_bounded(weights: list[int], limit: int) -> None:
    """Protects memory: before the item that reaches the limit there is less than the limit under way, or nothing at all."""
    source = Source(weights)
    with ThreadPoolExecutor(2) as threads:
        results = ahead(threads, lambda item: item, source, limit=limit, weigh=lambda item: item)
        for done, result in enumerate(results):
            assert result == weights[done]
            under_way = [max(1, weight) for weight in weights[done : source.taken]]  # the one just given counts until used
            assert sum(under_way[:-1]) < limit or len(under_way) == 1
        assert source.taken == len(weights)


def test_one_heavy_item_still_passes(threads: ThreadPoolExecutor) -> None:
    """Protects large images: an item above the limit by itself goes alone instead of never."""
    source = Source([100, 100, 100])
    for done, _ in enumerate(ahead(threads, lambda item: item, source, limit=7, weigh=lambda item: item), start=1):
        assert source.taken == done


def test_nothing_is_taken_before_it_is_asked_for(threads: ThreadPoolExecutor) -> None:
    """Protects laziness: a source is first read when the first result is wanted."""
    source = Source([1, 2])
    results = ahead(threads, lambda item: item, source, limit=2)
    assert source.taken == 0
    assert next(results) == 1
    assert list(results) == [2]


def test_no_items_give_no_results(threads: ThreadPoolExecutor) -> None:
    """Protects empty shards: nothing in, nothing out, no wait."""
    assert list(ahead(threads, lambda item: item, [], limit=1)) == []


def test_an_error_of_the_function_stands_where_its_result_would() -> None:
    """Protects the entries before a failure: they are given first, and the work behind it is cancelled."""
    begun: list[int] = []
    gate = threading.Event()

    def fail_at_two(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise UndecodableImage("broken")
        if item > 2:
            gate.wait(GUARD)
        return item

    with ThreadPoolExecutor(1) as threads:
        results = ahead(threads, fail_at_two, range(9), limit=9)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(UndecodableImage):
            next(results)
        gate.set()
    assert len(begun) <= 4


def test_an_error_of_the_source_comes_after_all_results(threads: ThreadPoolExecutor) -> None:
    """Protects a damaged shard's good assets: what was read before the damage is given before the error."""
    source = Source([1, 2, 3], DamagedShard("x.tar", "cut off"))
    results = ahead(threads, lambda item: item, source, limit=10)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(DamagedShard):
        next(results)


def test_a_fault_of_the_source_is_raised_at_once(threads: ThreadPoolExecutor) -> None:
    """Protects against hidden bugs: an error that is none of ours is not put off until all results are used."""
    gate = threading.Event()
    try:
        with pytest.raises(ZeroDivisionError):
            next(ahead(threads, lambda _: gate.wait(GUARD), Source([1, 2], ZeroDivisionError()), limit=10))
    finally:
        gate.set()


class Kept(ThreadPoolExecutor):
    """A thread that keeps what was given to it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.futures: list[Future[Any]] = []

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Keep the future as well."""
        self.futures.append(super().submit(function, *arguments, **options))
        return self.futures[-1]


def test_what_is_ready_is_not_held_back() -> None:
    """Protects progress and memory: a finished result is given although the limit is far, with one item more under way."""
    taken: list[int] = []

    def finished() -> Iterator[int]:
        yield 0
        threads.futures[0].result(GUARD)  # now the first result is ready
        for item in range(1, 1000):
            taken.append(item)
            yield item

    with Kept() as threads:
        assert next(ahead(threads, lambda item: item, finished(), limit=10**6)) == 0
    assert len(taken) <= 3


def test_closing_cancels_what_has_not_begun() -> None:
    """Protects a stopped job: closed results leave no work behind in the threads."""
    begun: list[int] = []
    gate = threading.Event()

    def wait(item: int) -> int:
        begun.append(item)
        if item:
            gate.wait(GUARD)
        return item

    with ThreadPoolExecutor(1) as threads:
        results = ahead(threads, wait, range(100), limit=50)
        assert next(results) == 0
        results.close()  # type: ignore[attr-defined]
        gate.set()
    assert len(begun) <= 2


def test_one_thread_has_one_item_at_a_time() -> None:
    """Protects the engine, which takes one caller at a time: two shards that ask at once take turns in one thread, in order,
    nothing is computed before it is asked for, and an error stands where its result would."""
    one, seen, at_once = OneThread("engine"), list[tuple[int, str]](), list[int]()

    def work(item: int) -> int:
        at_once.append(item)
        assert len(at_once) == 1
        time.sleep(0.002)
        seen.append((item, threading.current_thread().name))
        at_once.remove(item)
        if item == 7:
            raise UndecodableImage("broken")
        return item * item

    first = one.over(work, [7])
    assert not seen
    with pytest.raises(UndecodableImage):
        next(first)
    with ThreadPoolExecutor(2) as askers:
        results = list(askers.map(lambda items: list(one.over(work, items)), (range(5), range(10, 15))))
    assert results == [[item * item for item in items] for items in (range(5), range(10, 15))]
    assert len({name for _, name in seen}) == 1


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(0, 15))
def test_a_batch_is_full_or_as_full_as_its_next_item_allows(weights: list[int], limit: int) -> None:
    """Protects a GPU's memory and its speed: no batch is above the limit but of one item, and none ends before it has to."""
    source = Source(weights)
    batches = []
    for batch in together(source, limit=limit, weigh=lambda item: item):
        batches.append(batch)
        ahead_of_use = source.taken - sum(map(len, batches))
        assert ahead_of_use == 0 if sum(batch) >= limit else ahead_of_use <= 1, "nothing waits for an item that cannot join it"
    assert [item for batch in batches for item in batch] == weights
    for batch, following in pairwise(batches):
        assert sum(batch) <= limit or len(batch) == 1
        assert sum(batch) >= limit or sum(batch) + following[0] > limit


def test_a_batch_cut_short_by_damage_is_given_first() -> None:
    """Protects a damaged shard's good assets: what was read before the damage is not lost with it."""
    batches = together(Source([1, 2, 3], DamagedShard("x.tar", "cut off")), limit=5, weigh=lambda item: item)
    assert [next(batches), next(batches)] == [[1, 2], [3]]
    with pytest.raises(DamagedShard):
        next(batches)
