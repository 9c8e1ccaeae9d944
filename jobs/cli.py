"""The command line; `iarn --help` is the manual.

Exit status: 0 all entries written; 1 some kept as originals on error, damaged or quarantined; 2 the command cannot be
meant as it stands; 3 the job itself failed; 130 stopped by Ctrl-C (the same command resumes).
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.core.errors import PipelineError, UsageError
from pipeline.core.records import FloorMetric, LrCodec, Settings, TargetSize, Tier, Verification

app = typer.Typer(
    help="Turn image archives into small, usable pictures plus a compact latent, and restore the originals on demand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT_DASHBOARD = "http://127.0.0.1:8265"
STORE = "A local folder or s3://bucket/prefix."
Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of a progress bar.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto for the best there is.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster, as in ray://head:10001 or auto; without it one starts here.")]
Actors = Annotated[int | None, typer.Option(help="Actors, one engine each; as many as fit unless given.")]
Cpus = Annotated[float | None, typer.Option(help="CPUs of an actor; 2, or its GPU's share of the node's.")]
Gpus = Annotated[float | None, typer.Option(help="GPUs of an actor, fractions too; 1 where the cluster has GPUs.")]
WindowSize = Annotated[int, typer.Option(help="Shards that an actor has under way at once.")]
Attempts = Annotated[int, typer.Option(help="Tries of a shard before it is quarantined.")]
MayGrow = Annotated[
    bool,
    typer.Option("--may-grow", help="Nodes are still to come: wait for them, and show an autoscaler how many are wanted."),
]
Dashboard = Annotated[str, typer.Option("--address", help="The dashboard of the cluster's head, as in http://head:8265.")]
Stall = Annotated[float, typer.Option("--stall-minutes", help="An actor that finishes no image for so long is killed.")]


@app.command()
def rescale(
    source: Annotated[str, typer.Argument(help=f"Images, WebDataset tars or Parquet. {STORE} Or one such file.")],
    archive: Annotated[str, typer.Argument(help=f"Where the archive is written, or resumed. {STORE}")],
    scale: Annotated[str | None, typer.Option(help="2.5, or height x width as in 2x3; from 1 to 4.")] = None,
    max_side: Annotated[str | None, typer.Option(help="Longest side of an LR in pixels, as in 1024.")] = None,
    max_pixels: Annotated[str | None, typer.Option(help="Pixels of an LR at most, as in 500k or 1M.")] = None,
    size: Annotated[str | None, typer.Option(help="Width x height of every LR, as in 640x480.")] = None,
    tier: Annotated[
        Tier | None,
        typer.Option(help="lean: LR alone; balanced (unless given), high: and a latent; exact, exact-pixels: and the source."),
    ] = None,
    floor: Annotated[
        float | None, typer.Option(help="PSNR in dB, as in 40, that every restore reaches; an entry has the latent it takes.")
    ] = None,
    floor_metric: Annotated[FloorMetric, typer.Option(help="What the floor is of; psnr is over RGB.")] = FloorMetric.PSNR,
    max_ratio: Annotated[
        float,
        typer.Option(
            help="An entry larger than its source times this keeps the source alone; inf: never. Not for exact tiers."
        ),
    ] = 1.0,
    lr_codec: Annotated[
        LrCodec, typer.Option(help="webp, png, jxl: without loss; auto: AVIF where a latent stands beside the LR, else webp.")
    ] = LrCodec.AUTO,
    verify: Annotated[
        Verification,
        typer.Option(
            help="Of a lean archive, which entries are restored and measured: full, sample (1 in 20, drawn by key), none."
        ),
    ] = Verification.FULL,
    pixel_limit: Annotated[int, typer.Option(help="Larger images are kept as originals.")] = 512_000_000,
    keep_if_lossy: Annotated[
        bool,
        typer.Option(
            "--keep-if-lossy/--no-keep-if-lossy",
            help="Keep the file itself beside its LR where a restore would lack something of it.",
        ),
    ] = True,
    image_column: Annotated[str | None, typer.Option(help="Image column of Parquet sources; found unless given.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights file; the shipped one unless given.")] = None,
    device: Device = "auto",
    address: Address = None,
    actors: Actors = None,
    cpus_per_actor: Cpus = None,
    gpus_per_actor: Gpus = None,
    window: WindowSize = 2,
    attempts: Attempts = 3,
    may_grow: MayGrow = False,
    stall_minutes: Stall = 120.0,
    json_lines: Json = False,
) -> None:
    """Rescale a source into an archive of LRs and latents. The same command again resumes it."""

    def job() -> int:
        from jobs.rescale import RescaleJob, rescale

        target = TargetSize.parse(scale=scale, max_side=max_side, max_pixels=max_pixels, size=size)
        settings = Settings(
            target=target,
            tier=tier_for(tier, floor),
            floor=floor,
            floor_metric=floor_metric,
            max_ratio=None if max_ratio == math.inf else max_ratio,
            lr_codec=lr_codec,
            pixel_limit=pixel_limit,
            image_column=image_column,
            verify=verify,
            keep_if_lossy=keep_if_lossy,
        )
        pool = _pool(address, actors, cpus_per_actor, gpus_per_actor, window, attempts, may_grow, stall_minutes)
        return rescale(
            RescaleJob(
                source=source,
                archive=archive,
                settings=settings,
                weights=weights,
                device=device,
                pool=pool,
                json_lines=json_lines,
            )
        )

    _run(job)


@app.command()
def restore(
    archive: Annotated[str, typer.Argument(help=f"The archive. {STORE}")],
    destination: Annotated[str, typer.Argument(help=f"Where restored images go; nothing there is overwritten. {STORE}")],
    output: Annotated[str, typer.Option("--to", help="files, tar (WebDataset) or parquet.")] = "files",
    image_format: Annotated[str, typer.Option("--format", help="source (each as it was), png, jpeg, webp or avif.")] = "source",
    quality: Annotated[int, typer.Option(help="Quality of lossy formats, 1 to 100.")] = 95,
    scale: Annotated[float | None, typer.Option(help="Divide the original size: 2 is half of it, 0.5 twice.")] = None,
    max_side: Annotated[int | None, typer.Option(help="Longest side of what is written, in pixels.")] = None,
    lr: Annotated[bool, typer.Option("--lr", help="The stored LRs, bytes untouched, instead of restored images.")] = False,
    latent: Annotated[bool, typer.Option("--latent/--no-latent", help="Use the latent where there is one.")] = True,
    keys: Annotated[Path | None, typer.Option(help="A file of keys to restore, one a line.")] = None,
    glob: Annotated[str | None, typer.Option(help="Keys to restore, as in 'cats/*.jpg'; * crosses folders.")] = None,
    shard: Annotated[list[str] | None, typer.Option(help="A shard's id; may be given again.")] = None,
    device: Device = "auto",
    address: Address = None,
    actors: Actors = None,
    cpus_per_actor: Cpus = None,
    gpus_per_actor: Gpus = None,
    window: WindowSize = 2,
    attempts: Attempts = 3,
    may_grow: MayGrow = False,
    stall_minutes: Stall = 120.0,
    json_lines: Json = False,
) -> None:
    """Restore images from an archive: all, or a selection. The same command again resumes it."""

    def job() -> int:
        from jobs.restore import RestoreJob, read_keys, restore
        from pipeline.assets.outputs import OutputKind
        from pipeline.core.errors import InvalidOption
        from pipeline.restore import RestoreOptions

        if output not in list(OutputKind):
            raise InvalidOption("--to", output, f"give one of {', '.join(OutputKind)}.")
        options = RestoreOptions(
            output=OutputKind(output),
            format=image_format,
            quality=quality,
            scale=scale,
            max_side=max_side,
            lr=lr,
            use_latent=latent,
            keys=read_keys(keys) if keys is not None else None,
            pattern=glob,
            shards=frozenset(shard) if shard else None,
        )
        pool = _pool(address, actors, cpus_per_actor, gpus_per_actor, window, attempts, may_grow, stall_minutes)
        return restore(
            RestoreJob(
                archive=archive, destination=destination, options=options, device=device, pool=pool, json_lines=json_lines
            )
        )

    _run(job)


@app.command()
def inspect(
    archive: Annotated[str, typer.Argument(help=f"The archive. {STORE}")],
    key: Annotated[str | None, typer.Argument(help="One entry; without it the archive as a whole.")] = None,
    entries: Annotated[bool, typer.Option("--entries", help="List every entry.")] = False,
    shards: Annotated[bool, typer.Option("--shards", help="List every shard.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """Show what is in an archive, or all that is known of one entry."""

    def job() -> int:
        from jobs.inspect import inspect

        return inspect(archive, key, entries=entries, shards=shards, as_json=as_json)

    _run(job)


@app.command()
def report(
    archive: Annotated[str, typer.Argument(help=f"The archive. {STORE}")],
    out: Annotated[Path, typer.Option(help="The page, one file; an older report is replaced.")] = Path("report.html"),
    figures: Annotated[bool, typer.Option("--json", help="The figures as well, as JSON beside the page.")] = False,
    sample: Annotated[int | None, typer.Option(help="Look at the entries of so many shards alone; the page says so.")] = None,
    worst: Annotated[int, typer.Option(help="Entries shown, those restored worst.")] = 12,
    device: Device = "auto",
) -> None:
    """Write a page on an archive: bytes, quality, the worst entries to look at, what was kept and failed, times."""

    def job() -> int:
        from jobs.reports.archive_report import ReportJob, report

        return report(ReportJob(archive=archive, out=out, as_json=figures, sample=sample, worst=worst, device=device))

    _run(job)


@app.command()
def verify(
    archive: Annotated[str, typer.Argument(help=f"The archive. {STORE}")],
    sample: Annotated[float, typer.Option(help="Share of entries to restore and compare with their stored figures.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Which entries the sample takes.")] = 0,
    device: Device = "auto",
    address: Address = None,
    actors: Actors = None,
    cpus_per_actor: Cpus = None,
    gpus_per_actor: Gpus = None,
    window: WindowSize = 2,
    attempts: Attempts = 3,
    may_grow: MayGrow = False,
    stall_minutes: Stall = 120.0,
    json_lines: Json = False,
) -> None:
    """Check every digest of an archive, and the restore of a sample against the figures stored with it."""

    def job() -> int:
        from jobs.verify import VerifyJob, verify

        pool = _pool(address, actors, cpus_per_actor, gpus_per_actor, window, attempts, may_grow, stall_minutes)
        return verify(VerifyJob(archive=archive, sample=sample, seed=seed, device=device, pool=pool, json_lines=json_lines))

    _run(job)


@app.command()
def serve(
    archives: Annotated[list[str], typer.Argument(help=f"Archives, each called by its last part, or NAME=URI. {STORE}")],
    host: Annotated[str, typer.Option(help="Address to listen on; one that others can reach needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
    token_file: Annotated[Path | None, typer.Option(help="Where the token is; IARN_TOKEN of the environment else.")] = None,
    replicas: Annotated[int, typer.Option(help="Engines, one process each.")] = 1,
    max_replicas: Annotated[int | None, typer.Option(help="Engines at most, when there is more to do.")] = None,
    cpus_per_replica: Annotated[float, typer.Option(help="CPUs of a replica.")] = 1.0,
    gpus_per_replica: Annotated[float | None, typer.Option(help="GPUs of one, fractions too; 1 where there are GPUs.")] = None,
    queue: Annotated[int, typer.Option(help="Restores that may wait; those beyond are refused with 503.")] = 64,
    cache_mb: Annotated[int, typer.Option(help="Megabytes of images and LRs kept in memory.")] = 256,
    seconds: Annotated[float, typer.Option(help="Seconds that a restore may take.")] = 60.0,
    largest_side: Annotated[int, typer.Option(help="Longest side of an image, in pixels.")] = 16_384,
    max_pixels: Annotated[int, typer.Option(help="Pixels of an image at most.")] = 100_000_000,
    device: Device = "auto",
    address: Address = None,
) -> None:
    """Serve archives over HTTP: LRs, originals, restored images of any size, and a gallery to look at."""

    def job() -> int:
        from jobs.web.serve import ServeJob, serve

        return serve(
            ServeJob(
                archives=tuple(archives),
                host=host,
                port=port,
                token_file=token_file,
                replicas=replicas,
                max_replicas=max_replicas,
                cpus_per_replica=cpus_per_replica,
                gpus_per_replica=gpus_per_replica,
                queue=queue,
                cache_mb=cache_mb,
                seconds=seconds,
                largest_side=largest_side,
                max_pixels=max_pixels,
                device=device,
                address=address,
            )
        )

    _run(job)


@app.command(context_settings={"ignore_unknown_options": True})
def submit(
    command: Annotated[str, typer.Argument(help="rescale, restore or verify.")],
    arguments: Annotated[list[str], typer.Argument(help="Its own arguments and options; paths are those of the nodes.")],
    address: Dashboard = DEFAULT_DASHBOARD,
    runtime_env: Annotated[Path | None, typer.Option(help="A JSON file with Ray's runtime environment for the job.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="name=value that Ray shows; may be given again.")] = None,
    entrypoint_cpus: Annotated[float | None, typer.Option(help="CPUs of the command itself, beside its actors.")] = None,
    entrypoint_memory: Annotated[int | None, typer.Option(help="Its memory in bytes.")] = None,
    entrypoint_resource: Annotated[list[str] | None, typer.Option(help="name=amount that its node has to have.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the job's id and leave, rather than follow its log.")] = False,
) -> None:
    """Run a command as a job of a Ray cluster, follow its log and end with its exit status.

    Credentials are the nodes' own, by their environment or role; a command that holds any is refused.
    """
    commands: Any = typer.main.get_command(app)
    if command in commands.commands:
        commands.commands[command].make_context(command, list(arguments))  # a wrong option is told here, not in the morning

    def job() -> int:
        from jobs.submit import Submission, amounts, pairs, read_runtime_env, submit

        submission = Submission(
            verb=command,
            arguments=tuple(arguments),
            runtime_env=read_runtime_env(runtime_env),
            metadata=pairs("--metadata", metadata),
            cpus=entrypoint_cpus,
            memory=entrypoint_memory,
            resources=amounts("--entrypoint-resource", entrypoint_resource),
        )
        submitted = submit(submission, address)
        if detach:
            typer.echo(submitted)
            return 0
        return _follow(submitted, address)

    _run(job)


@app.command()
def jobs(
    job_id: Annotated[str | None, typer.Argument(metavar="JOB", help="Follow this one; without it all are listed.")] = None,
    address: Dashboard = DEFAULT_DASHBOARD,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the job, as Ctrl-C does; submitted again it resumes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
) -> None:
    """List the jobs that were submitted to a Ray cluster, follow one, or stop it."""

    def job() -> int:
        from jobs import submit
        from pipeline.core.errors import InvalidOption

        if job_id is not None:
            if stop:
                submit.stop(job_id, address)
            return _follow(job_id, address)
        if stop:
            raise InvalidOption("--stop", "alone", "say which job.")
        found = submit.jobs(address)
        lines = [f"{each['job']}  {each['status']:9}  {each['began']}  {each['command']}" for each in found]
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines) or "No job of iarn's there.")
        return 0

    _run(job)


@app.command()
def train(
    sources: Annotated[list[str], typer.Argument(help="Folders, WebDataset tars or Parquet with images.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoint, weights and log; an earlier run there goes on.")],
    config: Annotated[Path | None, typer.Option(help="Recipe (TOML); the shipped weights' one unless given.")] = None,
    start_from: Annotated[Path | None, typer.Option("--from", help="Weights to start from, perhaps with fewer blocks.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in all.")] = None,
    batch: Annotated[int | None, typer.Option(help="Patches per step, over all workers.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and of what is sampled.")] = None,
    evaluation: Annotated[str | None, typer.Option("--eval", help="Images to evaluate on, never trained on.")] = None,
    eval_steps: Annotated[int, typer.Option(help="Steps between evaluations.")] = 1000,
    save_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 120.0,
    precision: Annotated[
        str, typer.Option(help="bfloat16 (autocast), float32, or auto: bfloat16 where the device computes in it.")
    ] = "auto",
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile blocks first; done on GPUs unless told.")
    ] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(help="Devices that share each batch, by Ray Train.")] = 1,
    address: Address = None,
) -> None:
    """Train a network. Stopped or killed, the same command goes on from its checkpoint."""

    def job() -> int:
        from jobs.console import sayer
        from jobs.training.recipe import read_config
        from jobs.training.train import TrainingJob, train
        from pipeline.core.errors import InvalidOption

        if precision not in ("auto", "bfloat16", "float32"):
            raise InvalidOption("--precision", precision, "give auto, bfloat16 or float32.")
        recipe = read_config(config, steps=steps, batch=batch, seed=seed)
        path = train(
            TrainingJob(
                sources=tuple(sources),
                out=out,
                config=recipe,
                device=device,
                bfloat16=None if precision == "auto" else precision == "bfloat16",
                compiled=compiled,
                start_from=start_from,
                evaluation=evaluation,
                evaluate_steps=eval_steps,
                save_seconds=save_seconds,
                workers=workers,
                address=address,
            ),
            sayer(),
        )
        typer.echo(str(path))
        return 0

    _run(job)


@app.command()
def evaluate(
    images: Annotated[list[str], typer.Argument(help="Folders of images, tars or Parquet files; a table for each.")],
    scales: Annotated[
        str, typer.Option(help="Scales, commas between; 2x3 is height x width.")
    ] = "1.5,2,2.5,3,3.5,4,1.5x4,2x3,3x1.5",
    cycles: Annotated[int, typer.Option(help="Rescale and restore so often as well, and say what it costs; 5 is usual.")] = 0,
    weights: Annotated[Path | None, typer.Option(help="Weights file; the shipped one unless given.")] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Measure restoration without a latent, the LRs, smooth areas and the cost, by the rules of published figures."""

    def job() -> int:
        from iarn.weights import unpack
        from jobs.rescale import read_weights
        from jobs.training.evaluate import cost_at, evaluate, load_images, parse_scales, table
        from pipeline.engines.engine import Engine, choose_device

        wanted = parse_scales(scales)
        data = read_weights(weights)
        engine, network = Engine(data, choose_device(device)), unpack(data)
        found = []
        for uri in images:
            scores = evaluate(engine, [pixels for _, pixels in load_images(uri)], wanted, cycles=cycles)
            costs = [cost_at(network, scale) for scale in wanted]
            rows = zip(scores, costs, strict=True)
            found += [{"source": uri, **asdict(score), "mac_per_source_pixel": asdict(cost)} for score, cost in rows]
            if not as_json:
                title = f"{uri}\n\n" if len(images) > 1 else ""
                gap = "\n" if uri != images[-1] else ""
                typer.echo(f"{title}{table(scores, costs)}{gap}")
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        return 0

    _run(job)


