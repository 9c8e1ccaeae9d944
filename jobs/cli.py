"""The command line; `iarn --help` is the manual. Exit statuses are in :mod:`jobs.commands.exit_status`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import typer

from jobs.commands.archive import inspect, report, verify
from jobs.commands.cluster import jobs, submit
from jobs.commands.exit_status import with_exit_status
from jobs.commands.rescale import rescale
from jobs.commands.restore import restore
from jobs.commands.serve import serve
from jobs.commands.training import evaluate, train

ARCHIVES, CLUSTERS, NETWORKS = "Archives", "Clusters", "Networks"


class Command(NamedTuple):
    """A command: the panel of `iarn --help` that it stands in, and an example for its own."""

    run: Callable[..., int]
    panel: str
    example: str
    settings: dict[str, Any] | None = None


COMMANDS = (
    Command(rescale, ARCHIVES, "iarn rescale photos small --scale 4"),
    Command(restore, ARCHIVES, "iarn restore small back --glob 'cats/*' --format png"),
    Command(inspect, ARCHIVES, "iarn inspect small cats/001.jpg"),
    Command(verify, ARCHIVES, "iarn verify small --sample 0.1"),
    Command(report, ARCHIVES, "iarn report small --out small.html"),
    Command(serve, ARCHIVES, "iarn serve small holidays=s3://archive/2024 --port 8080"),
    Command(
        submit,
        CLUSTERS,
        "iarn submit rescale s3://photos/2024 s3://archive/2024 --scale 4 --address http://head:8265",
        {"ignore_unknown_options": True},
    ),
    Command(jobs, CLUSTERS, "iarn jobs --address http://head:8265"),
    Command(train, NETWORKS, "iarn train photos --out run --eval held-out --steps 100000"),
    Command(evaluate, NETWORKS, "iarn evaluate Set5 --scales 2,3,4"),
)


def assembled() -> typer.Typer:
    """Return the command line of all commands."""
    whole = typer.Typer(
        help="Turn image archives into small, usable pictures plus a compact latent, and restore the originals on demand.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for each in COMMANDS:
        register = whole.command(rich_help_panel=each.panel, epilog=f"Example: {each.example}", context_settings=each.settings)
        register(with_exit_status(each.run))
    return whole


app = assembled()


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that is no UTF-8 is shown by its escapes, as on standard error
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
