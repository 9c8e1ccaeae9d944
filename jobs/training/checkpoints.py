"""What a training run leaves in its folder, to go on from and to use; each file is written at once or not at all."""

from __future__ import annotations

import io
import json
import os
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from iarn.recipe import TrainingConfig
from iarn.training import Trainer
from iarn.weights import WeightsError, pack, unpack
from pipeline.core.errors import InvalidOption, InvalidWeights, PlanConflict

CHECKPOINT, WEIGHTS, LOG = "checkpoint.pt", "iarn.safetensors", "log.jsonl"


def save(trainer: Trainer, out: Path) -> None:
    """Write checkpoint and weights of ``trainer`` to the folder ``out``."""
    config = _plain(trainer.config)
    state = io.BytesIO()
    torch.save({"config": json.dumps(config), "trainer": trainer.state_dict()}, state)
    about = {"steps": trainer.done, "config": config}
    for name, data in ((CHECKPOINT, state.getvalue()), (WEIGHTS, pack(trainer.average, about, half=True))):
        part = out / f"{name}.part"
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(out / name)


def load(config: TrainingConfig, out: Path) -> dict[str, Any] | None:
    """Return a trainer's state as the folder ``out`` has it, on the CPU, or None.

    Raises PlanConflict where it is of another recipe (but for ``steps``), and InvalidWeights where it cannot be read.
    """
    path = out / CHECKPOINT
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        known, asked = json.loads(saved["config"]), _plain(config)
        state: dict[str, Any] = saved["trainer"]
        state["done"]
    except (RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise InvalidWeights(str(path), f"it is no checkpoint ({type(error).__name__}); remove it to begin anew") from None
    differences = tuple(
        f"{name} {known.get(name)}, not {asked[name]}" for name in asked if name != "steps" and known.get(name) != asked[name]
    )
    if differences:
        raise PlanConflict(str(out), differences)
    return state


def start_from(trainer: Trainer, weights: Path) -> None:
    """Give ``trainer`` the weights of a file; raises InvalidWeights, or InvalidOption where its network is another."""
    try:
        trainer.start_from(unpack(weights.read_bytes()))
    except OSError as error:
        raise InvalidWeights(str(weights), f"it cannot be read ({error.strerror})") from None
    except WeightsError as error:
        raise InvalidWeights(str(weights), str(error)) from None
    except ValueError as error:
        raise InvalidOption("--from", str(weights), str(error)) from None


def _plain(config: TrainingConfig) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(config))))
