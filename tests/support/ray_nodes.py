"""A Ray cluster of several logical nodes on this machine, whose nodes can be lost and added."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from ray.cluster_utils import Cluster

from pipeline.cluster.room import started

MEMORY = 80 * 2**20
TRIES = 6


class Nodes:
    """A head without CPUs and ``count`` nodes of one CPU each, within ``with``; ``environment`` is what their actors see."""

    def __init__(self, count: int, environment: Mapping[str, str]) -> None:
        self._count, self._environment = count, environment
        self._nodes: list[Any] = []

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="iarn-nodes-"))  # not below pytest's: sockets' paths are short
        self._before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            head = {**self._arguments(0), "include_dashboard": False, "temp_dir": str(self._folder)}
            self._cluster = started(lambda: Cluster(initialize_head=True, head_node_args=head), tries=TRIES)
            for _ in range(self._count):
                self.add()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if hasattr(self, "_cluster"):
            self._cluster.shutdown()
        os.environ.clear()
        os.environ.update(self._before)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def address(self) -> str:
        """What `--address` takes."""
        return str(self._cluster.address)

    @property
    def logs(self) -> list[Path]:
        """Every file that Ray wrote."""
        return [path for path in self._folder.rglob("*") if path.is_file() and not path.is_symlink()]

    def add(self) -> None:
        """Add a node of one CPU."""
        self._nodes.append(started(lambda: self._cluster.add_node(**self._arguments(1)), tries=TRIES))

    def lose(self, index: int) -> None:
        """Take a node away at once, its actors with it."""
        self._cluster.remove_node(self._nodes.pop(index), allow_graceful=False)

    def actors(self) -> list[psutil.Process]:
        """Return the processes of all actors of the pool, in order of their ids."""
        return actors()

    def _arguments(self, cpus: int) -> dict[str, Any]:
        return {"num_cpus": cpus, "object_store_memory": MEMORY}


def actors() -> list[psutil.Process]:
    """Return the processes of all actors below this one that are there, in order of their ids."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::_Actor"):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def kill(process: psutil.Process) -> None:
    """End a process as the system does that runs out of memory."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)