def tier_for(tier: Tier | None, floor: float | None) -> Tier:
    """Return the tier that was asked for, by name or by a floor."""
    return tier or (Tier.BALANCED if floor is None else Tier.FLOOR)


def main() -> None:
    """Run the command line."""
    app()


def _pool(
    address: str | None,
    actors: int | None,
    cpus: float | None,
    gpus: float | None,
    window: int,
    attempts: int,
    may_grow: bool,
    stall: float,
) -> Any:
    from pipeline.cluster.pool import PoolOptions

    return PoolOptions(
        address=address,
        actors=actors,
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        window=window,
        attempts=attempts,
        may_grow=may_grow,
        stall_minutes=stall,
    )


def _follow(job_id: str, address: str) -> int:
    """Follow a job; Ctrl-C ends that, and not the job."""
    from jobs.submit import follow

    typer.echo(f"Job {job_id}; `iarn jobs {job_id} --address {address}` follows it, with --stop it stops.", err=True)
    try:
        return follow(job_id, address, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo("No longer followed; the job goes on.", err=True)
        return 130


def _run(job: Callable[[], int]) -> None:
    """Run a job and exit with its status; errors of ours are one sentence on standard error, without a traceback."""
    polite = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, also where that is ignored
    try:
        status = job()
        sys.stdout.flush()
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command resumes.", err=True)
        status = 130
    except BrokenPipeError:  # as in `iarn inspect --entries | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at its end
        status = 141
    except UsageError as error:
        typer.echo(f"iarn: {error}", err=True)
        status = 2
    except PipelineError as error:
        typer.echo(f"iarn: {error}", err=True)
        status = 3
    except OSError as error:  # the local disk's: full, read-only, a file where a folder should be
        typer.echo(f"iarn: {error.filename or 'The local disk'} cannot be used ({error.strerror or error}).", err=True)
        status = 3
    finally:
        signal.signal(signal.SIGTERM, polite)
    sys.exit(status)


if __name__ == "__main__":
    main()
