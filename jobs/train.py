"""Train a network: read images, step, log, evaluate, and save a state that resumes exactly.

Everything lies in one folder: ``checkpoint.pt`` (to go on from), ``iarn.safetensors`` (the moving average, ready to use),
``log.jsonl``. A run that was stopped or killed goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import json
import signal
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from iarn.network import NetworkConfig
from iarn.training import StepReport, Trainer, TrainingConfig
from iarn.weights import pack
from jobs.evaluate import evaluate, load_images
from pipeline.engine import Engine, choose_device
from pipeline.errors import EmptySource, InvalidOption, InvalidWeights, PlanConflict
from pipeline.records import Pixels

LOG_STEPS = 100
EVALUATED_SCALES = ((1.5, 1.5), (2.0, 2.0), (2.5, 2.5), (3.0, 3.0), (4.0, 4.0))


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What one ``iarn train`` was asked for."""

    sources: tuple[str, ...]
    out: Path
    config: TrainingConfig
    device: str = "auto"
    bfloat16: bool = True
    evaluation: str | None = None
    evaluate_steps: int = 1000
    save_seconds: float = 120.0


def read_config(path: Path | None, **changes: Any) -> TrainingConfig:
    """Read a recipe (TOML; the fields of TrainingConfig, ``network`` a table) and apply ``changes`` that are not None.

    Raises InvalidOption where the file cannot be read, has a field that does not exist, or a value of another type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no TOML
            detail = getattr(error, "strerror", None) or str(error)
            raise InvalidOption("--config", str(path), f"it cannot be read as TOML ({detail}).") from None
    values |= {name: value for name, value in changes.items() if value is not None}
    network = values.pop("network", {})
    if not isinstance(network, dict):
        raise InvalidOption("--config", str(path), "network has to be a table, [network].")
    known = {"TrainingConfig": {f.name for f in fields(TrainingConfig)}, "network": {f.name for f in fields(NetworkConfig)}}
    unknown = sorted((values.keys() - known["TrainingConfig"]) | (network.keys() - known["network"]))
    if unknown:
        raise InvalidOption("--config", str(path), f"it has no setting {', '.join(unknown)}.")
    wrong = [*_of_other_type(values, TrainingConfig()), *_of_other_type(network, NetworkConfig())]
    if wrong:
        raise InvalidOption("--config", str(path or "(none)"), f"{'; '.join(wrong)}.")
    try:
        if "blocks" in network:
            network["blocks"] = tuple(network["blocks"])
        return TrainingConfig(**values, network=NetworkConfig(**network))
    except (TypeError, ValueError) as error:
        raise InvalidOption("--config", str(path or "(none)"), str(error)) from None


def _of_other_type(values: dict[str, Any], defaults: object) -> Iterator[str]:
    """Yield a sentence on each value whose type is not its default's; an integer may stand for a float."""
    for name, value in values.items():
        match getattr(defaults, name):
            case tuple():
                fits, wanted = isinstance(value, list) and all(type(each) is int for each in value), "a list of integers"
            case float():
                fits, wanted = type(value) in (int, float), "a number"
            case _:  # by type() and not isinstance: true is an int as well
                fits, wanted = type(value) is int, "an integer"
        if not fits:
            yield f"{name} has to be {wanted}, not {value!r}"


def train(job: TrainingJob, say: Callable[[dict[str, Any]], None]) -> Path:
    """Train to the last step and return the path of the weights; what happens goes to ``say`` and to ``log.jsonl``."""
    if job.evaluate_steps < 1:
        raise InvalidOption("--eval-steps", str(job.evaluate_steps), "give a number from 1.")
    job.out.mkdir(parents=True, exist_ok=True)
    device = choose_device(job.device)
    trainer = Trainer(job.config, device, autocast=job.bfloat16)
    _resume(trainer, job)
    images = _training_images(job)
    held_out = [pixels for _, pixels in load_images(job.evaluation)] if job.evaluation else []
    with (job.out / "log.jsonl").open("a") as log:

        def tell(event: dict[str, Any]) -> None:
            say(event)
            log.write(json.dumps(event) + "\n")
            log.flush()

        tell({"event": "start", "step": trainer.done, "images": len(images), "device": str(device)})
        with _interruptible() as stop:
            _loop(trainer, job, images, held_out, tell, stop)
            _save(trainer, job)
        tell({"event": "end", "step": trainer.done})
    if stop.is_set():
        raise KeyboardInterrupt
    return job.out / "iarn.safetensors"


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
    trainer: Trainer,
    job: TrainingJob,
    images: Sequence[Tensor],
    held_out: list[Pixels],
    tell: Callable[[dict[str, Any]], None],
    stop: threading.Event,
) -> None:
    reports: list[StepReport] = []
    begun = saved = time.monotonic()
    while trainer.done < job.config.steps and not stop.is_set():
        reports.append(trainer.step(images))
        now = time.monotonic()
        if trainer.done % LOG_STEPS == 0:
            means = {name: sum(getattr(r, name) for r in reports) / len(reports) for name in ("loss", "psnr", "lr_psnr")}
            tell({"event": "step", "step": trainer.done, **means, "seconds_per_step": (now - begun) / len(reports)})
            reports, begun = [], now
        if now - saved > job.save_seconds:
            _save(trainer, job)
            saved = time.monotonic()
        if held_out and (trainer.done % job.evaluate_steps == 0 or trainer.done == job.config.steps):
            engine = Engine(pack(trainer.average, {}), trainer.device)
            scores = [asdict(score) for score in evaluate(engine, held_out, EVALUATED_SCALES)]
            tell({"event": "evaluation", "step": trainer.done, "scores": scores})
            begun = time.monotonic()


def _training_images(job: TrainingJob) -> list[Tensor]:
    """Decode every image that a patch fits in; uint8 (3, H, W) each, held in memory."""
    images = []
    for uri in job.sources:
        for _, pixels in load_images(uri):
            if min(pixels.shape[:2]) >= job.config.lattice:
                images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous())
    if not images:
        raise EmptySource(f"{', '.join(job.sources)} (images of at least {job.config.lattice} pixels a side)")
    return images


def _resume(trainer: Trainer, job: TrainingJob) -> None:
    path = job.out / "checkpoint.pt"
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=True)
        known, asked = json.loads(state["config"]), _plain(job.config)
    except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise InvalidWeights(str(path), f"it is no checkpoint ({type(error).__name__}); remove it to begin anew") from None
    differences = tuple(
        f"{name} {known.get(name)}, not {asked[name]}" for name in asked if name != "steps" and known.get(name) != asked[name]
    )
    if differences:
        raise PlanConflict(str(job.out), differences)
    trainer.load_state_dict(state["trainer"])


def _save(trainer: Trainer, job: TrainingJob) -> None:
    """Write checkpoint and weights, each at once or not at all."""
    about = {"steps": trainer.done, "config": _plain(job.config)}
    state = {"config": json.dumps(_plain(job.config)), "trainer": trainer.state_dict()}
    torch.save(state, job.out / "checkpoint.part")
    (job.out / "checkpoint.part").replace(job.out / "checkpoint.pt")
    (job.out / "weights.part").write_bytes(pack(trainer.average, about))
    (job.out / "weights.part").replace(job.out / "iarn.safetensors")


def _plain(config: TrainingConfig) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(replace(config)))))
