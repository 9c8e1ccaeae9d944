"""Loose files whose names differ in extensions alone, and that lie in different shards as one was added later.

A plan keeps such files in one shard, whose names are told apart (names.py). Of those here each shard has to know the others.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pipeline.assets.names import safe_key
from pipeline.core.records import ShardKind, SourceShard
from pipeline.outputs.names import root_name


def twins(shards: Callable[[], Iterable[SourceShard]], added: Iterable[SourceShard]) -> dict[str, tuple[str, ...]]:
    """Return the keys of loose files whose names but for extensions those of another shard have too, by that name.

    ``shards`` gives all of a plan, and is asked once, or twice where there are such files; ``added`` are those that were added
    to it, whose names are remembered by 13 bytes each.
    """
    numbers = np.unique(np.frombuffer(array("q", (hash(name) for _, name, _ in _names(added))), np.int64))
    if not numbers.size:
        return {}
    known = array("q", numbers.tobytes())
    shard_of, shared = array("i", [-1]) * len(known), bytearray(len(known))

    def of_added() -> Iterator[tuple[int, str, str, int]]:
        for shard, name, key in _names(shards()):
            number = hash(name)
            place = bisect_left(known, number)
            if place < len(known) and known[place] == number:
                yield shard, name, key, place

    for shard, _, _, place in of_added():
        shared[place] |= shard_of[place] not in (-1, shard)
        shard_of[place] = shard
    found: defaultdict[str, list[str]] = defaultdict(list)
    if any(shared):
        for _, name, key, place in of_added():
            if shared[place]:
                found[name].append(key)
    return {name: tuple(keys) for name, keys in found.items()}


def _names(shards: Iterable[SourceShard]) -> Iterator[tuple[int, str, str]]:
    """Yield of each loose file the number of its shard, its name but for extensions, and its key as an entry has it."""
    for number, shard in enumerate(shards):
        if shard.kind is ShardKind.FILES:
            for each in shard.objects:
                key = safe_key(each.key)[0]
                yield number, root_name(key), key
