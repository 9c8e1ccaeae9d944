"""The engines of a service: replicas of a Ray Serve deployment, which Serve places, watches, restarts and adds, and a queue.

One process begins the deployment and ends it; others of the same cluster ask it as well, by its name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve as ray_serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.schema import LoggingConfig

from jobs.web.serve_job import ServeJob
from pipeline.cluster.actor import last_line
from pipeline.cluster.errors import WorkerNotStarted
from pipeline.cluster.options import PoolOptions
from pipeline.cluster.room import Request, cluster, first_line, request_for
from pipeline.core.errors import PipelineError
from pipeline.core.options import Limits
from pipeline.reading.errors import Overloaded
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import ImageRequest, Restored
from pipeline.stores.store import Access

ONGOING = 4
"""Restores that a replica has under way: while the network has one, others are read, decoded and coded."""
TRIES = 3
DEPLOYMENT = "restore"


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """Where replicas are: the cluster's address, their application's name, the kind of device that they are on."""

    address: str
    name: str
    device: str


class _Replica:
    """One process with its engines, as Serve starts it."""

    def __init__(self, uris: tuple[str, ...], device: str, limits: Limits, access: Access) -> None:
        from pipeline.reading.service import Restorer  # with PyTorch, which whoever only asks a replica does without

        os.nice(10)  # beside the process that answers HTTP: an LR is asked for to be there at once, a restore takes its time
        self._restorer = Restorer(uris, device=device, limits=limits, access=access)

    async def restore(self, place: EntryPlace, request: ImageRequest) -> Restored | PipelineError:
        return await asyncio.to_thread(self._restorer.attempt, place, request)

    async def device(self) -> str:
        return self._restorer.device

    async def pid(self) -> int:
        return os.getpid()


class Replicas:
    """The replicas of a service, as a backend of its images."""

    def __init__(self, handle: Any, deployed: Deployed) -> None:
        self._handle, self.deployed = handle, deployed
        self.device = deployed.device

    async def restore(self, place: EntryPlace, request: ImageRequest) -> Restored:
        """Return an image; another replica is asked where one dies, and where they all do it is Overloaded."""
        for _ in range(TRIES):
            try:
                answer: Restored | PipelineError = await self._handle.restore.remote(place, request)
            except BackPressureError:
                raise Overloaded("all replicas are busy and the queue is full") from None
            except RayTaskError as error:  # nobody foresaw it: a device out of memory, or a fault of ours
                raise Overloaded(f"a replica failed: {last_line(error)}") from None
            except (RayServeException, RayError):
                continue  # it was lost under the restore, which may be done again
            if isinstance(answer, PipelineError):
                raise answer
            return answer
        raise Overloaded(f"{TRIES} replicas were lost under it")


@contextmanager
def started(job: ServeJob, uris: Sequence[str], limits: Limits) -> Iterator[Replicas]:
    """Start replicas in the cluster that this process is in, and end them with the block; what they have under way they finish.

    Raises ResourcesUnavailable, WorkerNotStarted where they do not get their engines.
    """
    pool = PoolOptions(actors=job.replicas, cpus_per_actor=job.cpus_per_replica, gpus_per_actor=job.gpus_per_replica)
    room = request_for(job.device, pool, noun="replica")
    name = f"iarn-{secrets.token_hex(4)}"
    quiet = _quiet()
    app = deployment(job, room).bind(tuple(uris), job.device, limits, job.archive_access)
    try:
        try:
            ray_serve.start(proxy_location="Disabled", logging_config=quiet)
            handle = ray_serve.run(app, name=name, route_prefix=None, logging_config=quiet)
            device: str = handle.device.remote().result(timeout_s=60)
        except (RayServeException, RayError, RuntimeError, TimeoutError) as error:
            raise WorkerNotStarted(first_line(error)) from None
        address = job.address or ray.get_runtime_context().gcs_address
        yield Replicas(handle, Deployed(address=address, name=name, device=device))
    finally:
        ray_serve.delete(name)


@contextmanager
def joined(deployed: Deployed) -> Iterator[Replicas]:
    """Ask replicas that another process has started, from its cluster; raises ClusterUnavailable, WorkerNotStarted."""
    with cluster(deployed.address):
        _quiet()
        try:
            handle = ray_serve.get_deployment_handle(DEPLOYMENT, app_name=deployed.name)
        except (RayServeException, RayError, RuntimeError) as error:
            raise WorkerNotStarted(first_line(error)) from None
        yield Replicas(handle, deployed)


def _quiet() -> LoggingConfig:
    """Have Serve say nothing but errors, in this process; return what has it do so in its own."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    logging.getLogger("asyncio").addFilter(_is_no_lost_replica)
    return LoggingConfig(log_level="ERROR", enable_access_log=False)


def _is_no_lost_replica(record: logging.LogRecord) -> bool:
    """Whether a line of asyncio's log is about anything but a task of Serve's own that asked a replica which is gone."""
    return not (record.exc_info and isinstance(record.exc_info[1], RayError))


def deployment(job: ServeJob, room: Request) -> Any:
    """Return the deployment of a service, without its arguments. Its queue is that of each process that asks it."""
    count: dict[str, Any] = {"num_replicas": job.replicas}
    if job.max_replicas is not None and job.max_replicas > job.replicas:
        scaling = {"min_replicas": job.replicas, "max_replicas": job.max_replicas, "target_ongoing_requests": ONGOING / 2}
        count = {"autoscaling_config": scaling}
    return ray_serve.deployment(
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": room.cpus, "num_gpus": room.gpus},
        max_ongoing_requests=ONGOING,
        max_queued_requests=share(job.queue, job.workers),
        graceful_shutdown_timeout_s=10,
        health_check_period_s=5,
        **count,
    )(_Replica)


def most_restores(job: ServeJob) -> int:
    """Return how many restores each worker may have under way or waiting: its share of what replicas take, and of the queue."""
    return share((job.max_replicas or job.replicas) * ONGOING + job.queue, job.workers)


def share(whole: int, workers: int) -> int:
    """Return what each worker has of a bound, so that all together keep it, but for rounding up."""
    return -(-whole // workers)
