"""What a worker has done so far and where its time goes; any thread may count, another reads. No Ray in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

STAGES = ("read", "decode", "network", "encode", "write")
"""The way of an image through a worker. Only ``network`` is one at a time; the seconds of the others add up over threads."""

QUEUES = ("decode", "encode")
"""What is under way or ready ahead of the network, and behind it."""


@dataclass
class Progress:
    """Running totals of one worker, and how many images its queues hold now."""

    assets: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    queued: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUEUES, 0))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, *, pixels: int, bytes_in: int) -> None:
        """Count one asset."""
        with self._lock:
            self.assets += 1
            self.pixels += pixels
            self.bytes_in += bytes_in

    def wrote(self, count: int) -> None:
        """Count bytes written."""
        with self._lock:
            self.bytes_out += count

    def counts(self) -> dict[str, float]:
        """Return all totals by name, those of the stages in seconds."""
        with self._lock:
            totals = {"assets": self.assets, "pixels": self.pixels, "bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
            return totals | self.seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of the block to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - begun

    def timed(self, name: str, function: Callable[[Item], Result]) -> Callable[[Item], Result]:
        """Return ``function`` with its seconds counted to a stage."""

        def call(item: Item) -> Result:
            with self.stage(name):
                return function(item)

        return call

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items``, the seconds that each takes to come counted to a stage."""
        source = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def queue(self, name: str) -> Callable[[int], None]:
        """Return what is told by how many images a queue grows or, below 0, shrinks."""

        def change(count: int) -> None:
            with self._lock:
                self.queued[name] += count

        return change
