"""`iarn serve`: archives over HTTP, restores by the replicas of a Ray Serve deployment.

The command's own process answers HTTP: lists, LRs and originals it reads itself, and asks a replica, an engine on its device,
for each image that it does not have. Serve places, watches, restarts and adds replicas, and bounds what waits for them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

from ray import serve as ray_serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.schema import LoggingConfig

from jobs.web.http.app import create_app
from jobs.web.http.guard import LOOPBACK_HOSTS
from jobs.web.http.server import bind, serve_http
from jobs.web.http.service import HttpOptions
from jobs.web.library import Library
from jobs.web.serve_job import ServeJob
from pipeline.cluster.actor import last_line
from pipeline.cluster.errors import WorkerNotStarted
from pipeline.cluster.options import PoolOptions
from pipeline.cluster.room import Request, cluster, first_line, request_for
from pipeline.core.errors import PipelineError
from pipeline.core.options import Limits
from pipeline.reading.errors import Overloaded
from pipeline.reading.service import EntryPlace, ImageRequest, Restored, Restorer
from pipeline.stores.store import Access

ONGOING = 4
"""Restores that a replica has under way: while the network has one, others are read, decoded and coded."""
TRIES = 3


def serve(job: ServeJob) -> int:
    """Serve archives until SIGINT or SIGTERM; return the exit status 0. Raises what reading archives and Ray do."""
    limits = Limits(largest_side=job.largest_side, most_pixels=job.max_pixels)
    with ExitStack() as stack:
        listener = stack.enter_context(bind(job.host, job.port))
        library = stack.enter_context(closing(Library(job.archives, access=job.archive_access)))
        stack.enter_context(cluster(job.address or cluster_address(os.environ)))
        backend = stack.enter_context(closing(Replicas(job, library.uris, limits)))
        options = HttpOptions(
            token=job.token,
            origin=job.origin,
            public_address=job.root,
            hosts=LOOPBACK_HOSTS | {f"[{job.host}]" if ":" in job.host else job.host},
            cache_bytes=job.cache_mb * 2**20,
            limits=limits,
            seconds=job.seconds,
            most_restores=most_restores(job),
        )
        library.begin(job.refresh)
        gc.collect()
        gc.freeze()  # what is there stays: going through all of Ray and torch again and again would hold up answers
        app, ready = create_app(library, backend, options), ready_line(library.shelves, listener)
        serve_http(app, listener, lambda: print(ready, flush=True))
    return 0


def cluster_address(environment: Mapping[str, str]) -> str | None:
    """Return where a cluster is by Ray's own variable, which may also lead to a dashboard: that is none to join."""
    address = environment.get("RAY_ADDRESS", "")
    return address if address and not address.startswith("http") else None


def most_restores(job: ServeJob) -> int:
    """Return how many restores may be under way or wait: what all replicas take, and the queue."""
    return (job.max_replicas or job.replicas) * ONGOING + job.queue


def ready_line(named: Collection[str], listener: socket.socket) -> str:
    """Return the line that tells where the service is."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"Serving {', '.join(named)} at http://{shown}:{port}/"


class _Replica:
    """One process with its engines, as Serve starts it."""

    def __init__(self, uris: tuple[str, ...], device: str, limits: Limits, access: Access) -> None:
        os.nice(10)  # beside the process that answers HTTP: an LR is asked for to be there at once, a restore takes its time
        self._restorer = Restorer(uris, device=device, limits=limits, access=access)

    async def restore(self, place: EntryPlace, request: ImageRequest) -> Restored | PipelineError:
        return await asyncio.to_thread(self._restorer.attempt, place, request)

    async def device(self) -> str:
        return self._restorer.device

    async def pid(self) -> int:
        return os.getpid()


class Replicas:
    """The deployment of a service: begun here, gone when closed."""

    def __init__(self, job: ServeJob, uris: Sequence[str], limits: Limits) -> None:
        """Start the replicas and wait until they have their engines; raises ResourcesUnavailable, WorkerNotStarted."""
        pool = PoolOptions(actors=job.replicas, cpus_per_actor=job.cpus_per_replica, gpus_per_actor=job.gpus_per_replica)
        room = request_for(job.device, pool, noun="replica")
        self._name = f"iarn-{secrets.token_hex(4)}"
        self._seconds = job.seconds
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        logging.getLogger("asyncio").addFilter(_is_no_lost_replica)
        quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
        app = deployment(job, room).bind(tuple(uris), job.device, limits, job.archive_access)
        try:
            ray_serve.start(proxy_location="Disabled", logging_config=quiet)
            self._handle = ray_serve.run(app, name=self._name, route_prefix=None, logging_config=quiet)
            self.device: str = self._handle.device.remote().result(timeout_s=60)
        except (RayServeException, RayError, RuntimeError, TimeoutError) as error:
            self.close()
            raise WorkerNotStarted(first_line(error)) from None
        except KeyboardInterrupt:
            self.close()
            raise

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

    def close(self) -> None:
        """End the replicas; what they have under way they finish."""
        ray_serve.delete(self._name)


def _is_no_lost_replica(record: logging.LogRecord) -> bool:
    """Whether a line of asyncio's log is about anything but a task of Serve's own that asked a replica which is gone."""
    return not (record.exc_info and isinstance(record.exc_info[1], RayError))


def deployment(job: ServeJob, room: Request) -> Any:
    """Return the deployment of a service, without its arguments."""
    count: dict[str, Any] = {"num_replicas": job.replicas}
    if job.max_replicas is not None and job.max_replicas > job.replicas:
        scaling = {"min_replicas": job.replicas, "max_replicas": job.max_replicas, "target_ongoing_requests": ONGOING / 2}
        count = {"autoscaling_config": scaling}
    return ray_serve.deployment(
        name="restore",
        ray_actor_options={"num_cpus": room.cpus, "num_gpus": room.gpus},
        max_ongoing_requests=ONGOING,
        max_queued_requests=job.queue,
        graceful_shutdown_timeout_s=10,
        health_check_period_s=5,
        **count,
    )(_Replica)
