"""`iarn submit` and `iarn jobs`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.commands.options import CLUSTER, DEFAULT_DASHBOARD, OUTPUT, Dashboard, Json
from jobs.submission import Submission, amounts, check_dashboard, pairs, read_runtime_env
from pipeline.core.errors import InvalidOption

ENTRYPOINT = "The command on its node"


def submit(
    context: typer.Context,
    command: Annotated[str, typer.Argument(help="rescale, restore or verify.")],
    arguments: Annotated[list[str], typer.Argument(help="Its own arguments and options; paths are those of the nodes.")],
    address: Dashboard = DEFAULT_DASHBOARD,
    runtime_env: Annotated[
        Path | None,
        typer.Option(help="A JSON file with Ray's runtime environment for the job.", rich_help_panel=ENTRYPOINT),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(help="name=value that Ray shows; may be given again.", rich_help_panel=ENTRYPOINT),
    ] = None,
    entrypoint_cpus: Annotated[
        float | None, typer.Option(help="CPUs of the command itself, beside its actors.", rich_help_panel=ENTRYPOINT)
    ] = None,
    entrypoint_memory: Annotated[int | None, typer.Option(help="Its memory in bytes.", rich_help_panel=ENTRYPOINT)] = None,
    entrypoint_resource: Annotated[
        list[str] | None, typer.Option(help="name=amount that its node has to have.", rich_help_panel=ENTRYPOINT)
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Print the job's id and leave, rather than follow its log.", rich_help_panel=OUTPUT),
    ] = False,
) -> int:
    """Run a command as a job of a Ray cluster, follow its log and end with its exit status.

    Credentials are the nodes' own, by their environment or role; a command that holds any is refused.
    """
    commands: Any = context.find_root().command
    if command in commands.commands:
        commands.commands[command].make_context(command, list(arguments))  # a wrong option is told here, not in the morning
    submission = Submission(
        verb=command,
        arguments=tuple(arguments),
        runtime_env=read_runtime_env(runtime_env),
        metadata=pairs("--metadata", metadata),
        cpus=entrypoint_cpus,
        memory=entrypoint_memory,
        resources=amounts("--entrypoint-resource", entrypoint_resource),
    )
    check_dashboard(address)
    from jobs.submit import submit

    submitted = submit(submission, address)
    if detach:
        typer.echo(submitted)
        return 0
    return _follow(submitted, address)


def jobs(
    job_id: Annotated[str | None, typer.Argument(metavar="JOB", help="Follow this one; without it all are listed.")] = None,
    address: Dashboard = DEFAULT_DASHBOARD,
    stop: Annotated[
        bool,
        typer.Option("--stop", help="Stop the job, as Ctrl-C does; submitted again it resumes.", rich_help_panel=CLUSTER),
    ] = False,
    as_json: Json = False,
) -> int:
    """List the jobs that were submitted to a Ray cluster, follow one, or stop it."""
    if stop and job_id is None:
        raise InvalidOption("--stop", "alone", "say which job.")
    check_dashboard(address)
    from jobs import submit

    if job_id is not None:
        if stop:
            submit.stop(job_id, address)
        return _follow(job_id, address)
    found = submit.jobs(address)
    lines = [f"{each['job']}  {each['status']:9}  {each['began']}  {each['command']}" for each in found]
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines) or "No job of iarn's there.")
    return 0


def _follow(job_id: str, address: str) -> int:
    """Follow a job; Ctrl-C ends that, and not the job."""
    from jobs.submit import follow

    typer.echo(f"Job {job_id}; `iarn jobs {job_id} --address {address}` follows it, with --stop it stops.", err=True)
    try:
        return follow(job_id, address, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo("No longer followed; the job goes on.", err=True)
        return 130
