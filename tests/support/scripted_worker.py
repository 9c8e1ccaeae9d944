"""A worker for tests of the pool: each shard's name says what becomes of it, and a folder remembers every try."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import AccessDenied, InvalidWeights, NotFound, StoreUnavailable
from pipeline.core.progress import Progress
from pipeline.core.records import ObjectInfo, ShardKind, ShardReport, SourceShard
from tests.support.commands import GUARD

WITHOUT_END = 10 * GUARD  # seconds


class OutOfMemoryError(RuntimeError):
    """What torch raises, by its name."""


def shard(index: int, script: str = "ok") -> SourceShard:
    """Return a shard whose run follows ``script``."""
    return SourceShard(id=f"{index:06d}", name=script, kind=ShardKind.TAR, objects=(ObjectInfo(key="a.tar", size=1, etag="e"),))


@dataclass(frozen=True, kw_only=True)
class ScriptedWork:
    """Starts a worker that follows the shards' scripts; ``starting`` is a script of its own."""

    folder: str
    starting: str = "ok"
    device: str = "cpu"
    halvings: int = 0

    def start(self) -> ScriptedWorker:
        note(self.folder, "start")
        if self.starting == "invalid":
            raise InvalidWeights("weights.safetensors", "their digest is wrong")
        if self.starting == "broken":
            raise RuntimeError("CUDA error: out of memory")
        if self.starting == "die":
            os._exit(3)
        if self.starting == "hang":
            time.sleep(WITHOUT_END)
        return ScriptedWorker(self.folder, self.halvings)


class ScriptedWorker:
    """Follows scripts."""

    def __init__(self, folder: str, halvings: int) -> None:
        self._folder, self._halvings = folder, halvings
        self.progress = Progress()
        self._at_work = 0
        self._lock = threading.Lock()

    def run(self, shard: SourceShard) -> ShardReport:
        with self._lock:
            self._at_work += 1
            tries = note(self._folder, shard.id, self._at_work)
        try:
            result = self._follow(shard.name, tries)
        finally:
            with self._lock:
                self._at_work -= 1
        self.progress.add(pixels=10, bytes_in=100)
        report = ShardReport(shard_id=shard.id, entries=1, originals=0, pixels=10, bytes_in=100, bytes_out=50)
        if result is not None:
            object.__setattr__(report, "compared", result)
        return report

    def _follow(self, script: str, tries: int) -> Any:
        """Do what ``script`` says on the try of this number, counted from 1."""
        verb, _, number = script.partition(":")
        if verb == "sleep":
            time.sleep(float(number))
        elif verb == "meet":
            wait_until(lambda: bool(begun(self._folder, number)))
        elif verb == "crowd":
            wait_until(lambda: most_at_once(self._folder) >= 2)
        elif verb == "hang-once" and tries == 1:
            time.sleep(WITHOUT_END)
        elif verb == "unavailable" and tries <= int(number):
            raise StoreUnavailable("s3://bucket/key", "it is down")
        elif verb == "denied":
            raise AccessDenied("s3://bucket/key", "ExpiredToken")
        elif verb == "die-then-unavailable":
            if tries == 1:
                os._exit(9)
            raise StoreUnavailable("s3://bucket/key", "it is down")
        elif verb == "missing":
            raise NotFound("s3://bucket/key")
        elif verb == "raise":
            raise ZeroDivisionError("no one thought of this")
        elif verb == "memory" and self._halvings < int(number):
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        elif verb == "heavy" and self._halvings < int(number):
            os._exit(9)
        elif verb == "halvings":
            return self._halvings
        elif verb == "die-beside":
            wait_until(lambda: bool(begun(self._folder, number)))
            os._exit(9)
        elif verb == "threads":
            return int(os.environ["OMP_NUM_THREADS"])
        elif verb == "unsendable":
            return threading.Lock()
        return None


def wait_until(reached: Callable[[], bool]) -> None:
    """Wait until something has happened, whoever makes it happen."""
    end = time.monotonic() + GUARD
    while not reached() and time.monotonic() < end:
        time.sleep(0.02)


def note(folder: str, name: str, at_work: int = 0) -> int:
    """Remember that ``name`` was begun by this process, with how many under way; return how often it has been."""
    with (Path(folder) / name).open("a") as file:
        file.write(f"{os.getpid()} {at_work}\n")
    return len(begun(folder, name))


def begun(folder: str | Path, name: str) -> list[int]:
    """Return the process of every time ``name`` was begun."""
    return [int(line.split()[0]) for line in _lines(folder, name)]


def most_at_once(folder: str | Path) -> int:
    """Return how many shards one process had under way at most."""
    return max(int(line.split()[1]) for path in Path(folder).iterdir() for line in _lines(folder, path.name))


def _lines(folder: str | Path, name: str) -> list[str]:
    path = Path(folder) / name
    return path.read_text().splitlines() if path.exists() else []
