"""Training as a user runs it: killed, stopped, resumed, on several workers, from other weights, and with little installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from iarn.recipe import TrainingConfig
from iarn.training import Trainer
from iarn.weights import pack, read_metadata, unpack
from jobs.training import train as training
from jobs.training.checkpoints import save
from jobs.training.train import TrainingJob, train
from pipeline.cluster.errors import GroupLost, ResourcesUnavailable
from pipeline.core.errors import EmptySource, InvalidOption, InvalidWeights, PlanConflict
from pipeline.pictures.lr_codec import decode_lr, encode_clean_lr
from tests.jobs.test_cli import iarn
from tests.support import workshop
from tests.support.commands import GUARD, IARN, Running
from tests.support.networks import random_network
from tests.support.pictures import photo

RECIPE = """
steps = 12
batch = 2
lattice = 32
warmup = 1
kept = 0.3
[network]
blocks = [1, 1]
width = 8
"""
CONFIG = TrainingConfig(steps=12, batch=2, lattice=32, warmup=1, kept=0.3, network=workshop.TINY)

STEPS = 40
"""Of a run that is killed in the middle; all of them take a few seconds."""


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A folder of two pictures."""
    samples = [workshop.Sample(key=f"{seed}.png", data=workshop.picture(90, 80, seed=seed)) for seed in (1, 2)]
    return workshop.as_folder(tmp_path / "source", samples)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that takes a moment."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def here(source: str, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """Train in this process, or on Ray's workers; return what was said."""
    events: list[dict[str, Any]] = []
    train(TrainingJob(**({"sources": (source,), "out": out, "config": CONFIG, "device": "cpu"} | changes)), events.append)
    return events


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path, clean_environment: dict[str, str], source: str, recipe: Path
) -> None:
    """Protects days of training: kill -9 in the middle, the same command again, and every byte of the weights is as without."""
    program = (sys.executable, "-m", "jobs.training.train", source, "--config", recipe, "--device", "cpu")
    command = (*program, "--save-seconds", "0", "--steps", STEPS, "--out")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with Running(tmp_path / "1", clean_environment, *command, killed) as first:
        first.until(lambda: (killed / "iarn.safetensors").exists() and steps_of(killed) >= 3)
        first.kill()
    broken = steps_of(killed)
    assert 3 <= broken < STEPS, "it was killed in the middle"
    with Running(tmp_path / "2", clean_environment, *command, killed) as run:
        assert run.ended() == 0, run.err
        assert run.events[0]["step"] == broken
    assert here(source, whole, config=replace(CONFIG, steps=STEPS))[0]["step"] == 0
    assert (killed / "iarn.safetensors").read_bytes() == (whole / "iarn.safetensors").read_bytes()
    one, other = (torch.load(out / "checkpoint.pt", weights_only=True)["trainer"] for out in (killed, whole))
    for part in ("network", "average"):
        assert all(torch.equal(tensor, other[part][name]) for name, tensor in one[part].items())


def steps_of(out: Path) -> int:
    """Return the step of a folder's checkpoint."""
    return int(torch.load(out / "checkpoint.pt", weights_only=True)["trainer"]["done"])


def test_a_stopped_run_saves_and_goes_on(tmp_path: Path, clean_environment: dict[str, str], source: str, recipe: Path) -> None:
    """Protects a user at a terminal: Ctrl-C saves and says so, another recipe is refused, the weights can be used."""
    out = tmp_path / "run"
    command = ("train", source, "--out", out, "--config", recipe, "--device", "cpu")
    with Running(tmp_path / "1", clean_environment, IARN, *command, "--steps", "100000") as first:
        first.until(lambda: '"start"' in first.err)
        first.interrupt()
        assert first.ended() == 130
    assert "Traceback" not in first.err
    assert first.err.rstrip().endswith("Stopped. The same command resumes.")
    stopped = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"]
    assert steps_of(out) == stopped
    second = iarn(*command, "--steps", stopped + 2)
    assert second.status == 0, second.err
    assert [event["step"] for event in second.events if event["event"] in ("start", "end")] == [stopped, stopped + 2]
    assert second.out == f"{out}/iarn.safetensors\n"
    data = (out / "iarn.safetensors").read_bytes()
    assert unpack(data).config == workshop.TINY
    assert json.loads(read_metadata(data)["about"])["steps"] == stopped + 2


