"""What waits for one engine: a batch at a time, bounded, damage and faults told to whom they concern."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DamagedEntry
from pipeline.core.records import Entry, EntryKind, Pixels, Tier
from pipeline.engines.batching import Batcher
from pipeline.engines.engine import BATCH_PIXELS, Engine, choose_device
from pipeline.engines.lr import LrToRestore
from pipeline.engines.restoring import restore_lrs
from tests.support.commands import GUARD
from tests.support.pictures import photo
from tests.support.workshop import weights


@pytest.fixture(scope="module")
def engine() -> Engine:
    """A small engine."""
    return Engine(weights(), choose_device("cpu"))


def entry_of(seed: int, *, side: int = 24) -> tuple[Entry, Pixels]:
    """Return an entry of a square image, and its LR's pixels."""
    given: dict[str, Any] = {"key": f"{seed}.png", "kind": EntryKind.RESCALED, "tier": Tier.LEAN, "byte_size": 1}
    entry = Entry(**given, reason=None, sha256=None, width=side, height=side)
    return entry, photo(12, 12, 3, seed)


def test_what_waits_for_an_engine_is_one_batch(engine: Engine) -> None:
    """Protects throughput and each caller: what comes while the engine is at work is its next batch."""
    sizes: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def run(engine: Engine, batch: Sequence[LrToRestore]) -> list[Pixels | DamagedEntry]:
        sizes.append(len(batch))
        begun.set()
        assert go_on.wait(GUARD)
        return restore_lrs(engine, batch)

    batcher, inputs = Batcher(lambda: engine, run, most=BATCH_PIXELS), [entry_of(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(batcher.restore, LrToRestore(*inputs[0]))
        assert begun.wait(GUARD)
        others = [threads.submit(batcher.restore, LrToRestore(*each)) for each in inputs[1:]]
        while len(batcher._waiting) < 7:
            threading.Event().wait(0.005)
        go_on.set()
        found = [future.result(GUARD) for future in (first, *others)]
    assert sizes == [1, 7]
    for (entry, lr), pixels in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(pixels, Batcher(lambda: engine).restore(LrToRestore(entry, lr)))


def test_a_batch_is_bounded_and_damage_is_one_entry_s(engine: Engine) -> None:
    """Protects memory and neighbours: pixels of a batch are bounded, and an entry that cannot be restored fails alone."""
    side = int((BATCH_PIXELS / 3) ** 0.5)
    sizes: list[int] = []

    def run(_: Engine, batch: Sequence[LrToRestore]) -> list[Pixels | DamagedEntry]:
        sizes.append(sum(each.pixels for each in batch))
        return [DamagedEntry(each.entry.key, "LR", "so") if each.entry.key == "3.png" else each.lr for each in batch]

    batcher = Batcher(lambda: engine, run, most=BATCH_PIXELS)
    with ThreadPoolExecutor(16) as threads:
        futures = [threads.submit(batcher.restore, LrToRestore(*entry_of(seed, side=side))) for seed in range(16)]
        faults = [future.exception(GUARD) for future in futures]
    assert [type(fault) for fault in faults] == [DamagedEntry if seed == 3 else type(None) for seed in range(16)]
    assert max(sizes) <= BATCH_PIXELS


def test_an_engine_that_fails_fails_all_of_a_batch(engine: Engine) -> None:
    """Protects callers from waiting for ever: an error of the engine reaches each of them, and the next batch runs."""

    def run(*_: Any) -> list[Pixels | DamagedEntry]:
        raise RuntimeError("the device is gone")

    batcher = Batcher(lambda: engine, run, most=BATCH_PIXELS)
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(batcher.restore, LrToRestore(*entry_of(seed))) for seed in range(4)]
        for future in futures:
            with pytest.raises(RuntimeError, match="the device is gone"):
                future.result(GUARD)
