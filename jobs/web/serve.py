"""`iarn serve`: archives over HTTP, restores by the replicas of a Ray Serve deployment.

The command's own process answers HTTP, or several of its own do (``--workers``) that accept at one socket: lists, LRs and
originals each reads itself, and asks a replica, an engine on its device, for each image that it does not have.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from jobs.console import teller
from jobs.web.front.access_log import AccessLog
from jobs.web.front.guard import LOOPBACK_HOSTS
from jobs.web.front.server import bind, serve_http
from jobs.web.front.tls import Certificate
from jobs.web.http.app import create_app
from jobs.web.http.service import HttpOptions
from jobs.web.library import Library
from jobs.web.on_demand import Backend
from jobs.web.replicas import Deployed, joined, most_restores, started
from jobs.web.serve_job import ServeJob
from jobs.web.service_metrics import Shared
from jobs.web.workers import Workers
from pipeline.cluster.room import cluster
from pipeline.core.options import Limits


def serve(job: ServeJob) -> int:
    """Serve archives until SIGINT or SIGTERM; return the exit status 0. Raises what reading archives and Ray do."""
    certificate_of(job)
    if job.access_log is not None:
        AccessLog(job.access_log).close()
    with bind(job.host, job.port) as listener, ExitStack() as stack:
        library = stack.enter_context(opened(job))
        stack.enter_context(cluster(job.address or cluster_address(os.environ)))
        replicas = stack.enter_context(started(job, library.uris, limits_of(job)))
        served = tuple(library.shelves)

        def ready() -> None:
            print(ready_line(job, served, listener), flush=True)

        if job.workers == 1:
            answer(job, listener, library, replicas, ready)
        else:
            library.close()  # each worker has its own
            serve_by_workers(job, listener, replicas.deployed, ready)
    return 0


def answer(
    job: ServeJob,
    listener: socket.socket,
    library: Library,
    backend: Backend,
    ready: Callable[[], None],
    shared: Shared | None = None,
) -> None:
    """Answer HTTP in this process, until SIGINT or SIGTERM."""
    with ExitStack() as stack:
        log = None
        if job.access_log is not None:
            worker = 1 if shared is None else shared.worker
            log = stack.enter_context(closing(AccessLog(job.access_log, worker=worker, token=job.token)))
        options = HttpOptions(
            token=job.token,
            origin=job.origin,
            public_address=job.root,
            hosts=LOOPBACK_HOSTS | {f"[{job.host}]" if ":" in job.host else job.host},
            cache_bytes=job.cache_mb * 2**20,
            limits=limits_of(job),
            seconds=job.seconds,
            most_restores=most_restores(job),
            trusted=job.trusted,
            access_log=log,
            shared=shared,
        )
        library.begin(job.refresh)
        gc.collect()
        gc.freeze()  # what is there stays: going through all of Ray again and again would hold up answers
        serve_http(create_app(library, backend, options), listener, ready, certificate_of(job))


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """What each worker is told: the job, the socket to accept at, whom to ask for restores, where to count."""

    job: ServeJob
    listener: socket.socket
    deployed: Deployed
    folder: Path


def serve_by_workers(job: ServeJob, listener: socket.socket, deployed: Deployed, ready: Callable[[], None]) -> None:
    """Have workers answer HTTP, until SIGINT or SIGTERM; raises what keeps one from its first start."""
    with tempfile.TemporaryDirectory(prefix="iarn-serve-") as folder:
        task = WorkerTask(job=job, listener=listener, deployed=deployed, folder=Path(folder))

        def ended(number: int) -> None:
            Shared(folder=task.folder, worker=number).ended()

        workers = Workers(job.workers, answer_as_worker, (task,), ended=ended, say=teller("serve"))
        asyncio.run(workers.run(ready))


def answer_as_worker(task: WorkerTask, number: int, ready: Callable[[], None]) -> None:
    """Answer HTTP as one of several processes, each with archives and a cache of its own.

    All archives could be opened when the command was started; one that is away when a worker is started again comes later.
    """
    shared = Shared(folder=task.folder, worker=number)
    with opened(task.job, patient=True) as library, joined(task.deployed) as replicas:
        answer(task.job, task.listener, library, replicas, ready, shared)


def opened(job: ServeJob, *, patient: bool = False) -> closing[Library]:
    """Open the archives of a service; a patient one does without those that cannot be opened, until they can."""
    return closing(Library(job.archives, access=job.archive_access, patient=patient))


def certificate_of(job: ServeJob) -> Certificate | None:
    """Return the certificate of a service, None where it has none; raises InvalidOption where it is no certificate."""
    return None if job.tls_cert is None or job.tls_key is None else Certificate(job.tls_cert, job.tls_key)


def limits_of(job: ServeJob) -> Limits:
    """Return the largest image of a service."""
    return Limits(largest_side=job.largest_side, most_pixels=job.max_pixels)


def cluster_address(environment: Mapping[str, str]) -> str | None:
    """Return where a cluster is by Ray's own variable, which may also lead to a dashboard: that is none to join."""
    address = environment.get("RAY_ADDRESS", "")
    return address if address and not address.startswith("http") else None


def ready_line(job: ServeJob, served: Collection[str], listener: socket.socket) -> str:
    """Return the line that tells what is served, and where."""
    host, port = listener.getsockname()[:2]
    scheme, shown = "http" if job.tls_cert is None else "https", f"[{host}]" if ":" in host else host
    return f"Serving {', '.join(served)} at {scheme}://{shown}:{port}/"
