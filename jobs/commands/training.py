"""`iarn train` and `iarn evaluate`, as they are typed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import CLUSTER, OUTPUT, Address, Device, Weights
from jobs.training.scales import parse_scales
from pipeline.core.errors import InvalidOption

RECIPE = "Recipe"
EVALUATION = "Evaluation"


def train(
    sources: Annotated[list[str], typer.Argument(help="Folders, WebDataset tars or Parquet with images.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder of checkpoint, weights and log; an earlier run there goes on.", rich_help_panel=OUTPUT),
    ],
    save_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.", rich_help_panel=OUTPUT)] = 120.0,
    config: Annotated[
        Path | None, typer.Option(help="Recipe (TOML); the shipped weights' one unless given.", rich_help_panel=RECIPE)
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option("--from", help="Weights to start from, perhaps with fewer blocks or stages.", rich_help_panel=RECIPE),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in all.", rich_help_panel=RECIPE)] = None,
    batch: Annotated[int | None, typer.Option(help="Patches per step, over all workers.", rich_help_panel=RECIPE)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and of what is sampled.", rich_help_panel=RECIPE)] = None,
    evaluation: Annotated[
        str | None, typer.Option("--eval", help="Images to evaluate on, never trained on.", rich_help_panel=EVALUATION)
    ] = None,
    eval_steps: Annotated[int, typer.Option(help="Steps between evaluations.", rich_help_panel=EVALUATION)] = 1000,
    precision: Annotated[
        str,
        typer.Option(
            help="bfloat16 (autocast), float32, or auto: bfloat16 where the device computes in it.", rich_help_panel=CLUSTER
        ),
    ] = "auto",
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Compile blocks first; done on GPUs unless told.", rich_help_panel=CLUSTER),
    ] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(help="Devices that share each batch, by Ray Train.", rich_help_panel=CLUSTER)] = 1,
    address: Address = None,
) -> int:
    """Train a network. Stopped or killed, the same command goes on from its checkpoint."""
    if precision not in ("auto", "bfloat16", "float32"):
        raise InvalidOption("--precision", precision, "give auto, bfloat16 or float32.")
    from jobs.console import sayer
    from jobs.training.recipe import read_config
    from jobs.training.train import TrainingJob, train

    job = TrainingJob(
        sources=tuple(sources),
        out=out,
        config=read_config(config, steps=steps, batch=batch, seed=seed),
        device=device,
        bfloat16=None if precision == "auto" else precision == "bfloat16",
        compiled=compiled,
        start_from=start_from,
        evaluation=evaluation,
        evaluate_steps=eval_steps,
        save_seconds=save_seconds,
        workers=workers,
        address=address,
    )
    typer.echo(str(train(job, sayer())))
    return 0


def evaluate(
    images: Annotated[list[str], typer.Argument(help="Folders of images, tars or Parquet files; a table for each.")],
    scales: Annotated[
        str, typer.Option(help="Scales, commas between; 2x3 is height x width.", rich_help_panel=EVALUATION)
    ] = "1.5,2,2.5,3,3.5,4,1.5x4,2x3,3x1.5",
    cycles: Annotated[
        int,
        typer.Option(
            help="Rescale and restore so often as well, and say what it costs; 5 is usual.", rich_help_panel=EVALUATION
        ),
    ] = 0,
    effort: Annotated[
        int,
        typer.Option(help="Steps of descent for a better LR, as `iarn rescale` takes them.", rich_help_panel=EVALUATION),
    ] = 0,
    weights: Weights = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Measure restoration without a latent, the LRs, smooth areas and the cost, by the rules of published figures."""
    wanted = parse_scales(scales)
    from iarn.weights import unpack
    from jobs.rescale import read_weights
    from jobs.training.evaluate import cost_at, evaluate, load_images, table
    from pipeline.engines.engine import Engine, choose_device

    data = read_weights(weights)
    engine, network = Engine(data, choose_device(device)), unpack(data)
    found = []
    for uri in images:
        scores = evaluate(engine, [pixels for _, pixels in load_images(uri)], wanted, cycles=cycles, effort=effort)
        costs = [cost_at(network, scale) for scale in wanted]
        for score, cost in zip(scores, costs, strict=True):
            found.append({"source": uri, **asdict(score), "mac_per_source_pixel": asdict(cost) | {"step": cost.step}})
        if not as_json:
            title = f"{uri}\n\n" if len(images) > 1 else ""
            gap = "\n" if uri != images[-1] else ""
            typer.echo(f"{title}{table(scores, costs)}{gap}")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    return 0
