"""Joining a Ray cluster, and how many actors of which size it has room for, now and as nodes come and go."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
import ray
from ray.exceptions import AuthenticationError

from pipeline.cluster.errors import ClusterUnavailable, ResourcesUnavailable, TokenWanted
from pipeline.cluster.options import PoolOptions
from pipeline.core.errors import DeviceUnavailable, InvalidOption

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""A local Ray's object store; only plans' shards and reports pass through it, never pixels."""
CONNECT_SECONDS = 10.0
START_TRIES = 3
"""How often a local Ray is started: it gives its parts half a minute, which on a busy machine is not enough."""
END_SECONDS = 30.0
DEFAULT_CPUS = 2
MOST_CPUS_PER_GPU = 8


@dataclass(frozen=True, kw_only=True)
class Request:
    """CPUs and GPUs of each actor, and how many actors were asked for; None for as many as there is room for."""

    actors: int | None
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


def request_for(device: str, options: PoolOptions, *, noun: str = "actor") -> Request:
    """Decide which size actors (called by ``noun``) have; raise where the cluster can never give them.

    A cluster that may grow is taken at its word: there nothing but a senseless request is refused.
    """
    if device.startswith("cuda:"):
        raise InvalidOption("--device", device, f"each {noun} sees the GPU that Ray gives it, and no other; give cuda.")
    nodes = _nodes()
    have = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if device.startswith("cuda") or (device == "auto" and have["GPU"] >= 1) else 0.0
    if gpus > 0 and device == "cpu":
        raise InvalidOption("--gpus-per-actor", f"{gpus:g}", "it needs a CUDA device; leave out --device cpu.")
    cpus = options.cpus_per_actor
    if cpus is None:
        largest = max((node["CPU"] for node in nodes if node.get("CPU")), default=DEFAULT_CPUS)
        per_gpu = have["CPU"] * gpus / have["GPU"] if gpus and have["GPU"] else DEFAULT_CPUS
        cpus = max(1.0, min(per_gpu // 1, MOST_CPUS_PER_GPU, largest))
    request = Request(actors=options.actors, cpus=cpus, gpus=gpus)
    fitting = room_for(request)
    if (options.actors or 1) > fitting and not options.may_grow:
        if device.startswith("cuda") and not have["GPU"]:
            raise DeviceUnavailable(device, "no node of the cluster has a GPU, nor is one to come (--may-grow)")
        wanted = f"{options.actors or 1} {noun}s of {request}"
        raise ResourcesUnavailable(wanted, f"room for {fitting}, with {have['CPU']:g} CPUs and {have['GPU']:g} GPUs")
    return request


def room_for(request: Request) -> int:
    """Return how many actors fit on the nodes that are there now, were nothing else on them."""
    return sum(_fits(node, request) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(node: dict[str, float], request: Request) -> int:
    """Return how many actors a node has room for."""
    rooms = [node.get(kind, 0.0) / wanted for kind, wanted in (("CPU", request.cpus), ("GPU", request.gpus)) if wanted]
    return int(min(rooms, default=1.0) + 1e-9)


Started = TypeVar("Started")


def _warn(reason: str) -> None:
    logging.getLogger(__name__).warning(reason)


@contextmanager
def cluster(address: str | None, again: Callable[[str], None] = _warn) -> Iterator[None]:
    """Join the cluster at ``address``, or the one this process is in, or start one here that ends with the block.

    Around several jobs it spares all but the first the start of Ray. A start that takes Ray too long is tried again, which
    ``again`` is told in a sentence. Raises ClusterUnavailable, TokenWanted.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # without it every worker prints a warning
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the network's threads share CPUs with decoding: no spinning
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    if address is not None:
        _check_reachable(address)
        _check_token(address)
    local: dict[str, Any] = {} if address else {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    options = {"address": address or "local", "logging_level": logging.ERROR, "log_to_driver": False, **local}
    try:
        # Ray's handler of SIGTERM prints addresses, and aborts a process that takes 3 s to end.
        # Workers get this process's folder on their path, and a package named like ours there would hide ours.
        with keeping_handler(signal.SIGTERM), chdir(Path(__file__).parents[2]):
            started(lambda: ray.init(**options), again, tries=1 if address else START_TRIES)
    except AuthenticationError as error:
        raise TokenWanted(address or "local", first_sentence(error)) from None
    except Exception as error:  # a node that does not start in time is a bare one
        raise ClusterUnavailable(address or "local", first_line(error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def started(start: Callable[[], Started], again: Callable[[str], None] = _warn, *, tries: int = START_TRIES) -> Started:
    """Return what ``start`` gives, which starts a node of Ray; where that takes too long, end what it left and try again."""
    there = set(psutil.Process().children())
    for number in range(2, tries + 1):
        try:
            return start()
        except Exception as error:  # Ray raises bare ones
            if not isinstance(error, TimeoutError) and "timed out" not in str(error):
                raise
            again(f"Ray did not start in time, as happens where other work has the processors; try {number} of {tries} follows")
            ray.shutdown()
            _end([child for child in psutil.Process().children() if child not in there])
    return start()


def _end(children: Sequence[psutil.Process]) -> None:
    """End children of this process, and all that they started."""
    processes = list(children)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            processes += child.children(recursive=True)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(children, timeout=END_SECONDS)  # grandchildren are the system's to wait for


def ray_job() -> dict[str, str]:
    """Return what tells this job from others of its cluster: Ray's id for it and session, and the id it was submitted by."""
    context = ray.get_runtime_context()
    submitted = os.environ.get(SUBMISSION_VARIABLE)
    return {"ray_job": context.get_job_id(), "ray_session": context.get_session_name()} | (
        {"submission": submitted} if submitted else {}
    )


SUBMISSION_VARIABLE = "IARN_SUBMISSION"
"""Where `iarn submit` tells the job the id that it was submitted by."""


@contextmanager
def keeping_handler(number: signal.Signals) -> Iterator[None]:
    """Put the handler of a signal back after the block, in which Ray may set its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)


def _check_reachable(address: str) -> None:
    """Raise ClusterUnavailable at once where nothing listens; Ray would try for two minutes and then end the process."""
    match = re.fullmatch(r"(?:ray://)?\[?([^\s/\[\]]+)\]?:(\d+)", address)
    if match is None:
        return  # "auto", or what Ray refuses by itself
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(address, str(error)) from None


def _check_token(address: str) -> None:
    """Raise TokenWanted at once where a cluster does not take the token of this process, or wants one and there is none.

    Ray would try for twenty seconds, a line of its log for each, and then say that nothing is there. So what it would ask first
    is asked here, over a channel of its own making.
    """
    try:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
        from ray._private.grpc_utils import init_grpc_channel
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # none of it is public; without it Ray tells in its own way
        return
    place = address.removeprefix("ray://")
    if address == "auto":
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        try:
            place = canonicalize_bootstrap_address(address)
        except ConnectionError:  # nothing to ask
            return
    first = "RayletDriver/ClusterInfo" if address.startswith("ray://") else "NodeInfoGcsService/GetClusterId"
    try:
        with closing(init_grpc_channel(place)) as channel:
            channel.unary_unary(f"/ray.rpc.{first}")(b"", timeout=CONNECT_SECONDS)
    except AuthenticationError as error:
        raise TokenWanted(address, first_sentence(error)) from None
    except grpc.RpcError as error:  # any other is for Ray to meet
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise TokenWanted(address, error.details()) from None


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of what an error says, without its full stop."""
    return first_line(error).partition(". ")[0].rstrip(".")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
