"""What a worker has done so far and where its time goes; any thread may count, another reads. No Ray in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

STAGES = ("read", "decode", "network", "verify", "encode", "write")
"""The way of an image through a worker; ``verify`` is the restore that is made to be measured, and the measuring.

The engine is one thread; the seconds of all else add up over threads."""

BUSY, UP = "busy", "up"
"""Seconds that a worker's engine was at work, of those that the worker has been there."""

QUEUES = ("decode", "encode")
"""What is under way or ready ahead of the network, and behind it."""


@dataclass
class Progress:
    """Running totals of one worker, and how many images its queues hold now."""

    assets: int = 0
    pixels: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    busy: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    queued: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUEUES, 0))
    _begun: float = field(default_factory=time.perf_counter, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _here: threading.local = field(default_factory=threading.local, repr=False, compare=False)

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
            return totals | self.seconds | {BUSY: self.busy, UP: time.perf_counter() - self._begun}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of the block to a stage, but for those of a stage within it, which are that one's."""
        begun, outer = time.perf_counter(), getattr(self._here, "within", 0.0)
        self._here.within = 0.0
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            with self._lock:
                self.seconds[name] += seconds - self._here.within
            self._here.within = outer + seconds

    @contextmanager
    def engine(self) -> Iterator[None]:
        """Count the seconds of the block as those of the engine at work, whatever stages they are."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.busy += time.perf_counter() - begun

    def timed(self, name: str, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """Return ``function`` with its seconds counted to a stage."""

        def call(*items: Arguments.args, **named: Arguments.kwargs) -> Result:
            with self.stage(name):
                return function(*items, **named)

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
