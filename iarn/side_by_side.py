"""A CPU's work in parts, each computed by one of as many threads as torch may take.

torch would have all its threads work on one convolution after the other and wait for each other after each, so that one core
taken by other work stops them all; here nobody waits before the last part, and what takes a core takes a share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Part = TypeVar("Part")


def side_by_side(compute: Callable[[Part], None], parts: Sequence[Part]) -> None:
    """Call ``compute`` with each part, without gradients; an error of one is raised when all are done or dropped."""
    threads = torch.get_num_threads()
    if threads == 1 or len(parts) == 1:
        for part in parts:
            compute(part)
        return
    inference, autocast, dtype = (
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
    )

    def computed(part: Part) -> None:  # these modes are those of a thread
        with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", dtype, enabled=autocast):
            compute(part)

    for _ in _threads(threads, os.getpid()).map(computed, parts):
        pass


@cache
def _threads(count: int, process: int) -> ThreadPoolExecutor:
    """Return so many threads whose own computations take one each; those of a parent ``process`` do not live on in a child."""
    pool, all_there = ThreadPoolExecutor(count, thread_name_prefix=f"part of {process}"), Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # or the first computation would take the number of all threads for this one's
        torch.set_num_threads(1)
        all_there.wait()

    for _ in range(count):
        pool.submit(begin)
    all_there.wait()
    torch.set_num_threads(count)  # each of them has set that of threads to come as well
    return pool
