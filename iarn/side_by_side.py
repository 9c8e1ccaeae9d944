"""A CPU's work in parts, each computed by one of as many threads as torch may take.

torch would have all its threads work on one convolution after the other and wait for each other after each, so that one core
taken by other work stops them all; here nobody waits before the last part, and what takes a core takes a share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from threading import Barrier, Lock
from typing import TypeVar

import torch

Part = TypeVar("Part")

_making = Lock()


def side_by_side(compute: Callable[[Part], None], parts: Sequence[Part]) -> None:
    """Call ``compute`` with each part, without gradients; raise the error of one when none is at work any more."""
    threads = torch.get_num_threads()
    if threads == 1:
        with torch.no_grad():
            for part in parts:
                compute(part)
        return
    inference = torch.is_inference_mode_enabled()  # modes are those of a thread
    precision = partial(torch.autocast, "cpu", torch.get_autocast_dtype("cpu"), enabled=torch.is_autocast_enabled("cpu"))

    def computed(part: Part) -> None:
        with torch.inference_mode(inference), torch.no_grad(), precision():
            compute(part)

    with _making:
        pool = _threads(threads, os.getpid())
    futures = [pool.submit(computed, part) for part in parts]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


@cache
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Return so many threads whose own computations take one each; those of a parent ``process`` do not live on in a child."""
    pool, all_there = ThreadPoolExecutor(count, thread_name_prefix=f"part of {process}"), Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # or the first computation would take the number of all threads for this one's
        torch.set_num_threads(1)
        all_there.wait()

    try:
        for _ in range(count):
            pool.submit(begin)
        all_there.wait()
    except BaseException:  # no more threads are to be had: those that are there must not wait for them
        all_there.abort()
        raise
    finally:
        torch.set_num_threads(count)  # each of them has set that of threads to come as well
    return pool