@pytest.mark.slow
def test_another_recipe_or_no_checkpoint_is_refused(tmp_path: Path, source: str) -> None:
    """Protects a run's folder: what cannot be gone on with is told before anything is trained, and stays as it is."""
    here(source, tmp_path / "run", config=replace(CONFIG, steps=2))
    with pytest.raises(PlanConflict, match="seed 0, not 5"):
        here(source, tmp_path / "run", config=replace(CONFIG, seed=5))
    (tmp_path / "run/checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(InvalidWeights, match="it is no checkpoint"):
        here(source, tmp_path / "run")


@pytest.mark.slow
def test_what_is_said(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects those who watch: speed, PSNRs of both kinds of steps, evaluations of the network and nothing infinite."""
    monkeypatch.setattr(training, "LOG_STEPS", 12)
    events = here(source, tmp_path / "run", evaluation=source, evaluate_steps=6)
    assert [event["event"] for event in events] == ["start", "evaluation", "step", "evaluation", "end"]
    step = events[2]
    assert step["steps_per_second"] > 0
    assert step["kept_psnr"] > step["psnr"] > 10
    assert "gpu_percent" not in step
    assert [score["scale"] for score in events[3]["scores"]] == ["1.5", "2", "2.5", "3", "4"]
    json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[2])


@pytest.mark.slow
def test_a_run_for_some_strides_is_evaluated_there(tmp_path: Path, source: str) -> None:
    """Protects the time of runs for new stages: evaluations are of the scales that they train for."""
    network = replace(workshop.TINY, thirds=(1,))
    config = replace(CONFIG, network=network, steps=1, strides=(3,), only=("A3",))
    events = here(source, tmp_path / "run", config=config, evaluation=source, evaluate_steps=1)
    assert [score["scale"] for score in events[1]["scores"]] == ["2.5", "3"]


def test_a_gpus_share_of_work_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects those who pay for GPUs: nvidia-smi is asked for the device that is used, and may be missing."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho 97\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert training._gpu_busy(torch.device("cuda", 1)) == {"gpu_percent": 97}
    assert "--id=GPU-b" in (tmp_path / "asked").read_text()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert training._gpu_busy(torch.device("cuda")) == {}


def test_clean_lrs_are_coded_as_archives_code_them() -> None:
    """Protects the base of detail layers: a network for clean LRs learns from what their files give back."""
    pictures = [photo(40, 56, seed=seed) for seed in range(2)]
    lrs = torch.stack([torch.from_numpy(pixels).permute(2, 0, 1) / 255 for pixels in pictures])
    files = [encode_clean_lr(pixels, alpha=None, icc=None)[0] for pixels in pictures]
    wanted = torch.stack([torch.from_numpy(decode_lr(file)[0].copy()).permute(2, 0, 1) / 255 for file in files])
    assert torch.equal(training.coded(lrs), wanted)
    assert not torch.equal(lrs, wanted)


@pytest.mark.slow
def test_weights_to_start_from(tmp_path: Path, source: str) -> None:
    """Protects long training in several runs: weights go on, with more blocks too, and others are refused with a sentence."""
    weights = tmp_path / "given.safetensors"
    weights.write_bytes(pack(random_network(workshop.TINY, 3), {}))
    still = replace(CONFIG, steps=1, rate=0.0, network=replace(workshop.TINY, blocks=(1, 2)))
    here(source, tmp_path / "run", config=still, start_from=weights)
    found = unpack((tmp_path / "run/iarn.safetensors").read_bytes()).state_dict()
    for name, tensor in unpack(weights.read_bytes()).state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
    with pytest.raises(InvalidOption, match="only blocks and stages can be added"):
        here(source, tmp_path / "wider", config=replace(CONFIG, network=replace(workshop.TINY, width=9)), start_from=weights)
    weights.write_bytes(b"nothing")
    with pytest.raises(InvalidWeights, match="no safetensors file"):
        here(source, tmp_path / "broken", start_from=weights)
    with pytest.raises(InvalidWeights, match="cannot be read"):
        here(source, tmp_path / "none", start_from=tmp_path / "none")


@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_train_what_one_does(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects training on several devices: two that share each batch end with the weights of one that has it whole, but for
    rounding; what they say is heard, and they go on from their checkpoint."""
    four = replace(CONFIG, steps=4)
    here(source, tmp_path / "one", config=four, bfloat16=False)
    (tmp_path / "two").mkdir()
    half = Trainer(four, torch.device("cpu"), autocast=False)
    images = training._training_images(TrainingJob(sources=(source,), out=tmp_path, config=four), torch.device("cpu"))
    for _ in range(2):
        half.step(images)
    save(half, tmp_path / "two")
    monkeypatch.chdir(tmp_path)  # workers have a working directory of their own
    events = here("source", Path("two"), config=four, bfloat16=False, workers=2)
    assert [(event["event"], event["step"]) for event in events] == [("start", 2), ("end", 4)]
    assert events[0]["workers"] == 2
    one, two = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["trainer"] for name in ("one", "two"))
    for name, tensor in one["network"].items():
        torch.testing.assert_close(two["network"][name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("ray_cluster")
def test_workers_that_cannot_be(tmp_path: Path, source: str) -> None:
    """Protects users of clusters: too many workers, or a batch they cannot share, are told at once, and so is a failure."""
    with pytest.raises(InvalidOption, match="batch of 2"):
        here(source, tmp_path / "a", workers=3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptySource):
        here(str(tmp_path / "empty"), tmp_path / "a", workers=2)
    with pytest.raises(ResourcesUnavailable, match="40 workers"):
        here(source, tmp_path / "b", config=replace(CONFIG, batch=40), workers=40)
    (tmp_path / "c/checkpoint.pt.part").mkdir(parents=True)  # so the first worker cannot save
    with pytest.raises(GroupLost, match="IsADirectoryError"):
        here(source, tmp_path / "c", workers=1, address="auto", restarts=0)


def test_little_has_to_be_installed(tmp_path: Path, clean_environment: dict[str, str], source: str, recipe: Path) -> None:
    """Protects machines without the pipeline's libraries: torch, numpy, pillow and safetensors are enough."""
    tar = workshop.as_tar(tmp_path / "tar", workshop.samples(3), "a.tar")
    absent = ("ray", "pyarrow", "boto3", "botocore", "structlog", "typer", "rich", "imagecodecs", "pandas")
    code = (
        "import sys, runpy\n"
        f"sys.modules |= dict.fromkeys({absent})\n"  # importing them fails then
        "sys.argv[0] = 'train'\n"
        "runpy.run_module('jobs.training.train', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, str(tar), source, "--out", str(tmp_path / "run"), "--config", str(recipe)]
    done = subprocess.run([*command, "--eval", source], env=clean_environment, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == {"event": "end", "step": 12}
    refused = subprocess.run([*command, "--steps", "0"], env=clean_environment, capture_output=True, text=True, timeout=GUARD)
    assert refused.returncode == 2
    assert "at least 1" in refused.stderr
