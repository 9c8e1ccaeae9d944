"""Parts computed by several threads: the same bytes, the caller's modes, its errors, and nothing changed for other threads."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import torch

from iarn.coupling import PART
from iarn.network import Rescaler
from iarn.pretrained import shipped
from iarn.quantize import to_8bit
from iarn.side_by_side import _threads, side_by_side
from iarn.weights import unpack
from tests.support.networks import noise

ROOT = Path(__file__).parents[2]
COUNT = 3
GUARD = 600
"""Seconds that are no speed: a test that takes longer hangs."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Have torch take three threads, that nobody has used before."""
    _threads.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(COUNT)
    yield
    torch.set_num_threads(before)


SIZES = {
    "x1.3": ((200, 117), (154, 90)),
    "x1.5": ((270, 250), (180, 167)),
    "x2": ((4 * PART[0] + 6, 150), (2 * PART[0] + 3, 75)),
    "x2, odd": ((17, 9), (9, 5)),
    "x2.5": ((205, 170), (82, 68)),
    "x3": ((210, 200), (70, 67)),
    "x1.5 by x3.5": ((210, 161), (140, 46)),
    "x4": ((270, 210), (68, 53)),
}
COUNTS = (1, 2, 3, 4, 7)


@cache
def network() -> Rescaler:
    """Return the shipped network, which may be used in any mode."""
    with torch.inference_mode(False):
        return unpack(shipped())


def both_ways(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an LR by the shipped weights and what they restore from it."""
    size, lr_size = SIZES[name]
    x = noise(1, 3, *size)
    y = network().downscale_lr(x, lr_size)
    return y, network().restore(to_8bit(y), None, size)


def gradient_of(name: str) -> torch.Tensor:
    """Return the gradient of the squared error by an LR."""
    size, lr_size = SIZES[name]
    y, x = noise(1, 3, *lr_size).requires_grad_(), noise(1, 3, *size, seed=1)
    restored = network().restore(y, None, size)
    return torch.autograd.grad(restored, y, restored.detach() - x)[0]


def differing(name: str) -> list[int]:
    """Return the numbers of threads that give other bits than one thread does."""
    found = []
    for count in COUNTS:
        torch.set_num_threads(count)
        with torch.inference_mode():
            found.append(both_ways(name))
    return [count for count, tensors in zip(COUNTS, found, strict=True) if not all(map(torch.equal, tensors, found[0]))]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_threads_do_not_change_a_bit(name: str) -> None:
    """Protects determinism: an archive's restores are the same bytes on a machine of another number of cores."""
    assert differing(name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x2", "x2, odd", "x2.5", "x1.5 by x3.5"])
def test_threads_do_not_change_a_bit_of_a_gradient(name: str) -> None:
    """Protects LRs made with effort: a resumed job gives the same on a machine of another number of cores."""
    torch.set_num_threads(1)
    expected = gradient_of(name)
    for count in COUNTS[1:3]:
        torch.set_num_threads(count)
        assert torch.equal(gradient_of(name), expected)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="the test above is of narrow vectors here")
def test_threads_do_not_change_a_bit_with_narrow_vectors() -> None:
    """Protects the same on processors without AVX-512, where the libraries sum in other orders: a wide one sees it here."""
    narrow = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    code = "from tests.iarn.test_side_by_side import *; print({name: differing(name) for name in SIZES if differing(name)})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | narrow, capture_output=True, text=True, timeout=GUARD)
    assert done.stdout.strip() == "{}", done.stdout + done.stderr


@pytest.mark.parametrize("inference", [False, True])
def test_what_is_computed_is_of_the_callers_mode(inference: bool) -> None:
    """Protects those who go on with it: tensors of inference mode can be in no graph, and others may."""
    with torch.inference_mode(inference), torch.no_grad():
        for found in both_ways("x1.5"):
            assert found.is_inference() == inference


def test_each_part_is_computed_once_and_by_several() -> None:
    """Protects the work and its point: nothing left out, nothing twice, and as many at once as torch may take."""
    seen, together = list[int](), threading.Barrier(COUNT, timeout=600)

    def compute(part: int) -> None:
        assert torch.get_num_threads() == 1, "what a part computes takes one thread"
        together.wait()
        seen.append(part)

    side_by_side(compute, range(4 * COUNT))
    assert sorted(seen) == list(range(4 * COUNT))


def test_the_modes_of_the_caller_are_those_of_the_parts() -> None:
    """Protects memory and precision: parts keep no graph and compute in the precision that the caller set."""
    found = list[tuple[bool, bool, bool]]()

    def compute(_: int) -> None:
        found.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))

    with torch.inference_mode():
        side_by_side(compute, range(COUNT))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        side_by_side(compute, range(COUNT))
    assert set(found[:COUNT]) == {(True, False, False)}
    assert set(found[COUNT:]) == {(False, False, True)}


def test_an_error_of_a_part_is_raised_when_all_is_quiet() -> None:
    """Protects memory: a part that failed is no part of a picture, and whoever tries again with less begins alone."""
    begun, ended = list[int](), list[int]()

    def compute(part: int) -> None:
        begun.append(part)
        if part == 1:
            raise MemoryError("no room")
        time.sleep(0.2)
        ended.append(part)

    with pytest.raises(MemoryError, match="no room"):
        side_by_side(compute, range(20 * COUNT))
    assert sorted(ended) == sorted(set(begun) - {1})
    assert len(begun) < 20 * COUNT


def test_other_threads_keep_their_number() -> None:
    """Protects whoever computes beside: torch's number of threads is one for all that begin later."""
    _summed(0)
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == COUNT
    assert torch.get_num_threads() == COUNT


def test_several_callers_at_once() -> None:
    """Protects two engines in one process: callers share the threads, and none waits for ever."""
    with ThreadPoolExecutor(4) as callers:
        sums = list(callers.map(_summed, range(20)))
    assert sums == [100 * (start + 49.5) for start in range(20)]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """Protects data loaders: a child does not wait for threads that stayed behind in its parent."""
    _summed(0)
    with multiprocessing.get_context("fork").Pool(1) as child:
        assert child.apply_async(_summed, (3,)).get(timeout=600) == 100 * (3 + 49.5)


def _summed(start: int) -> float:
    seen = list[int]()
    side_by_side(lambda part: seen.append(start + part), range(100))
    return float(sum(seen))
