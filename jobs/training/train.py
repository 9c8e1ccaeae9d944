"""Train a network: read images, step, log, evaluate, and save a state that resumes exactly.

Everything lies in one folder: ``checkpoint.pt`` (to go on from), ``iarn.safetensors`` (the moving average in float16,
ready to use), ``log.jsonl``. A run that was stopped or killed goes on from its last checkpoint when the same command is
given again.

``python -m jobs.training.train`` is ``iarn train`` where nothing but torch, numpy, pillow and safetensors is installed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from iarn.recipe import TrainingConfig
from iarn.sampling import Use
from iarn.training import StepReport, Trainer, computes_in_bfloat16
from iarn.weights import pack
from jobs.training.checkpoints import LOG, WEIGHTS, load, save, start_from
from jobs.training.evaluate import evaluate, load_images
from jobs.training.recipe import read_config
from pipeline.cluster.errors import GroupLost
from pipeline.core.errors import EmptySource, InvalidOption, PipelineError, UsageError
from pipeline.core.records import Pixels
from pipeline.engines.engine import Engine, choose_device
from pipeline.pictures.lr_codec import decode_lr, encode_clean_lr
from pipeline.planning.sources import find_source

LOG_STEPS = 100
EVALUATED_SCALES = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
"""Of these, those within the network's reach that a run trains for."""
FOLLOW_SECONDS = 0.5

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What one ``iarn train`` was asked for."""

    sources: tuple[str, ...]
    out: Path
    config: TrainingConfig
    device: str = "auto"
    bfloat16: bool | None = None
    """Whether steps autocast; None does so where the device computes in bfloat16."""
    compiled: bool | None = None
    """Whether blocks are compiled first; None does so on GPUs."""
    start_from: Path | None = None
    evaluation: str | None = None
    evaluate_steps: int = 1000
    save_seconds: float = 120.0
    workers: int = 1
    address: str | None = None
    restarts: int = 3
    """How often workers are started again after one has died."""


def train(job: TrainingJob, say: Say) -> Path:
    """Train to the last step and return the path of the weights; what happens goes to ``say`` and to ``log.jsonl``.

    Several workers, or an address, mean Ray Train; ``job.out`` has to be a folder that all of them see.
    """
    if job.evaluate_steps < 1:
        raise InvalidOption("--eval-steps", str(job.evaluate_steps), "give a number from 1.")
    if job.workers < 1 or job.config.batch % job.workers:
        raise InvalidOption("--workers", str(job.workers), f"give a number that shares the batch of {job.config.batch} evenly.")
    job.out.mkdir(parents=True, exist_ok=True)
    if job.workers == 1 and job.address is None:
        _train(job, say, 0, 1, job.device)
        return job.out / WEIGHTS
    job = _with_whole_paths(job)
    for uri in (*job.sources, *([job.evaluation] if job.evaluation else [])):
        find_source(uri)  # so that what is not there is told before workers start; this and the recipe as well
    load(job.config, job.out)
    from pipeline.cluster.group import run_group

    with _following(job.out / LOG, say):
        part = partial(_train, job, _nobody)
        run_group(part, job.workers, address=job.address, device=job.device, restarts=job.restarts)
    return job.out / WEIGHTS


def _with_whole_paths(job: TrainingJob) -> TrainingJob:
    """Return ``job`` for workers, whose working directory is another."""

    def whole(uri: str) -> str:
        return uri if "://" in uri else str(Path(uri).absolute())

    return replace(
        job,
        sources=tuple(whole(uri) for uri in job.sources),
        out=job.out.absolute(),
        evaluation=whole(job.evaluation) if job.evaluation else None,
        start_from=job.start_from.absolute() if job.start_from else None,
    )


def _nobody(event: dict[str, Any]) -> None:
    """Hear what a worker says, which the log has as well."""


def _train(job: TrainingJob, say: Say, worker: int, workers: int, device_name: str) -> None:
    """Train as one of ``workers``; the first of them logs, evaluates and saves."""
    device = choose_device(device_name)
    compiled = device.type == "cuda" if job.compiled is None else job.compiled
    autocast = computes_in_bfloat16(device) if job.bfloat16 is None else job.bfloat16
    trainer = Trainer(job.config, device, autocast=autocast, compiled=compiled, worker=worker, workers=workers, code_lr=coded)
    state = load(job.config, job.out)
    if state is not None:
        trainer.load_state_dict(state)
    elif job.start_from is not None:
        start_from(trainer, job.start_from)
    images = _training_images(job, device)
    if workers > 1:
        _check_agreement(trainer, images)
    if worker:
        while trainer.done < job.config.steps:
            trainer.step(images)
        return
    held_out = [pixels for _, pixels in load_images(job.evaluation)] if job.evaluation else []
    with (job.out / LOG).open("a") as log:

        def tell(event: dict[str, Any]) -> None:
            say(event)
            log.write(json.dumps(event) + "\n")
            log.flush()

        with _interruptible() as stop:
            tell({"event": "start", "step": trainer.done, "images": len(images), "device": str(device), "workers": workers})
            _loop(trainer, job, images, held_out, tell, stop)
            save(trainer, job.out)
        tell({"event": "end", "step": trainer.done})
    if stop.is_set():
        raise KeyboardInterrupt


def coded(lrs: Tensor) -> Tensor:
    """Return clean LRs (B, 3, h, w), in [0, 1], as the files give them back that archives have of them."""
    levels = (lrs.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    files = (encode_clean_lr(pixels, alpha=None, icc=None)[0] for pixels in levels)
    found = torch.stack([torch.from_numpy(decode_lr(file)[0].copy()) for file in files])
    return found.permute(0, 3, 1, 2).to(lrs.device, torch.float32) / 255


def _check_agreement(trainer: Trainer, images: Sequence[Tensor]) -> None:
    """Raise GroupLost where workers begin at different steps or have different images: they would learn nonsense together."""
    own = torch.tensor([trainer.done, len(images), sum(image.numel() for image in images)], device=trainer.device)
    least, most = own.clone(), own.clone()
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    if not torch.equal(least, most):
        raise GroupLost("they see different checkpoints or images; --out and the sources have to be the same for all")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let Ctrl-C wait for the end of a step, in the middle of which there is nothing to save; a second one does not wait."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals are not for others
        yield stop
        return

    def interrupt(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _loop(
    trainer: Trainer, job: TrainingJob, images: Sequence[Tensor], held_out: list[Pixels], tell: Say, stop: threading.Event
) -> None:
    reports: list[StepReport] = []
    begun = saved = time.monotonic()
    while trainer.done < job.config.steps and not stop.is_set():
        reports.append(trainer.step(images))
        now = time.monotonic()
        if trainer.done % LOG_STEPS == 0:
            speed = {"steps_per_second": round(len(reports) / (now - begun), 3), **_gpu_busy(trainer.device)}
            tell({"event": "step", "step": trainer.done, **_means(reports), **speed})
            reports, begun = [], now
        if now - saved > job.save_seconds:
            save(trainer, job.out)
            saved = time.monotonic()
        if held_out and (trainer.done % job.evaluate_steps == 0 or trainer.done == job.config.steps):
            engine = Engine(pack(trainer.average, {}), trainer.device)
            scores = [asdict(score) for score in evaluate(engine, held_out, _evaluated_scales(job.config))]
            tell({"event": "evaluation", "step": trainer.done, "scores": scores})
            begun = time.monotonic()


def _evaluated_scales(config: TrainingConfig) -> list[tuple[float, float]]:
    strides = config.network.strides
    trained = config.strides or strides
    needed = {scale: next((stride for stride in strides if stride >= scale), None) for scale in EVALUATED_SCALES}
    return [(scale, scale) for scale, stride in needed.items() if stride in trained]


def _means(reports: Sequence[StepReport]) -> dict[str, float]:
    """Return the mean loss, and the mean PSNRs of the steps of each use, where finite."""
    means = {"loss": sum(report.loss for report in reports) / len(reports)}
    for use in Use:
        prefix = "" if use is Use.LEAN else f"{use}_"
        for name in ("psnr",) if use is Use.CLEAN else ("psnr", "lr_psnr"):  # a clean LR is the bicubic one
            values = [value for report in reports if report.use is use and math.isfinite(value := getattr(report, name))]
            if values:
                means[prefix + name] = sum(values) / len(values)
    return {name: round(mean, 5) for name, mean in means.items()}


def _gpu_busy(device: torch.device) -> dict[str, int]:
    """Return the share of the last second in which the GPU was at work, in percent, where nvidia-smi tells it."""
    if device.type != "cuda":
        return {}
    index, visible = device.index or 0, [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    number = visible[index] if index < len(visible) else str(index)
    query = ["nvidia-smi", f"--id={number}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        return {"gpu_percent": int(subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout)}
    return {}


def _training_images(job: TrainingJob, device: torch.device) -> list[Tensor]:
    """Decode every image that a patch fits in; uint8 (3, H, W) each, held in the memory of ``device``."""
    images = []
    for uri in job.sources:
        for _, pixels in load_images(uri):
            if min(pixels.shape[:2]) >= job.config.lattice:
                images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().to(device))
    if not images:
        raise EmptySource(f"{', '.join(job.sources)} (images of at least {job.config.lattice} pixels a side)")
    return images


@contextmanager
def _following(path: Path, say: Say) -> Iterator[None]:
    """Say what workers add to the log at ``path`` while the block runs."""
    ended = threading.Event()
    start = path.stat().st_size if path.exists() else 0

    def follow() -> None:
        position, last = start, False
        while not last:
            last = ended.wait(FOLLOW_SECONDS)
            if path.is_file():
                with path.open("rb") as log:
                    log.seek(position)
                    for line in log:
                        if line.endswith(b"\n"):
                            say(json.loads(line))
                            position += len(line)

    thread = threading.Thread(target=follow, name="follow the log")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.training.train", description="Train a network on one device; resumes."
    )
    parser.add_argument("sources", nargs="+", help="folders or WebDataset tars of images")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and log")
    parser.add_argument("--config", type=Path, help="recipe (TOML); the shipped weights' one unless given")
    parser.add_argument("--from", type=Path, dest="start_from", help="weights to start from")
    for name in ("steps", "batch", "seed"):
        parser.add_argument(f"--{name}", type=int, help=f"instead of the recipe's {name}")
    parser.add_argument("--eval", dest="evaluation", help="images to evaluate on, never trained on")
    parser.add_argument("--eval-steps", type=int, default=1000, dest="evaluate_steps", help="steps between evaluations")
    parser.add_argument("--save-seconds", type=float, default=120.0, help="seconds between checkpoints")
    parser.add_argument("--no-compile", action="store_false", dest="compiled", default=None, help="also on a GPU")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N, or auto for the best there is")
    given = vars(parser.parse_args(arguments))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, also where that is ignored
    try:
        config = read_config(given.pop("config"), **{name: given.pop(name) for name in ("steps", "batch", "seed")})
        job = TrainingJob(config=config, sources=tuple(given.pop("sources")), **given)
        train(job, lambda event: print(json.dumps(event), file=sys.stderr, flush=True))
    except (PipelineError, OSError, torch.OutOfMemoryError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 3
    except KeyboardInterrupt:
        print("Stopped. The same command resumes.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
