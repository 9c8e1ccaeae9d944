"""Several processes that do one work side by side: started, started again where one dies, ended together.

What they share, a listening socket say, they inherit. One whose parent is gone, however it went, ends as by a signal.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

from pipeline.cluster.errors import WorkerNotStarted
from pipeline.core.errors import PipelineError

LEAST_PAUSE, MOST_PAUSE = 0.5, 30.0
"""Seconds before one that died is started again; twice as many each time that it does not live long."""
LONG_LIFE = 60.0
READY = True
END_SECONDS = 15.0
"""To end after a signal; whoever takes longer is killed."""


class Say(Protocol):
    """What is told of workers."""

    def __call__(self, event: str, **values: Any) -> None:
        """Tell of an event."""


class Workers:
    """``count`` processes that each call ``work(*arguments, number, ready)``, numbers from 1; ``ready`` says that it goes well.

    ``work`` is a function at the top of a module, and returns on SIGTERM. ``ended`` is called where one has gone, and ``say``.
    """

    def __init__(
        self,
        count: int,
        work: Callable[..., None],
        arguments: Sequence[Any],
        *,
        ended: Callable[[int], None],
        say: Say,
    ) -> None:
        self._count, self._work, self._arguments = count, work, tuple(arguments)
        self._ended, self._say = ended, say
        self._stop = asyncio.Event()
        self._living: dict[int, SpawnProcess] = {}
        self._waiting = set(range(1, count + 1))

    async def run(self, ready: Callable[[], None]) -> None:
        """Run them until SIGINT or SIGTERM; ``ready`` is called once all are. Raises what keeps one from its first start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end)
        keeping = [asyncio.create_task(self._keep(number, ready)) for number in range(1, self._count + 1)]
        try:
            await asyncio.gather(*keeping)
        except PipelineError:
            self._end()
            await asyncio.gather(*keeping, return_exceptions=True)
            raise

    def _end(self) -> None:
        self._stop.set()
        for process in self._living.values():
            process.terminate()
        asyncio.get_running_loop().call_later(END_SECONDS, self._kill)

    def _kill(self) -> None:
        for process in self._living.values():
            process.kill()

    async def _keep(self, number: int, ready: Callable[[], None]) -> None:
        pause = LEAST_PAUSE
        while True:
            began = time.monotonic()
            why = await self._live(number, ready)
            if self._stop.is_set():
                return
            self._ended(number)
            if number in self._waiting:
                raise why if isinstance(why, PipelineError) else WorkerNotStarted(why)
            pause = LEAST_PAUSE if time.monotonic() - began > LONG_LIFE else pause
            self._say("worker ended", worker=number, reason=str(why), again_in_seconds=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
                return
            pause = min(2 * pause, MOST_PAUSE)

    async def _live(self, number: int, ready: Callable[[], None]) -> PipelineError | str:
        """Run one process from its start to its end; return why it ended, in words where it does not say so itself."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_begin, args=(self._work, self._arguments, number, there), daemon=True)
        with there, _held_back(signal.SIGINT):
            process.start()
        self._living[number] = process
        with here:
            await _readable(here.fileno())
            said = _received(here)
            if said is READY:
                self._is_ready(number, ready)
            await _readable(process.sentinel)
            said = _received(here) if said is READY else said
        del self._living[number]
        process.join()
        code = process.exitcode or 0
        how = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended by itself, with {code}"
        return said if isinstance(said, PipelineError) else how

    def _is_ready(self, number: int, ready: Callable[[], None]) -> None:
        if number in self._waiting:
            self._waiting.remove(number)
            if not self._waiting:
                ready()
        else:
            self._say("worker started again", worker=number)


def _begin(work: Callable[..., None], arguments: Sequence[Any], number: int, there: Connection) -> None:
    """Do the work of one process."""

    def ready() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        there.send(READY)

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(*arguments, number, ready)
    except PipelineError as error:
        with suppress(OSError):
            there.send(error)
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _received(connection: Connection) -> object:
    """Return READY, or the error that a process ends with, None from one that is gone."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


async def _readable(file: int) -> None:
    """Wait until there is something to read, or an end."""
    loop = asyncio.get_running_loop()
    found = loop.create_future()
    loop.add_reader(file, lambda: None if found.done() else found.set_result(None))
    try:
        await found
    finally:
        loop.remove_reader(file)


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Keep a signal waiting: here until the block ends, in a process that is started in it until that asks for it.

    Ctrl-C goes to all processes of a terminal, also to one that is still being loaded.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
