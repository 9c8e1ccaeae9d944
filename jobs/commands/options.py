"""Options that several commands have, each declared once, and the panels that `--help` shows options in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cluster.options import STALL_MINUTES, PoolOptions
from pipeline.stores.base import Access

SIZE = "Size"
QUALITY = "Quality and bytes"
SOURCE = "Source"
SELECTION = "Selection"
OUTPUT = "Output"
CLUSTER = "Device and cluster"

STORE = "A local folder or s3://bucket/prefix."

Archive = Annotated[str, typer.Argument(help=f"The archive. {STORE}")]
Weights = Annotated[Path | None, typer.Option(help="Weights file; the shipped one unless given.", rich_help_panel=QUALITY)]
JsonLines = Annotated[
    bool, typer.Option("--json", help="JSON lines instead of a progress bar, also on a terminal.", rich_help_panel=OUTPUT)
]
SourceAccess = Annotated[
    Access,
    typer.Option(help="How a bucket of the source is asked; unsigned: it is public.", rich_help_panel=SOURCE),
]
ArchiveAccess = Annotated[
    Access,
    typer.Option(help="How a bucket of the archive is asked; unsigned: it is public.", rich_help_panel=SOURCE),
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of text.", rich_help_panel=OUTPUT)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto for the best there is.", rich_help_panel=CLUSTER)]
Address = Annotated[
    str | None,
    typer.Option(
        help="A Ray cluster, as in ray://head:10001 or auto; without it one starts here.",
        rich_help_panel=CLUSTER,
    ),
]
Dashboard = Annotated[
    str,
    typer.Option("--address", help="The dashboard of the cluster's head, as in http://head:8265.", rich_help_panel=CLUSTER),
]
DEFAULT_DASHBOARD = "http://127.0.0.1:8265"


def pool_options(
    address: Address = None,
    actors: Annotated[
        int | None, typer.Option(help="Actors, one engine each; as many as fit unless given.", rich_help_panel=CLUSTER)
    ] = None,
    cpus_per_actor: Annotated[
        float | None, typer.Option(help="CPUs of an actor; 2, or its GPU's share of the node's.", rich_help_panel=CLUSTER)
    ] = None,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(help="GPUs of an actor, fractions too; 1 where the cluster has GPUs.", rich_help_panel=CLUSTER),
    ] = None,
    window: Annotated[int, typer.Option(help="Shards that an actor has under way at once.", rich_help_panel=CLUSTER)] = 2,
    attempts: Annotated[int, typer.Option(help="Tries of a shard before it is quarantined.", rich_help_panel=CLUSTER)] = 3,
    may_grow: Annotated[
        bool,
        typer.Option(
            "--may-grow",
            help="Nodes are still to come: wait for them, and show an autoscaler how many are wanted.",
            rich_help_panel=CLUSTER,
        ),
    ] = False,
    stall_minutes: Annotated[
        float, typer.Option(help="An actor that finishes no image for so long is killed.", rich_help_panel=CLUSTER)
    ] = STALL_MINUTES,
) -> PoolOptions:
    """Return what these options say of a pool; raises InvalidOption."""
    return PoolOptions(
        address=address,
        actors=actors,
        cpus_per_actor=cpus_per_actor,
        gpus_per_actor=gpus_per_actor,
        window=window,
        attempts=attempts,
        may_grow=may_grow,
        stall_minutes=stall_minutes,
    )


def with_pool(command: Callable[..., int]) -> Callable[..., int]:
    """Return a command that has the parameters of :func:`pool_options` in place of its own ``pool``."""
    own, options = (dict(signature(each, eval_str=True).parameters) for each in (command, pool_options))
    del own["pool"]

    @wraps(command)
    def run(**given: Any) -> int:
        pool = pool_options(**{name: given.pop(name) for name in options})
        return command(**given, pool=pool)

    parameters = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in (*own.values(), *options.values())]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what inspect, and so typer, looks for
    return run
