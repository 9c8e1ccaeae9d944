"""`iarn serve`, as it is typed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import CLUSTER, STORE, Address, ArchiveAccess, Device
from jobs.web.serve_job import ServeJob, names_of, read_token
from pipeline.stores.base import Access

NETWORK = "Address and access"
PROCESSES = "Processes"
LIMITS = "Limits"


def serve(
    archives: Annotated[
        list[str], typer.Argument(help=f"Archives, or folders of them, each called by its last part, or NAME=URI. {STORE}")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others can reach needs a token.", rich_help_panel=NETWORK)
    ] = ServeJob.host,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", rich_help_panel=NETWORK)] = ServeJob.port,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Where the token is; IARN_TOKEN of the environment else.", rich_help_panel=NETWORK),
    ] = None,
    allow_origin: Annotated[
        str | None,
        typer.Option(
            help="Site whose pages may show /iiif/3/, or *: any; unless given any with a token, none without.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    public_address: Annotated[
        str | None,
        typer.Option(
            help="Address that others know the service by, behind a proxy; begins the addresses in documents of /iiif/3/.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or network of a proxy that is believed who asks, and at which address; may be repeated.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate and its chain, PEM: the service speaks HTTPS.", rich_help_panel=NETWORK)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key, PEM.", rich_help_panel=NETWORK)] = None,
    archive_access: ArchiveAccess = Access.SIGNED,
    refresh: Annotated[
        float, typer.Option(help="Seconds between looks for new shards and archives; 0: never.", rich_help_panel=LIMITS)
    ] = ServeJob.refresh,
    workers: Annotated[
        int, typer.Option(help="Processes that answer HTTP, at one port, beside the replicas.", rich_help_panel=PROCESSES)
    ] = ServeJob.workers,
    access_log: Annotated[
        str | None,
        typer.Option(help="File that gets a JSON line of each request; -: standard output.", rich_help_panel=PROCESSES),
    ] = None,
    queue: Annotated[
        int, typer.Option(help="Restores that may wait; those beyond are refused with 503.", rich_help_panel=LIMITS)
    ] = ServeJob.queue,
    cache_mb: Annotated[
        int, typer.Option(help="Megabytes of images and LRs kept in memory.", rich_help_panel=LIMITS)
    ] = ServeJob.cache_mb,
    seconds: Annotated[float, typer.Option(help="Seconds that a restore may take.", rich_help_panel=LIMITS)] = ServeJob.seconds,
    largest_side: Annotated[
        int, typer.Option(help="Longest side of an image, in pixels.", rich_help_panel=LIMITS)
    ] = ServeJob.largest_side,
    max_pixels: Annotated[int, typer.Option(help="Pixels of an image at most.", rich_help_panel=LIMITS)] = ServeJob.max_pixels,
    device: Device = "auto",
    address: Address = None,
    replicas: Annotated[int, typer.Option(help="Engines, one process each.", rich_help_panel=CLUSTER)] = ServeJob.replicas,
    max_replicas: Annotated[
        int | None, typer.Option(help="Engines at most, when there is more to do.", rich_help_panel=CLUSTER)
    ] = None,
    cpus_per_replica: Annotated[
        float, typer.Option(help="CPUs of a replica.", rich_help_panel=CLUSTER)
    ] = ServeJob.cpus_per_replica,
    gpus_per_replica: Annotated[
        float | None, typer.Option(help="GPUs of one, fractions too; 1 where there are GPUs.", rich_help_panel=CLUSTER)
    ] = None,
) -> int:
    """Serve archives over HTTP: LRs, originals, restored images of any size, and a gallery to look at."""
    job = ServeJob(
        archives=names_of(archives),
        host=host,
        port=port,
        token=read_token(token_file, os.environ),
        allow_origin=allow_origin,
        public_address=public_address,
        archive_access=archive_access,
        refresh=refresh,
        address=address,
        device=device,
        replicas=replicas,
        max_replicas=max_replicas,
        cpus_per_replica=cpus_per_replica,
        gpus_per_replica=gpus_per_replica,
        queue=queue,
        cache_mb=cache_mb,
        seconds=seconds,
        largest_side=largest_side,
        max_pixels=max_pixels,
        workers=workers,
        tls_cert=tls_cert,
        tls_key=tls_key,
        trusted_proxies=tuple(trusted_proxy or ()),
        access_log=access_log,
    )
    from jobs.web.serve import serve

    return serve(job)
