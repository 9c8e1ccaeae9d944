"""A Ray whose actors are threads of this process: the pool decides and its actors run as on any other, and none has to start.

For tests of what a job asks of its workers and makes of their answers. What a process of its own is for, its death above all,
is tested on a real Ray.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ray.exceptions import RayTaskError

from pipeline.cluster import actor, crew, pool, room

CPUS = 4.0
NAME, ADDRESS = "here", "127.0.0.1"
SINGLE = ""
"""The group of calls that come one after the other."""


@contextmanager
def ray_here() -> Iterator[None]:
    """Have the pipeline find this Ray."""
    stand_in = RayHere()
    with ExitStack() as stack:
        for module in (actor, crew, pool, room):
            stack.enter_context(mock.patch.object(module, "ray", stand_in))
        yield


class RayHere:
    """What the pool asks of Ray."""

    util = SimpleNamespace(get_node_ip_address=lambda: ADDRESS)

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": CPUS}}]

    def get_runtime_context(self) -> Any:
        told = ("get_job_id", "get_session_name", "get_actor_id", "get_node_id")
        return SimpleNamespace(**dict.fromkeys(told, lambda: NAME))

    def remote(self, *, concurrency_groups: Mapping[str, int], max_restarts: int) -> Callable[[type], Any]:  # noqa: ARG002
        def made(kind: type) -> Any:
            remote = SimpleNamespace(remote=partial(Handle, kind, concurrency_groups))
            return SimpleNamespace(options=lambda **_: remote)

        return made

    def get(self, reference: Future[Any] | list[Future[Any]]) -> Any:
        return [each.result() for each in reference] if isinstance(reference, list) else reference.result()

    def wait(self, references: Sequence[Future[Any]], *, num_returns: int = 1, timeout: float | None = None) -> Any:
        wait_for(references, timeout, return_when=FIRST_COMPLETED)
        ready = [each for each in references if each.done()][:num_returns]
        return ready, [each for each in references if each not in ready]

    def kill(self, handle: Handle) -> None:
        handle.end()


class Handle:
    """An actor, its methods as ``handle.method.remote(...)``; each group of them has threads of its own."""

    def __init__(self, kind: type, groups: Mapping[str, int], *arguments: Any) -> None:
        self._actor = kind(*sent(arguments))
        self._threads = {name: ThreadPoolExecutor(count) for name, count in {SINGLE: 1, **groups}.items()}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._actor, name)
        group = getattr(method, "__ray_concurrency_group__", SINGLE)
        return SimpleNamespace(remote=lambda *arguments: self._threads[group].submit(called, method, arguments))

    def end(self) -> None:
        """Wait for what is under way, and for nothing else."""
        for threads in self._threads.values():
            threads.shutdown(cancel_futures=True)


def called(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Return what an actor answers; what it raises arrives as it does from another process."""
    try:
        return sent(method(*sent(arguments)))
    except Exception as error:
        raise RayTaskError(method.__name__, f"{type(error).__name__}: {error}", error, ip=ADDRESS) from None


def sent(value: Any) -> Any:
    """Return what comes out of a pickle."""
    return pickle.loads(pickle.dumps(value))
